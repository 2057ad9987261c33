"""Episodes with functions as agents: one, many, failing ones, stopped runs, and their grades."""

import asyncio
import json
import pickle
import threading
from dataclasses import replace

import pytest

from colbench_env.dialogue import BACKEND_REPLY_LIMIT, BackendRules
from colbench_env.episodes import EpisodeFailed, Settings, failures_file, grade_trajectories, play, play_many
from colbench_env.grading import Grade, TestVerdict
from colbench_env.humans import HumanRequest
from colbench_env.humans.chat import ChatHuman
from colbench_env.humans.scripted import ScriptedHuman
from colbench_env.tasks import read_rows
from colbench_env.types import BadInput, Message, Task, Trajectory, Verdict

TASKS = [Task(f"Task {name}.", "def f(x): return x", {"test1": "f(1)"}, "unit: Euros.") for name in "abcd"]
HUMAN = ScriptedHuman({"unit": ("unit",)}, ("I don't know.",))
NOW = Settings(retry_seconds=0.0)


def asks_then_answers(messages):
    """Asks for the unit, then answers with what it was told."""
    if messages[-1]["content"].startswith("Task "):
        return "Hm. OUTPUT: Which unit?"
    return f"I WANT TO ANSWER: # {messages[-1]['content']}"


class Human:
    """A human who does what `reply` does with a request and the number of the call (from 1)."""

    name, settings = "own", {}

    def __init__(self, reply):
        self.say, self.requests = reply, []

    async def reply(self, request):
        self.requests.append(request)
        return self.say(request, len(self.requests))


def raise_(problem):
    raise problem


def test_a_plain_function_plays_an_episode():
    settings = Settings(seed=3, agent_name="asker", system="Be brief.")
    assert play(TASKS[0], asks_then_answers, HUMAN, settings, sample=1) == Trajectory(
        TASKS[0],
        (
            Message("user", "Task a."),
            Message("assistant", "Which unit?", output="Hm. OUTPUT: Which unit?"),
            Message("user", "Euros."),
            Message("assistant", "I WANT TO ANSWER: # Euros.", output="I WANT TO ANSWER: # Euros."),
        ),
        "# Euros.",
        extra={
            "sample": 1,
            "seed": 3,
            "agent": "asker",
            "human": {"name": "scripted", "settings": dict(HUMAN.settings)},
            "rules": {
                "max_turns": 10,
                "benchmark": "backend",
                "human_limit": 400,
                "system": "213c22ed7234",
                "no_leaks": False,
            },
            "leaks": 0,
            "reasked": 0,
        },
    )


def test_the_agent_sees_the_system_prompt_and_its_own_thoughts_and_cannot_change_the_dialogue():
    seen = []

    def agent(messages):
        seen.append(json.loads(json.dumps(messages)))
        messages.clear()
        return "Hm. OUTPUT: Which unit?"

    play(TASKS[0], agent, HUMAN, Settings(max_turns=2, system="Be brief."))
    assert seen == [
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Task a."}],
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Task a."},
            {"role": "assistant", "content": "Hm. OUTPUT: Which unit?"},
            {"role": "user", "content": "Euros."},
        ],
    ]


@pytest.mark.parametrize(("system", "roles"), [(None, ["system", "user"]), ("", ["user"])])
def test_the_system_prompt_says_the_rules_unless_there_is_to_be_none(system, roles):
    settings = Settings(max_turns=7, system=system)
    messages = settings.agent_messages(settings.begin(TASKS[0]))
    assert [message["role"] for message in messages] == roles
    assert ("7 messages in all" in messages[0]["content"]) == (system is None)


def test_the_rules_reach_the_dialogue():
    talker = Human(lambda request, call: "x" * 1000)
    assert len(play(TASKS[0], asks_then_answers, talker).dialogue_history[2].content) == BACKEND_REPLY_LIMIT
    row = play(TASKS[0], lambda messages: "Go on.", talker, Settings(max_turns=3, rules=BackendRules(5)))
    assert [message.content for message in row.dialogue_history] == ["Task a.", *["Go on.", "xxxxx"] * 2, "Go on."]
    assert row.answer == "Go on."


def test_the_humans_seed_depends_on_seed_task_sample_and_turn_alone():
    def seeds(task, settings, sample=0):
        human = Human(lambda request, call: "Yes.")
        play(task, lambda messages: "Go on.", human, settings, sample)
        return [request.seed for request in human.requests]

    first = seeds(TASKS[0], Settings(max_turns=3))
    assert first == seeds(TASKS[0], Settings(max_turns=3)) == [1909969248, 3998686119]
    others = [seeds(TASKS[1], Settings(max_turns=3)), seeds(TASKS[0], Settings(max_turns=3, seed=1))]
    assert len({*first, *others[0], *others[1], *seeds(TASKS[0], Settings(max_turns=3), 1)}) == 8


@pytest.mark.parametrize(
    ("agent", "reason"),
    [
        (lambda messages: raise_(TimeoutError("no reply in 120 s")), "TimeoutError: no reply in 120 s"),
        (lambda messages: None, "returned NoneType, expected a string"),
    ],
)
def test_an_agent_that_fails_ends_its_episode_and_says_why(agent, reason):
    with pytest.raises(EpisodeFailed) as caught:
        play(TASKS[0], agent, HUMAN)
    assert str(caught.value) == f"task {TASKS[0].task_id}, sample 0, after 0 turns: the agent failed: {reason}"
    assert (caught.value.by, caught.value.episode.turns) == ("agent", 0)


