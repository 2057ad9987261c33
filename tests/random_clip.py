"""A tiny random CLIP directory, for the tests of `models` and of `launch`; needs no torch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from models.clip_config import clip_from_hf
from models.clip_io import clip_layout

VISION = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "vocab_size": 48,
    "max_position_embeddings": 16,
    "bos_token_id": 46,
    "eos_token_id": 47,
}


def save_clip(
    directory: Path,
    vision: dict[str, Any] | None = None,
    text: dict[str, Any] | None = None,
    files: int = 1,
    **settings,
) -> None:
    """Writes config.json, preprocessor_config.json and random weights in that many files, with settings changed."""
    sides = {"vision_config": {**VISION, **(vision or {})}, "text_config": {**TEXT, **(text or {})}}
    raw = {"model_type": "clip", "projection_dim": 16, **sides, **settings}
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(raw))
    size = raw["vision_config"]["image_size"]
    steps = {"feature_extractor_type": "CLIPFeatureExtractor", "size": size, "crop_size": size}
    (directory / "preprocessor_config.json").write_text(json.dumps(steps))
    noise = np.random.default_rng(0)
    tensors = {}
    for path, stored in clip_layout(clip_from_hf(raw)).items():
        for name in stored.names:
            # Larger than a real network's, so that attention is far from uniform and every weight matters.
            value = noise.normal(0.0, 0.2, stored.shape) + (1.0 if path.endswith("scale") else 0.0)
            tensors[name] = np.asarray(value, np.float32)
    write_tensors(directory, tensors, files)


def write_tensors(directory: Path, tensors: dict[str, np.ndarray], files: int = 1) -> None:
    """The tensors as the model's file, or as several and their index."""
    if files == 1:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return
    parts = {f"model-{n + 1:05}-of-{files:05}.safetensors": sorted(tensors)[n::files] for n in range(files)}
    for file, names in parts.items():
        save_file({name: tensors[name] for name in names}, directory / file, metadata={"format": "pt"})
    weight_map = {name: file for file, names in parts.items() for name in names}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
