"""Many episodes with functions as agents: failing ones, stopped runs, and the file of their rows."""

import asyncio
import json
import threading
from dataclasses import replace

import pytest
from players import HUMAN, NOW, TASKS, Human, asks_then_answers, raise_

from colbench_env.episodes import Settings, failures_file, play, play_many
from colbench_env.humans.scripted import ScriptedSimulator
from colbench_env.tasks import read_rows
from colbench_env.types import BadInput, Trajectory


def test_many_episodes_are_those_of_play_in_sample_major_order_however_many_threads():
    expected = [play(task, asks_then_answers, HUMAN, sample=sample) for sample in (0, 1) for task in TASKS]
    assert play_many(TASKS, asks_then_answers, HUMAN, samples=2, threads=1) == expected
    assert play_many(iter(TASKS), asks_then_answers, HUMAN, samples=2, threads=5) == expected


def test_no_more_than_the_given_number_of_episodes_are_under_way():
    together = threading.Barrier(3, timeout=30)
    running, most = set(), []

    def agent(messages):
        running.add(threading.get_ident())
        most.append(len(running))
        together.wait()  # passes only when three agents are inside
        running.discard(threading.get_ident())
        together.wait()
        return "I WANT TO ANSWER: x"

    tasks = [replace(TASKS[0], problem_description=f"Task {number}.") for number in range(9)]
    assert len(play_many(tasks, agent, HUMAN, threads=3)) == 9
    assert max(most) == 3


def test_a_failing_episode_stands_in_its_place_and_the_others_are_played():
    def agent(messages):
        return raise_(OSError("down")) if messages[1]["content"] == "Task b." else asks_then_answers(messages)

    human = Human(lambda request, call: raise_(OSError("mute")) if request.task == TASKS[2] else "Euros.")
    done = []
    results = play_many(TASKS, agent, human, NOW, on_done=done.append)
    assert [getattr(result, "answer", None) for result in results] == ["# Euros.", None, None, "# Euros."]
    assert [(result.by, result.reason) for result in results[1:3]] == [
        ("agent", "OSError: down"),
        ("human", "OSError: mute (attempts: 3)"),
    ]
    assert sorted(map(id, done)) == sorted(map(id, results))


def test_a_stopped_run_keeps_what_was_finished_and_another_one_plays_only_the_rest(tmp_path):
    output, calls = tmp_path / "rows.jsonl", []

    def agent(messages):
        calls.append(messages[1]["content"])
        if calls.count("Task c.") == 1 and messages[1]["content"] == "Task c.":
            raise KeyboardInterrupt
        return "I WANT TO ANSWER: x"

    with pytest.raises(KeyboardInterrupt):
        play_many(TASKS, agent, HUMAN, threads=1, output=output)
    kept = read_rows(output, Trajectory)
    assert [row.task for row in kept][:2] == TASKS[:2]
    with output.open("a") as file:
        file.write('{"task": {"problem_desc')  # what a killed process leaves
    before, begun = len(calls), []
    results = play_many(TASKS, agent, HUMAN, threads=1, output=output, on_begin=lambda *counts: begun.append(counts))
    assert begun == [(len(kept), len(TASKS))]
    assert calls[before:] == [task.problem_description for task in TASKS if task not in [row.task for row in kept]]
    assert results == read_rows(output, Trajectory) == play_many(TASKS, agent, HUMAN, threads=1)


def test_an_episode_under_way_when_the_run_stops_is_kept(tmp_path):
    output, begun, stopped = tmp_path / "rows.jsonl", threading.Event(), threading.Event()
    tasks = [replace(TASKS[0], hidden_information="no fact"), TASKS[1]]

    def agent(messages):
        if messages[-1]["content"] == "Task b.":
            begun.set()
            stopped.wait(timeout=30)
            return "I WANT TO ANSWER: x"
        return "Which unit?"

    class Stopping:
        name, settings = "stopping", {}

        async def reply(self, request):
            await asyncio.to_thread(begun.wait, 30)
            stopped.set()
            return await HUMAN.reply(request)

    with pytest.raises(BadInput, match="a scripted human needs fact lines"):
        play_many(tasks, agent, Stopping(), threads=2, output=output)
    assert [row.task for row in read_rows(output, Trajectory)] == [TASKS[1]]


def test_failures_go_to_a_file_of_their_own_and_are_played_again(tmp_path):
    output, down = tmp_path / "rows.jsonl", {"Task b."}

    def agent(messages):
        return raise_(OSError("down")) if messages[1]["content"] in down else "I WANT TO ANSWER: x"

    play_many(TASKS, agent, HUMAN, output=output)
    assert [row.task for row in read_rows(output, Trajectory)] == [TASKS[0], *TASKS[2:]]
    records = [json.loads(line) for line in failures_file(output).read_text().splitlines()]
    assert [(record["by"], record["task_id"]) for record in records] == [("agent", TASKS[1].task_id)]
    down.clear()
    play_many(TASKS, agent, HUMAN, output=output)
    assert [row.task for row in read_rows(output, Trajectory)] == TASKS


@pytest.mark.parametrize(
    ("name", "expected"),
    [("rows.jsonl", "rows.failures.jsonl"), ("gpt-4.1", "gpt-4.1.failures.jsonl")],
)
def test_the_failures_of_two_files_never_share_one(tmp_path, name, expected):
    assert failures_file(tmp_path / name) == tmp_path / expected


def test_more_samples_are_added_to_a_file_and_two_equal_tasks_are_two(tmp_path):
    output, tasks, calls = tmp_path / "rows.jsonl", [TASKS[0], TASKS[0]], []

    def agent(messages):
        calls.append(1)
        return "I WANT TO ANSWER: x"

    play_many(tasks, agent, HUMAN, output=output)
    play_many(tasks, agent, HUMAN, output=output, samples=2)
    assert len(calls) == 4
    assert [row.extra["sample"] for row in read_rows(output, Trajectory)] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("tasks", "settings", "human", "message"),
    [
        (TASKS, Settings(seed=1), HUMAN, r"row 1 was played with \{'seed': 0\}, this run has \{'seed': 1\}"),
        (TASKS, Settings(agent_name="x"), HUMAN, r"row 1 was played with \{'agent': 'agent'\}, this run has"),
        (TASKS, Settings(max_turns=9), HUMAN, r"row 1 was played with \{'rules': \{'max_turns': 10,"),
        (TASKS, Settings(system=""), HUMAN, r"row 1 was played with \{'rules': "),
        (TASKS, Settings(), ScriptedSimulator({"unit": ("unit",)}), r"row 1 was played with \{'human': "),
        (TASKS[1:], Settings(), HUMAN, r"row 1 is sample 0 of task \w{12}, which this run does not play"),
    ],
    ids=["seed", "agent", "turns", "system prompt", "human", "tasks"],
)
def test_a_file_of_another_run_is_refused_and_left_as_it_is(tmp_path, tasks, settings, human, message):
    output = tmp_path / "rows.jsonl"
    play_many(TASKS, asks_then_answers, HUMAN, output=output)
    before = output.read_bytes()
    with pytest.raises(BadInput, match=message):
        play_many(tasks, asks_then_answers, human, settings, output=output)
    assert output.read_bytes() == before


def test_no_samples_and_no_threads_are_refused():
    with pytest.raises(BadInput, match="0 samples of each task in 1 threads"):
        play_many(TASKS, asks_then_answers, HUMAN, samples=0, threads=1)
    with pytest.raises(BadInput, match="1 samples of each task in 0 threads"):
        play_many(TASKS, asks_then_answers, HUMAN, threads=0)
