"""What a report says of the stylesheets that pages did not get."""

from dataclasses import replace

import pytest

from colbench_env.tasks import write_rows
from colbench_env.types import Message, Task, Trajectory
from launch import evaluate
from launch.reporting.missing_sheets import missing_sheets

ROW = Trajectory(Task("A shop", "<html></html>"), (Message("user", "?"), Message("assistant", "<html></html>")), "x")
FONTS, OTHER = "https://fonts.test/css2?family=Inter", "http://site.test/a.css"


def row(**page):
    return replace(ROW, extra={"page": {"refused": 1, **page}})


def test_pages_without_a_stylesheet_of_theirs_are_counted_and_the_commonest_stylesheets_named_first():
    rows = [
        row(missing_sheets=[OTHER, FONTS]),
        row(missing_sheets=[FONTS, FONTS + "&x"]),
        row(),
        replace(ROW, extra={"page": None}),
        ROW,
    ]
    assert missing_sheets("a.jsonl", rows) == [
        "a.jsonl: 2 of 3 pages asked for a style sheet that they did not get: fonts.test/css2 (2), site.test/a.css (1)"
    ]


def test_references_without_a_stylesheet_of_theirs_have_a_sentence_of_their_own():
    rows = [row(reference_missing_sheets=[FONTS]), row(missing_sheets=[OTHER]), row()]
    assert missing_sheets("start", rows) == [
        "start: 1 of 3 pages asked for a style sheet that they did not get: site.test/a.css (1)",
        "start: 1 of 3 references asked for a style sheet that they did not get: fonts.test/css2 (1)",
    ]


def test_of_many_stylesheets_five_are_named():
    rows = [row(missing_sheets=[f"https://{number}.test/a.css" for number in range(8)])]
    assert missing_sheets("start", rows)[0].endswith("3.test/a.css (1), 4.test/a.css (1) and 3 more")


@pytest.mark.parametrize("rows", [[], [ROW], [row()]])
def test_where_every_page_got_what_it_asked_for_nothing_is_said(rows):
    assert missing_sheets("start", rows) == []


@pytest.mark.slow
def test_evaluate_warns_and_says_it_in_its_report(in_process, tmp_path):
    rows = tmp_path / "rows.jsonl"
    write_rows(rows, [replace(row(missing_sheets=[FONTS]), reward=0.5), replace(row(), reward=0.75)])
    flags = (f"--trajectories={rows}", f"--html={tmp_path / 'report.html'}", f"--json={tmp_path / 'report.json'}")
    ended = in_process(evaluate.main, "--benchmark=frontend", *flags)
    told = f"{rows}: 1 of 2 pages asked for a style sheet that they did not get: fonts.test/css2 (1)"
    assert ended.status == 0, ended.stderr
    assert f"warning: {told}\n" in ended.stderr and f"\n{told}\n" in ended.stdout
    assert told in (tmp_path / "report.html").read_text() and told in (tmp_path / "report.json").read_text()
