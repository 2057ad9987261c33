"""The page in an agent's turn, and the episode of frontend design."""

import asyncio

import pytest

from colbench_env.design.html import extract_html
from colbench_env.design.rules import DesignRules, begin
from colbench_env.episodes import Settings, play_on
from colbench_env.types import Task

TASK = Task(problem_description="A page, please.", ground_truth="<html><p>that</p></html>", test_cases={})


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


def test_the_thought_before_the_marker_is_not_looked_at():
    raw = "First <html>a draft</html>. I WANT TO ANSWER: later. OUTPUT: <html>a</html>"
    assert DesignRules().shown(raw) == "<html>a</html>"
    assert DesignRules().answer([raw]) == "<html>a</html>"
    assert not DesignRules().ends(raw)


def test_the_marker_as_a_word_of_the_page_hides_nothing():
    raw = "<html><p>OUTPUT: 5 kW</p></html>"
    assert DesignRules().answer([raw]) == raw
    assert DesignRules().answer([f"A thought. OUTPUT: {raw}"]) == raw


def test_the_answer_is_the_last_page_that_was_written():
    episode = begin(TASK, max_turns=3).step_agent("<html>1</html>").step_human("Larger.")
    episode = episode.step_agent("Hm. OUTPUT: <html>2</html>").step_human("Blue.")
    assert [message.content for message in episode.shown_messages][3] == "<html>2</html>"
    assert episode.step_agent("Which blue?").answer == "<html>2</html>"
    assert episode.give_up().answer == "<html>2</html>"


def test_the_agent_may_end_with_the_marker_and_a_page():
    episode = begin(TASK, max_turns=10).step_agent("I WANT TO ANSWER: <html>1</html>")
    assert episode.done and episode.answer == "<html>1</html>"


def test_an_episode_without_a_page_has_no_answer():
    episode = begin(TASK, max_turns=1)
    assert episode.give_up().answer == "No answer"
    assert episode.step_agent("What colour?").answer == "No answer"


def test_design_episodes_are_played_as_others():
    class Wordy:
        name, settings = "wordy", {}

        async def reply(self, request):
            return f"{request.question} is not it. " + "x" * 2000

    async def agent(episode):
        return episode.step_agent(f"OUTPUT: <html>{episode.turns}</html>")

    episode = asyncio.run(play_on(begin(TASK, max_turns=3), agent, Wordy(), Settings(max_turns=3), sample=0))
    assert episode.answer == "<html>2</html>"
    assert [len(message.content) for message in episode.history] == [15, 14, 1000, 14, 1000, 14]
