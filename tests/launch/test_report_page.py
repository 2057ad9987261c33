"""report.html: what it shows, that it loads nothing, and that foreign text stays text."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from launch.reporting.metric_names import METRIC_NAMES
from launch.training import report_page as page
from launch.training.report import write_report
from tests.launch.report_runs import make_run, trajectory


@pytest.fixture
def run(tmp_path):
    """A finished run: the start policy solves tasks 1 to 5 of 20, the trained one 2 to 17."""
    return make_run(tmp_path / "runs" / "first")


class Elements(HTMLParser):
    """Every tag of a page with its attributes, and whether all are closed."""

    VOID = {"meta", "path", "use", "rect", "br"}

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A run as `run`, with its report."""
    run = make_run(tmp_path_factory.mktemp("runs") / "first")
    write_report(run, 123.45)
    return run


@pytest.fixture(scope="module")
def html(reported):
    return (reported.directory.path / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_says_in_a_paragraph_what_the_run_did(html):
    assert (
        "<p>The start policy was trained on 400 scripted dialogues. The critic was trained on 120 such pairs in 250 "
        "steps. All stages together took 1 min 40 s.</p>"
    ) in html


@pytest.mark.slow
def test_figures_of_the_miniature_stand_in_no_table_of_the_paper(run, tmp_path):
    own = make_run(tmp_path / "own", tasks=Path("tasks.jsonl"))
    for one in (run, own):
        write_report(one, 1.0)
    miniature, real = ((one.directory.path / "report.html").read_text() for one in (run, own))
    assert "this run, start policy" in real and "this run, start policy" not in miniature
    assert "8B SWEET-RL" in miniature and "do not stand here" in miniature


@pytest.mark.slow
def test_the_page_loads_nothing_and_links_only_to_files_of_the_run(html, reported):
    elements = Elements(html)
    assert elements.open == []
    assert {tag for tag, _ in elements.found} & {"script", "link", "img", "iframe", "object"} == set()
    assert "://" not in html
    assert "@import" not in html
    targets = {attrs[name] for _, attrs in elements.found for name in ("src", "href", "xlink:href") if name in attrs}
    files = {target for target in targets if not target.startswith("#")}
    assert {"report.json", "log.txt", "evaluation/start.jsonl", "critic/metrics.jsonl", "start/model/"} <= files
    assert all((reported.directory.path / file).exists() for file in files)


def test_marks_inside_the_drawings_are_found_and_unique(html):
    found = Elements(html).found
    ids = [attrs["id"] for _, attrs in found if "id" in attrs]
    used = {attrs["xlink:href"][1:] for _, attrs in found if "xlink:href" in attrs}
    used |= set(re.findall(r"url\(#([^)]*)\)", html))
    assert len(ids) == len(set(ids))
    assert used and used <= set(ids)


def test_text_of_dialogues_tasks_and_warnings_is_shown_not_run(html):
    assert "<script" not in html and "<b>" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt; &amp; &#34;quoted&#34;") == 12
    assert "a new &lt;one&gt;" in html and "f(1) &lt;b&gt;" in html and "return x &lt; 3" in html


def test_every_stage_that_trains_has_its_plots_in_the_colours_of_the_page(html):
    figures = re.findall(r"<figcaption>(.*?)</figcaption>", html)
    assert figures[2:] == ["nll", *2 * ["loss", "rewards/accuracies", "rewards/margins"]]
    assert html.count("<svg") == 9
    assert set(re.findall(r"(?:fill|stroke): (#\w+)", html)) == set()
    assert "var(--trained)" in html and "prefers-color-scheme: dark" in html


@pytest.mark.slow
def test_what_keeps_figures_from_the_papers_is_told_of_ones_own_tasks_and_the_miniature_is_called_one(run, tmp_path):
    own = make_run(tmp_path / "own", tasks=Path("tasks.jsonl"))
    for one in (run, own):
        write_report(one, 1.0)
    miniature, real = ((one.directory.path / "report.html").read_text() for one in (run, own))
    assert "its tasks are a miniature" in miniature and "nothing says that they are the same ones" not in miniature
    assert "its tasks are a miniature" not in real
    assert "<li>Tasks: 20 here, 1000 test tasks in the paper; nothing says that they are the same ones.</li>" in real


def test_the_examples_are_the_first_of_each_kind(run):
    dialogues = {
        "start": [trajectory(n, 0, p, 1) for n, p in enumerate([3, 10, 10, 2, 1], start=1)],
        "trained": [trajectory(n, 0, p, 1) for n, p in enumerate([4, 10, 10, 10, 10], start=1)],
    }
    found = page.examples(dialogues, METRIC_NAMES["backend"])
    assert [(example.number, example.kind) for example in found] == [
        (4, "solved only after training"),
        (1, "solved neither before nor after training"),
        (2, "solved before and after training"),
    ]
    assert [side.outcome for side in found[0].sides] == ["2 of 10 tests passed", "10 of 10 tests passed"]
    alone = page.examples({"start": dialogues["start"][1:3]}, METRIC_NAMES["backend"])
    assert [(example.number, example.kind) for example in alone] == [(1, "solved"), (2, "solved")]


@pytest.mark.slow
def test_the_smallest_runs_can_be_drawn():
    from launch.reporting.plots import bars, curve

    assert len(re.findall(r"<use [^>]*fill: var\(--trained\)", curve("one", [(1, 0.5)]))) == 1
    assert curve("one", [(1, 0.5)]) == curve("one", [(1, 0.5)])
    assert ">start</text>" in bars("failed", {"start": {10: (0.0, "2")}}, "success, %")


def test_long_curves_are_drawn_as_means():
    from launch.reporting.plots import _thin

    assert _thin([(1, 2.0), (2, 4.0)]) == [(1, 2), (2, 4)]
    assert _thin([(step, float(step)) for step in range(1, 151)])[:2] == [(1.5, 1.5), (3.5, 3.5)]
    assert len(_thin([(step, 0.0) for step in range(1001)])) == 91
