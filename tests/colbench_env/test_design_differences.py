"""What the design simulator says about pages made by hand: the right thing, in words, and the most outstanding
first."""

from dataclasses import replace

import pytest

from colbench_env.design.arrangement import relation
from colbench_env.design.differences import differences
from colbench_env.design.tree import Box
from colbench_env.design.words import quote
from tests.colbench_env.design_pages import FOOTER, HEADER, SHOP, block, changed, moved, page, without


def first(seen, wanted=SHOP):
    """Kind, path and sentence of the most outstanding difference."""
    found = differences(seen, wanted)[0]
    return found.kind, found.path, found.sentence


def repainted(ground):
    """A change of the background."""
    return lambda one: replace(one, background=ground) if one.tag != "button" else one


def test_equal_pages_have_no_differences():
    assert differences(SHOP, SHOP) == []


def test_a_header_of_another_colour_is_named_once_and_not_its_heading():
    seen = changed(SHOP, repainted("#2563eb"), "body>header")
    assert [found.sentence for found in differences(seen, SHOP)] == ["The header should be dark green, yours is blue."]


def test_a_section_that_is_painted_in_the_page_alone_is_named_and_not_the_page():
    paint = block("body>main>section[1]", 0, 110, 500, 300, ground="#fbbf24")
    seen = page(*HEADER, paint, *changed(SHOP, repainted("#fbbf24"), "body>main>section[1]").blocks[2:])
    sentence = "The section 'Fresh bread' should be white, yours is yellow."
    assert first(seen) == ("background", "body>main>section[1]", sentence)


def test_a_page_all_of_another_colour_is_named_as_the_page():
    seen = page(
        block("body", 0, 0, 1000, 800, ground="#fbbf24"), *changed(SHOP, repainted("#fbbf24"), "body>main").blocks
    )
    assert first(seen) == ("background", "body", "The page's background should be white, yours is yellow.")


def test_a_button_and_letters_of_another_colour_are_named():
    seen = changed(SHOP, lambda one: replace(one, background="#2563eb"), "body>footer>button")
    assert first(seen)[2] == "The button 'Write to us' should be red, yours is blue."
    seen = changed(SHOP, lambda one: replace(one, colour="#dc2626"), "body>main>section[1]>h2")
    assert first(seen)[2] == "The letters of the heading 'Fresh bread' should be black, yours are red."


def test_a_smaller_heading_is_to_be_larger_and_a_thin_one_bold():
    seen = changed(SHOP, lambda one: replace(one, font_size=20.0, height=25), "body>header>h1")
    sentence = "The letters of the heading 'Corner Shop' should be much larger, about 40 pixels high; yours is 20."
    assert first(seen) == ("size", "body>header>h1", sentence)
    seen = changed(SHOP, lambda one: replace(one, bold=False), "body>header>h1")
    assert first(seen)[2] == "The heading 'Corner Shop' should be bold."


def test_a_missing_section_is_told_with_what_it_holds_and_where_it_belongs():
    kind, path, sentence = first(without(SHOP, "body>main>section[2]"))
    assert (kind, path) == ("missing", "body>main>section[2]")
    assert sentence == "A section 'Our cakes' is missing (it has one picture) below the section 'Fresh bread'."


def test_a_missing_button_is_told_in_its_place():
    assert first(without(SHOP, "body>footer>button"))[2] == "A button 'Write to us' is missing in the footer."


def test_what_is_too_much_is_told():
    extra = page(*SHOP.blocks, block("body>div>h3", 20, 400, 900, 90, "Special offer"))
    assert first(extra)[:1] + first(extra)[2:] == ("extra", "There should be no heading 'Special offer'.")


def test_another_text_at_the_same_place_is_told_with_the_right_words():
    seen = changed(SHOP, lambda one: replace(one, text="Zzz"), "body>footer>button")
    assert first(seen)[2] == "The button 'Zzz' should say 'Write to us'."


def test_swapped_columns_are_told_by_their_headings():
    seen = changed(SHOP, lambda one: moved(one, 500, 0), "body>main>section[1]")
    seen = changed(seen, lambda one: moved(one, -500, 0), "body>main>section[2]")
    kind, path, sentence = first(seen)
    assert (kind, path) == ("swapped", "body>main")
    assert sentence == (
        "The section 'Fresh bread' should be left of the section 'Our cakes', yours is the other way round."
    )


def test_columns_that_are_one_below_the_other_are_told():
    seen = changed(SHOP, lambda one: moved(one, -500, 110), "body>main>section[2]")
    kind, path, sentence = first(seen)
    assert (kind, path) == ("stacked", "body>main")
    assert sentence == (
        "The section 'Fresh bread' and section 'Our cakes' should stand side by side in two columns, "
        "yours are one below the other."
    )


def test_a_picture_of_another_size_is_told_in_pixels():
    seen = changed(SHOP, lambda one: replace(one, width=150, height=100), "body>main>section[2]>img")
    assert first(seen)[2] == (
        "The picture with 'Our cakes' should be wider and higher, about 300 by 200 pixels; yours is 150 by 100 pixels."
    )


def test_the_most_outstanding_comes_first():
    seen = changed(SHOP, repainted("#2563eb"), "body>header")
    seen = changed(seen, lambda one: replace(one, colour="#dc2626"), "body>main>section[1]>p")
    seen = without(seen, "body>footer>button")
    assert [found.kind for found in differences(seen, SHOP)] == ["background", "missing", "colour"]


def test_against_a_blank_page_everything_is_missing():
    found = differences(page(), SHOP)
    assert {difference.kind for difference in found} == {"missing"}
    assert {difference.path for difference in found} == {"body>header", "body>main", "body>footer"}


@pytest.mark.parametrize(
    "second, stands",
    [
        (Box(110, 0, 200, 100), "left of"), (Box(-100, 10, -5, 90), "right of"), (Box(0, 105, 100, 200), "above"),
        (Box(0, -90, 100, -1), "below"), (Box(50, 50, 200, 200), None), (Box(300, 300, 400, 400), None),
    ],
)  # fmt: skip
def test_boxes_stand_to_each_other_as_the_eye_sees_them(second, stands):
    assert relation(Box(0, 0, 100, 100), second) == stands


def test_long_texts_are_quoted_by_their_first_words():
    assert quote("Our fields are waiting for you to come and see") == "'Our fields are waiting for you to...'"


def test_nothing_that_is_said_is_source():
    wild = page(*HEADER, block("body>div>p", 0, 200, 900, 60, "Prices & <b>more</b> of them"), *FOOTER)
    for seen, wanted in ((SHOP, wild), (wild, SHOP), (page(), wild)):
        for difference in differences(seen, wanted):
            assert "body>" not in difference.sentence and "#" not in difference.sentence
