"""What a page gets for what it asks for: the stylesheet, a placeholder, or a refusal."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from colbench_env.design.placeholders import placeholder

PAGE = "http://page.invalid/"


@dataclass(frozen=True)
class Answer:
    """A response: its body and the body's type."""

    body: bytes
    content_type: str


def spelling(url: str) -> str:
    """The URL without scheme, query and fragment, by which a stylesheet is known."""
    parts = urlsplit(url)
    return f"{parts.hostname}{parts.path}"


def picture(url: str) -> Answer | None:
    """A placeholder for the URL, or None where it asks for no picture of a known host."""
    found = placeholder(url)
    return found and Answer(found.svg().encode(), "image/svg+xml")
