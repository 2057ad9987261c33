"""Which files of a directory are read: those of one split, named as `datasets` names them."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from colbench_env.types import BadInput

DEFAULT_SPLIT = "train"
_SHARD = re.compile(r"(.+)-\d{5,}-of-\d{5,}")
_KEYWORDS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip


def files_of_directory(directory: Path, split: str) -> list[Path]:
    """List the files of a split in order: the directory's Parquet files, or the Arrow files that `save_to_disk` made.

    split: "" where there is only one. Raises BadInput for another, or for several.
    """
    if (directory / "dataset_dict.json").is_file():
        names = _read_list(directory / "dataset_dict.json", "splits")
        return files_of_directory(directory / _chosen(directory, names, split), "")
    if (directory / "state.json").is_file():
        names = [entry.get("filename") for entry in _read_list(directory / "state.json", "_data_files")]
        return [directory / str(name) for name in names]
    found = parquet_files(directory)
    if not found:
        raise BadInput(f"{directory}: the directory holds no .parquet file and no dataset that save_to_disk made")
    return found[_chosen(directory, list(found), split)]


def parquet_files(directory: Path) -> dict[str, list[Path]]:
    """Find the Parquet files of each split, in order; "train" where nothing in a name says which.

    They lie in the directory, in its folders (data/), or in theirs (CONFIGURATION/SPLIT/). Raises BadInput where these
    cannot be listed.
    """
    found: dict[str, list[Path]] = defaultdict(list)
    try:
        # No deeper: somebody may name a directory that holds a whole machine.
        paths = sorted(path for depth in ("", "*/", "*/*/") for path in directory.glob(f"{depth}*.parquet"))
    except OSError as problem:
        raise BadInput(f"{directory}: cannot be listed: {problem.strerror or problem}") from None
    for path in paths:
        if not path.name.startswith("."):
            found[_split_of(path.relative_to(directory))].append(path)
    return dict(found)


def _split_of(path: Path) -> str:
    if shard := _SHARD.fullmatch(path.stem):
        return shard[1]
    for part in (path.stem, *reversed(path.parent.parts)):
        for word in re.split(r"[^a-z0-9]+", part.lower()):
            if word in _KEYWORDS:
                return _KEYWORDS[word]
    return DEFAULT_SPLIT


def _chosen(directory: Path, names: list[str], split: str) -> str:
    if not split and len(names) == 1:
        return names[0]
    if split not in names:
        asked = f"no split {split!r}" if split else "several splits"
        raise BadInput(f"{directory}: the directory has {asked}, expected --split to be one of {', '.join(names)}")
    return split


def _read_list(path: Path, key: str) -> list[Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))[key]
    except (OSError, ValueError, TypeError, KeyError) as problem:
        raise BadInput(f"{path}: cannot be read ({problem!r}), expected {key!r} of a saved dataset") from None
    if not isinstance(found, list) or not found:
        raise BadInput(f"{path}: {key!r} is empty or no list, expected what a saved dataset has")
    return found
