"""A user simulator: someone who has time for two questions and then wants to see code.

    python -m launch.train --plugin=examples/plugins/my_user.py

An asynchronous `reply` may ask a model or a service; `request.task` has the reference solution, `request.messages` the
dialogue, and `request.seed` alone may decide what is random.
"""

from colbench_env.humans import SimulatorRequest
from colbench_env.humans.rules import RulesSimulator
from sweet_jax.plugins import Plugin

PATIENCE = 2


class Hurried:
    """Answers from the reference solution, as long as there is time."""

    name = "hurried"
    settings = {"patience": PATIENCE}  # what the replies depend on, kept in every row

    def __init__(self) -> None:
        self.knows = RulesSimulator()

    async def reply(self, request: SimulatorRequest) -> str:
        """Reply to the agent's last turn."""
        questions = sum(message.role == "assistant" for message in request.messages)
        if questions > PATIENCE:
            return "I have told you enough, please write the function now."
        return await self.knows.reply(request)


plugin = Plugin(user_simulator=Hurried)
