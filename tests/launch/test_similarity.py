"""How alike pages look: pictures through CLIP, and the rules for pages that are not there."""

import io

import jax
import numpy as np
import pytest
from jax.sharding import AxisType
from PIL import Image
from random_clip import save_clip

from colbench_env.design.page import Page
from colbench_env.design.similarity import StructuralSimilarity
from colbench_env.types import BadInput
from launch.common import clip_similarity as similarity
from launch.common.clip_similarity import ClipSimilarity, black_png
from models.config import ModelError


def png(width=40, height=60, seed=0):
    """A picture of random stripes and blocks."""
    noise = np.random.default_rng(seed).integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise.repeat(8, 0).repeat(8, 1)[:height, :width]).save(file, "PNG")
    return file.getvalue()


def page(picture, problem=None):
    return Page(picture, 40, 60, (), 0, problem)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A random CLIP directory."""
    path = tmp_path_factory.mktemp("clips") / "tiny"
    save_clip(path)
    return path


@pytest.fixture(scope="module")
def clip(directory):
    return ClipSimilarity.load(directory, failed="black", batch_size=4)


@pytest.mark.slow
def test_equal_pictures_score_one_and_others_less(clip):
    pages = [page(png(seed=seed)) for seed in range(6)]
    scores = clip.scores([*pages, pages[0]], [*pages, pages[1]])
    assert clip.name == "CLIP cosine (tiny, failed pages: black)"
    np.testing.assert_allclose(scores[:6], 1.0, rtol=0, atol=1e-6)
    assert -1.0 <= scores[6] < 0.999
    assert clip.scores([], []) == []


@pytest.mark.slow
def test_scores_do_not_depend_on_the_batch_or_the_mesh(clip, directory):
    pages = [page(png(30 + 7 * n, 90 - 11 * n, n)) for n in range(6)]
    references = pages[1:] + pages[:1]
    expected = [clip.scores([left], [right])[0] for left, right in zip(pages, references, strict=True)]
    assert np.ptp(expected) > 1e-3
    mesh = jax.make_mesh((4, 2), ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)
    split = ClipSimilarity.load(directory, mesh, batch_size=8)
    np.testing.assert_allclose(split.scores(pages, references), expected, rtol=0, atol=1e-6)
    with pytest.raises(BadInput, match="a batch of 6 cannot be divided into 1 micro-batches over a data axis of 4"):
        ClipSimilarity.load(directory, mesh, batch_size=6)


@pytest.mark.slow
def test_one_program_is_compiled_for_each_batch_size(clip, directory):
    clip.embed([png()])
    before = similarity._embed._cache_size()
    for batch_size in (4, 3, 4):
        measure = ClipSimilarity.load(directory, batch_size=batch_size)
        for count in (1, 3, 7):
            pages = [page(png(seed=seed)) for seed in range(count)]
            measure.scores(pages, pages)
    assert similarity._embed._cache_size() == before + 1


@pytest.mark.slow
def test_a_picture_is_read_once_a_call_and_one_batch_before_it_is_embedded(clip, monkeypatch):
    events, preprocess, embed = [], similarity.preprocess, similarity._embed
    monkeypatch.setattr(similarity, "preprocess", lambda *given: events.append("read") or preprocess(*given))
    monkeypatch.setattr(similarity, "_embed", lambda *given: events.append("embed") or embed(*given))
    pages = [page(png(seed=seed % 5)) for seed in range(12)]
    clip.scores(pages, [page(png(seed=9))] * 12)
    assert events == [*["read"] * 4, "embed", *["read"] * 2, "embed"]


@pytest.mark.parametrize("missing", [None, page(png(seed=5), "the script did not end in 5 s")])
def test_a_page_that_is_not_there_is_black_or_worth_nothing(clip, directory, missing):
    reference = page(png())
    (black,) = clip.scores([page(black_png())], [reference])
    assert clip.scores([missing, reference], [reference, reference]) == pytest.approx([black, 1.0], abs=1e-6)
    zero = ClipSimilarity.load(directory, failed="zero", batch_size=4)
    assert zero.name == "CLIP cosine (tiny, failed pages: zero)"
    assert zero.scores([missing, reference], [reference, reference]) == pytest.approx([0.0, 1.0], abs=1e-6)
    assert Image.open(io.BytesIO(black_png())).getcolors() == [(224 * 224, (0, 0, 0))]
    with pytest.raises(BadInput, match="failed is 'white', expected one of zero, black"):
        ClipSimilarity.load(directory, failed="white")


def test_the_structural_measure_keeps_the_same_rules():
    measure = StructuralSimilarity()
    one, other, broken = page(png(seed=1)), page(png(seed=2)), page(b"white", "it crashed")
    assert measure.name == "structural (not the paper's metric)"
    same, different, *rest = measure.scores([one, other, None, broken], [one] * 4)
    assert same == 1.0 and 0 < different < 1 and rest == [0.0, 0.0]
    with pytest.raises(BadInput, match="reference 2 of 2 did not render: it crashed"):
        measure.scores([one, one], [one, broken])
    with pytest.raises(BadInput, match="1 pages cannot be compared with 2 references: one for each is needed"):
        measure.scores([one], [one, one])


@pytest.mark.slow
def test_bfloat16_scores_nearly_the_same(clip, directory):
    half = ClipSimilarity.load(directory, dtype="bfloat16", batch_size=4)
    pages, references = ([page(png(seed=seed)) for seed in range(first, first + 3)] for first in (0, 3))
    np.testing.assert_allclose(half.scores(pages, references), clip.scores(pages, references), rtol=0, atol=0.05)
    assert half.scores(pages, pages) == pytest.approx([1.0] * 3, abs=1e-6)


def test_products_are_asked_for_in_full_precision(clip):
    pixels_bcyx = jax.ShapeDtypeStruct((4, 3, 32, 32), "float32")
    program = similarity._embed.lower(clip.clip.params, pixels_bcyx, clip.clip.config, clip.mesh, "float32").as_text()
    assert program.count("dot_general") == program.count("precision = [HIGHEST, HIGHEST]") > 8


def test_bytes_that_are_no_picture_are_an_error(clip):
    for damaged in (b"", b"<html>", png()[:200]):
        with pytest.raises(ModelError, match=r"not a picture that Pillow reads \(\d+ bytes\)"):
            clip.scores([page(damaged)], [page(png())])
