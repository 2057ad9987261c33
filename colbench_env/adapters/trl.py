"""ColBench for TRL's `GRPOTrainer(environment_factory=...)`: the model calls the tools ask_user and submit.

    trainer = GRPOTrainer(model, train_dataset=dataset, environment_factory=lambda: ColBench(source))

with `dataset = Dataset.from_list(rows(source, "train"))`. TRL itself is not imported here.
"""

from typing import Any

from colbench_env.adapters import Session, Spoilt
from colbench_env.dialogue import ANSWER_MARKER
from colbench_env.source import Source

SYSTEM = (
    "You write Python functions for a client, who leaves out details that decide what the function returns. Ask for "
    "them with ask_user, one short plain question at a time, before you write code. Then call submit once, with the "
    "complete function."
)
PAGE_SYSTEM = (
    "You write web pages for a client. Show a page with ask_user, and the client says what should be different. Then "
    "call submit once, with the whole page from <html> to </html>."
)


def rows(source: Source, split: str) -> list[dict[str, Any]]:
    """Make the rows of a dataset: the prompt, whose last message `reset` completes, and which task it is."""
    system = SYSTEM if source.benchmark == "backend" else PAGE_SYSTEM
    prompt = [{"role": "system", "content": system}, {"role": "user", "content": ""}]
    return [{"prompt": prompt, "split": split, "index": index} for index in range(len(source.tasks_of(split)))]


class ColBench:
    """One episode; its public methods but `reset` and `get_reward` are tools."""

    def __init__(self, source: Source | None = None):
        self._session = Session(source or Source())
        self._spoilt = False

    def reset(self, split: str = "", index: int | None = None, seed: int | None = None, **_: Any) -> str:
        """Begin the episode of a row and return what the user says, which TRL puts behind the prompt."""
        self._spoilt = False
        return self._session.begin(split, index, seed)

    def ask_user(self, question: str) -> str:
        """Ask the client a question and read the reply.

        Args:
            question: One short plain question about a missing detail.

        Returns:
            The client's reply.
        """
        return self._say(question) or "The dialogue is over."

    def submit(self, answer: str) -> str:
        """Hand in the finished work. This ends the dialogue.

        Args:
            answer: The complete code.

        Returns:
            A confirmation.
        """
        self._say(f"{ANSWER_MARKER}\n{answer}")
        return "Submitted."

    def get_reward(self) -> float | None:
        """Return the share of hidden tests passed, 0.0 where nothing was submitted; None, which TRL leaves out, where
        the machine failed."""
        return None if self._spoilt else self._session.reward or 0.0

    def _say(self, text: str) -> str:
        try:
            return self._session.step(text)
        except Spoilt:
            self._spoilt = True
            raise
