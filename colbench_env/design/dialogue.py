"""The protocol of the frontend benchmark: a page a turn, and the last one is the answer.

    OUTPUT:             what stands before it is the agent's thought, which is not looked at for a page
    I WANT TO ANSWER:   ends the episode

The user simulator opens with a description. The agent writes at most `max_turns` turns, each of which may hold one page
(`extract_html`); after each but the last the user simulator has looked at it rendered and says what should be changed.
"""

from dataclasses import dataclass

from colbench_env.design.html import extract_html
from colbench_env.dialogue import ANSWER_MARKER, FRONTEND_REPLY_LIMIT, OUTPUT_MARKER, Reading
from colbench_env.types import NO_ANSWER, Message


@dataclass(frozen=True)
class DesignRules:
    """Whatever ends the episode, the newest page is the answer."""

    human_limit: int = FRONTEND_REPLY_LIMIT
    name: str = "frontend"
    agent_prompt: str = "design_agent"

    def read(self, raw: str, before: tuple[Message, ...], last: bool) -> Reading:
        """As `Rules.read`."""
        shown = shown_design(raw)
        if not (last or ANSWER_MARKER in shown):
            return Reading(shown, None)
        return Reading(shown, extract_html(shown) or self.given_up(before))

    def given_up(self, history: tuple[Message, ...]) -> str:
        """Return the newest page in the dialogue, `No answer` where there is none."""
        pages = (extract_html(message.content) for message in reversed(history) if message.role == "assistant")
        return next((page for page in pages if page), NO_ANSWER)


def shown_design(raw: str) -> str:
    """Cut a turn to what the user simulator sees. An `OUTPUT:` that is a word of the page hides nothing.

    In: "Blue. OUTPUT: <html>Hi</html>"   Out: "<html>Hi</html>"
    """
    _, marker, rest = raw.partition(OUTPUT_MARKER)
    hides = bool(marker) and (extract_html(rest) is not None or extract_html(raw) is None)
    return rest.strip() if hides else raw
