"""Files in the released layout, made up from the miniature: text only, no token ids, sample-major."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from colbench_env.mini import make_tasks
from colbench_env.tasks import write_rows
from colbench_env.types import Candidates, Message, Pair, Task, Trajectory
from sweet_jax.data.chat import Chat
from sweet_jax.trajectory_pairs import Sample, make_recorded_pair

SMALL = (
    "--mesh=1x1", "--num-tasks=2", "--evaluation.num-tasks=2",
    "--policy.select=last", "--rollouts.max-turns=2", "--rollouts.max-new-tokens=8",
    "--rollouts.rows=4", "--ranking.candidates=4", "--sampler-mesh=same",
    *(
        f"--{stage}.training.{flag}"
        for stage in ("critic", "policy")
        for flag in ("batch-size=2", "max-steps=2", "max-length=512", "save-every=1")
    ),
)  # fmt: skip
"""The flags of a run on these files that takes seconds."""
REPLIES = ("which unit ?", "what else ?", "say more", "ok")


def trajectories(chat: Chat, count: int = 4) -> list[Trajectory]:
    """Two graded samples of each task: the first passes all tests, the second does not."""
    tasks = make_tasks("train", count, 5)
    return [
        trajectory(chat, task, turns, reward) for turns, reward in ((2, 1.0), (3, 0.2)) for task in tasks
    ]  # fmt: skip


def trajectory(chat: Chat, task: Task, turns: int, reward: float, value: float | None = None) -> Trajectory:
    """A dialogue of so many turns whose answer returns `value` (the number of turns where none is given)."""
    answer = f"def f(): return {turns if value is None else value}"
    messages = [Message("user", task.problem_description)]
    for turn in range(1, turns + 1):
        said = REPLIES[turn] if turn < turns else f"I WANT TO ANSWER: {answer}"
        prompt = chat.decode(chat.prompt_ids(messages))
        messages.append(Message("assistant", said, input=prompt, output=said))
        if turn < turns:
            messages.append(Message("user", REPLIES[0]))
    return Trajectory(task, tuple(messages), answer, reward)


def critic_pairs(rows: Sequence[Trajectory]) -> list[Pair]:
    """Privileged text, the last prompt, the last output; nothing else in the row."""
    half = len(rows) // 2
    pairs = [
        make_recorded_pair(Sample("", rows[i]), Sample("", rows[i + half]), privileged=True) for i in range(half)
    ]  # fmt: skip
    return [dataclasses.replace(pair, extra={}) for pair in pairs]


def candidates(rows: Sequence[Trajectory]) -> list[Candidates]:
    """Four candidates for each turn of the first trajectory."""
    found = []
    for turn, message in enumerate(rows[0].agent_turns, start=1):
        found.append(
            Candidates(
                input=message.input,
                input_with_ground_truth=f"In light that the final answer is: {rows[0].task.ground_truth}."
                + message.input,
                older_output=message.output,
                reward=1.0,
                ground_truth=rows[0].task.ground_truth,
                messages=rows[0].dialogue_history[: 2 * turn - 1],
                additional_outputs=REPLIES,
                additional_reference_logprobs=(-1.0, -2.0, -3.0, -4.0),
                additional_reference_logprobs_sum=(-3.0, -6.0, -9.0, -12.0),
            )
        )
    return found


def turn_pairs(rows: Sequence[Trajectory], eos: str) -> list[Pair]:
    """input + output + end-of-turn text."""
    prompts = [row.agent_turns[0].input for row in rows]
    return [Pair(prompt + REPLIES[0] + eos, prompt + REPLIES[1] + eos) for prompt in prompts]


def write(path: Path, rows: Sequence) -> Path:
    write_rows(path, rows)
    return path
