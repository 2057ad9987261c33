"""The pages that are made of finished cells: docs/reproduction.json, docs/reproduction.md and its figures."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.reproduction.figures import draw_lines, draw_methods
from benchmarks.reproduction.methods import (
    ABLATIONS,
    BEST_OF,
    CONTRASTS,
    ITERATIONS,
    MAIN,
    METHODS,
    NUMBERS,
    PAPER,
    SCALING,
    TRUTHS,
)
from benchmarks.reproduction.statistics import compare, over_seeds
from benchmarks.reproduction.tuning import TUNING
from colbench_env.statistics import Estimate

Cell = Mapping[str, Any]
Cells = Mapping[str, Mapping[int, Cell]]
"""Of each method the cells by seed."""

ALL_TASKS = 800
FIGURES = {
    "main": ("reproduction-methods.svg", "Success of each method, with intervals and seeds"),
    "best-of": ("reproduction-best-of.svg", "Success over the number of candidates"),
    "scaling": ("reproduction-scaling.svg", "Success over the number of training tasks"),
}
"""Table of the page -> the figure under it, and what it shows."""

PARTS = {"score": "", "learned": ", learned part", "pmi": ", pmi"}


def write_pages(cells: Sequence[Cell], docs: Path) -> None:
    """Write the pages from the finished cells; what is not there yet is left out."""
    found = _by_method(cells)
    numbers = json.dumps(_numbers(found), indent=1) + "\n"
    (docs / "reproduction.json").write_text(numbers, encoding="utf-8")
    page = docs / "reproduction.md"
    text = page.read_text(encoding="utf-8")
    tables = {
        "main": _success_table(found, (*MAIN, *ABLATIONS, *ITERATIONS)),
        "tests": _tests(found),
        "critics": _critics(found),
        "scaling": _success_table(found, tuple(SCALING)),
        "best-of": _success_table(found, tuple(BEST_OF)),
        "tuning": _tuning(found),
    }
    _figures(found, docs / "figures")
    for name, (figure, words) in FIGURES.items():
        if (docs / "figures" / figure).exists():
            tables[name] += f"\n\n![{words}](figures/{figure})"
    for name, table in tables.items():
        text = _between(text, name, table)
    page.write_text(text, encoding="utf-8")


def _by_method(cells: Sequence[Cell]) -> Cells:
    found: dict[str, dict[int, Cell]] = {}
    for cell in cells:
        found.setdefault(cell["method"], {})[cell["seed"]] = cell
    return found


def write_leaderboard(cells: Sequence[Cell], readme: Path) -> None:
    """Write the leaderboard of the README."""
    text = _between(readme.read_text(encoding="utf-8"), "leaderboard", leaderboard(_by_method(cells)))
    readme.write_text(text, encoding="utf-8")


def leaderboard(found: Cells) -> str:
    """Make the leaderboard: method, success, seeds, minutes, commit."""
    rows = ["| method | success, % | seeds | minutes | commit |", "|---|---|---|---|---|"]
    for name in MAIN:
        if cells := found.get(name):
            commits = ", ".join(sorted({cell["commit"] for cell in cells.values()}))
            rows.append(f"| `{name}` | {_success(cells)} | {len(cells)} | {_minutes(cells):.1f} | {commits} |")
    return "\n".join(rows)


def _between(text: str, name: str, table: str) -> str:
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    return re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{table}\n{end}", text, flags=re.DOTALL)


def _bits(cells: Mapping[int, Cell], seeds: Sequence[int] | None = None) -> list[str]:
    """Read which held-out tasks are solved, of each seed: "0110..."."""
    chosen = (cells[seed]["tasks"] for seed in (sorted(cells) if seeds is None else seeds))
    return [tasks.get("trained", tasks.get("start")) for tasks in chosen]


def _success(cells: Mapping[int, Cell]) -> str:
    return _told(over_seeds(_bits(cells)))


def _minutes(cells: Mapping[int, Cell]) -> float:
    return sum(cell["seconds"] for cell in cells.values()) / len(cells) / 60


def _told(estimate: Estimate) -> str:
    return f"{estimate.mean:.1f} [{estimate.low:.1f}, {estimate.high:.1f}]"


def _numbers(found: Cells) -> dict[str, Any]:
    """Return what docs/reproduction.json holds."""
    methods = {
        name: {
            "success": [round(found[name][seed]["success"], 2) for seed in sorted(found[name])],
            "seeds": sorted(found[name]),
        }
        for name, method in METHODS.items()
        if name in found and method.kind != "truth"
    }
    critics = {
        name: {figure: round(value, 4) for figure, value in means.items()} for name, _, means, _ in _judged(found)
    }
    return {"methods": methods, "critics": critics}


def _judged(found: Cells) -> list[tuple[str, str, Mapping[str, float], int]]:
    """List the critics that were judged: name, words, figures, seeds. Parts of a score are critics of their own."""
    rows, seen = [], set()
    for name, method in TRUTHS.items():
        truths = [found[name][seed]["truth"] for seed in sorted(found.get(name, {}))]
        for part, words in PARTS.items():
            judged = [truth[part] for truth in truths if part in truth]
            key = method.after if part == "score" else "pmi" if part == "pmi" else f"{method.after}, {part}"
            if judged and key not in seen:
                seen.add(key)
                told = "pmi (no critic trained)" if part == "pmi" else method.told + words
                rows.append((key, told, _critic_means(judged), len(judged)))
    return rows


def _critic_means(truths: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    names = {
        "hidden_over_not_hidden": "hidden over not hidden",
        "right_answer_over_question": "right answer over any question",
    }
    found = {name: [truth["preferences"][of]["mean"] for truth in truths] for name, of in names.items()}
    found["rank_correlation"] = [truth["rank_correlation"]["mean"] for truth in truths]
    found["reliability"] = [truth["reliability"]["mean"] for truth in truths]
    known = {name: [value for value in values if value is not None] for name, values in found.items()}
    return {name: sum(values) / len(values) for name, values in known.items() if values}


def _success_table(found: Cells, names: Sequence[str]) -> str:
    with_paper = any(name in PAPER for name in names)
    rows = ["| method | success, % | seeds | minutes |" + " paper, 8B |" * with_paper, "|---" * (4 + with_paper) + "|"]
    for name in names:
        if cells := found.get(name):
            row = f"| {METHODS[name].told} | {_success(cells)} | {len(cells)} | {_minutes(cells):.1f} |"
            rows.append(row + f" {PAPER.get(name, '')} |" * with_paper)
    return "\n".join(rows)


def _tests(found: Cells) -> str:
    rows = ["| compared | difference, points | p | seeds |", "|---|---|---|---|"]
    for first, second in CONTRASTS:
        one, other = found.get(first, {}), found.get(second, {})
        seeds = sorted(one.keys() & other.keys())
        if seeds:
            paired = compare(_bits(one, seeds), _bits(other, seeds))
            rows.append(f"| {first} - {second} | {_told(paired.difference)} | {paired.p:.3f} | {paired.seeds} |")
    return "\n".join(rows)


def _critics(found: Cells) -> str:
    rows = [
        "| score | rank correlation | reliability of the truth | hidden over not hidden "
        "| right answer over any question | seeds |",
        "|---|---|---|---|---|---|",
    ]
    for _, told, means, seeds in _judged(found):
        figures = [
            f"{means['rank_correlation']:.2f}" if "rank_correlation" in means else "n/a",
            f"{means['reliability']:.2f}" if "reliability" in means else "n/a",
            *(
                f"{100 * means[figure]:.0f} %" if figure in means else "n/a"
                for figure in ("hidden_over_not_hidden", "right_answer_over_question")
            ),
        ]
        rows.append(f"| {told} | {' | '.join(figures)} | {seeds} |")
    return "\n".join(rows)


def _tuning(found: Cells) -> str:
    rows = ["| method | flags | success of the checkpoints on validation tasks, % | chosen |", "|---|---|---|---|"]
    for name, method in TUNING.items():
        for seed, cell in sorted(found.get(name, {}).items()):
            steps = cell["validation"]["success"].items()
            curve = ", ".join(f"{100 * value:.0f} ({step})" for step, value in steps)
            flags = " ".join(flag for flag in method.flags if not flag.startswith(("--algorithm", "--policy.select")))
            rows.append(f"| {method.told}, seed {seed} | `{flags or 'preset'}` | {curve} | {cell['success']:.1f} |")
    return "\n".join(rows)


def _figures(found: Cells, folder: Path) -> None:
    names = [name for name in (*MAIN, *ABLATIONS) if name in found]
    if names:
        rows = [(name, over_seeds(_bits(found[name])), _by_seed(found[name])) for name in names]
        (folder / "reproduction-methods.svg").write_text(draw_methods(rows), encoding="utf-8")
    lines: dict[str, list[tuple[int, Estimate]]] = {}
    for name in ("mtdpo", "sweet"):
        held = [(tasks, f"{name}-{tasks}") for tasks in (160, 480)] + [(ALL_TASKS, name)]
        lines[name] = [(tasks, over_seeds(_bits(found[key]))) for tasks, key in held if key in found]
    if any(len(points) > 1 for points in lines.values()):
        (folder / "reproduction-scaling.svg").write_text(draw_lines(lines, "training tasks"), encoding="utf-8")
    held = [(1, "zero-shot"), *((number, f"best-of-{number}") for number in NUMBERS)]
    points = [(number, over_seeds(_bits(found[key]))) for number, key in held if key in found]
    if len(points) > 1:
        best = {"start policy, critic chooses": points}
        (folder / "reproduction-best-of.svg").write_text(draw_lines(best, "candidates", log=True), encoding="utf-8")


def _by_seed(cells: Mapping[int, Cell]) -> list[float]:
    return [100 * bits.count("1") / len(bits) for bits in _bits(cells)]
