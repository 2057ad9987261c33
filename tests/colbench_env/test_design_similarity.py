"""Colours, the matching of blocks, and the structural similarity, on pages made by hand."""

import io
import random
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from colbench_env.design import colour
from colbench_env.design.matching import dice, likeness, match
from colbench_env.design.similarity import Structural, structural_similarity
from tests.colbench_env.design_pages import COLUMNS, FOOTER, HEADER, SHOP, block, changed, page, without

NOTHING = Structural(0, 0, 0, 0, 0, 0, 0)


def test_lab_agrees_with_published_values():
    assert colour.lab("#ffffff") == pytest.approx((100, 0, 0), abs=0.02)
    assert colour.lab("#ff0000") == pytest.approx((53.24, 80.09, 67.20), abs=0.02)
    assert colour.lab("#0000ff") == pytest.approx((32.30, 79.19, -107.86), abs=0.02)


@pytest.mark.parametrize(
    "value, name",
    [
        ("#fefefe", "white"), ("#000000", "black"), ("#046a4e", "dark green"), ("#1e40af", "dark blue"),
        ("#f3f4f6", "very light grey"), ("#ff0000", "red"), ("#ffa500", "orange"), ("#ffc0cb", "light pink"),
    ],
)  # fmt: skip
def test_colours_have_the_names_that_people_say(value, name):
    assert colour.name(value) == name


def test_two_colours_of_one_name_are_told_apart():
    assert colour.contrast("#10b981", "#3b82f6") == ("green", "blue")
    assert colour.contrast("#3b82f6", "#2563eb") == ("a lighter blue", "too dark")
    assert colour.contrast("#2563eb", "#3b82f6") == ("a darker blue", "too light")


def test_texts_are_alike_by_the_pairs_of_characters_that_they_share():
    assert np.allclose(dice(["night", ""], ["night", "nacht", ""]), [[1, 0.5, 0], [0, 0, 1]])


def test_equal_pages_score_exactly_one_and_a_blank_or_broken_page_nothing():
    assert structural_similarity(SHOP, SHOP) == Structural(1, 1, 1, 1, 1, 1, 1)
    assert structural_similarity(page(), SHOP) == NOTHING
    assert structural_similarity(SHOP, page()) == NOTHING
    assert structural_similarity(page(problem="the script did not end in 5 s"), page()) == NOTHING


def test_the_score_is_at_most_the_likeness_of_the_pictures():
    def shown(colour, size=(10, 10)):
        file = io.BytesIO()
        Image.new("RGB", size, colour).save(file, "PNG")
        return replace(SHOP, png=file.getvalue(), width=size[0], height=size[1])

    white, black, half = shown("white"), shown("black"), shown("black", (10, 5))
    assert structural_similarity(black, white).score == 0 and structural_similarity(black, black).score == 1
    assert structural_similarity(half, white) == Structural(0.5, 1, 0.5, 1, 1, 1, 1)
    assert 0.99 < structural_similarity(shown("#fffffe"), white).score < 1
    changed_too = changed(half, lambda one: replace(one, x=one.x + 300), "body>header>h1")
    assert structural_similarity(changed_too, white).score == 0.5
    assert structural_similarity(changed(white, lambda one: None, "body>main"), white).score < 0.9


@pytest.mark.slow
def test_long_texts_are_compared_in_little_time_and_memory():
    rng = random.Random(0)
    long = ["".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(10_000)) for _ in range(400)]
    begun, found = time.process_time(), dice(long, long[:3])
    assert np.allclose(found[:3], np.eye(3), atol=0.1) and found.shape == (400, 3)
    nested = page(*(block("body" + ">div" * depth, 0, 0, 100, 100, "words " * 500) for depth in range(1, 100)))
    assert structural_similarity(nested, SHOP).score < 0.5
    assert time.process_time() - begun < 60  # 51 s for far less, before texts were cut


def test_the_more_is_missing_the_lower_the_score():
    scores = [structural_similarity(page(*SHOP.blocks[:count]), SHOP).score for count in range(len(SHOP.blocks) + 1)]
    assert scores == sorted(scores) and len(set(scores)) == len(scores)
    assert scores[0] == 0 and scores[-1] == 1


@pytest.mark.parametrize(
    "part, change",
    [
        ("colour", lambda one: replace(one, background="#2563eb")),
        ("colour", lambda one: replace(one, colour="#ff0000")),
        ("position", lambda one: replace(one, x=one.x + 300)),
        ("size", lambda one: replace(one, font_size=one.font_size * 2)),
        ("size", lambda one: replace(one, bold=not one.bold)),
        ("text", lambda one: replace(one, text=one.text + " today")),
    ],
)
def test_each_change_lowers_its_own_score_and_no_other(part, change):
    found = structural_similarity(changed(SHOP, change, "body>header>h1"), SHOP)
    assert found.matched == 1
    assert {name for name in ("text", "position", "colour", "size") if getattr(found, name) < 1} == {part}
    assert 0.5 < found.score < 1


def test_blocks_that_say_the_same_are_told_apart_by_what_is_around_them():
    def card(number, x, title):
        around = f"body>main>div[{number}]"
        return block(f"{around}>h3", x, 100, 200, 30, title), block(f"{around}>a", x, 140, 100, 20, "Read more")

    reference = page(*card(1, 0, "Bicycles for the city"), *card(2, 500, "Winter coats"))
    swapped = page(*card(1, 0, "Winter coats"), *card(2, 500, "Bicycles for the city"))
    assert match(swapped, reference, likeness(swapped, reference)) == [(0, 2), (1, 3), (2, 0), (3, 1)]


def test_parts_of_a_page_are_in_the_score_by_the_square_root_of_their_area():
    found = structural_similarity(without(SHOP, "body>footer"), SHOP)
    weights = {one.path: (one.width * one.height) ** 0.5 for one in (*HEADER, *COLUMNS, *FOOTER)}
    kept = sum(weight for path, weight in weights.items() if not path.startswith("body>footer"))
    assert found.score == pytest.approx(2 * kept / (kept + sum(weights.values())))
