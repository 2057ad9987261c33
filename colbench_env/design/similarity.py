"""How alike two pages are by their structure, where no CLIP weights are at hand.

This is not the metric of ColBench's paper (the cosine of two CLIP embeddings); figures of the two cannot be compared.
After the visual scores of Design2Code (Si et al., 2024, section 4.1): blocks are matched, and matched area, text,
position and colour are scored; here also the size, and one number is made of them all.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageStat

from colbench_env.design.grading import check_pairs
from colbench_env.design.matching import likeness, match
from colbench_env.design.page import Page

NAME = "structural (not the paper's metric)"


@dataclass(frozen=True)
class Structural:
    """Scores in [0, 1], 1.0 for equal pages. matched: the weight that found a partner, of both pages' weight.

    text, position, colour, size: means over the matched blocks by weight, 0 where nothing is matched. picture: 1 less
    the mean difference of the pixels. score: `matched`, with each pair counted by the product of its four, and at most
    `picture`, which sees what no block tells of (overlays, opacity, photographs).
    """

    score: float
    matched: float
    picture: float
    text: float
    position: float
    colour: float
    size: float


def structural_similarity(page: Page, reference: Page) -> Structural:
    """Compare the page with the reference: 0 for a page that could not be shown, 1 for the same picture alone.

    A block weighs the square root of its area, so that a page's background does not drown its words. From a page that
    is its reference with blocks left out, leaving out more never raises what the blocks make of the score.
    """
    if page.problem is not None or reference.problem is not None:
        return _NOTHING
    picture = _same_pixels(page, reference)
    if page.blocks == reference.blocks:
        return Structural(picture, 1.0, picture, 1.0, 1.0, 1.0, 1.0)
    if not page.blocks or not reference.blocks:
        return _NOTHING
    alike = likeness(page, reference)
    pairs = match(page, reference, alike)
    ours, theirs = (np.sqrt([block.width * block.height for block in side.blocks]) for side in (page, reference))
    whole = ours.sum() + theirs.sum()
    if not pairs or not whole > 0:
        return _NOTHING
    rows, columns = np.array(pairs).T
    weights = ours[rows] + theirs[columns]
    parts = [table[rows, columns] for table in (alike.text, alike.position, alike.colour, alike.size)]
    score = float(min((weights * np.prod(parts, axis=0)).sum() / whole, picture))
    means = [float(min((weights * part).sum() / weights.sum(), 1.0)) for part in parts]
    return Structural(score, float(min(weights.sum() / whole, 1.0)), picture, *means)


def _same_pixels(page: Page, reference: Page) -> float:
    """1 less the mean difference of the pixels, where the lower page goes on in white."""
    if page.png == reference.png:
        return 1.0
    size = max(page.width, reference.width), max(page.height, reference.height)
    pictures = []
    for one in (page, reference):
        pictures.append(Image.new("RGB", size, "white"))
        pictures[-1].paste(Image.open(io.BytesIO(one.png)).convert("RGB"))
    return 1 - float(np.mean(ImageStat.Stat(ImageChops.difference(*pictures)).mean)) / 255


_NOTHING = Structural(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class StructuralSimilarity:
    """How alike the two pages are built, from 0 to 1, for where there is no CLIP. A page that is missing or
    did not render is worth 0."""

    name: str = NAME

    def scores(self, pages: Sequence[Page | None], references: Sequence[Page]) -> list[float]:
        """See `grading.Similarity`."""
        check_pairs(pages, references)
        pairs = zip(pages, references, strict=True)
        return [0.0 if page is None else structural_similarity(page, reference).score for page, reference in pairs]