def test_a_human_that_fails_is_asked_again_with_another_seed():
    human = Human(lambda request, call: "Euros." if call == 3 else raise_(OSError("busy")) if call == 1 else " ")
    row = play(TASKS[0], asks_then_answers, human, NOW)
    assert row.answer == "# Euros."
    first = human.requests[0].seed
    assert [request.seed - first for request in human.requests] == [0, 1, 2]


def test_the_pauses_between_attempts_grow(monkeypatch):
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    monkeypatch.setattr("colbench_env.episodes.asyncio.sleep", sleep)
    with pytest.raises(EpisodeFailed):
        play(TASKS[0], asks_then_answers, Human(lambda *_: raise_(OSError("busy"))), Settings(attempts=4))
    assert slept == [1.0, 2.0, 4.0]


def test_a_human_that_goes_on_failing_ends_the_episode_with_a_record_that_is_no_trajectory():
    with pytest.raises(EpisodeFailed) as caught:
        play(TASKS[0], asks_then_answers, Human(lambda *_: raise_(OSError("busy"))), NOW, sample=2)
    assert caught.value.to_json() == {
        "verdict": "infrastructure-error",
        "by": "human",
        "error": "OSError: busy (attempts: 3)",
        "task_id": TASKS[0].task_id,
        "sample": 2,
        "turns": 1,
        "messages": [
            {"role": "user", "content": "Task a."},
            {
                "role": "assistant",
                "content": "Which unit?",
                "input": None,
                "output": "Hm. OUTPUT: Which unit?",
            },
        ],
    }
    with pytest.raises(BadInput):
        Trajectory.from_json(caught.value.to_json(), "here")


def test_a_failure_keeps_a_short_reason_and_survives_another_process():
    failure = EpisodeFailed("human", NOW.begin(TASKS[0]), 1, "x" * 10_000)
    again = pickle.loads(pickle.dumps(failure))
    assert (again.by, again.episode, again.sample) == ("human", failure.episode, 1)
    assert again.reason == "x" * 499 + "…"


def test_bad_input_of_the_human_is_not_tried_again():
    human = Human(lambda *_: raise_(BadInput("no facts")))
    with pytest.raises(BadInput, match="no facts"):
        play(TASKS[0], asks_then_answers, human, NOW)
    assert len(human.requests) == 1


@pytest.mark.parametrize(
    "wrong", [{"max_turns": 0}, {"rules": BackendRules(0)}, {"attempts": 0}, {"retry_seconds": -1.0}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(BadInput, match="expected at least 1, 1, 1 and 0"):
        Settings(**wrong)
    with pytest.raises(BadInput, match="0 samples of each task in 1 threads"):
        play_many(TASKS, asks_then_answers, HUMAN, samples=0, threads=1)
    with pytest.raises(BadInput, match="1 samples of each task in 0 threads"):
        play_many(TASKS, asks_then_answers, HUMAN, threads=0)


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
    before = len(calls)
    results = play_many(TASKS, agent, HUMAN, threads=1, output=output)
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
        (TASKS, Settings(), ScriptedHuman({"unit": ("unit",)}), r"row 1 was played with \{'human': "),
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


class FakeGrader:
    """Gives the verdicts that the answers name: "pass wrong" is a test passed and one failed. What they got is "1"."""

    mode = "strict"

    def grade_many(self, items):
        return [
            Grade(tuple(TestVerdict(f"test{i}", Verdict(word), got="1") for i, word in enumerate(answer.split(), 1)))
            for _, answer in items
        ]


def test_grades_add_reward_and_verdicts_and_a_test_that_was_not_run_leaves_no_reward():
    row = play(TASKS[0], asks_then_answers, HUMAN)
    tests = [{"name": "test1", "got": "1"}, {"name": "test2", "got": "1"}]
    good, spoilt = replace(row, answer="pass wrong"), replace(row, answer="pass infrastructure-error")
    assert grade_trajectories([good, spoilt], FakeGrader()) == [
        replace(
            good,
            reward=0.5,
            extra={
                **row.extra,
                "grader": "strict",
                "verdicts": {"test1": "pass", "test2": "wrong"},
                "tests": tests,
            },  # fmt: skip
        ),
        replace(
            spoilt,
            reward=None,
            extra={
                **row.extra,
                "grader": "strict",
                "verdicts": {"test1": "pass", "test2": "infrastructure-error"},
                "tests": tests,
            },
        ),
    ]


def test_a_chat_human_is_told_its_part_and_its_words_are_trimmed():
    calls = []

    def chat(messages, seed):
        calls.append((messages, seed))
        return " Euros.\n"

    human = ChatHuman(chat, {"model": "m"})
    request = HumanRequest(TASKS[0], (Message("user", "Task a."), Message("assistant", "Which unit?")), 5)
    assert asyncio.run(human.reply(request)) == "Euros."
    ((message,), seed) = calls[0]
    assert (message["role"], seed) == ("user", 5)
    assert "unit: Euros." in message["content"] and "Programmer: Which unit?" in message["content"]
    assert (human.name, human.settings) == ("chat", {"prompt": "backend_human", "model": "m"})


@pytest.mark.parametrize("said", [None, " \n"])
def test_a_chat_human_without_words_has_failed(said):
    request = HumanRequest(TASKS[0], (Message("user", "Task a."), Message("assistant", "Which unit?")), 5)
    with pytest.raises(ValueError, match="expected some text"):
        asyncio.run(ChatHuman(lambda messages, seed: said).reply(request))
