"""The file of many asynchronous episodes: when a run gives up, and parts that several processes have left."""

import asyncio
import json

import pytest
from players import HUMAN, TASKS

from colbench_env.episodes import EpisodeFailed, Settings, failures_file, play
from colbench_env.rollouts import FailedInARow, RolloutPlan, play_all
from colbench_env.tasks import append_rows, read_rows
from colbench_env.types import BadInput, Task, Trajectory

SETTINGS = Settings(system="", retry_seconds=0.0)
MANY = [Task(f"Task {number}.", "def f(x): return x", {"test1": "f(1)"}, "unit: Euros.") for number in range(60)]


def wanted(folder, tasks=TASKS):
    return RolloutPlan(folder / "rows.jsonl", tasks, 2, SETTINGS.run_metadata(HUMAN))


def played(task, sample):
    return play(task, lambda messages: "I WANT TO ANSWER: x", HUMAN, SETTINGS, sample)


async def answers(task, sample):
    await asyncio.sleep(0)
    return played(task, sample)


async def fails(task, sample):
    raise EpisodeFailed("human", SETTINGS.begin(task), sample, "503")


def test_a_run_gives_up_after_twenty_failures_in_a_row_and_another_plays_everything(tmp_path):
    file, asked = wanted(tmp_path, MANY), []

    async def some(task, sample):  # 19 failures, a success, then failures only
        asked.append(task)
        return await (answers if len(asked) == 20 else fails)(task, sample)

    with pytest.raises(FailedInARow, match=r"^.*rows\.jsonl: 20 episodes failed one after the other, the last one: "):
        asyncio.run(play_all(file, some, 1))
    assert len(asked) == 40
    assert len(read_rows(file.output, Trajectory)) == 1
    assert len(failures_file(file.output).read_text().splitlines()) == 39
    asyncio.run(play_all(file, answers, 8))
    assert [(row.task, row.extra["sample"]) for row in read_rows(file.output, Trajectory)] == file.episodes


def test_parts_of_several_processes_become_one_file_in_order(tmp_path):
    file = wanted(tmp_path)
    rows = [played(*episode) for episode in file.episodes]
    append_rows(file.part(1), rows[1::2][::-1])
    append_rows(file.part(0), rows[::2])
    append_rows(failures_file(file.part(1)), [EpisodeFailed("human", SETTINGS.begin(TASKS[0]), 0, "503")])
    file.gather()
    assert read_rows(file.output, Trajectory) == rows
    assert [json.loads(line)["error"] for line in failures_file(file.output).read_text().splitlines()] == ["503"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.failures.jsonl", "rows.jsonl"]


def test_parts_are_gathered_again_after_a_kill_between_writing_and_removing_them(tmp_path):
    file = wanted(tmp_path)
    rows = [played(*episode) for episode in file.episodes]
    append_rows(file.output, rows[:4])
    append_rows(file.part(0), rows[2:5])  # two of them are in the file already
    with file.part(1).open("wb") as part:
        part.write(json.dumps(rows[5].to_json()).encode()[:-7])  # what a killed process leaves
    file.gather()
    assert read_rows(file.output, Trajectory) == rows[:5]
    assert file.missing() == file.episodes[5:]


def test_two_processes_cannot_play_into_one_file(tmp_path):
    with (
        wanted(tmp_path).locked(),
        pytest.raises(BadInput, match=r"rows\.jsonl: another process is playing into this file"),
        wanted(tmp_path).locked(),
    ):
        pass
