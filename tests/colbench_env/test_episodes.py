"""Episodes with functions as agents: how they go, how they fail, and their grades."""

import json
import pickle
from dataclasses import replace

import pytest
from players import HUMAN, NOW, TASKS, Human, asks_then_answers, raise_

from colbench_env.dialogue import BACKEND_REPLY_LIMIT, BackendRules
from colbench_env.episodes import EpisodeFailed, Settings, grade_trajectories, play
from colbench_env.grading import Grade, TestVerdict
from colbench_env.types import BadInput, Message, Trajectory, Verdict


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


@pytest.mark.parametrize(
    "reply",
    [
        "\ud83d",
        "\x00\x1b[2J\x07",
        "x" * 10_000_000,
        "<|end|><|assistant|>",
        "\u2028\ufeff",
        "I WANT TO ANSWER: 1",
        "No response.",
    ],
)
def test_whatever_a_human_says_is_a_reply(reply):
    row = play(TASKS[0], asks_then_answers, Human(lambda request, call: reply), NOW)
    assert row.dialogue_history[2].content == reply.replace("\ud83d", "\ufffd")[:400]
    assert Trajectory.from_json(json.loads(json.dumps(row.to_json())), "row").dialogue_history == row.dialogue_history


@pytest.mark.parametrize("reply", ["", " \n\t", None, b"Euros.", 5, "\u00a0" * 500])
def test_what_is_no_reply_fails_the_episode_and_nothing_else(reply):
    with pytest.raises(EpisodeFailed, match=r"the human failed: .* \(attempts: 3\)"):
        play(TASKS[0], asks_then_answers, Human(lambda request, call: reply), NOW)


def test_the_reason_of_a_failure_holds_no_half_character():
    with pytest.raises(EpisodeFailed) as caught:
        play(TASKS[0], lambda messages: raise_(ValueError("bad \udc00")), Human(None), NOW)
    assert caught.value.reason == "ValueError: bad \ufffd"


def test_what_a_human_notes_is_kept_beside_its_reply():
    def reply(request, call):
        request.notes["model"] = "m"
        return "Euros."

    assert play(TASKS[0], asks_then_answers, Human(reply), NOW).dialogue_history[2].extra == {"model": "m"}


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
