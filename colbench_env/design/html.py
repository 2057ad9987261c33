"""The page in an agent's turn.

As in the released benchmark a turn holds one page: the first `<html>...</html>`, or without one the first
`<body>...</body>`; a doctype before it is not part of it. Where the released code looks for the next `</html>` in the
text, the tags are counted here: one in a script, a comment, an attribute or a page within the page ends nothing. And a
page whose end is missing goes on to the end of its fence or of the text, where the released code sees no page.

Texts are long and hostile: every pattern and loop takes time linear in the text.
"""

import re
from collections.abc import Iterator
from itertools import islice

MAX_OPENINGS = 5  # of one tag in a text, that are followed to their ends

_FENCE = re.compile(r"^[ \t]*(`{3,}+|~{3,}+)([^\n`]*)$", re.MULTILINE)
_MARKUP = re.compile(r"<(?:!--|/?[a-zA-Z]|[!?/])")
_TAG = re.compile(  # an attribute's value between quotes may hold a ">"; quotes anywhere else are characters
    r"<(/?)([a-zA-Z][^\s/>]*+)(?:[^\s/>=]++|[\s/]++|=\s*+(?:\"[^\"]*+\"|'[^']*+')?+)*+>"
)
_COMMENT_END, _CLOSING = re.compile(r"--!?>"), re.compile(">")
_TEXT_ELEMENTS = ("script", "style", "textarea", "title")  # in which no other tag is one
_TEXT_END = {name: re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE) for name in _TEXT_ELEMENTS}


def extract_html(text: str) -> str | None:
    """Extract the page from an agent's text, None where there is none.

    In: "An <html> page:\\n```html\\n<html><p>Hi</html>\\n```\\nAll right?"   Out: "<html><p>Hi</html>"
    """
    return _element(text, "html") or _element(text, "body")


def _element(text: str, tag: str) -> str | None:
    """Find the first element of the tag that is closed; else the first that is opened, one in a fence before others."""
    openings = re.finditer(rf"<{tag}(?=[\s>/])[^<]*?>", text, re.IGNORECASE)
    starts = [match.start() for match in islice(openings, MAX_OPENINGS)]
    ends: dict[int, int | None] = {}
    for start in starts:
        if start not in ends:
            ends |= _ends(text, start, tag)
        if ends[start] is not None:
            return text[start : ends[start]]
    for begin, end in _fences(text) if starts else ():
        for start in starts:
            if begin <= start < end:
                return text[start:end].rstrip()
    return text[starts[0] :].rstrip() if starts else None


def _ends(text: str, start: int, tag: str) -> dict[int, int | None]:
    """Where the element ends that begins at `start`, and those of its tag within it, by where they begin; None for one
    that is not closed. Always with an entry for `start`, whose tag may itself have no end."""
    ends: dict[int, int | None] = {start: None}
    opened: list[int] = []
    position = start
    while markup := _MARKUP.search(text, position):
        kind, position = markup[0], markup.end()
        if kind == "<!--":  # `<!-->` is a whole comment
            found = _COMMENT_END.search(text, position - 2)
        elif kind[-1].isalpha():
            found = _TAG.match(text, markup.start())
        else:  # to browsers a doctype, `<![CDATA[` and `<?` are comments up to the next ">"
            found = _CLOSING.search(text, position)
        if found is None:
            return ends
        position = found.end()
        if not kind[-1].isalpha():
            continue
        closes, name, whole = found[1] == "/", found[2].lower(), found[0].endswith("/>")
        if name == tag:
            if closes:
                ends[opened.pop()] = position
            else:
                ends[markup.start()] = position if whole else None
                if not whole:
                    opened.append(markup.start())
            if not opened:
                return ends
        elif name in _TEXT_END and not closes and not whole:
            if (end := _TEXT_END[name].search(text, position)) is None:
                return ends
            position = end.start()
    return ends


def _fences(text: str) -> Iterator[tuple[int, int]]:
    """Where the contents of each fenced block begin and end; the last may lack its end."""
    opened, begin = "", 0
    for fence in _FENCE.finditer(text):
        if not opened:
            opened, begin = fence[1], fence.end() + 1
        elif fence[1].startswith(opened) and not fence[2].strip():
            yield begin, fence.start()
            opened = ""
    if opened:
        yield begin, len(text)
