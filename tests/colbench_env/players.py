"""Tasks, agents and humans for the tests of episodes."""

from colbench_env.episodes import Settings
from colbench_env.humans.scripted import ScriptedSimulator
from colbench_env.types import Task

TASKS = [Task(f"Task {name}.", "def f(x): return x", {"test1": "f(1)"}, "unit: Euros.") for name in "abcd"]
HUMAN = ScriptedSimulator({"unit": ("unit",)}, ("I don't know.",))
NOW = Settings(retry_seconds=0.0)


def asks_then_answers(messages):
    """Asks for the unit, then answers with what it was told."""
    if messages[-1]["content"].startswith("Task "):
        return "Hm. OUTPUT: Which unit?"
    return f"I WANT TO ANSWER: # {messages[-1]['content']}"


class Human:
    """A user simulator who does what `reply` does with a request and the number of the call (from 1)."""

    name, settings = "own", {}

    def __init__(self, reply):
        self.say, self.requests = reply, []

    async def reply(self, request):
        self.requests.append(request)
        return self.say(request, len(self.requests))


def raise_(problem):
    raise problem
