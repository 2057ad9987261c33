"""Files of every kind of row: what is written is read back, whole, row by row, and by number."""

import json
import pickle

import pytest

from colbench_env.row_file import RowFile
from colbench_env.tasks import append_rows, read_complete, read_rows, scan_lines, write_rows
from colbench_env.types import BadInput, Candidates, Message, Pair, Ranked, Task, Trajectory

TASK = Task("Sum. \u2028\ufffd", "def f(x): return x", {"t 1": "f(1)", "\u00e9": "f('\0')"}, "sum: All.", {"n": [1.5]})
HISTORY = (
    Message("user", "Sum.", extra={"seconds": 1}),
    Message("assistant", "Of what?", "<s>Sum.", "OUTPUT: Of what?", {"token_ids": [3, 4]}),
    Message("user", ""),
    Message("assistant", "f", None, ""),
)
CANDIDATES = Candidates(
    "<s>Sum.", "In light <s>Sum.", "f", -0.25, "def f(): 1", HISTORY, ("a", "", "b"), (-0.5, 0.0, -1e300),
    (-5.0, 1e-300, 2.0), {"output_ids": [[1], [], [2]]},
)  # fmt: skip
ROWS = {
    "backend": (Task, [TASK, Task("Bare.", "x = 1", {"t": "x"})]),
    "frontend": (
        Task,
        [Task("A page.", "<html>\r\n</html>"), Task("Another.", "<p>\U0001f600</p>", extra={"id": 2})],
    ),
    "trajectories": (
        Trajectory,
        [
            Trajectory(TASK, HISTORY, "f", 0.9, {"seed": 2**60, "system": None}),
            Trajectory(Task("No reference.", extra={"train_index": 9}), HISTORY[:2], "No answer"),
            Trajectory(Task("Graded 0."), HISTORY, "", 0.0),
        ],
    ),
    "pairs": (Pair, [Pair("a\n", "b", {"advantages": [0.1, -0.1]}), Pair("c", "c")]),
    "candidates": (Candidates, [CANDIDATES]),
    "ranked": (Ranked, [Ranked(CANDIDATES, (0.0, -1.5, 1e-9))]),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_of_every_kind_are_read_back_as_they_were_written(tmp_path, name):
    kind, rows = ROWS[name]
    path = tmp_path / "rows.jsonl"
    write_rows(path, rows)
    append_rows(path, rows)
    assert read_rows(path, kind) == read_complete(path, kind) == rows + rows
    by_number = RowFile(path, kind)
    assert [by_number[number] for number in range(len(by_number))] == rows + rows
    content = path.read_bytes()
    write_rows(path, read_rows(path, kind))
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", ROWS)
def test_a_released_row_keeps_its_keys_and_their_values(tmp_path, name):
    kind, rows = ROWS[name]
    path = tmp_path / "rows.jsonl"
    write_rows(path, rows)
    released = [json.loads(line) for line in path.read_text().splitlines()]
    assert [kind.from_json(row, "here").to_json() for row in released] == released


def test_rows_are_found_by_number_whatever_stands_between_them(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"chosen": "\xc3\xa9", "rejected": "0"}\r\n\n  \n'
        b'{"chosen": "b", "rejected": "1"}\n{"chosen": "c", "rejected": "2"}'
    )
    rows = RowFile(path, Pair)
    assert len(rows) == 3
    assert [rows[number] for number in (2, 0, 1, -1)] == [
        Pair("c", "2"), Pair("\u00e9", "0"), Pair("b", "1"), Pair("c", "2"),
    ]  # fmt: skip
    assert list(rows) == read_rows(path, Pair)
    assert pickle.loads(pickle.dumps(rows))[1] == Pair("b", "1")
    with pytest.raises(IndexError):
        rows[3]


def test_the_fingerprint_is_of_the_rows_alone(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b'{"chosen": "a", "rejected": "b"}\n{"chosen": "c", "rejected": "d"}\n')
    other.write_bytes(b'\xef\xbb\xbf{"chosen": "a", "rejected": "b"}\r\n\r\n{"chosen": "c", "rejected": "d"}')
    fingerprint = RowFile(one, Pair).fingerprint
    assert fingerprint == "6a8b91becef9c629ce1fa778c6afe66fbc4d79230c8aa76758dcbd54b2966145"
    assert RowFile(other, Pair).fingerprint == fingerprint
    other.write_bytes(b'{"chosen": "c", "rejected": "d"}\n{"chosen": "a", "rejected": "b"}\n')
    assert RowFile(other, Pair).fingerprint != fingerprint


def test_a_defective_row_is_named_when_it_is_asked_for_and_not_before(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\n{"chosen": "a", "rejected": "b"}\n{"chosen": "a"}\n{"cho')
    rows = RowFile(path, Pair)
    assert rows[0] == Pair("a", "b")
    with pytest.raises(BadInput, match=r"rows\.jsonl:3: 'rejected' is missing"):
        rows[1]
    with pytest.raises(BadInput, match=r"rows\.jsonl:4: the last line is cut off or invalid JSON"):
        rows[2]


def test_a_file_that_is_empty_or_gone_is_one_sentence(tmp_path):
    path = tmp_path / "rows.jsonl"
    with pytest.raises(BadInput, match=r"rows\.jsonl: cannot read the file: No such file or directory$"):
        RowFile(path, Pair)
    path.write_text("\n")
    with pytest.raises(BadInput, match=r"rows\.jsonl: the file has no rows"):
        RowFile(path, Pair)
    path.write_text('{"chosen": "a", "rejected": "b"}')
    rows = RowFile(path, Pair)
    path.unlink()
    with pytest.raises(BadInput, match=r"rows\.jsonl: cannot read the file: No such file or directory$"):
        rows[0]


def test_lines_are_numbered_with_the_blank_ones_and_have_their_place(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf{}\r\n\n[1]")
    found = [(line.location, line.number, line.content, line.offset) for line in scan_lines(path)]
    assert found == [(f"{path}:1", 1, b"{}\r\n", 0), (f"{path}:3", 3, b"[1]", 8)]


@pytest.mark.parametrize("digits", ["1e999", "-1e999", "1" + "0" * 400 + ".5"])
def test_a_number_beyond_all_floats_is_refused_wherever_it_stands(tmp_path, digits):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"chosen": "a", "rejected": "b", "extra": {"n": [' + digits + "]}}\n")
    with pytest.raises(BadInput, match=r"rows\.jsonl:1: invalid JSON \(\S+ is too large a number\)"):
        read_rows(path, Pair)


def test_long_keys_and_many_keys_make_no_long_sentence(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"k" * 100_000: 1}) + "\n")
    with pytest.raises(BadInput, match=r"'chosen' is missing, the row has 'k{59}…'$"):
        read_rows(path, Pair)
    path.write_text(json.dumps({str(number): 1 for number in range(15)}) + "\n")
    with pytest.raises(BadInput, match=r"the row has '0', '1', .*'11', 3 more$"):
        read_rows(path, Pair)
