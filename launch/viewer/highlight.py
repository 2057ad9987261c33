"""Source code cut into coloured pieces by pygments; the page and the terminal only have to paint them."""

from __future__ import annotations

import functools
import re

from pygments.lexer import Lexer
from pygments.lexers import HtmlLexer, PythonLexer
from pygments.token import Comment, Keyword, Name, Number, Operator, String, _TokenType

Piece = tuple[str, str]
"""(kind, text). Kinds: k keyword, s string, n number, c comment, f function or tag, b builtin, o operator, "" rest."""

_KINDS = (
    (Comment, "c"), (String, "s"), (Number, "n"), (Keyword, "k"), (Operator.Word, "k"), (Operator, "o"),
    (Name.Function, "f"), (Name.Class, "f"), (Name.Tag, "f"), (Name.Attribute, "b"), (Name.Builtin, "b"),
)  # fmt: skip
MAX_COLOURED = 20_000  # characters; pygments needs some 20 us for each
_ENDLESS = re.compile(r"\s{200}|\S{2000}")  # some patterns of pygments look at all of it again from each place in it
_LEXERS = {"python": PythonLexer(ensurenl=False, stripnl=False), "html": HtmlLexer(ensurenl=False, stripnl=False)}


def language_of(source: str) -> str:
    """Return "html" for what looks like a page, else "python"."""
    return "html" if "<html" in source[:500].lower() or source.lstrip().startswith("<") else "python"


@functools.lru_cache(maxsize=4096)
def coloured(source: str) -> tuple[Piece, ...]:
    """Cut the source into coloured pieces, neighbours of one kind joined; together they are the source.

    A source that is very long, or has no space or nothing but space for a long way, is one piece.

    In: "x = 1"   Out: (("", "x "), ("o", "="), ("", " "), ("n", "1"))
    """
    if len(source) > MAX_COLOURED or _ENDLESS.search(source):
        return (("", source),)
    lexer: Lexer = _LEXERS[language_of(source)]
    pieces: list[Piece] = []
    for _, token, text in lexer.get_tokens_unprocessed(source):
        kind = _kind(token)
        if pieces and pieces[-1][0] == kind:
            pieces[-1] = (kind, pieces[-1][1] + text)
        else:
            pieces.append((kind, text))
    return tuple(pieces)


@functools.cache
def _kind(token: _TokenType) -> str:
    return next((kind for parent, kind in _KINDS if token in parent), "")
