"""The page in an agent's turn, and the episode of frontend design."""

import itertools

import pytest

from colbench_env.design.dialogue import DesignRules
from colbench_env.design.html import extract_html
from colbench_env.dialogue import Episode
from colbench_env.types import NO_ANSWER, Task

TASK = Task("A page, please.", "<html><p>that</p></html>")
ONE, TWO = "<html><h1>One</h1></html>", "<html lang='en'><h1>Two</h1></html>"


@pytest.mark.parametrize(
    ("text", "page"),
    [
        ("Look: <html><p>a</html> All right?", "<html><p>a</html>"),
        ("<html>first</html> or <html>second</html>", "<html>first</html>"),
        ("<HTML lang=en>\n<p>a</HTML >", "<HTML lang=en>\n<p>a</HTML >"),
        ("<!DOCTYPE html>\n<html>a</html>", "<html>a</html>"),
        ("Only <body class='x'>a</body>, no more", "<body class='x'>a</body>"),
    ],
)
def test_the_page_is_the_first_whole_one_without_a_doctype(text, page):
    assert extract_html(text) == page


@pytest.mark.parametrize(
    ("text", "page"),
    [
        ("```html\n<html>a</html>\n```\nAll right?", "<html>a</html>"),
        ("I write <html> now.\n~~~\n<html>a</html>\n~~~", "<html>a</html>"),
        ("In `<html>`:\n```html\n<html><p>cut\n```\nAll right?", "<html><p>cut"),
        ("```html\n<html><pre>\n```\n</pre>a</html>\n```", "<html><pre>\n```\n</pre>a</html>"),
    ],
)
def test_fences_and_tags_in_prose_are_no_part_of_a_page(text, page):
    assert extract_html(text) == page


@pytest.mark.parametrize(
    "text", ["<html><body><p>cut", "Here:\n```html\n<html><body><p>cut", "<html><body><p>cut\n \n"]
)
def test_a_page_whose_end_is_missing_goes_on_to_the_end(text):
    assert extract_html(text) == "<html><body><p>cut"


@pytest.mark.parametrize(
    "page",
    [
        "<html><script>let s = '</html>';</script><p>a</html>",
        "<html><!-- </html> --><p>a</html>",
        '<html><iframe srcdoc="<html>in</html>"></iframe><p>a</html>',
        "<html><html>in</html><p>a</html>",
    ],
)
def test_an_end_tag_within_the_page_ends_nothing(page):
    assert extract_html(f"Here: {page} All right?") == page


@pytest.mark.parametrize("text", ["", "No page.", "```\n<div>a</div>\n```", "<htmlx>a</htmlx>", "5 <html", "</html>"])
def test_what_is_no_page_gives_none(text):
    assert extract_html(text) is None


def test_the_sixth_opening_of_an_element_is_not_followed_to_its_end():
    assert extract_html("<html> " * 4 + "<html>a</html> b") == "<html>a</html>"
    assert extract_html("<html> " * 5 + "<html>a</html> b") == "<html> " * 5 + "<html>a</html> b"


@pytest.mark.parametrize(
    "odd", ["<![x]]>", "<![%", "<![CDATA[x", "&#" + "1" * 5000 + ";", "<!x", "<?x", "<textarea></html></textarea>"]
)
def test_whatever_a_model_writes_in_a_page_is_no_error(odd):
    for page in (f"<html><body>{odd}<p>a</p></body></html>", f"<html><p title='{odd}'>a</p></html>"):
        assert extract_html(f"Here: {page} All right?") == page


@pytest.mark.parametrize(
    ("text", "page"),
    [
        ('<html lang="en>hello"', '<html lang="en>hello"'),
        ('<body class="x>text</body> "y', '<body class="x>text</body> "y'),
        ('Here: <html lang="en><body>Hi</body></html> "done', '<html lang="en><body>Hi</body></html> "done'),
    ],
)
def test_a_tag_whose_quote_takes_in_the_rest_begins_a_page_without_an_end(text, page):
    assert extract_html(text) == page


def test_tags_with_quotes_of_any_number_are_no_error():
    values = ("", "=", "=x", '="', '="x', '="x"', "='x", "='x'", "=\"'", "='\"", '="x""', '= "x> y"')
    for first, second, end, rest in itertools.product(
        values, values, ("", "</html>", "</body>", "</body></html>"), ("", ' "', " 'y", '">', "'/>")
    ):
        for tag, inner in (("html", "body"), ("body", "html"), ("html", "html")):
            text = f"Here: <{tag} a{first}><{inner} b{second}>Hi{end}{rest}"
            assert extract_html(text) is None or extract_html(text) in text


def played(*turns, max_turns=10):
    episode = Episode(TASK, max_turns, DesignRules())
    for turn in turns:
        if episode.user_is_next:
            episode = episode.step_user("Make it blue.")
        episode = episode.step_agent(turn)
    return episode


def test_the_thought_before_the_marker_is_not_looked_at():
    raw = "First <html>a draft</html>. I WANT TO ANSWER: later. OUTPUT: <html>a</html>"
    episode = played(raw)
    assert episode.shown_messages[-1].content == "<html>a</html>" and not episode.done
    assert episode.messages[-1].content == raw and episode.give_up().answer == "<html>a</html>"


def test_the_marker_as_a_word_of_the_page_hides_nothing():
    page = "<html><p>OUTPUT: 5 kW</p></html>"
    assert played(page).shown_messages[-1].content == page
    assert played(f"A thought. OUTPUT: {page}").give_up().answer == page


def test_the_last_page_is_the_answer_whatever_ends_the_episode():
    assert played(ONE, TWO, max_turns=2).answer == TWO
    assert played(ONE, "Fine?", max_turns=2).answer == ONE
    assert played(ONE, f"I WANT TO ANSWER: {TWO}").answer == TWO
    assert played(TWO, "I WANT TO ANSWER:").answer == TWO
    assert played(ONE, TWO).give_up().answer == TWO


def test_whoever_never_shows_a_page_has_no_answer():
    assert played("Which colour?", "And the font?", max_turns=2).answer == NO_ANSWER
    assert played("Which colour?").give_up().answer == NO_ANSWER


def test_a_reply_may_have_a_thousand_characters():
    assert len(played(ONE).step_user("b" * 1200).history[-1].content) == 1000
