"""What an HTML text became in the browser: its picture, and the boxes that are to be seen on it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Block:
    """One visible element that has text of its own, an image, a control, or a painted background or border.

    Lengths are CSS pixels, `x` and `y` from the page's top left; colours are `#rrggbb`. `text` is the element's own
    text with white space collapsed, "" for none. `background` is the nearest painted one at or above the element.
    `path` tells where in the tree it is: `body>main>section[2]>h2`.
    """

    tag: str
    text: str
    x: float
    y: float
    width: float
    height: float
    colour: str
    background: str
    font_size: float
    bold: bool
    path: str


@dataclass(frozen=True)
class Page:
    """A rendered page: a PNG of all of it, its size in pixels, and its blocks in document order.

    `refused` counts the requests that were refused. `missing_sheets` are the URLs of stylesheets that the page asked
    for and did not get, so that it is seen without them. `problem` is None where all is well; else one sentence, `png`
    is the white picture of the viewport's size and `blocks` is empty.
    """

    png: bytes
    width: int
    height: int
    blocks: tuple[Block, ...]
    refused: int
    problem: str | None = None
    missing_sheets: tuple[str, ...] = ()
