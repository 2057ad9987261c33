"""The rules of a large stylesheet that can matter to one page.

Tailwind is 2.9 MB, of which a page uses a few kilobytes; to send and parse the rest costs more than all else about the
page. What is left out names a class that the page's text does not hold, so the picture is the same; a page that could
make up class names or hide its text (scripts, frames, odd character references), or has the sheet's hash checked, gets
the whole sheet.
"""

import html as entities
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_PIECE = re.compile(r"([^{}]*)([{}])")
_CLASS = re.compile(r"\.((?:[\w-]|\\[0-9a-f]{1,6}\s?|\\.)+)")
_ESCAPE = re.compile(r"\\(?:([0-9a-f]{1,6})\s?|(.))")
_COMMENT = re.compile(r"/\*.*?\*/")
_IN_BRACKETS = re.compile(r"\([^()]*\)|\[[^\]]*\]")
_BEYOND_TEXT = re.compile(
    r"(?i)<script|\bon[a-z]+\s*=|javascript:|srcdoc|<i?frame|<object|<embed|@import|&#\d{8}|\bintegrity\s*="
)
_BETWEEN_WORDS = re.compile(r"[\s\"'=<>;]+")


@dataclass(frozen=True)
class _Rule:
    """A rule's text, the openings of the groups that it stands in, and the classes that each of its selectors needs."""

    text: str
    groups: tuple[str, ...]
    needs: frozenset[frozenset[str]]


@dataclass
class Trimmer:
    """A stylesheet that is cut down to a page. In its strings there are no braces."""

    sheet: str
    _rules: list[_Rule] = field(init=False)
    _of_class: dict[str, list[int]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._rules = list(_rules(self.sheet))
        for place, rule in enumerate(self._rules):
            for name in {name for need in rule.needs for name in need or {""}}:
                self._of_class.setdefault(name, []).append(place)

    def trim(self, html: str) -> str:
        """Keep the rules, in their order, of which a selector may match in a page of this text."""
        if _BEYOND_TEXT.search(html):
            return self.sheet
        words = _words(html)
        places = sorted({place for word in words for place in self._of_class.get(word, ())})
        kept = (self._rules[place] for place in places if any(need <= words for need in self._rules[place].needs))
        return "".join(
            "".join(groups) + "".join(rule.text for rule in rules) + "}" * len(groups)
            for groups, rules in itertools.groupby(kept, lambda rule: rule.groups)
        )


def _rules(sheet: str) -> Iterator[_Rule]:
    opened: list[str] = []
    for text, brace in _PIECE.findall(sheet):
        if brace == "{":
            opened.append(text.strip() + "{")
        elif not (last := opened.pop()).startswith(("@media", "@keyframes")):
            groups = tuple(opened)
            always = any(group.startswith("@keyframes") for group in groups) or last.startswith("@")
            yield _Rule(last + text + "}", groups, _needs("" if always else last))


def _needs(selectors: str) -> frozenset[frozenset[str]]:
    """Collect the classes of each selector; those in brackets may be what an element must not have."""
    bare = _IN_BRACKETS.sub("", _COMMENT.sub("", selectors))
    return frozenset(frozenset(map(_unescape, _CLASS.findall(one))) for one in bare.split(","))


def _unescape(name: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)) if found[1] else found[2], name).lower()


def _words(html: str) -> set[str]:
    """All that can be a class in the text, and "". Without a doctype browsers do not tell cases apart, so all lower."""
    return {word for text in (html, entities.unescape(html)) for word in _BETWEEN_WORDS.split(text.lower())} | {""}
