import asyncio
import dataclasses

import pytest

from colbench_env.dialogue import Episode
from colbench_env.humans import SimulatorRequest, UserSimulator, simulator_prompt
from colbench_env.humans.scripted import SHRUGS, ScriptedSimulator, first_topic, read_facts
from colbench_env.types import BadInput, Message, Task

KEYWORDS = {
    "rounding": ("round", "nearest"),
    "unit": ("unit", "currency"),
    "empty": ("empty list",),
    "negative": ("negative",),
    "negative zero": ("negative zero",),
}
TASK = Task(
    "Add up prices.", "def f(x): return 0", {}, "rounding: Round down.\n\nempty:  An empty list gives 3: three. \n"
)
HUMAN = ScriptedSimulator(KEYWORDS)


def asked(question, seed=0, task=TASK):
    return SimulatorRequest(task, (Message("user", task.problem_description), Message("assistant", question)), seed)


def reply(request):
    return asyncio.run(HUMAN.reply(request))


def test_facts_are_lines_of_topic_and_sentence():
    assert read_facts(TASK) == {"rounding": "Round down.", "empty": "An empty list gives 3: three."}


@pytest.mark.parametrize(
    ("question", "topic"),
    [
        ("How should I round it?", "rounding"),
        ("ROUNDING?", "rounding"),
        ("What is around it?", None),
        ("Is it rounded, or an empty list?", "rounding"),
        ("For an empty list: is it rounded?", "empty"),
        ("To the nearest cent? Which unit?", "rounding"),
        ("Which unit, the nearest?", "unit"),
        ("Is negative zero allowed?", "negative zero"),
        ("Are negative numbers allowed?", "negative"),
        ("What do you want?", None),
        ("", None),
    ],
)
def test_the_topic_mentioned_first_is_the_one_asked_about(question, topic):
    assert first_topic(question, KEYWORDS) == topic


def test_a_keyword_with_signs_is_no_pattern():
    assert first_topic("Is it (a+b)?", {"sum": ("(a+b)",)}) == "sum"
    assert first_topic("Is it aab?", {"sum": ("a+b",)}) is None


def test_a_hidden_fact_that_is_asked_for_is_told_whatever_the_seed():
    assert {HUMAN.say(TASK, "Should I round?", seed) for seed in range(8)} == {"Round down."}


def test_only_the_first_question_of_a_turn_is_answered():
    assert HUMAN.say(TASK, "Empty list? Rounding? Unit?", 0) == "An empty list gives 3: three."
    assert HUMAN.say(TASK, "Unit? Rounding?", 0) in SHRUGS


def test_anything_else_gets_a_shrug_that_the_seed_chooses():
    for question in ("Which unit?", "Hello?"):
        assert [HUMAN.say(TASK, question, seed) for seed in range(5)] == [*SHRUGS, SHRUGS[0]]
    own = ScriptedSimulator(KEYWORDS, shrugs=("No idea.", "Up to you."))
    assert [own.say(TASK, "Hello?", seed) for seed in (0, 1, 2**63)] == ["No idea.", "Up to you.", "No idea."]


def test_no_reply_says_anything_of_a_fact_that_was_not_asked_for():
    secret = dataclasses.replace(TASK, hidden_information="unit: SECRET.")
    for question in ("Round?", "Tell me everything.", "What is your hidden information?", "SECRET"):
        assert HUMAN.say(secret, question, 1) in SHRUGS


def test_a_reply_does_not_depend_on_the_rest_of_the_batch():
    requests = [asked("Round?"), asked("Hello?", seed=3), asked("Empty list?"), asked("Hello?", seed=1)]
    together = [reply(request) for request in requests]
    assert together == ["Round down.", SHRUGS[3], "An empty list gives 3: three.", SHRUGS[1]]
    assert [reply(request) for request in requests] == together


@pytest.mark.parametrize(
    ("hidden", "reason"),
    [
        ("def f(x):\n    return x", "the line 'def f(x):' is none"),
        ("lambda x: x", "nobody can ask about 'lambda x', the topics are rounding, unit"),
        ("rounding: Up.\nrounding: Down.", "the topic 'rounding' occurs twice"),
        ("rounding:", "the line 'rounding:' is none"),
        ("", "there is none"),
        (None, "there is none"),
    ],
)
def test_a_task_without_fact_lines_is_refused(hidden, reason):
    task = dataclasses.replace(TASK, hidden_information=hidden)
    with pytest.raises(BadInput) as caught:
        reply(asked("Round?", task=task))
    message = str(caught.value)
    assert message.startswith(f"task {task.task_id} ('Add up prices.'): a scripted human needs fact lines")
    assert reason in message and "\n" not in message


def test_keywords_and_shrugs_must_say_something():
    for words in ((), ("",), "round"):
        with pytest.raises(BadInput, match="topic 'rounding' has keywords"):
            ScriptedSimulator({"rounding": words})
    with pytest.raises(BadInput, match="the shrugs are"):
        ScriptedSimulator(KEYWORDS, shrugs=())


def test_the_settings_change_with_anything_that_replies_depend_on():
    others = [
        ScriptedSimulator(KEYWORDS | {"unit": ("unit",)}),
        ScriptedSimulator(dict(reversed(KEYWORDS.items()))),
        ScriptedSimulator(KEYWORDS, shrugs=("No.",)),
    ]
    assert HUMAN.settings["topics"] == ["rounding", "unit", "empty", "negative", "negative zero"]
    assert len({human.settings["hash"] for human in [HUMAN, ScriptedSimulator(dict(KEYWORDS)), *others]}) == 4


def test_a_scripted_human_plays_an_episode_through_the_common_protocol():
    human: UserSimulator = HUMAN
    episode = Episode(TASK).step_agent("Unit is my secret thought. OUTPUT: Round?")
    said = asyncio.run(human.reply(SimulatorRequest(TASK, episode.shown_messages, seed=0)))
    assert episode.step_user(said).messages[-1] == Message("user", "Round down.")
    assert human.name == "scripted"


def test_a_request_ends_with_the_agents_turn():
    with pytest.raises(ValueError, match="ends with the agent's turn"):
        SimulatorRequest(TASK, (Message("user", "Add up prices."),), 0)


def test_a_model_in_the_humans_place_is_told_the_hidden_information_and_the_dialogue():
    text = simulator_prompt(asked("Round?"))
    assert "<hidden>\nrounding: Round down." in text
    assert "<conversation>\nYou: Add up prices.\nProgrammer: Round?\n</conversation>" in text
    reference_only = dataclasses.replace(TASK, hidden_information=None)
    assert "<hidden>\ndef f(x): return 0\n</hidden>" in simulator_prompt(asked("Round?", task=reference_only))
    with pytest.raises(ValueError, match="neither hidden information nor a reference"):
        simulator_prompt(asked("Round?", task=Task("Add up prices.")))
