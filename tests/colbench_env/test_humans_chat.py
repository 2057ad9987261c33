"""A user simulator whose words come from a function of chat messages."""

import asyncio

import pytest
from players import TASKS

from colbench_env.humans import SimulatorRequest
from colbench_env.humans.chat import ChatSimulator
from colbench_env.types import Message


def test_a_chat_human_is_told_its_part_and_its_words_are_trimmed():
    calls = []

    def chat(messages, seed):
        calls.append((messages, seed))
        return " Euros.\n"

    human = ChatSimulator(chat, {"model": "m"})
    request = SimulatorRequest(TASKS[0], (Message("user", "Task a."), Message("assistant", "Which unit?")), 5)
    assert asyncio.run(human.reply(request)) == "Euros."
    ((message,), seed) = calls[0]
    assert (message["role"], seed) == ("user", 5)
    assert "unit: Euros." in message["content"] and "Programmer: Which unit?" in message["content"]
    assert (human.name, human.settings) == ("chat", {"prompt": "backend_human", "model": "m"})


@pytest.mark.parametrize("said", [None, " \n"])
def test_a_chat_human_without_words_has_failed(said):
    request = SimulatorRequest(TASKS[0], (Message("user", "Task a."), Message("assistant", "Which unit?")), 5)
    with pytest.raises(ValueError, match="expected some text"):
        asyncio.run(ChatSimulator(lambda messages, seed: said).reply(request))
