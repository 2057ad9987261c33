import pytest

from colbench_env.design.dialogue import DesignRules
from colbench_env.design.html import extract_html
from colbench_env.dialogue import Episode
from colbench_env.types import NO_ANSWER, Task

TASK = Task("A page with a blue header", "<html><h1>Shop</h1></html>")
NESTED = "<html><iframe srcdoc='<html>in</html>'></iframe></html>"
ONE, TWO = "<html><h1>One</h1></html>", "<html lang='en'><h1>Two</h1></html>"


@pytest.mark.parametrize(
    ("text", "page"),
    [
        (f"Here it is: {ONE} Do you like it?", ONE),
        (f"```html\n{ONE}\n```\nGood?", ONE),
        (f"Before: {ONE}\nAfter: {TWO}", TWO),
        ("<HTML>\nA </HTML >", "<HTML>\nA </HTML >"),
        (NESTED + "!", NESTED),
        ("<html>a <html> b </html> tail", "<html>a <html> b </html>"),  # one end is missing
        ("Look: <html><body>cut of", "<html><body>cut of"),
        ("```html\n<html><body>cut\n```\nSo.", "<html><body>cut"),
        ("</html> stray <html>a</html>", "<html>a</html>"),
        ("<!DOCTYPE html><html>a</html>", "<html>a</html>"),
        ("```\n<body><p>no html tag</p></body>\n```", "<body><p>no html tag</p></body>"),
        ("What colour should the header be?", None),
        ("Use the htmlish <htmlx> tag", None),
    ],
)  # fmt: skip
def test_the_page_of_a_turn_is_found(text, page):
    assert extract_html(text) == page


def played(*turns, max_turns=10):
    episode = Episode(TASK, max_turns, DesignRules())
    for turn in turns:
        if episode.human_is_next:
            episode = episode.step_human("Make it blue.")
        episode = episode.step_agent(turn)
    return episode


def test_the_human_sees_the_page_without_the_thought_or_the_text_around_it():
    episode = played(f"The header has <html> in it. OUTPUT: See {ONE} there.")
    assert episode.shown_messages[-1].content == ONE
    assert episode.messages[-1].content.startswith("The header has") and not episode.done


def test_a_page_in_front_of_the_marker_counts_all_the_same():
    assert played(f"{ONE} OUTPUT: Do you like it?").shown_messages[-1].content == ONE


def test_a_turn_without_a_page_is_shown_as_text():
    assert played("Hm. OUTPUT: Which colour?").shown_messages[-1].content == "Which colour?"


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
    assert len(played(ONE).step_human("b" * 1200).history[-1].content) == 1000
