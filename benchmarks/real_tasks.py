"""`python -m benchmarks.real_tasks --model=DIR --tasks=FILE --work=DIR`: a real model on real tasks, zero-shot.

Every fourth task of the file (200 of 800) is played once a sample, agent and user simulator being the same model, and
graded. An arm says what becomes of replies of the user that give the solution away:

    natural    they are marked
    rejected   they are asked for again
    leak-free  what leaks is taken out
    rules      no model: `--human=rules` answers from the reference

A dialogue that ends in its first turn is the same in every arm, since turns are drawn with seeds made of task, sample
and turn, and the user has not spoken: the other arms play again only the tasks whose dialogue went on in `natural`, if
that sample of it is there, and take the rest from it.

Each arm and sample can be killed and goes on where it was (WORK has its dialogues). When it is done, a line for each
dialogue goes into --outcomes, with the seconds of the sample unless it was killed and went on: numbers alone, no text
of the benchmark, so that the file may lie in the repository. --suspected names rows of the file that an audit doubts,
as a file in which they follow the words "row indices".

    python -m benchmarks.real_tasks --model=DIR --tasks=FILE --work=DIR --arms=natural,rules --samples=0,1,2
    python -m benchmarks.real_tasks --table --suspected=NOTES.md
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from colbench_env.simulator_health import human_replies, leaks
from colbench_env.statistics import Estimate, bootstrap
from colbench_env.tasks import read_rows
from colbench_env.types import Task, Trajectory

OUTCOMES = Path(__file__).with_name("real_tasks.jsonl")
EVERY, FIRST = 4, "natural"
ROWS = 32  # rows that idle are computed, too, and most dialogues end in a turn where the others go on for ten
ARMS = {
    "natural": ("--human=model",),
    "rejected": ("--human=model", "--no-leaks", "--attempts=10"),  # three failed one dialogue
    "leak-free": ("--human=model", "--leak-free"),
    "rules": ("--human=rules",),
}
SPOKEN = ("--human-max-tokens=64", "--human-temperature=0.7")
DRAWN = (
    "--temperature=0.7", "--top-p=0.9", "--max-new-tokens=384", "--compute-dtype=bfloat16",
    "--in-flight=128", "--max-length=4096",
)  # fmt: skip


def main() -> None:
    """Play what is asked for and is not there yet, then print the table of everything that is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="Hugging Face directory")
    parser.add_argument("--tasks", type=Path, help="JSON Lines of backend tasks")
    parser.add_argument("--work", type=Path, help="directory of the dialogues")
    parser.add_argument("--arms", default="natural", help=", ".join(ARMS))
    parser.add_argument("--samples", default="0", help="numbers, separated by commas")
    parser.add_argument("--outcomes", type=Path, default=OUTCOMES)
    parser.add_argument("--suspected", type=Path, help="text that names doubtful rows")
    parser.add_argument("--table", action="store_true", help="play nothing")
    told = parser.parse_args()
    if not told.table:
        if not (told.model and told.tasks and told.work):
            parser.error("--model, --tasks and --work are needed")
        for sample in told.samples.split(","):
            for arm in told.arms.split(","):
                if not any(row["arm"] == arm and row["sample"] == int(sample) for row in read(told.outcomes)):
                    play(told.model, told.tasks, told.work, arm, int(sample), told.outcomes)
    print_table(read(told.outcomes), suspects(told.suspected) if told.suspected else frozenset())


