"""Stage truth on a tiny random model: candidates are played on from, also after a kill, and scores compared."""

import json
import re

import pytest

from colbench_env.tasks import read_rows
from colbench_env.types import Ranked, Trajectory
from launch import show
from launch.reporting.critic_table import critic_table

pytestmark = pytest.mark.slow

SMALL = (
    "--num-tasks=2", "--rollouts.samples=2", "--rollouts.max-turns=2", "--rollouts.max-new-tokens=8",
    "--rollouts.rows=8", "--ranking.candidates=4", "--ranking.data-fraction=1.0", "--evaluation.num-tasks=2",
    "--policy.select=last",
    "--training.batch-size=4", "--training.max-steps=1", "--training.max-length=512",
    "--critic.without-pairs=hindsight", "--truth.positions=3", "--truth.continuations=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def run_dir(start, tiny_model, tmp_path_factory):
    """The directory of a run up to stage truth."""
    folder = tmp_path_factory.mktemp("truth") / "run"
    common = (f"--run-dir={folder}", f"--model={tiny_model}", *SMALL)
    for stage in ("tasks", "rollouts", "grading", "pairs", "critic", "candidates", "ranking", "truth"):
        ended = start(*common, f"--stage={stage}")
        assert ended.status == 0, ended.stderr
    return folder


def test_the_viewer_shows_what_each_candidate_is_and_is_worth(run_dir, in_process):
    turns = [json.loads(line) for line in (run_dir / "truth" / "turns.jsonl").read_text().splitlines()]
    ranked = read_rows(run_dir / "ranking" / "ranked.jsonl", Ranked)
    assert [row["position"] for row in turns] == list(range(len(ranked)))
    judged = [row for row in turns if "values" in row]
    assert len(judged) == 3 and all(len(row["kinds"]) == len(row["values"]) == 4 for row in judged)
    place = ranked[judged[0]["position"]].candidates.extra
    ended = in_process(show.main, f"--run-dir={run_dir}", "--terminal", f"--row={place['trajectory'] + 1}")
    assert ended.status == 0 and "continuations" in ended.stdout


def test_each_different_candidate_of_the_chosen_positions_is_played_on_from(run_dir):
    ranked = read_rows(run_dir / "ranking" / "ranked.jsonl", Ranked)
    chosen = [ranked[0], ranked[(len(ranked) - 1) // 2], ranked[-1]]
    played = read_rows(run_dir / "truth" / "continuations.jsonl", Trajectory)
    different = sum(len({tuple(ids) for ids in row.candidates.extra["output_ids"]}) for row in chosen)
    assert len(played) == len({row.extra["continues"] for row in played}) == 2 * different
    texts = {text for row in chosen for text in row.candidates.additional_outputs}
    for row in played:
        turn = int(re.match(r"\d+ (\d+)", row.extra["continues"])[1])
        assert row.dialogue_history[2 * turn - 1].output in texts and row.answer


def test_the_figures_say_what_was_counted(run_dir):
    truths = json.loads((run_dir / "truth" / "truth.json").read_text())
    assert set(truths) == {"score", "pmi"}  # nothing was learned from no pairs
    assert truths["score"] == truths["pmi"]
    figures = truths["score"]
    note = json.loads((run_dir / "truth" / "done.json").read_text())
    ranked = read_rows(run_dir / "ranking" / "ranked.jsonl", Ranked)
    assert (figures["positions"], note["positions"]) == (len(ranked), 3)  # kinds are compared everywhere
    assert sum(figures["shares"].values()) == pytest.approx(1)
    assert set(figures["shares"]) == set(figures["scores"])
    assert figures["rank_correlation"]["mean"] is None  # no random model solves anything: all values are 0


def test_the_report_shows_them(run_dir):
    judged, rows = critic_table(json.loads((run_dir / "truth" / "truth.json").read_text()))
    assert judged == ["score", "pmi"] and all(len(row.cells) == 2 for row in rows)
    assert rows[0].cells == ["n/a", "n/a"] and rows[0].name.startswith("rank correlation")
    assert critic_table({}) == ([], [])


def test_a_killed_stage_plays_only_what_is_missing_and_ends_the_same(run_dir, start, tiny_model):
    path, figures = run_dir / "truth" / "continuations.jsonl", run_dir / "truth" / "truth.json"
    before, lines = figures.read_bytes(), path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3]) + lines[3][:40])
    (run_dir / "truth" / "done.json").unlink()
    figures.unlink()
    ended = start(f"--run-dir={run_dir}", f"--model={tiny_model}", *SMALL, "--stage=truth")
    assert ended.status == 0, ended.stderr
    assert path.read_text().splitlines(keepends=True)[:3] == lines[:3]
    assert sorted(path.read_text().splitlines()) == sorted("".join(lines).splitlines())
    assert figures.read_bytes() == before


def test_a_user_without_known_facts_is_refused_before_any_work(start, tiny_model, tmp_path):
    flags = (f"--run-dir={tmp_path / 'run'}", f"--model={tiny_model}", *SMALL, "--human=rules")
    assert "only the scripted user simulator of backend tasks can be played on with" in start(*flags).refuses()
    assert not (tmp_path / "run").exists()
