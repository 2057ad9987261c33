"""Small pictures of pages for the HTML reports: a screenshot becomes a data URL of a few kilobytes.

A page of 1,000 episodes has to stay under 60 MB. A data URL is a third longer than its picture, so an episode has about
40 kB of pictures: two of 12 kB, its answer and the reference, and nine of 1.5 kB, the turns before the answer.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from colbench_env.types import BadInput

TYPES = ("png", "jpeg", "webp")


@dataclass(frozen=True)
class Size:
    """The most that a picture may have. Pages are scaled to the width; what lies below the height is cut off."""

    width: int
    height: int
    bytes: int


PAGE, TURN = Size(320, 480, 12_000), Size(120, 160, 1_500)


@dataclass(frozen=True)
class Images:
    """Pictures of an episode as data URLs, None where there is none. answer: the page that is graded. reference: the
    page it is compared with, which is training-time information. similarity: of the two, 1 at most. turns: the page
    after each agent turn, empty where not recorded."""

    answer: str | None = None
    reference: str | None = None
    similarity: float | None = None
    turns: tuple[str | None, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the value of a row's key `images`."""
        return asdict(self)


def images_of_pages(
    answer: bytes | None, reference: bytes | None, similarity: float | None, turns: Sequence[bytes | None] = ()
) -> Images:
    """Make the pictures of screenshots. Raises BadInput for what is no picture."""
    return Images(
        None if answer is None else thumbnail(answer, PAGE, "the answer's page"),
        None if reference is None else thumbnail(reference, PAGE, "the reference's page"),
        similarity,
        tuple(None if turn is None else thumbnail(turn, TURN, "a turn's page") for turn in turns),
    )


def images_of(data: Any, location: str) -> Images:
    """Read the pictures of a row's key `images`, and make smaller what is too large. Raises BadInput."""
    if not isinstance(data, Mapping):
        raise BadInput(f"{location}: 'images' is no object, expected answer, reference, similarity and turns")
    turns, similarity = data.get("turns") or [], data.get("similarity")
    if not isinstance(turns, list | tuple):
        raise BadInput(f"{location}: 'images': 'turns' is no list, expected a data URL or null for each agent turn")
    number = isinstance(similarity, int | float) and math.isfinite(similarity)
    if similarity is not None and not number:
        raise BadInput(f"{location}: 'images': 'similarity' is {str(similarity)[:60]!r}, expected a number")
    return Images(
        _small(data.get("answer"), PAGE, f"{location}: 'images': 'answer'"),
        _small(data.get("reference"), PAGE, f"{location}: 'images': 'reference'"),
        similarity,
        tuple(_small(turn, TURN, f"{location}: 'images': turn {n}") for n, turn in enumerate(turns, start=1)),
    )


def thumbnail(picture: bytes, size: Size, what: str) -> str:
    """Encode the picture as a data URL of WebP of at most `size`. Raises BadInput, in which `what` names it."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise BadInput(f"{what}: pictures need Pillow, expected it installed: pip install -e '.[frontend]'") from None
    try:
        with Image.open(io.BytesIO(picture), formats=[name.upper() for name in TYPES]) as whole:
            found = whole.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise BadInput(f"{what} is no picture that can be read ({reason}), expected PNG, JPEG or WebP") from None
    width, height = size.width, size.height
    while True:
        scale = min(width / found.width, 1.0)
        whole_height = max(round(found.height * scale), 1)
        small = found.resize((max(round(found.width * scale), 1), whole_height), Image.Resampling.LANCZOS)
        small = small.crop((0, 0, small.width, min(whole_height, height)))
        for quality in (75, 50, 25, 5):
            written = io.BytesIO()
            small.save(written, "WEBP", quality=quality, method=4)
            if written.tell() <= size.bytes:
                return "data:image/webp;base64," + base64.b64encode(written.getvalue()).decode()
        width, height = width // 2, height // 2


def _small(url: Any, size: Size, what: str) -> str | None:
    """Return the data URL where it is small enough, else one that is. Raises BadInput."""
    if url is None:
        return None
    heads = [f"data:image/{name};base64," for name in TYPES]
    head = next((one for one in heads if isinstance(url, str) and url.startswith(one)), None)
    if head is None:
        raise BadInput(f"{what} is no data URL of a PNG, JPEG or WebP in base64")
    try:
        picture = base64.b64decode(url[len(head) :], validate=True)
    except binascii.Error as error:
        raise BadInput(f"{what} is no base64 ({error})") from None
    return url if len(picture) <= size.bytes else thumbnail(picture, size, what)
