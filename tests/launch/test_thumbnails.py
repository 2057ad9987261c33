"""Screenshots as small data URLs."""

import base64
import io
import random

import pytest
from PIL import Image

from colbench_env.design.thumbnails import Images, images_of, images_of_pages
from colbench_env.types import BadInput
from tests.launch.show_rows import PIXEL


def screenshot(width, height):
    """A picture that is hard to make small: noise in blocks of eight pixels."""
    noise = random.Random(0).randbytes(3 * (width // 8) * (height // 8))
    small = Image.frombytes("RGB", (width // 8, height // 8), noise)
    written = io.BytesIO()
    small.resize((width, height), Image.Resampling.NEAREST).save(written, "PNG")
    return written.getvalue()


def opened(url):
    """The picture of a data URL, and its bytes."""
    head, _, text = url.partition(",")
    assert head == "data:image/webp;base64"
    picture = base64.b64decode(text)
    return Image.open(io.BytesIO(picture)), len(picture)


@pytest.mark.slow
def test_pages_become_pictures_of_a_bounded_size_and_long_ones_are_cut_below():
    long, turn = screenshot(1280, 4800), screenshot(1280, 720)
    found = images_of_pages(long, turn, 0.5, [turn, None])
    (answer, size), (reference, other) = opened(found.answer), opened(found.reference)
    assert (answer.width / answer.height, size <= 12_000) == (320 / 480, True)
    assert (reference.size, other <= 12_000) == ((320, 180), True)
    assert opened(found.turns[0])[1] <= 1_500 and found.turns[1] is None
    assert images_of(found.to_json(), "f:1") == found  # small ones stay as they are


def test_pictures_of_a_row_that_are_too_large_are_made_smaller():
    url = "data:image/png;base64," + base64.b64encode(screenshot(640, 480)).decode()
    found = images_of({"answer": url, "reference": PIXEL}, "f:1")
    assert opened(found.answer)[0].size == (320, 240)
    assert found == Images(found.answer, PIXEL, None, ())


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ([], "f:1: 'images' is no object"),
        ({"answer": "https://example.org/a.png"}, "f:1: 'images': 'answer' is no data URL of a PNG, JPEG or WebP"),
        ({"reference": "data:image/png;base64,???"}, "f:1: 'images': 'reference' is no base64"),
        ({"turns": [None, "data:image/png;base64," + "AAAA" * 1000]}, "f:1: 'images': turn 2 is no picture"),
        ({"turns": "x"}, "f:1: 'images': 'turns' is no list"),
        ({"similarity": float("nan")}, "f:1: 'images': 'similarity' is 'nan', expected a number"),
    ],
)
def test_what_is_no_picture_is_named(data, sentence):
    with pytest.raises(BadInput) as caught:
        images_of(data, "f:1")
    assert str(caught.value).startswith(sentence)
