"""What a terminal would obey is shown as its escape."""

import sys

import pytest

from colbench_env.terminal_text import printable, printable_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("words,\n\tand more: é 日本 👩‍💻 █", "words,\n\tand more: é 日本 👩‍💻 █"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]8;;http://a.test\x1b\\a link\x1b]8;;\x07", r"\x1b]8;;http://a.test\x1b\a link\x1b]8;;\x07"),
        ("\x9b2J \x90q\x9c", r"\x9b2J \x90q\x9c"),  # the same in one character
        ("right\rwrong\b\x7f\x00\v\f", r"right\rwrong\x08\x7f\x00\x0b\x0c"),
        ("\u202etxt.exe\u202c \u2066a\u2069", r"\u202etxt.exe\u202c \u2066a\u2069"),
        ("a\u2028b\x85c", r"a\u2028b\x85c"),
        ("half \ud83d", r"half \ud83d"),
    ],
)
def test_what_a_terminal_obeys_is_escaped_and_all_else_stays(text, shown):
    assert printable(text) == shown


@pytest.mark.slow
def test_nothing_that_acts_is_left_of_any_character():
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    left = {char for char in printable(every) if not (char.isprintable() or char.isspace())}
    assert not left & {*map(chr, (*range(32), *range(127, 160), *range(0xD800, 0xE000)))}
    assert not left & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    assert {char for char in printable(every) if ord(char) < 32} == {"\n", "\t"}


def test_a_line_has_neither_line_ends_nor_tabs():
    assert printable_line("a\n\nb\tc\r\n\x1b") == r"a  b\tc\r \x1b"
