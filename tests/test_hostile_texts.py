"""Whatever takes texts of strangers takes time linear in them (`python -m benchmarks.hostile_texts` tries 1 MB)."""

import pytest

from benchmarks.hostile_texts import FUNCTIONS, OPENINGS, PARTS, PATTERNS, hostile, seconds

SIZE = 10_000
SLOW = 0.1  # seconds; what is quadratic takes longer even at this size
SEEN_IN_AGENTS_REPLIES = ("strict_source", "extract_html")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"coloured"}))
def test_twice_the_text_takes_no_more_than_about_twice_the_time(name):
    texts = [("", part) for part in PARTS]
    if name in SEEN_IN_AGENTS_REPLIES:
        texts += [(opening, part) for opening in OPENINGS[1:] for part in PATTERNS]
    slow = [text for text in texts if seconds(name, hostile(*text, SIZE)) > SLOW]
    assert [text for text in slow if _grows_faster(name, *text)] == []


@pytest.mark.parametrize(
    ("opening", "part"), [("", " \n"), ("<html><!--", "&"), ("", "a\t"), ("<html>", "x"), ("", "x" * 999)]
)
def test_a_source_that_pygments_would_take_long_for_is_not_coloured(opening, part):
    assert seconds("coloured", hostile(opening, part, 20_000)) < 2
    assert seconds("coloured", hostile(opening, part, 1_000_000)) < 0.1


def test_a_page_in_an_endless_fence_is_found_at_once():
    assert seconds("extract_html", "~" * 200_000) < 1
    assert seconds("extract_html", "<html>" + "~" * 200_000) < 1


@pytest.mark.slow
def test_a_reply_like_a_failed_call_is_read_at_once():
    assert seconds("simulator_health", "error 500" + "!" * 1_000_000 + "x") < 5


def _grows_faster(name: str, opening: str, part: str) -> bool:
    """Whether four times the text takes more than nine times as long; 16 times if quadratic. Of several tries the
    quickest, as a machine is never alone."""
    short, long = (min(seconds(name, hostile(opening, part, size)) for _ in range(3)) for size in (SIZE, 4 * SIZE))
    return long > 9 * short
