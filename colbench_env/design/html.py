"""Finds the page in what an agent has written."""

import re

_CLOSE = re.compile(r"</html\s*>", re.IGNORECASE)
_TAG = re.compile(r"<(/?)html\b[^>]*>?", re.IGNORECASE)
_LATE_OPEN = re.compile(r"<(?:!doctype\s+html|head\b|body\b)", re.IGNORECASE)
_FENCE = re.compile(r"^[ \t]*```", re.MULTILINE)


def extract_html(text: str) -> str | None:
    """The last page in a text, from `<html` to the `</html>` that belongs to it; None where there is none.

    A page within a page (an iframe's `srcdoc`) is part of the outer one. A page that was cut off goes to the end of the
    text, or of its code fence. Where there is no `<html` at all, a page may begin with its doctype, head or body.

    In: "Here: ```html\\n<html><p>Hi</p></html>\\n``` Good?"   Out: "<html><p>Hi</p></html>"
    """
    pages, start, depth = [], None, 0
    for tag in _TAG.finditer(text):
        if not tag[1]:
            start, depth = (tag.start() if depth == 0 else start), depth + 1
        elif depth:
            depth -= 1
            if depth == 0:
                pages.append(text[start : tag.end()])
    if depth:  # the last one was cut off, or has lost one of its ends
        ends = [close.end() for close in _CLOSE.finditer(text, start)]
        pages.append(text[start : ends[-1]] if ends else _until_fence(text[start:]))
    if not pages and (late := _LATE_OPEN.search(text)):
        pages.append(_until_fence(text[late.start() :]))
    return pages[-1].strip() if pages else None


def _until_fence(text: str) -> str:
    fence = _FENCE.search(text)
    return text[: fence.start()] if fence else text
