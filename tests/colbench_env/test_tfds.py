"""The dataset `colbench`: rows come back as they were, without TensorFlow and without jax."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from colbench_env.mini import make_tasks
from colbench_env.row_file import RowFile
from colbench_env.tasks import write_rows
from colbench_env.tfds import Colbench, TfdsRows, find_files, prepare
from colbench_env.types import BadInput, Message, Task, Trajectory

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT / "../shared/data"
TASKS = [
    Task(
        "Sum. \u2028\ufffd", "def f(x): return x", {"t 1": "f(1)", "\u00e9": "f('\0')"}, "sum: All.", {"n": [1.5, None]}
    ),
    Task("Bare.", "x = 1", {"t": "x"}),
    Task("Empty.", "x = 1", {"t": "x"}, ""),
]
PAGES = [Task("A page.", "<html>\r\n</html>"), Task("Another.", "<p></p>", extra={"id": 2})]
HISTORY = (Message("user", "Sum."), Message("assistant", "f", "<s>Sum.", None, {"token_ids": [3]}))
DIALOGUES = [
    Trajectory(TASKS[0], HISTORY, "f", 0.9, {"seed": 2**60}),
    Trajectory(Task("No reference.", extra={"train_index": 9}), HISTORY, "No answer"),
]
ROWS = {"backend": TASKS, "frontend": PAGES, "offline": DIALOGUES}


@pytest.fixture(autouse=True, scope="module")
def no_progress_bars():
    tfds.disable_progress_bar()
    yield
    tfds.enable_progress_bar()


@pytest.fixture
def files(tmp_path):
    """A file of each configuration, by name."""
    for name, rows in ROWS.items():
        write_rows(tmp_path / f"{name}.jsonl", rows)
    return {name: tmp_path / f"{name}.jsonl" for name in ROWS}


@pytest.mark.parametrize("config", ROWS)
def test_rows_come_back_exactly_and_in_their_order(tmp_path, files, config):
    rows = TfdsRows(prepare(config, {"test": files[config]}, tmp_path / "data"), "test")
    assert [rows[number] for number in range(len(rows))] == ROWS[config]
    assert rows.fingerprint == RowFile(files[config], rows.kind).fingerprint


def test_typed_fields_stand_beside_the_row(tmp_path, files):
    example = prepare("backend", {"test": files["backend"]}, tmp_path).as_data_source(split="test")[0]
    assert json.loads(example.pop("row")) == TASKS[0].to_json()
    assert example == {
        "problem_description": "Sum. \u2028\ufffd".encode(),
        "ground_truth": b"def f(x): return x",
        "hidden_information": b"sum: All.",
        "test_cases": {"name": [b"t 1", "\u00e9".encode()], "call": [b"f(1)", b"f('\0')"]},
    }
    graded, ungraded = prepare("offline", {"train": files["offline"]}, tmp_path).as_data_source(split="train")
    assert graded["reward"] == np.float32(0.9) and ungraded["reward"] != ungraded["reward"]
    assert graded["dialogue_history"] == {"role": [b"user", b"assistant"], "content": [b"Sum.", b"f"]}


@pytest.mark.slow
def test_rows_keep_their_order_over_many_files(tmp_path):
    tasks = list(make_tasks("train", 100, 0))
    write_rows(tmp_path / "tasks.jsonl", tasks)
    builder = Colbench(config="backend", data_dir=tmp_path, files={"train": tmp_path / "tasks.jsonl"})
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=7))
    rows = TfdsRows(builder, "train")
    assert builder.info.splits["train"].num_shards == 7
    assert [rows[number] for number in range(len(rows))] == tasks


def test_the_files_of_the_hub_are_found_by_their_names(tmp_path):
    (tmp_path / "backend_tasks").mkdir()
    write_rows(tmp_path / "backend_tasks/train.jsonl", TASKS[:1])
    write_rows(tmp_path / "backend_tasks/test.jsonl", TASKS[1:])
    write_rows(tmp_path / "colbench_code_offline_15k_llama8b.jsonl", DIALOGUES)
    builder = prepare("backend", tmp_path, tmp_path / "data")
    assert {split: len(TfdsRows(builder, split)) for split in builder.info.splits} == {"train": 1, "test": 2}
    assert list(find_files("offline", tmp_path)) == ["train"]
    with pytest.raises(BadInput, match=r": none of frontend_tasks/train\.jsonl, frontend_tasks/test\.jsonl is there$"):
        prepare("frontend", tmp_path, tmp_path / "data")


def test_the_tools_of_tensorflow_datasets_find_the_files_in_the_manual_directory(tmp_path):
    (tmp_path / "frontend_tasks").mkdir()
    write_rows(tmp_path / "frontend_tasks/test.jsonl", PAGES)
    builder = tfds.builder("colbench/frontend", data_dir=tmp_path / "data")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=tmp_path))
    source = tfds.data_source("colbench/frontend", split="test", data_dir=tmp_path / "data")
    assert [json.loads(example["row"]) for example in source] == [page.to_json() for page in PAGES]


def test_a_dataset_that_is_there_is_read_again_but_never_taken_for_other_rows(tmp_path, files):
    place = tmp_path / "data"
    first = prepare("backend", {"test": files["backend"]}, place)
    written = [path.stat().st_mtime_ns for path in sorted(Path(first.data_dir).iterdir())]
    again = prepare("backend", {"test": files["backend"]}, place)
    assert [path.stat().st_mtime_ns for path in sorted(Path(again.data_dir).iterdir())] == written
    write_rows(files["backend"], TASKS[:1])
    with pytest.raises(BadInput, match="the dataset there was made from other rows than those of"):
        prepare("backend", {"test": files["backend"]}, place)
    with pytest.raises(BadInput, match="the dataset there was made from other rows than those of"):
        prepare("backend", {"train": files["backend"]}, place)


def test_a_defective_row_is_named_and_leaves_no_dataset(tmp_path, files):
    with files["backend"].open("a") as file:
        file.write('{"problem_description": "No reference."}\n')
    with pytest.raises(BadInput, match=r"backend\.jsonl:4: 'ground_truth' is missing"):
        prepare("backend", {"test": files["backend"]}, tmp_path / "data")
    assert [path for path in (tmp_path / "data").rglob("*.array_record*") if path.is_file()] == []
    write_rows(files["backend"], TASKS)
    assert len(TfdsRows(prepare("backend", {"test": files["backend"]}, tmp_path / "data"), "test")) == 3


def test_what_is_not_there_is_named(tmp_path, files):
    with pytest.raises(
        BadInput, match="no configuration 'back' of colbench, expected one of backend, frontend, offline"
    ):
        prepare("back", tmp_path, tmp_path)
    with pytest.raises(BadInput, match=r"missing\.jsonl: cannot read the file"):
        prepare("backend", {"test": tmp_path / "missing.jsonl"}, tmp_path / "data")
    builder = prepare("backend", {"test": files["backend"]}, tmp_path / "data")
    with pytest.raises(BadInput, match="there is no split 'train', expected one of test"):
        TfdsRows(builder, "train")
    rows = TfdsRows(builder, "test")
    assert list(rows) == TASKS and rows[-1] == TASKS[2]
    with pytest.raises(IndexError):
        rows[3]


@pytest.mark.slow
def test_neither_tensorflow_nor_jax_is_imported(tmp_path, files):
    code = f"""
import sys, colbench_env, colbench_env.row_file
print("tensorflow_datasets" in sys.modules)
from colbench_env.tfds import TfdsRows, prepare
rows = TfdsRows(prepare("backend", {{"test": {str(files["backend"])!r}}}, {str(tmp_path / "data")!r}), "test")
print(rows[1].problem_description, sorted({{"tensorflow", "jax", "jaxlib", "torch"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.strip()][0] == "False"
    assert done.stdout.splitlines()[-1] == "Bare. []"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "name", "count"),
    [
        ("backend", "colbench/backend_test_800.jsonl", 800),
        ("frontend", "colbench/frontend_test_800.jsonl", 800),
        ("offline", "trajectories/qwen3_4b_40.jsonl", 40),
    ],
)
def test_the_real_rows_come_back_exactly(tmp_path, config, name, count):
    if not (SHARED / name).exists():
        pytest.skip(f"../shared/data/{name} is not beside this checkout")
    source = prepare(config, {"test": SHARED / name}, tmp_path).as_data_source(split="test")
    lines = (SHARED / name).read_text(encoding="utf-8").splitlines()
    assert len(source) == count
    assert [json.loads(example["row"]) for example in source] == [json.loads(line) for line in lines]
