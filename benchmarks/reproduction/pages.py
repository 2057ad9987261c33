"""The pages that are made of finished cells: docs/reproduction.json, docs/reproduction.md and its figure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.reproduction.methods import CONTRASTS, METHODS, PAPER
from benchmarks.reproduction.statistics import compare, over_seeds
from colbench_env.statistics import Estimate

Cell = Mapping[str, Any]


def write_pages(cells: Sequence[Cell], docs: Path) -> None:
    """Write the pages from the finished cells; what is not there yet is left out."""
    by_method = _with_zero_shot(cells)
    numbers = json.dumps(_numbers(by_method), indent=1) + "\n"
    (docs / "reproduction.json").write_text(numbers, encoding="utf-8")
    page = docs / "reproduction.md"
    text = page.read_text(encoding="utf-8")
    for name, table in (
        ("main", _main_table(by_method)),
        ("tests", _tests(by_method)),
        ("critics", _critics(by_method)),
    ):
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        head, rest = text.split(begin)
        text = head + begin + "\n" + table + "\n" + end + rest.split(end)[1]
    page.write_text(text, encoding="utf-8")


def _with_zero_shot(cells: Sequence[Cell]) -> dict[str, dict[int, Cell]]:
    """Sort the cells by method and seed; the start policy of a seed is the same in all, and a method of its own."""
    found: dict[str, dict[int, Cell]] = {"zero-shot": {}}
    for cell in cells:
        found.setdefault(cell["method"], {})[cell["seed"]] = cell
        if cell["method"] in METHODS:
            found["zero-shot"][cell["seed"]] = cell | {"success": cell["start"], "seconds": 0}
    return found


def _bits(cell: Cell, method: str) -> str:
    return cell["tasks"]["start" if method == "zero-shot" else "trained"]


def _numbers(by_method: Mapping[str, Mapping[int, Cell]]) -> dict[str, Any]:
    """Return what docs/reproduction.json holds."""
    methods, critics = {}, {}
    for name in ("zero-shot", *METHODS):
        cells = by_method.get(name, {})
        if not cells:
            continue
        seeds = sorted(cells)
        methods[name] = {"success": [round(cells[seed]["success"], 2) for seed in seeds], "seeds": seeds}
        truths = [cells[seed]["truth"]["score"] for seed in seeds if "truth" in cells[seed]]
        if truths and name != "zero-shot":
            critics[name] = {figure: round(value, 4) for figure, value in _critic_means(truths).items()}
    return {"methods": methods, "critics": critics}


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


def _main_table(by_method: Mapping[str, Mapping[int, Cell]]) -> str:
    rows = ["| method | success, % | seeds | minutes | paper, 8B |", "|---|---|---|---|---|"]
    told = {"zero-shot": "zero-shot"} | {name: method.told for name, method in METHODS.items()}
    for name, words in told.items():
        cells = by_method.get(name)
        if not cells:
            continue
        bits = [_bits(cells[seed], name) for seed in sorted(cells)]
        minutes = sum(cell["seconds"] for cell in cells.values()) / len(cells) / 60
        rows.append(f"| {words} | {_told(over_seeds(bits))} | {len(cells)} | {minutes:.1f} | {PAPER.get(name, '')} |")
    return "\n".join(rows)


def _told(estimate: Estimate) -> str:
    return f"{estimate.mean:.1f} [{estimate.low:.1f}, {estimate.high:.1f}]"


def _tests(by_method: Mapping[str, Mapping[int, Cell]]) -> str:
    rows = ["| compared | difference, points | p | seeds |", "|---|---|---|---|"]
    for first, second in CONTRASTS:
        one, other = by_method.get(first, {}), by_method.get(second, {})
        seeds = sorted(one.keys() & other.keys())
        if not seeds:
            continue
        found = compare([_bits(one[s], first) for s in seeds], [_bits(other[s], second) for s in seeds])
        rows.append(f"| {first} - {second} | {_told(found.difference)} | {found.p:.3f} | {found.seeds} |")
    return "\n".join(rows)


def _critics(by_method: Mapping[str, Mapping[int, Cell]]) -> str:
    rows = [
        "| critic | score | rank correlation | reliability of the truth | hidden over not hidden "
        "| right answer over any question | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in METHODS:
        cells = [cell for cell in by_method.get(name, {}).values() if "truth" in cell]
        for part in ("score", "learned", "pmi"):
            truths = [cell["truth"][part] for cell in cells if part in cell["truth"]]
            if not truths:
                continue
            means = _critic_means(truths)
            told = [f"{means['rank_correlation']:.2f}", f"{means['reliability']:.2f}"] + [
                f"{100 * means[figure]:.0f} %" if figure in means else "n/a"
                for figure in ("hidden_over_not_hidden", "right_answer_over_question")
            ]
            rows.append(f"| {name} | {part} | {' | '.join(told)} | {len(truths)} |")
    return "\n".join(rows)
