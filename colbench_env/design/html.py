"""The page in an agent's turn.

As in the released benchmark a turn holds one page: the first `<html>...</html>`, or without one the first
`<body>...</body>`; a doctype before it is not part of it. Where the released code looks for the next `</html>` in the
text, the tags are counted here: one in a script, a comment, an attribute or a page within the page ends nothing. And a
page whose end is missing goes on to the end of its fence or of the text, where the released code sees no page.
"""

import re
from html.parser import HTMLParser
from itertools import islice

FENCE = re.compile(r"^[ \t]*(```+|~~~+)[^\n`]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)


MAX_OPENINGS = 5  # of one tag in a text, that are followed to their ends


def extract_html(text: str) -> str | None:
    """The page in an agent's text, or None where there is none.

    In: "An <html> page:\\n```html\\n<html><p>Hi</html>\\n```\\nAll right?"   Out: "<html><p>Hi</html>"
    """
    return _element(text, "html") or _element(text, "body")


def _element(text: str, tag: str) -> str | None:
    """The first element of the tag that is closed; else the first that is opened, one in a fence before others."""
    openings = re.finditer(rf"<{tag}(?=[\s>/])[^<]*?>", text, re.IGNORECASE)
    starts = [match.start() for match in islice(openings, MAX_OPENINGS)]
    for start in starts:
        length = _Ends(tag).end_of(text[start:])
        if length is not None:
            return text[start : start + length]
    for fence in FENCE.finditer(text):
        for start in starts:
            if fence.start(2) <= start < fence.end(2):
                return text[start : fence.end(2)].rstrip()
    return text[starts[0] :].rstrip() if starts else None


class _Ends(HTMLParser):
    """Finds where the element ends that a text begins with. What it holds is not looked at, so that no text of a model
    is an error here."""

    CDATA_CONTENT_ELEMENTS = ("script", "style", "textarea", "title")  # in which no other tag is one

    def __init__(self, tag: str) -> None:
        super().__init__(convert_charrefs=True)
        self._tag = tag
        self._depth = 0
        self._end: tuple[int, int] | None = None

    def end_of(self, text: str) -> int | None:
        """The length of the element, or None where it is not closed."""
        self.feed(text.replace("&", "+"))
        if self._end is None:
            return None
        line, column = self._end
        start = 0
        for _ in range(line - 1):
            start = text.index("\n", start) + 1
        return text.index(">", start + column) + 1

    def parse_html_declaration(self, i: int) -> int:
        """As browsers have it, what begins with `<![` is a comment up to the next `>`."""
        marked = self.rawdata.startswith("<![", i)
        return self.parse_bogus_comment(i) if marked else super().parse_html_declaration(i)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._depth += tag == self._tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._tag and self._end is None:
            self._depth -= 1
            if self._depth == 0:
                self._end = self.getpos()
