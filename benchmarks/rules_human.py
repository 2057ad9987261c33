"""What the human without a model (`--human=rules`) answers about real tasks, and whether it gives anything away.

    python -m benchmarks.rules_human --tasks=backend_test.jsonl --dialogues=trajectories.jsonl [--questions=3 --show=10]

Asks about every task what real agents have asked in a file of dialogues: their questions, with the parameters that they
name replaced by those of the task at hand. Prints how many replies say something, shrug, or leak (0 expected).
"""

import argparse
import itertools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from colbench_env.humans.knowledge import read_knowledge
from colbench_env.humans.rules import NO_QUESTION, SHRUG, answer
from colbench_env.python_source import NotPython
from colbench_env.simulator_health import leaks
from colbench_env.tasks import read_rows
from colbench_env.types import Task, Trajectory


def asked(dialogues: Path) -> list[str]:
    """The agents' turns before the last of each dialogue, each once."""
    rows = read_rows(dialogues, Trajectory)
    return list(dict.fromkeys(turn.content for row in rows for turn in row.agent_turns[:-1]))


def about(question: str, task: Task) -> str:
    """The question with the task's own parameters in place of the names in backticks."""
    signature = re.search(r"def \w+\((.*?)\)", task.problem_description)
    names = [part.split("=")[0].split(":")[0].strip() for part in signature[1].split(",")] if signature else []
    place = itertools.cycle(name for name in names if name)
    return re.sub(r"`\w+`", lambda found: next(place), question) if any(names) else question


def replies(tasks: list[Task], questions: list[str], each: int) -> Iterator[tuple[Task, str, str]]:
    """Each task with `each` questions, in turn, and the replies, a dialogue of its own for each task."""
    turns = itertools.cycle(questions)
    for task in tasks:
        try:
            facts, told = [fact for fact in read_knowledge(task) if not leaks(task, fact.sentence)], ""
        except NotPython:
            continue
        for question in (about(next(turns), task) for _ in range(each)):
            reply = answer(question, facts, told)
            told += f" {reply}"
            yield task, question, reply


def main() -> None:
    """Prints the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--dialogues", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=3, help="of each task")
    parser.add_argument("--show", type=int, default=0, help="so many questions and replies")
    arguments = parser.parse_args()
    tasks, questions = read_rows(arguments.tasks, Task), asked(arguments.dialogues)
    found = list(replies(tasks, questions, arguments.questions))
    kinds = Counter(
        "shrug" if said == SHRUG else "no question" if said == NO_QUESTION else "specific" for *_, said in found
    )
    specific = [said for *_, said in found if said not in (SHRUG, NO_QUESTION)]
    print(f"{len(tasks)} tasks, {len(questions)} turns of real agents, {len(found)} replies")
    for kind, count in kinds.most_common():
        print(f"  {kind}: {count} ({count / len(found):.0%})")
    answered = {task.task_id for task, _, said in found if said in specific}
    print(f"  tasks with at least one specific reply: {len(answered)} of {len(tasks)}")
    print(f"  leaks: {sum(bool(leaks(task, said)) for task, _, said in found)}")
    words = [len(said.split()) for said in specific]
    print(f"  words of a specific reply: {mean(words):.1f}, most {max(words)}")
    for task, question, said in found[: arguments.show]:
        print(f"\n{task.problem_description[:200]}\n  asked: {question[:300]!r}\n  said:  {said}")


if __name__ == "__main__":
    main()
