"""Grading designs, with pages and a similarity that need no browser."""

from colbench_env.design.grading import BATCH, DesignGrader
from colbench_env.design.page import Block, Page
from colbench_env.types import NO_ANSWER, Task

BLOCK = Block("h1", "Shop", 0, 0, 10, 10, "#000000", "#ffffff", 32, True, "body>h1")


class Pages:
    """Makes a picture of a text's own bytes; "broken" does not show and "blank" has no blocks."""

    def __init__(self):
        self.asked = []

    def render_many(self, htmls):
        self.asked.append(list(htmls))
        return [self._page(html) for html in htmls]

    def _page(self, html):
        if "broken" in html:
            return Page(b"white", 1, 1, (), 0, "the page took longer than 10 s")
        missing = ("https://fonts.test/css2",) if "font" in html else ()
        return Page(html.encode(), 1, 1, () if "blank" in html else (BLOCK,), 2, missing_sheets=missing)


class Length:
    """The shorter of two pictures as a share of the longer one, never quite 1; 0 for no picture."""

    name = "length"

    def scores(self, pages, references):
        return [
            0.0 if page is None or page.problem else 0.99 * min(len(page.png) / len(other.png), 1.0)
            for page, other in zip(pages, references, strict=True)
        ]


TASK = Task("A shop", "<html>1234567890</html>")


def grade(*answers, task=TASK):
    return DesignGrader(Pages(), Length()).grade_many([(task, answer) for answer in answers])


def test_the_reward_is_the_similarity_and_1_exactly_for_an_equal_picture():
    assert [g.reward for g in grade("<html>12345</html>", TASK.ground_truth)] == [0.99 * 18 / 23, 1.0]


def test_another_picture_is_never_worth_1():
    class Generous(Length):
        def scores(self, pages, references):
            return [1.0 for _ in pages]

    (found,) = DesignGrader(Pages(), Generous()).grade_many([(TASK, "<html>12345</html>")])
    assert 0.999 < found.reward < 1


def test_what_was_not_shown_blank_or_missing_is_told_in_the_row():
    broken, blank, none, shown = grade("broken", "blank", NO_ANSWER, "<html></html>")
    assert [g.in_row()["verdicts"]["page"] for g in (broken, blank, none, shown)] == [
        "error", "wrong", "no-answer", "pass",
    ]  # fmt: skip
    assert broken.in_row()["page"] == {"refused": 0, "problem": "the page took longer than 10 s"}
    assert shown.in_row()["page"] == {"refused": 2}
    assert (broken.reward, none.reward, none.excluded) == (0.0, 0.0, 0)


def test_a_row_names_the_stylesheets_that_the_page_and_the_reference_lack():
    (page,), (reference,) = grade("<html>font</html>"), grade("<html></html>", task=Task("A shop", "<html>font</html>"))
    assert page.in_row()["page"] == {"refused": 2, "missing_sheets": ["https://fonts.test/css2"]}
    assert reference.in_row()["page"] == {"refused": 2, "reference_missing_sheets": ["https://fonts.test/css2"]}


def test_each_text_is_rendered_once_a_batch_and_grades_come_in_order():
    pages, done = Pages(), []
    answers = [(TASK, f"<html>{number % 3}</html>") for number in range(BATCH + 1)]
    grades = DesignGrader(pages, Length()).grade_many(answers, lambda place, found: done.append((place, found)))
    assert [len(asked) for asked in pages.asked] == [4, 2]
    assert done == list(enumerate(grades)) and len(grades) == BATCH + 1


def test_a_reference_that_does_not_show_leaves_its_answers_without_a_grade_and_no_others():
    broken = Task("A shop", "broken")
    answers = [(broken, "<html></html>"), (TASK, TASK.ground_truth), (broken, NO_ANSWER)]
    first, second, third = DesignGrader(Pages(), Length()).grade_many(answers)
    assert (first.excluded, second.excluded, third.excluded) == (1, 0, 1) and second.reward == 1.0
    assert first.in_row()["page"]["problem"] == "the reference cannot be shown: the page took longer than 10 s"
