"""`python -m benchmarks.clip`: pictures a second through CLIP ViT-B/32, ours and transformers' in turn in one process.

The network has random weights of the published shape, written by transformers and loaded by both, in float32 on the
CPU. Measured are the network alone (the same pixels), and the whole way from PNG files of full pages to embeddings;
medians of alternating rounds. Then --images pages go through one call of `launch.common.clip_similarity`, and the
process's anonymous memory is told.
"""

from __future__ import annotations

import argparse
import functools
import io
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
import torch
import transformers
from PIL import Image, ImageDraw
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from benchmarks.load_model import anonymous_bytes
from launch.common.clip_similarity import ClipSimilarity, _embed
from sweet_jax.mesh import put_rows


def page(seed: int, height: int) -> bytes:
    """A PNG, 1280 pixels wide, of boxes and lines of text."""
    noise = np.random.default_rng(seed)
    image = Image.new("RGB", (1280, height), "white")
    draw = ImageDraw.Draw(image)
    for _ in range(height // 40):
        x, y = int(noise.integers(0, 1000)), int(noise.integers(0, height))
        colour = tuple(int(value) for value in noise.integers(0, 256, 3))
        draw.rectangle((x, y, x + int(noise.integers(40, 400)), y + int(noise.integers(10, 120))), fill=colour)
        draw.text((x, y), f"heading {noise.integers(10**6)}", fill="black")
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def write_model(directory: Path, layers: int) -> None:
    """The published network with random weights and that many layers a tower, and its preprocessing."""
    torch.manual_seed(0)
    towers = {name: {"num_hidden_layers": layers} for name in ("vision_config", "text_config")}
    transformers.CLIPModel(transformers.CLIPConfig(**towers)).save_pretrained(directory)
    CLIPImageProcessorPil().save_pretrained(directory)


def compare(title: str, count: int, rounds: int, ours: Callable[[], Any], theirs: Callable[[], Any]) -> None:
    """Prints the medians of alternating rounds, each of `count` pictures, and how far the embeddings are apart."""
    apart = np.abs(unit(ours()) - unit(theirs())).max()
    walls: dict[str, list[float]] = {"ours": [], "theirs": []}
    works: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(rounds):
        for name, function in (("ours", ours), ("theirs", theirs)):
            began, worked = time.perf_counter(), time.process_time()
            function()
            walls[name].append(time.perf_counter() - began)
            works[name].append(time.process_time() - worked)
    for unit_name, seconds in (("second", walls), ("processor second", works)):
        mine, other = (count / statistics.median(seconds[name]) for name in ("ours", "theirs"))
        print(
            f"{title + ', a ' + unit_name:<46}{mine:>10.2f}{other:>14.2f}{mine / other:>8.2f}{apart:>16.1e}", flush=True
        )


def unit(image_be: Any) -> np.ndarray:
    """The rows as numpy, each of length 1."""
    image_be = np.asarray(image_be)
    return image_be / np.linalg.norm(image_be, axis=1, keepdims=True)


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--layers", type=int, default=12, help="of each tower; fewer for a quick look at memory")
    flags = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), flags.layers)
        similarity = ClipSimilarity.load(folder, batch_size=flags.batch_size)
        model = transformers.CLIPModel.from_pretrained(folder).eval()
        processor = CLIPImageProcessorPil.from_pretrained(folder)
    clip, size = similarity.clip, flags.batch_size

    @torch.no_grad()
    def their_embeddings(pixels_bcyx: np.ndarray) -> np.ndarray:
        return model.visual_projection(model.vision_model(torch.from_numpy(pixels_bcyx)).pooler_output).numpy()

    def our_embeddings(pixels_bcyx: np.ndarray) -> jax.Array:
        put = put_rows(pixels_bcyx, similarity.mesh)
        return jax.block_until_ready(_embed(clip.params, put, clip.config, similarity.mesh, np.float32))

    def their_way(pictures: list[bytes]) -> np.ndarray:
        images = [Image.open(io.BytesIO(picture)) for picture in pictures]
        return their_embeddings(processor(images, return_tensors="np")["pixel_values"])

    print(
        f"batches of {size}, medians of {flags.rounds} rounds; {os.cpu_count()} cores, jax {jax.__version__}, ", end=""
    )
    print(f"torch {torch.__version__} on {torch.get_num_threads()} threads")
    print(f"{'pictures':<46}{'sweet-jax':>10}{'transformers':>14}{'ratio':>8}{'largest error':>16}")
    pixels_bcyx = np.random.default_rng(0).normal(size=(size, 3, 224, 224)).astype(np.float32)
    compare("network", size, flags.rounds, lambda: our_embeddings(pixels_bcyx), lambda: their_embeddings(pixels_bcyx))
    for height in (720, 3000):
        pages = [page(seed, height) for seed in range(size)]
        ours, theirs = functools.partial(similarity.embed, pages), functools.partial(their_way, pages)
        compare(f"pages of 1280 x {height}", size, flags.rounds, ours, theirs)
    if flags.images:
        memory(similarity, flags.images)


def memory(similarity: ClipSimilarity, count: int) -> None:
    """Prints the anonymous memory while `count` pictures go through one call: in the first tenth, and in all of it."""
    pages, samples, stop = [page(seed, 1500) for seed in range(50)], [], threading.Event()

    def sample() -> None:
        while not stop.wait(0.02):
            samples.append(anonymous_bytes())

    watching = threading.Thread(target=sample)
    watching.start()
    began = time.perf_counter()
    image_be = similarity.embed([pages[number % len(pages)] for number in range(count)])
    seconds = time.perf_counter() - began
    stop.set()
    watching.join()
    early = max(samples[: len(samples) // 10])
    print(
        f"{len(image_be):,} pages of 1280 x 1500 in one call, {seconds:.0f} s: anonymous memory at most "
        f"{early / 2**20:,.0f} MiB in the first tenth of the time, {max(samples) / 2**20:,.0f} MiB in all of it; "
        f"as pixels of the network they would take {count * 3 * 224 * 224 * 4 / 2**20:,.0f} MiB"
    )


if __name__ == "__main__":
    main()
