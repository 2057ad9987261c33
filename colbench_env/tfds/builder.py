"""The builder `colbench` with the configurations backend, frontend and offline.

An example holds `row`, the JSON object of the row as `tasks.write_rows` writes it, and also typed fields to see
and filter by. A row is read back from `row`: it alone has the keys that other tools have added, and tells what is
empty from what is not there, so the round trip is exact. Examples stay in the order of the file.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ..row_file import RowFile
from ..tasks import decode_line, encode_row
from ..types import BadInput, Message, Task, Trajectory

# The files of facebook/collaborative_agent_bench on the Hugging Face hub. Those of frontend_tasks/ are not there: a
# script in the README of the released code makes them of WebSight, with these names.
HUB_FILES = {
    "backend": {"train": "backend_tasks/train.jsonl", "test": "backend_tasks/test.jsonl"},
    "frontend": {"train": "frontend_tasks/train.jsonl", "test": "frontend_tasks/test.jsonl"},
    "offline": {"train": "colbench_code_offline_15k_llama8b.jsonl"},
}
KINDS: Mapping[str, Any] = {"backend": Task, "frontend": Task, "offline": Trajectory}
DESCRIPTIONS = {
    "backend": "Backend programming: a description, a reference in Python, ten calls.",
    "frontend": "Frontend design: a description and a reference page in HTML.",
    "offline": "Dialogues about backend tasks with their rewards, collected for training.",
}

Source = str | Path


def find_files(config: str, folder: Source) -> dict[str, Path]:
    """Find the files of a configuration, by split, in a copy of the hub's repository. Raises BadInput if there is
    none."""
    _check_config(config)
    found = {split: Path(folder) / name for split, name in HUB_FILES[config].items()}
    there = {split: path for split, path in found.items() if path.is_file()}
    if not there:
        raise BadInput(f"{folder}: none of {', '.join(HUB_FILES[config].values())} is there")
    return there


def prepare(config: str, source: Source | Mapping[str, Source], data_dir: Source) -> "Colbench":
    """Build a dataset in `data_dir` if it is not there, and return its builder.

    source: a folder with the hub's file names, or a file for each split, as {"test": "my_tasks.jsonl"}.
    Raises BadInput: a defective row, a missing file, or a dataset in `data_dir` that was made from other rows.
    """
    _check_config(config)
    files = source if isinstance(source, Mapping) else find_files(config, source)
    builder = Colbench(config=config, data_dir=data_dir, files=files)
    builder.download_and_prepare()
    made_from = builder.info.metadata["fingerprints"]
    given = {split: RowFile(path, KINDS[config]).fingerprint for split, path in files.items()}
    if given != made_from:
        raise BadInput(
            f"{builder.data_dir}: the dataset there was made from other rows than those of "
            f"{', '.join(map(str, files.values()))}, expected an empty place or the same rows"
        )
    return builder


class Colbench(tfds.core.GeneratorBasedBuilder):
    """ColBench: an agent asks a human with hidden wishes, then answers, and is graded."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "The rows of the released files."}
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name, description=text) for name, text in DESCRIPTIONS.items()]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Give files={split: path}, or put the files of facebook/collaborative_agent_bench into the manual directory."
    )

    def __init__(self, *, files: Mapping[str, Source] | None = None, file_format: str = "array_record", **kwargs: Any):
        """files: by split; without them they are looked for in the manual directory when the dataset is written."""
        self._files = files
        super().__init__(file_format=file_format, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text()
        features = {"problem_description": text, "ground_truth": text, "row": text}
        if self.builder_config.name != "frontend":
            features["test_cases"] = tfds.features.Sequence({"name": text, "call": text})
            features["hidden_information"] = text
        if self.builder_config.name == "offline":
            features["dialogue_history"] = tfds.features.Sequence({"role": text, "content": text})
            features["answer"] = text
            features["reward"] = tfds.features.Scalar(dtype=np.float32, doc="rounded; NaN if the row has none")
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=tfds.features.FeaturesDict(features),
            homepage="https://huggingface.co/datasets/facebook/collaborative_agent_bench",
            license="CC-BY-NC 4.0; output of Llama 3.1. The pages of frontend tasks: CC-BY-4.0 (WebSight).",
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict({"fingerprints": {}}),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[Any]]:
        config = self.builder_config.name
        files = self._files if self._files is not None else find_files(config, dl_manager.manual_dir)
        rows = {split: RowFile(path, KINDS[config]) for split, path in files.items()}
        self.info.metadata["fingerprints"] = {split: file.fingerprint for split, file in rows.items()}
        return {split: self._generate_examples(file) for split, file in rows.items()}

    def _generate_examples(self, rows: RowFile) -> Iterator[tuple[int, dict[str, Any]]]:
        for number in range(len(rows)):
            example = _example(rows[number], f"{rows.path}: row {number + 1}")
            yield number, {name: example[name] for name in self.info.features}


class TfdsRows:
    """The rows of a split by number, from 0, in the order of the file that it was made from.

    fingerprint: that of the file, as `RowFile` has it. Raises BadInput for a split that is not there.
    """

    def __init__(self, builder: Colbench, split: str):
        if split not in builder.info.splits:
            there = ", ".join(builder.info.splits) or "none"
            raise BadInput(f"{builder.data_dir}: there is no split {split!r}, expected one of {there}")
        self.name = f"{builder.info.full_name} {split}"
        self.kind = KINDS[builder.builder_config.name]
        self.fingerprint = builder.info.metadata["fingerprints"][split]
        self._examples = builder.as_data_source(split=split)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, number: int) -> Task | Trajectory:
        """Return the row of this number. Raises IndexError where there is none."""
        number = range(len(self))[number]
        location = f"{self.name}:{number}"
        return self.kind.from_json(decode_line(self._examples[number]["row"], location), location)


def _check_config(config: str) -> None:
    if config not in KINDS:
        raise BadInput(f"there is no configuration {config!r} of colbench, expected one of {', '.join(KINDS)}")


def _example(row: Task | Trajectory, location: str) -> dict[str, Any]:
    """All fields of a row, of which a configuration takes its own."""
    example: dict[str, Any] = {"row": encode_row(row, location).strip()}
    task = row.task if isinstance(row, Trajectory) else row
    if isinstance(row, Trajectory):
        example["dialogue_history"] = [_message(message) for message in row.dialogue_history]
        example["answer"] = _utf8(row.answer)
        example["reward"] = np.nan if row.reward is None else row.reward
    example["problem_description"] = _utf8(task.problem_description)
    example["ground_truth"] = _utf8(task.ground_truth)
    example["hidden_information"] = _utf8(task.hidden_information or "")
    calls = task.test_cases.items()
    example["test_cases"] = [{"name": _utf8(name), "call": _utf8(call)} for name, call in calls]
    return example


def _message(message: Message) -> dict[str, bytes]:
    return {"role": _utf8(message.role), "content": _utf8(message.content)}


def _utf8(text: str) -> bytes:
    return text.encode("utf-8")
