"""The rules of an episode of frontend design.

    OUTPUT:             what stands before it is the agent's thought, which is not looked at for a page
    I WANT TO ANSWER:   ends the episode

Each turn may hold one page (`extract_html`), which the human sees rendered. The answer is the last page that the agent
wrote, in whichever turn; an episode without a page has the answer `No answer`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from colbench_env.design.html import extract_html
from colbench_env.dialogue import ANSWER_MARKER, FRONTEND_REPLY_LIMIT, OUTPUT_MARKER, Episode
from colbench_env.types import NO_ANSWER, Task


@dataclass(frozen=True)
class DesignRules:
    """The rules of frontend design; to be given to an `Episode`."""

    def shown(self, raw: str) -> str:
        """The turn without the thought. An `OUTPUT:` that is a word of the page hides nothing."""
        _, marker, rest = raw.partition(OUTPUT_MARKER)
        hides = bool(marker) and (extract_html(rest) is not None or extract_html(raw) is None)
        return rest.strip() if hides else raw

    def ends(self, raw: str) -> bool:
        """Whether the marker stands in what the human sees."""
        return ANSWER_MARKER in self.shown(raw)

    def answer(self, raws: Sequence[str]) -> str:
        """The last page of all turns, or `No answer`."""
        pages = (extract_html(self.shown(raw)) for raw in reversed(raws))
        return next((page for page in pages if page is not None), NO_ANSWER)

    def unfinished_answer(self, raws: Sequence[str]) -> str:
        """The last page so far: the agent answers with every page."""
        return self.answer(raws)


def begin(task: Task, max_turns: int, human_limit: int = FRONTEND_REPLY_LIMIT) -> Episode:
    """The episode of frontend design about a task, before the agent's first turn."""
    return Episode(task, max_turns, human_limit, rules=DesignRules())
