"""A user simulator played by a model that sees: two pictures, of the agent's page and of the wanted one, go to an
endpoint."""

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from colbench_env.design.html import extract_html
from colbench_env.humans import SimulatorRequest
from colbench_env.humans.design import Renders, not_shown, wanted_page
from colbench_env.prompts import DESIGN_HUMAN, Prompt


class Completes(Protocol):
    """Whatever answers chat messages that may hold pictures; an `Endpoint`."""

    settings: Any

    async def complete(self, messages: Any, seed: int) -> str: ...

    def parameters(self, seed: int) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class VisionSimulator:
    """Asks `endpoint` with `prompt` filled in and two screenshots: of the agent's last page, and of the reference.

    A turn without a page, or whose page does not show, is answered without the model, as `DesignSimulator` does.
    """

    endpoint: Completes
    renderer: Renders
    prompt: Prompt = field(default=DESIGN_HUMAN)

    @property
    def name(self) -> str:
        """The name of this kind of user simulator: `openai`."""
        return "openai"

    @property
    def settings(self) -> Mapping[str, Any]:
        """The prompt, the model and how it is sampled."""
        return {"prompt": self.prompt.name, "looks": "at both pages", **self.endpoint.settings.in_rows}

    async def reply(self, request: SimulatorRequest) -> str:
        """One reply; `sent` is noted, with what parameters. Raises as `Endpoint.complete` and `wanted_page`."""
        html = extract_html(request.question)
        if html is None:
            return not_shown(None, request.seed)
        page, reference = await asyncio.gather(self.renderer.render(html), wanted_page(self.renderer, request.task))
        if page.problem is not None:
            return not_shown(page, request.seed)
        content = [
            {"type": "text", "text": self._prompt_text(request)},
            *({"type": "image_url", "image_url": {"url": data_url(side.png)}} for side in (page, reference)),
        ]
        reply = await self.endpoint.complete([{"role": "user", "content": content}], request.seed)
        request.notes["sent"] = dict(self.endpoint.parameters(request.seed))
        return reply

    def _prompt_text(self, request: SimulatorRequest) -> str:
        speakers = {"user": "You", "assistant": "Designer"}
        lines = [f"{speakers[message.role]}: {_without_page(message.content)}" for message in request.messages]
        dialogue = "\n".join(lines)
        return self.prompt.fill(
            {
                "problem_description": request.task.problem_description,
                "dialogue": dialogue,
                "dialogue_history": dialogue,
            }
        )


def data_url(png: bytes) -> str:
    """Encode the picture as a URL that holds it."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _without_page(text: str) -> str:
    """Remove the source of a page, which a client does not see, from what was said."""
    page = extract_html(text)
    return text if page is None else text.replace(page, "[a page]")
