"""The pages and the statistics of benchmarks.reproduce, on cells that are made up."""

import json
import shutil
from pathlib import Path

from benchmarks.reproduce import Reproduction
from benchmarks.reproduction.methods import CONTRASTS, METHODS, PAPER
from benchmarks.reproduction.pages import leaderboard, write_pages
from benchmarks.reproduction.statistics import compare, over_seeds

ROOT = Path(__file__).parents[1]


def test_intervals_are_over_seeds_and_tasks():
    found = over_seeds(["1" * 50 + "0" * 50, "1" * 70 + "0" * 30])
    assert found.mean == 60.0 and found.low < 52 and found.high > 68
    alike = compare(["1100", "1100"], ["1000", "1000"])
    assert (alike.difference.mean, alike.seeds, alike.p) == (25.0, 2, 0.5)


def test_the_pages_hold_what_the_cells_say(tmp_path):
    shutil.copy(ROOT / "docs" / "reproduction.md", tmp_path)
    cells = [
        {
            "method": name, "seed": seed, "success": success, "seconds": 90, "flags": [], "commit": "abc",
            "tasks": {"trained": "1" * int(success / 10) + "0" * (10 - int(success / 10))},
        }
        for name, success in (("mtdpo", 30.0), ("sweet", 40.0), ("sweet-160", 20.0), ("best-of-4", 60.0))
        for seed in (0, 1)
    ]  # fmt: skip
    cells += [cells[0] | {"method": "zero-shot", "tasks": {"start": "1000000000"}, "success": 10.0}]
    judged = {
        "rank_correlation": {"mean": 0.5}, "reliability": {"mean": 0.6},
        "preferences": {
            "hidden over not hidden": {"mean": 0.9}, "right answer over any question": {"mean": None},
        },
    }  # fmt: skip
    cells += [{"method": "truth-sweet", "seed": 0, "truth": {"score": judged, "pmi": judged}}]
    tried = {"step": 50, "success": {"0": 0.1, "50": 0.25}}
    cells += [{"method": "tune-mtdpo-5", "seed": 1000, "success": 25.0, "validation": tried}]
    (tmp_path / "figures").mkdir()
    write_pages(cells, tmp_path)
    numbers = json.loads((tmp_path / "reproduction.json").read_text())
    assert numbers["methods"]["sweet"] == {"success": [40.0, 40.0], "seeds": [0, 1]}
    assert numbers["methods"]["zero-shot"] == {"success": [10.0], "seeds": [0]}
    assert numbers["critics"]["sweet"] == {
        "hidden_over_not_hidden": 0.9, "rank_correlation": 0.5, "reliability": 0.6,
    }  # fmt: skip
    page = (tmp_path / "reproduction.md").read_text()
    assert "| sweet - mtdpo | 10.0 [" in page
    assert "| multi-turn DPO | 30.0 [" in page and "| SWEET-RL, 160 tasks | 20.0 [" in page
    assert "| pmi (no critic trained) | 0.50 | 0.60 | 90 % | n/a | 1 |" in page
    assert "| mtdpo, seed 1000 | `--policy.beta=0.3` | 10 (0), 25 (50) | 25.0 |" in page
    for name in ("methods", "scaling", "best-of"):
        assert (tmp_path / "figures" / f"reproduction-{name}.svg").read_text().count("<svg") == 1
    assert leaderboard({"sweet": {0: cells[2]}}).splitlines()[-1].endswith("| 1 | 1.5 | abc |")
    write_pages(cells, tmp_path)
    again = (tmp_path / "reproduction.md").read_text()
    assert again.count("multi-turn DPO | 30.0") == 1


def test_contrasts_and_paper_figures_name_methods():
    known = {"zero-shot", *METHODS}
    assert {name for pair in CONTRASTS for name in pair} <= known and set(PAPER) <= known


def test_a_run_that_others_go_on_from_is_made_again_where_it_is_gone(tmp_path):
    cells = tmp_path / "cells.jsonl"
    cells.write_text(json.dumps({"method": "sweet", "seed": 0}) + "\n")
    missing = {name: METHODS[name] for name in ("best-of-2", "truth-sweet")}
    order = [name for name, _, _ in Reproduction(tmp_path / "runs", cells, 0.0)._jobs(missing, [0])]
    assert order == ["base", "sweet", "best-of-2", "truth-sweet"]
    (tmp_path / "runs" / "0" / "sweet").mkdir(parents=True)
    (tmp_path / "runs" / "0" / "sweet" / "report.json").write_text("{}")
    order = [name for name, _, _ in Reproduction(tmp_path / "runs", cells, 0.0)._jobs(missing, [0])]
    assert order == ["best-of-2", "truth-sweet"]
