"""The protocol of the frontend benchmark: a page a turn, and the last one is the answer.

The human opens with a description. The agent writes at most `max_turns` turns, each with a thought, `OUTPUT:` and one
HTML snippet; after each but the last the human has looked at the page and says what should be changed. An
`I WANT TO ANSWER:` ends the episode earlier.
"""

from dataclasses import dataclass

from colbench_env.design.html import extract_html
from colbench_env.dialogue import ANSWER_MARKER, FRONTEND_REPLY_LIMIT, Reading, shown_text
from colbench_env.types import NO_ANSWER, Message


@dataclass(frozen=True)
class DesignRules:
    """The human sees the page of a turn, or its text where it has none; what was shown last is the answer."""

    human_limit: int = FRONTEND_REPLY_LIMIT
    name: str = "frontend"

    def read(self, raw: str, before: tuple[Message, ...], last: bool) -> Reading:
        """The page that the turn shows, and as the answer, where the turn ends the episode, the newest page."""
        page, ends = extract_html(shown_text(raw)) or extract_html(raw), last or ANSWER_MARKER in raw
        shown = shown_text(raw) if page is None else page
        return Reading(shown, (page or self.given_up(before)) if ends else None)

    def given_up(self, history: tuple[Message, ...]) -> str:
        """The newest page in the dialogue, `No answer` where there is none."""
        pages = (extract_html(message.content) for message in reversed(history) if message.role == "assistant")
        return next((page for page in pages if page), NO_ANSWER)
