"""How alike rendered pages and their references look: the paper's CLIP cosine, or a measure of their structure.

similarity = ClipSimilarity.load(Path("clip-vit-base-patch32"))
scores = similarity.scores(pages, references)
"""

import functools
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Float32, Float64
from PIL import Image

from colbench_env.design.grading import check_pairs, has_failed
from colbench_env.design.page import Page
from colbench_env.types import BadInput
from launch.common.settings import FailedRule
from models.clip import embed_images
from models.clip_config import ClipConfig
from models.clip_image import preprocess
from models.clip_io import LoadedClip, load_clip
from models.config import ModelError
from models.parameters import Params
from sweet_jax.mesh import MeshShape, check_rows, make_mesh, put_rows, replicated, start_devices


@dataclass(frozen=True)
class ClipSimilarity:
    """The cosine of CLIP's embeddings of the two pictures, from -1 to 1: the metric of the paper.

    failed: what a page is worth that is missing or did not render: "black" compares a black picture in its place, as
    the released code does; "zero" says 0. batch_size: pictures that are read and embedded at once; the same pictures
    are embedded once a call.
    """

    clip: LoadedClip
    mesh: Mesh
    name: str = "CLIP cosine"
    failed: FailedRule = "zero"
    batch_size: int = 32
    compute_dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        if self.failed not in get_args(FailedRule):
            raise BadInput(f"failed is {self.failed!r}, expected one of {', '.join(get_args(FailedRule))}")
        check_rows(self.batch_size, self.mesh)

    @classmethod
    def load(
        cls,
        directory: str | Path,
        mesh: Mesh | None = None,
        *,
        failed: FailedRule = "zero",
        batch_size: int = 32,
        dtype: DTypeLike = jnp.float32,
    ) -> "ClipSimilarity":
        """Load the network of a Hugging Face CLIP directory, on one device where no mesh is given.

        dtype: of the weights and of the arithmetic.
        Raises ModelError as `models.clip_io.load_clip`.
        """
        if mesh is None:
            start_devices(MeshShape())
            mesh = make_mesh(MeshShape())
        clip = load_clip(directory, mesh, dtype)
        name = f"CLIP cosine ({Path(directory).resolve().name}, failed pages: {failed})"
        return cls(clip, mesh, name, failed, batch_size, dtype)

    def scores(self, pages: Sequence[Page | None], references: Sequence[Page]) -> list[float]:
        """Compare pages with their references; see `Similarity`. Equal pictures score 1."""
        check_pairs(pages, references)
        instead = black_png() if self.failed == "black" else None
        shown = [instead if page is None or has_failed(page) else page.png for page in pages]
        wanted = [reference.png for reference in references]
        pictures = list(dict.fromkeys(png for png in (*shown, *wanted) if png is not None))
        unit_of = dict(zip(pictures, self.embed(pictures), strict=True))
        return [
            0.0 if png is None else float(np.clip(unit_of[png] @ unit_of[reference], -1.0, 1.0))
            for png, reference in zip(shown, wanted, strict=True)
        ]

    def embed(self, pictures: Sequence[bytes]) -> Float64[np.ndarray, "B E"]:
        """Embed picture files as vectors of length 1. Raises ModelError for a file that is not a picture.

        At most the pixels of two batches are held: of the one that is computed, and of the next, which is read.
        """
        done: list[np.ndarray] = []
        running: tuple[jax.Array, int] | None = None
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(pictures), self.batch_size):
                batch = pictures[start : start + self.batch_size]
                pixels_bcyx = self._read(batch, pool)
                if running is not None:
                    done.append(np.asarray(running[0])[: running[1]])
                put = put_rows(pixels_bcyx, self.mesh)
                running = _embed(self.clip.params, put, self.clip.config, self.mesh, self.compute_dtype), len(batch)
        if running is not None:
            done.append(np.asarray(running[0])[: running[1]])
        image_be = np.concatenate([np.zeros((0, self.clip.config.projection_dim)), *done]).astype(np.float64)
        if not np.isfinite(image_be).all():
            raise ModelError(f"{self.name}: an embedding in {jnp.dtype(self.compute_dtype)} is not finite")
        return image_be / np.linalg.norm(image_be, axis=1, keepdims=True)

    def _read(self, batch: Sequence[bytes], pool: ThreadPoolExecutor) -> Float32[np.ndarray, "B C Y X"]:
        """Read the pixels of the pictures, padded with rows of zeros to the batch size: one size, one program."""
        vision = self.clip.config.vision
        expected = (vision.num_channels, vision.image_size, vision.image_size)
        pixels_bcyx = np.zeros((self.batch_size, *expected), np.float32)
        for row, pixels in enumerate(pool.map(lambda png: preprocess(png, self.clip.preprocessing), batch)):
            if pixels.shape != expected:
                raise ModelError(
                    f"{self.name}: a picture becomes {pixels.shape} (colours, height, width), "
                    f"the network sees {expected}"
                )
            pixels_bcyx[row] = pixels
        return pixels_bcyx


@functools.partial(jax.jit, static_argnames=("config", "mesh", "dtype"))
def _embed(params: Params, pixels_bcyx: jax.Array, config: ClipConfig, mesh: Mesh, dtype: DTypeLike) -> jax.Array:
    """Compute embeddings [B, E], replicated. float32 products are float32, where TPUs would use bfloat16 by default."""
    with jax.default_matmul_precision("highest"):
        image_be = embed_images(params, pixels_bcyx, config, mesh, dtype)
    return jax.lax.with_sharding_constraint(image_be, replicated(mesh))


@functools.cache
def black_png() -> bytes:
    """Make a black picture of the size that the released code gives an answer without a picture."""
    file = io.BytesIO()
    Image.new("RGB", (224, 224), "black").save(file, "PNG")
    return file.getvalue()