def read(path: Path) -> list[dict[str, Any]]:
    """Read the outcomes."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def suspects(path: Path) -> frozenset[int]:
    """Read the rows that a text doubts."""
    numbers = re.search(r"row indices.*?:((?:\s+\d+)+)", path.read_text(encoding="utf-8"), re.DOTALL)
    return frozenset(map(int, numbers[1].split())) if numbers else frozenset()


def play(model: Path, tasks: Path, work: Path, arm: str, sample: int, outcomes: Path) -> None:
    """Play and grade one sample of an arm, or what is not known of it from `natural`, and append its outcomes."""
    known = [row for row in read(outcomes) if (row["arm"], row["sample"]) == (FIRST, sample) and row["turns"] == 1]
    same = {row["row"]: row for row in known} if arm != FIRST else {}
    work.mkdir(parents=True, exist_ok=True)
    chosen, played, graded = (work / f"{arm}-{sample}{name}.jsonl" for name in ("-tasks", "", "-g"))
    rows = {EVERY * number: row for number, row in enumerate(tasks.read_text(encoding="utf-8").splitlines()[::EVERY])}
    wanted = [number for number in rows if number not in same]
    chosen.write_text("".join(rows[number] + "\n" for number in wanted), encoding="utf-8")
    spoken = SPOKEN if "--human=model" in ARMS[arm] else ()
    goes_on = played.exists()
    started = time.monotonic()
    run(
        "launch.rollout", f"--model={model}", f"--tasks={chosen}", *ARMS[arm], *spoken, *DRAWN,
        f"--rows={min(ROWS, len(wanted))}", f"--seed={42 + sample}", f"--output={played}",
    )  # fmt: skip
    seconds = time.monotonic() - started
    run("launch.evaluate", f"--trajectories={played}", f"--tasks={chosen}", f"--output={graded}", "--no-references")
    place = {task.task_id: number for number, task in zip(wanted, read_rows(chosen, Task), strict=True)}
    lines = same | {(number := place[row.task.task_id]): outcome(row, number) for row in read_rows(graded, Trajectory)}
    about = {"arm": arm, "sample": sample, "model": model.name, "seconds": None if goes_on else round(seconds)}
    with outcomes.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(lines[number] | about) + "\n" for number in sorted(lines))


def run(module: str, *flags: str) -> None:
    """Run a command of this project; ends with its status where it fails."""
    status = subprocess.run([sys.executable, "-m", module, *flags], check=False).returncode
    if status:
        sys.exit(status)


def outcome(row: Trajectory, place: int) -> dict[str, Any]:
    """Count what a table needs of a graded dialogue; the task is told by its row alone."""
    replies = human_replies(row)
    return {
        "row": place,
        "reward": row.reward,
        "turns": len(row.agent_turns),
        "questions": sum("?" in turn.content for turn in row.agent_turns[:-1]),
        "answered": bool(row.answer) and "I WANT TO ANSWER:" in row.agent_turns[-1].content,
        "tokens": sum(int(turn.extra.get("tokens", 0)) for turn in row.agent_turns),
        "replies": len(replies),
        "leaks": sum(bool(leaks(row.task, reply)) for reply in replies),
        "removed": int(row.extra.get("leaks_removed", 0)),
        "reasked": int(row.extra.get("reasked", 0)),
    }


def print_table(rows: Sequence[dict[str, Any]], doubtful: frozenset[int]) -> None:
    """Print a table in Markdown: means over tasks with 95 % intervals of a bootstrap over them."""
    print(
        "| arm | samples | tests passed, % | success, % | success, unsuspected tasks, % | answered, % | turns "
        "| questions | replies that leak, % | minutes a sample |\n" + "|---" * 10 + "|"
    )
    for arm in [arm for arm in ARMS if any(row["arm"] == arm for row in rows)]:
        own = [row for row in rows if row["arm"] == arm]
        sound, samples = [row for row in own if row["row"] not in doubtful], {row["sample"] for row in own}
        seconds = {row["sample"]: row["seconds"] for row in own if row["seconds"]}
        minutes = f"{sum(seconds.values()) / len(seconds) / 60:.0f}" if seconds else ""
        replies = sum(row["replies"] for row in own)
        print(
            f"| {arm} | {len(samples)} | {percent(by_task(own, lambda row: row['reward']))} "
            f"| {percent(by_task(own, succeeds))} | {percent(by_task(sound, succeeds))} "
            f"| {100 * mean(own, 'answered'):.0f} | {mean(own, 'turns'):.2f} | {mean(own, 'questions'):.2f} "
            f"| {100 * sum(row['leaks'] for row in own) / max(1, replies):.1f} of {replies} "
            f"| {minutes} |"
        )


def succeeds(row: dict[str, Any]) -> float:
    """Whether all tests pass."""
    return float(row["reward"] == 1)


def by_task(rows: Sequence[dict[str, Any]], figure: Any) -> Estimate:
    """Estimate a mean over tasks of means over samples."""
    tasks: dict[int, list[float]] = {}
    for row in rows:
        if row["reward"] is not None:
            tasks.setdefault(row["row"], []).append(figure(row))
    return bootstrap(sum(values) / len(values) for values in tasks.values())


def mean(rows: Sequence[dict[str, Any]], name: str) -> float:
    """Mean over dialogues."""
    return sum(row[name] for row in rows) / len(rows)


def percent(estimate: Estimate) -> str:
    """In: 0.123 [0.1, 0.15]   Out: "12.3 [10.0, 15.0]" """
    return f"{100 * estimate.mean:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


if __name__ == "__main__":
    main()
