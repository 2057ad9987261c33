"""Text of models, user simulators and files on its way to a terminal, on which it must do nothing but be read."""

import re

# Control characters but for line ends and tabs (escape sequences begin with one), what turns the direction of writing
# round, line ends that are none to a terminal, and lone surrogates.
_ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]")


def printable(text: str) -> str:
    """Escape every character of the text that a terminal would obey, and not show.

    In: "red \\x1b[31m, \\u202etfel"   Out: "red \\\\x1b[31m, \\\\u202etfel"
    """
    return _ACTS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def printable_line(text: str) -> str:
    """As `printable`, in one line: a line end is a blank, a tab its escape."""
    return printable(text.replace("\n", " ")).replace("\t", "\\t")


def shorten(text: str, most: int) -> str:
    """Cut a text to at most `most` characters, the last of which is then an ellipsis.

    In: "abcdef", 4   Out: "abc…"
    """
    return text if len(text) <= most else f"{text[: most - 1]}…"
