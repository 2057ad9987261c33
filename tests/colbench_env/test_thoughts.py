"""What a reasoning model thinks aloud is no part of a user simulator's reply."""

import asyncio
import time
from dataclasses import replace

import pytest

from colbench_env.dialogue import Episode
from colbench_env.episodes import EpisodeFailed, play, user_turn_async
from colbench_env.humans.chat import ChatSimulator
from colbench_env.simulator_health import simulator_health
from colbench_env.thoughts import Spoken, UnfinishedThought, opened_thought, without_thoughts
from tests.colbench_env.players import NOW, TASKS, Human, asks_then_answers


@pytest.mark.parametrize(
    "reply",
    [
        "<think>They want it down.</think>Round down.",
        "<think>\nint(x * 0.9)\n</think>\n\nRound down.\n",
        "  \n< Think >a</ THINK >  Round down.",
        "<thinking>a</thinking> Round down.",
        "<reasoning>a</reasoning>\nRound down.",
        '<think type="long">a</think>Round down.',
        "<seed:think>a</seed:think>Round down.",
        "◁think▷a◁/think▷Round down.",
        "[THINK]a[/THINK]Round down.",
        "<|channel|>analysis<|message|>a<|channel|>final<|message|>Round down.",
    ],
)
def test_a_closed_thought_before_the_reply_is_taken_out_however_it_is_spelled(reply):
    assert without_thoughts(reply) == Spoken("Round down.", 1)


@pytest.mark.parametrize(
    ("reply", "thoughts"),
    [
        ("They want it down.</think>Round down.", 1),  # the prompt had opened it
        ("<think>a</think>\n<think>b</think> Round down.", 2),
        ("<think>a <think>b</think> c</think> Round down.", 2),
        ("<think>I must not write <think> again.</think> Round down.", 1),
        ("Hm. <think>a</think>Round down.", 1),
    ],
)
def test_thoughts_may_be_several_nested_or_opened_elsewhere(reply, thoughts):
    spoken = without_thoughts(reply)
    assert (spoken.text.removeprefix("Hm. "), spoken.thoughts) == ("Round down.", thoughts)


@pytest.mark.parametrize(
    "reply",
    ["<think>They ask", "  <think>", "<think>a</think> <think>and then", "◁think▷a", "Human: <think>They ask"],
)
def test_a_thought_that_never_ends_is_no_reply(reply):
    with pytest.raises(UnfinishedThought, match="does not end"):
        without_thoughts(reply)


@pytest.mark.parametrize(
    "reply",
    [
        "Round down. ",
        "I see a <think> on my page.",
        "Take out `<think>` and `</think>`.",
        "I think so.",
        "",
        "2 < 3 > 1",
    ],
)
def test_a_reply_that_thinks_nothing_is_left_as_it_is(reply):
    assert without_thoughts(reply) == Spoken(reply, 0)


@pytest.mark.parametrize("piece", ["<", "<think>", "</think>", "<think></think>", " ", "< ", "[", "a:", "<a:", "\x00"])
def test_a_long_text_of_anything_takes_less_than_a_second(piece):
    started = time.process_time()
    try:
        without_thoughts(piece * (300_000 // len(piece)))
    except UnfinishedThought:
        pass
    assert time.process_time() - started < 1.0


def test_the_mark_with_which_a_prompt_opens_a_thought_is_known():
    assert opened_thought("<|user|>Hi<|assistant|><think>\n") == "<think>"
    assert opened_thought("<|assistant|><think>a</think>") == ""
    assert opened_thought("<think> is a word<|assistant|>") == ""


def asked(reply, settings=NOW):
    episode = Episode(TASKS[0]).step_agent("Which unit?")
    return asyncio.run(user_turn_async(episode, Human(reply), settings, 0)).history[-1]


def test_the_row_of_a_human_that_thinks_aloud_counts_it():
    message = asked(lambda request, call: "<think>So.</think>Euros." if call > 2 else "<think>Well, " + "hm " * 200)
    assert (message.content, message.extra) == ("Euros.", {"thoughts": 1, "unfinished_thoughts": 2})
    row = play(TASKS[0], asks_then_answers, Human(lambda request, call: "<think>So.</think>Euros."), NOW)
    assert (row.extra["thoughts"], "unfinished_thoughts" in row.extra) == (1, False)
    found = simulator_health([row])
    assert (found.thoughts_removed, found.thoughts_unfinished, found.thoughts_shown) == (1, 0, 0)


def test_a_human_that_only_thinks_has_failed_and_so_has_one_that_says_nothing_after_it():
    for reply in ("<think>They ask for the unit", "<think>They ask.</think> \n", "They ask.</think>"):
        with pytest.raises(EpisodeFailed, match=r"the human failed: .* \(attempts: 3\)"):
            asked(lambda request, call, reply=reply: reply)


def test_a_function_in_the_humans_place_may_think_aloud_too():
    human = ChatSimulator(lambda messages, seed: "So.</think>Euros.")
    episode = Episode(TASKS[0]).step_agent("Which unit?")
    assert asyncio.run(user_turn_async(episode, human, NOW, 0)).history[-1].content == "Euros."


def test_an_agents_thoughts_are_its_own():
    row = play(TASKS[0], lambda messages: "<think>a</think>I WANT TO ANSWER: 1", Human(None), NOW)
    assert row.agent_turns[0].content == "<think>a</think>I WANT TO ANSWER: 1"


def test_thoughts_in_the_rows_of_other_tools_are_counted():
    row = play(TASKS[0], asks_then_answers, Human(lambda request, call: "Euros."), NOW)
    opening, question, reply, answer = row.dialogue_history
    shown = replace(row, dialogue_history=(opening, question, replace(reply, content="<think>Well"), answer))
    assert simulator_health([row, shown]).thoughts_shown == 1
