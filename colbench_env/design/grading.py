"""Grades designs: the answer and the reference are rendered, and a measure of similarity says how alike they look."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from colbench_env.design.page import Page
from colbench_env.types import NO_ANSWER, BadInput, Task, Verdict

BATCH = 32  # answers that are rendered and compared together
BELOW_ONE = math.nextafter(1.0, 0.0)
SHOWN, NOT_SHOWN, BLANK = Verdict.PASS, Verdict.ERROR, Verdict.WRONG


class Pages(Protocol):
    """What makes pages of HTML texts: a `Renderer`, or one that remembers."""

    def render_many(self, htmls: Sequence[str]) -> list[Page]:
        """Render all the texts and return their pages in order."""
        ...


class Similarity(Protocol):
    """A measure of how alike pages and references look; 1 for equal ones."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    def scores(self, pages: Sequence[Page | None], references: Sequence[Page]) -> list[float]:
        """Score each page against the reference at its place; None says that there is no page.

        Raises BadInput for a reference that did not render, as nothing can be compared with it.
        """
        ...


@dataclass(frozen=True)
class DesignGrade:
    """The grade of one design.

    similarity: to the reference, None where that could not be shown. verdict: PASS where the page was shown, WRONG
    where it was blank, ERROR where it could not be shown, NO_ANSWER where there is none. problem: why one of the two
    could not be shown. refused: requests that the page made and did not get. missing_sheets,
    reference_missing_sheets: the URLs of stylesheets that the two are seen without.
    """

    similarity: float | None
    verdict: Verdict
    problem: str | None = None
    refused: int = 0
    missing_sheets: tuple[str, ...] = ()
    reference_missing_sheets: tuple[str, ...] = ()

    @property
    def excluded(self) -> int:
        """1 where there is nothing to compare with, so that there is no statement on the design."""
        return int(self.similarity is None)

    @property
    def reward(self) -> float:
        """The similarity, NaN where there is none."""
        return math.nan if self.similarity is None else self.similarity

    def in_row(self) -> dict[str, Any]:
        """Return what a graded row keeps besides its reward."""
        verdict = Verdict.INFRASTRUCTURE_ERROR if self.similarity is None else self.verdict
        details = {
            "problem": self.problem,
            "missing_sheets": list(self.missing_sheets),
            "reference_missing_sheets": list(self.reference_missing_sheets),
        }
        page = {"refused": self.refused} | {name: value for name, value in details.items() if value}
        return {"verdicts": {"page": str(verdict)}, "tests": [], "page": page}


@dataclass(frozen=True)
class DesignGrader:
    """Grades designs with a renderer and a similarity. An answer that equals its reference scores 1 exactly."""

    pages: Pages
    similarity: Similarity

    @property
    def mode(self) -> str:
        """The name of the similarity: rows tell by it how they were graded."""
        return self.similarity.name

    def layers_text(self) -> str:
        """Describe in a line what keeps pages from doing harm."""
        return "browser: every request is answered or refused here, each page in a context of its own"

    def grade_many(
        self,
        answers: Iterable[tuple[Task, str]],
        on_done: Callable[[int, DesignGrade], None] = lambda place, grade: None,
    ) -> list[DesignGrade]:
        """Grade all answers and return the grades in order; `on_done` gets each as soon as it is there."""
        answers, grades = list(answers), []
        for start in range(0, len(answers), BATCH):
            for grade in self._graded(answers[start : start + BATCH]):
                grades.append(grade)
                on_done(len(grades) - 1, grade)
        return grades

    def _graded(self, answers: Sequence[tuple[Task, str]]) -> list[DesignGrade]:
        htmls = [html for task, answer in answers for html in (task.ground_truth, answer) if html != NO_ANSWER]
        wanted = list(dict.fromkeys(htmls))
        rendered = dict(zip(wanted, self.pages.render_many(wanted), strict=True))
        references = [rendered[task.ground_truth] for task, _ in answers]
        pages = [None if answer == NO_ANSWER else rendered[answer] for _, answer in answers]
        compared = [(page, one) for page, one in zip(pages, references, strict=True) if one.problem is None]
        scores = iter(self.similarity.scores([page for page, _ in compared], [one for _, one in compared]))
        return [
            _grade(page, one, next(scores) if one.problem is None else None)
            for page, one in zip(pages, references, strict=True)
        ]


def _grade(page: Page | None, reference: Page, score: float | None) -> DesignGrade:
    if score is None:
        return DesignGrade(None, Verdict.INFRASTRUCTURE_ERROR, f"the reference cannot be shown: {reference.problem}")
    same = page is not None and page.problem is None and page.png == reference.png
    score = 1.0 if same else min(score, BELOW_ONE)  # CLIP does not see all of a page, and rounds
    if page is None:
        return DesignGrade(score, Verdict.NO_ANSWER)
    verdict = NOT_SHOWN if page.problem is not None else SHOWN if page.blocks else BLANK
    return DesignGrade(score, verdict, page.problem, page.refused, page.missing_sheets, reference.missing_sheets)


def has_failed(page: Page | None) -> bool:
    """Whether there is nothing of the page to look at: it is missing, or did not render."""
    return page is None or page.problem is not None


def check_pairs(pages: Sequence[Page | None], references: Sequence[Page]) -> None:
    """Raise BadInput unless there are as many pages as references and every reference rendered."""
    if len(pages) != len(references):
        raise BadInput(
            f"{len(pages)} pages cannot be compared with {len(references)} references: one for each is needed"
        )
    for place, reference in enumerate(references, 1):
        if reference.problem is not None:
            raise BadInput(f"reference {place} of {len(references)} did not render: {reference.problem}")
