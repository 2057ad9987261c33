"""`python -m benchmarks.real_training --model=DIR --tasks=FILE --work=DIR`: a real model trained on real tasks.

The held-out tasks are every eighth row of the file, those for training rows that `benchmarks.real_tasks` leaves out.
The user simulator is `--human=rules`, which needs no model.

    experts    scripted dialogues: questions that bring something new, then the reference as answer
    taught     the model, having imitated them: a policy that collaborates at all
    dialogues  its own, about tasks for training, graded
    rft, mtdpo, sweet    the same policy, trained on these dialogues by each method
    critic     SWEET-RL's critic alone, where nothing more is wanted of it than to choose
    played     held-out tasks, --repeats times, with the model itself, `taught` and each method, the same seeds; and
               every third of them with `taught` where SWEET-RL's critic chooses each turn among eight; outcomes
               without texts

All training is by LoRA with `launch.train`. Every step goes on where it was killed; seconds of all starts are in
WORK/seconds.jsonl. --steps says which are wanted, in order.

    python -m benchmarks.real_training --model=DIR --tasks=FILE --work=DIR --steps=experts,taught
    python -m benchmarks.real_training --table [--work=DIR]
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.real_tasks import by_task, mean, outcome, percent, read, run, succeeds
from colbench_env.dialogue import ANSWER_MARKER
from colbench_env.episodes import EpisodeFailed, Settings, play
from colbench_env.humans.knowledge import read_knowledge
from colbench_env.humans.rules import SHRUG, RulesSimulator, answer
from colbench_env.prompts import read_agent_prompt
from colbench_env.python_source import NotPython
from colbench_env.simulator_health import leaks
from colbench_env.tasks import read_rows, write_rows
from colbench_env.types import Task, Trajectory

OUTCOMES = Path(__file__).with_name("real_training.jsonl")
TURNS, SYSTEM = 6, "backend_agent"
QUESTIONS = (
    "What should the function return, and in which cases?",
    "What does {name} look like, which type does it have?",
    "How is the result calculated?",
    "Which conditions or thresholds decide about the result?",
    "How should numbers be rounded?",
    "In which order should things be sorted?",
    "Which values can {name} have?",
    "What should happen with empty or invalid input?",
    "What is the default where {name} is missing?",
)
METHODS = ("rft", "mtdpo", "sweet")
BEST = "best-of-8"
HELD_OUT, BEST_EVERY = 8, 3  # of so many rows of the file one is held out, of so many of these BEST plays one
STAGES = {
    "rft": ("tasks", "rollouts", "grading", "policy"),
    "mtdpo": ("tasks", "rollouts", "grading", "pairs", "policy"),
    "sweet": (
        "tasks", "rollouts", "grading", "pairs", "critic", "candidates", "ranking", "turn-pairs", "policy"
    ),
}  # fmt: skip
WANTED = ("experts", "taught", "dialogues", *METHODS, "played")
STEPS = (*WANTED, "critic")
TRAINED = (
    "--preset=tiny", "--mesh=1x1", "--human=rules", f"--agent-prompt={SYSTEM}", f"--rollouts.max-turns={TURNS}",
    "--rollouts.max-new-tokens=256", "--rollouts.rows=64", "--compute-dtype=bfloat16",
    "--evaluation.num-tasks=4", "--lora.rank=16", "--training.batch-size=4", "--training.max-length=2048",
    "--training.max-steps=0", "--training.length-window=8", "--training.save-every=10", "--training.log-every=5",
    "--policy.select=last",
)  # fmt: skip
OF_METHOD = {
    "rft": ("--policy.learning-rate=1e-4", "--policy.epochs=2"),
    "mtdpo": ("--policy.learning-rate=5e-5", "--policy.epochs=4"),
    "sweet": (
        "--critic.learning-rate=5e-5", "--critic.epochs=4", "--critic.nll-coef=0", "--ranking.candidates=8",
        "--ranking.data-fraction=0.2", "--ranking.num-pairs=1", "--ranking.reference-context=public",
        "--policy.learning-rate=5e-5", "--policy.epochs=1",
    ),
}  # fmt: skip
TAUGHT_RATE = "--policy.learning-rate=3e-4"
PLAYED = (
    "--human=rules", f"--agent-prompt={SYSTEM}", f"--max-turns={TURNS}", "--max-new-tokens=256", "--temperature=0.7",
    "--top-p=0.9", "--compute-dtype=bfloat16", "--rows=64", "--in-flight=128", "--max-length=3072",
)  # fmt: skip


def main() -> None:
    """Do the steps that are asked for, then print the table of what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="Hugging Face directory")
    parser.add_argument("--tasks", type=Path, help="JSON Lines of backend tasks")
    parser.add_argument("--work", type=Path, help="directory of everything that is made")
    parser.add_argument("--steps", default=",".join(WANTED), help=", ".join(STEPS))
    parser.add_argument("--experts", type=int, default=240, help="tasks that are shown by an expert")
    parser.add_argument("--train", type=int, default=100, help="tasks that the taught policy plays")
    parser.add_argument("--samples", type=int, default=4, help="dialogues about each of them")
    parser.add_argument("--repeats", type=int, default=1, help="dialogues about each held-out task; more may follow")
    parser.add_argument("--max-steps", type=int, default=0, help="updates of each stage at most, for a trial")
    parser.add_argument("--outcomes", type=Path, default=OUTCOMES)
    parser.add_argument("--table", action="store_true", help="do nothing")
    told = parser.parse_args()
    if not told.table:
        if not (told.model and told.tasks and told.work):
            parser.error("--model, --tasks and --work are needed")
        told.work.mkdir(parents=True, exist_ok=True)
        for step in told.steps.split(","):
            if step not in STEPS:
                parser.error(f"--steps={told.steps}: {step} is none of {', '.join(STEPS)}")
            started = time.monotonic()
            do(step, told)
            with (told.work / "seconds.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, "seconds": round(time.monotonic() - started)}) + "\n")
    print_table(read(told.outcomes))
    if told.work and (ranked := told.work / "sweet" / "ranking" / "ranked.jsonl").exists():
        print_parts(read(ranked))


def split(path: Path) -> tuple[list[Task], list[Task]]:
    """Return the tasks for training and the held-out ones."""
    tasks = read_rows(path, Task)
    return [task for number, task in enumerate(tasks) if number % 4], tasks[::HELD_OUT]


def do(step: str, told: argparse.Namespace) -> None:
    """Do one step, or what is missing of it."""
    work, (training, held_out) = told.work, split(told.tasks)
    taught = work / "taught" / "policy" / "model"
    limit = (f"--training.max-steps={told.max_steps}",) if told.max_steps else ()
    if step == "experts":
        write_rows(work / "experts.jsonl", [row for task in training[: told.experts] if (row := expert(task))])
    elif step == "taught":
        train(work / "taught", told.model, work / "experts.jsonl", "rft", work, TAUGHT_RATE, *limit)
    elif step == "dialogues":
        write_rows(work / "train.jsonl", training[-told.train :])
        rollout(taught, work / "train.jsonl", work / "dialogues.jsonl", told.samples, 1)
    elif step in METHODS or step == "critic":
        method, last = (step, "policy") if step in METHODS else ("sweet", step)
        try:
            train(work / method, taught, work / "dialogues.graded.jsonl", method, work, *limit, last=last)
        except SystemExit as ended:
            if ended.code != 2:
                raise
            print(f"{step} is left out: these dialogues are not enough for it, see above", flush=True)
    else:
        policies = {BEST: taught, "taught": taught, "zero-shot": told.model}
        policies |= {method: work / method / "policy" / "model" for method in METHODS}
        known = Counter(row["policy"] for row in read(told.outcomes))
        critic = work / "sweet" / "critic"
        chosen = (f"--best-of={BEST.split('-')[-1]}", f"--critic={critic.parent}")
        for policy, model in policies.items():
            every, samples = (BEST_EVERY, 1) if policy == BEST else (1, told.repeats)
            tasks = held_out[::every]
            if known[policy] < samples * len(tasks) and model.exists() and (policy != BEST or critic.exists()):
                write_rows(work / "held_out.jsonl", tasks)
                flags, played = chosen if policy == BEST else (), work / f"played-{policy}.jsonl"
                played.with_suffix(".graded.jsonl").unlink(missing_ok=True)
                seconds = rollout(model, work / "held_out.jsonl", played, samples, 2, *flags)
                record(
                    told.outcomes,
                    policy,
                    read_rows(played.with_suffix(".graded.jsonl"), Trajectory),
                    every,
                    {"model": told.model.name, "seconds": seconds},
                )


def record(outcomes: Path, policy: str, rows: list[Trajectory], every: int, about: dict[str, Any]) -> None:
    """Put what a policy has played in place of what is known of it; seconds are added to those before."""
    known, places = read(outcomes), len({row.task.task_id for row in rows})
    before = [line for line in known if line["policy"] == policy]
    about |= {"policy": policy, "seconds": about["seconds"] + (before[0]["seconds"] if before else 0)}
    lines = [line for line in known if line["policy"] != policy]
    lines += [
        about | {"sample": number // places} | outcome(row, HELD_OUT * every * (number % places))
        for number, row in enumerate(rows)
    ]
    outcomes.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def train(
    run_dir: Path, model: Path, dialogues: Path, method: str, work: Path, *flags: str, last: str = "policy"
) -> None:
    """Train a policy on dialogues, stage by stage up to `last`, without the evaluation."""
    write_rows(work / "few.jsonl", [row.task for row in read_rows(dialogues, Trajectory)[:8]])  # for stage tasks alone
    for stage in STAGES[method][: STAGES[method].index(last) + 1]:
        run(
            "launch.train", *TRAINED, *OF_METHOD[method], f"--algorithm={method}", f"--model={model}",
            f"--run-dir={run_dir}", f"--trajectories={dialogues}", f"--tasks={work / 'few.jsonl'}", "--num-tasks=4",
            f"--stage={stage}", *flags,
        )  # fmt: skip


def rollout(model: Path, tasks: Path, output: Path, samples: int, seed: int, *flags: str) -> int:
    """Play tasks and grade the dialogues into OUTPUT.graded.jsonl; return the seconds of playing."""
    started = time.monotonic()
    run(
        "launch.rollout", f"--model={model}", f"--tasks={tasks}", *PLAYED, f"--samples={samples}", f"--seed={seed}",
        f"--output={output}", *flags,
    )  # fmt: skip
    seconds = round(time.monotonic() - started)
    graded = output.with_suffix(".graded.jsonl")
    run("launch.evaluate", f"--trajectories={output}", f"--output={graded}", "--no-references")
    return seconds


def expert(task: Task) -> Trajectory | None:
    """Play a dialogue of somebody who knows what to ask; None about a task of which the user knows nothing to say.

    One to four questions, each of which brings something new but for one in eight, then the reference as answer.
    """
    rng, human = random.Random(task.task_id), RulesSimulator()
    try:
        facts = [fact for fact in read_knowledge(task) if not leaks(task, fact.sentence)]
    except NotPython:
        return None
    wanted = rng.choice((2, 2, 3, 3, 4))
    signature = re.search(r"def \w+\((.*)\)", task.problem_description)
    names = re.findall(r"(?:^|,)\s*(\w+)", signature[1]) if signature else []
    bank = [question.format(name=rng.choice(names or ["the input"])) for question in QUESTIONS]

    def agent(messages: list[dict[str, str]]) -> str:
        heard = [message["content"] for message in messages if message["role"] == "user"][1:]
        asked = {message["content"] for message in messages if message["role"] == "assistant"}
        left = [question for question in rng.sample(bank, len(bank)) if question not in asked]
        said = " ".join(heard)
        new = [q for q in left if (reply := answer(q, facts, said)) != SHRUG and reply not in said]
        if len(heard) < wanted and (new or (left and rng.random() < 0.125)):
            return left[0] if left and rng.random() < 0.125 else (new or left)[0]
        return f"{ANSWER_MARKER}\n{task.ground_truth.strip()}"

    settings = Settings(max_turns=TURNS, system=read_agent_prompt(SYSTEM, TURNS), agent_name="expert")
    try:
        row = play(task, agent, human, settings)
    except EpisodeFailed as failure:
        print(failure, file=sys.stderr)
        return None
    return row if len(row.agent_turns) > 1 else None


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print a table in Markdown: means over tasks with 95 % intervals of a bootstrap over them.

    The differences are those to the policy that all others start from, over the dialogues that both played.
    """
    print(
        "| policy | tasks | dialogues | tests passed, % | success, % | success over taught, points | answered, % "
        "| turns | questions | minutes |\n" + "|---" * 10 + "|"
    )
    taught = {of(row): row for row in rows if row["policy"] == "taught"}
    for policy in dict.fromkeys(row["policy"] for row in rows):
        own = [row for row in rows if row["policy"] == policy]
        both = [row for row in own if of(row) in taught and policy != "taught"]
        over = percent(by_task(both, lambda row: succeeds(row) - succeeds(taught[of(row)]))) if both else ""
        print(
            f"| {policy} | {len({row['row'] for row in own})} | {len(own)} "
            f"| {percent(by_task(own, lambda row: row['reward']))} | {percent(by_task(own, succeeds))} | {over} "
            f"| {100 * mean(own, 'answered'):.0f} | {mean(own, 'turns'):.2f} | {mean(own, 'questions'):.2f} "
            f"| {own[0]['seconds'] / 60:.0f} |"
        )


def of(row: dict[str, Any]) -> tuple[int, int]:
    """Task and sample of an outcome."""
    return row["row"], row.get("sample", 0)


def print_parts(rows: list[dict[str, Any]]) -> None:
    """Print what the two parts of the critic's scores say of the candidates of each position, in nats a token."""
    mixed = [row for row in rows if len({is_answer(turn) for turn in row["additional_outputs"]}) == 2]
    print(
        f"\n{len(rows)} positions; in {len(mixed)} some candidates answer and some ask\n"
        "| score | deviation among candidates | same best turn as the whole, % | best turn answers, % |\n"
        + "|---" * 4
        + "|"
    )
    for name, part in (("learned", "learned"), ("pmi", "pmi"), ("whole", "judge_result")):
        deviation = (sum(statistics.pvariance(row[part]) for row in rows) / len(rows)) ** 0.5
        same = [best_turn(row, part) == best_turn(row, "judge_result") for row in rows]
        answers = [is_answer(best_turn(row, part)) for row in mixed]
        share = f"{100 * sum(answers) / len(answers):.0f}" if answers else ""
        print(f"| {name} | {deviation:.3f} | {100 * sum(same) / len(same):.0f} | {share} |")


def best_turn(row: dict[str, Any], part: str) -> str:
    """Give the candidate of the highest score."""
    scores: list[float] = row[part]
    turn: str = row["additional_outputs"][scores.index(max(scores))]
    return turn


def is_answer(turn: str) -> bool:
    """Whether a turn ends the dialogue."""
    return ANSWER_MARKER in turn


if __name__ == "__main__":
    main()
