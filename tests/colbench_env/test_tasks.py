import json
import os
import resource
import sys

import pytest

from colbench_env.tasks import (
    Located,
    append_rows,
    decode_line,
    holds_half_characters,
    read_complete,
    read_located_rows,
    read_rows,
    scan_rows,
    write_rows,
)
from colbench_env.types import BadInput, Pair, Task, Trajectory

GOOD = b'{"chosen": "a", "rejected": "b"}'
FIRST, SECOND = Pair("a", "b"), Pair("c", "d", {"seed": 1})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rows.jsonl"


@pytest.mark.parametrize(
    "content",
    [
        GOOD + b"\n",
        GOOD,
        b"\xef\xbb\xbf" + GOOD + b"\r\n",
        b"\n" + GOOD + b"\n\n  \n",
        b"\xef\xbb\xbf\n" + GOOD,
    ],
    ids=["plain", "no line end", "byte order mark and CRLF", "blank lines", "byte order mark alone"],
)
def test_what_editors_do_to_a_file_is_tolerated(path, content):
    path.write_bytes(content)
    assert read_rows(path, Pair) == [FIRST]


def test_a_line_separator_inside_a_string_does_not_end_the_line(path):
    path.write_bytes('{"chosen": "a\u2028\x85b", "rejected": "c"}\n'.encode())
    assert read_rows(path, Pair) == [Pair("a\u2028\x85b", "c")]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (b"{nonsense}\n", ":2: invalid JSON (Expecting property name enclosed in double quotes at column 2)"),
        (b'{"chosen": "a"\n', ":2: invalid JSON (Expecting ',' delimiter at column 15)"),
        (b'{"chosen": "a", "rej', ":2: the last line is cut off or invalid JSON (Unterminated string"),
        (b"[1]\n", ":2: found a list, expected a JSON object"),
        (b'{"chosen": "a"}\n', ":2: 'rejected' is missing, the row has 'chosen'"),
        (b'{"chosen": "a", "rejected": null}\n', ":2: 'rejected' is null, expected a string"),
        (b'{"chosen": "a", "rejected": "\xff"}\n', ":2: byte 30 is not UTF-8, expected a JSON object in UTF-8"),
        (b'{"chosen": "a", "rejected": "b", "n": NaN}\n', ":2: invalid JSON (NaN is not a JSON number)"),
        (b"[" * 100_000 + b"\n", ":2: invalid JSON (maximum recursion depth exceeded"),
        (b"1" * 5_000 + b"\n", ":2: invalid JSON (Exceeds the limit"),
    ],
)
def test_a_defective_line_is_named_by_file_and_line(path, second, message):
    path.write_bytes(GOOD + b"\n" + second)
    with pytest.raises(BadInput) as caught:
        read_rows(path, Pair)
    assert str(caught.value).startswith(f"{path}{message}")


def test_line_numbers_count_blank_lines(path):
    path.write_bytes(b"\n\n" + GOOD + b"\n\nx\n")
    with pytest.raises(BadInput, match=r"rows\.jsonl:5: invalid JSON"):
        read_rows(path, Pair)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_rows_are_located_by_the_lines_an_editor_shows(path, end):
    path.write_bytes(end.join([b"\xef\xbb\xbf", GOOD, b"", b"  \t", b'{"chosen": "c", "rejected": "d", "seed": 1}']))
    assert read_located_rows(path, Pair) == [Located(f"{path}:2", 2, FIRST), Located(f"{path}:5", 5, SECOND)]


def test_locating_rows_ends_at_the_first_defective_one(path):
    path.write_bytes(GOOD + b"\n\n[]\n" + GOOD + b"\n{}\n")
    with pytest.raises(BadInput, match=f"^{path}:3: found a list, expected a JSON object$"):
        read_located_rows(path, Pair)


def test_a_scan_goes_on_behind_a_defective_line(path):
    path.write_bytes(GOOD + b"\n{}\nx\n" + GOOD + b"\n")
    first, second, third, fourth = scan_rows(path, Pair)
    assert (first, fourth) == (FIRST, FIRST)
    assert str(second) == f"{path}:2: 'chosen' is missing, the row has no keys"
    assert isinstance(third, BadInput) and f"{path}:3: invalid JSON" in str(third)


@pytest.mark.parametrize("content", [b"", b"\n \r\n", b"\xef\xbb\xbf"])
def test_a_file_without_rows_is_an_error(path, content):
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"rows\.jsonl: the file has no rows, expected one JSON object a line"):
        read_rows(path, Pair)


def test_a_missing_file_and_a_directory_are_errors_in_one_sentence(path, tmp_path):
    with pytest.raises(BadInput, match=r"rows\.jsonl: cannot read the file: No such file or directory$"):
        read_rows(path, Pair)
    with pytest.raises(BadInput, match=r"cannot read the file: Is a directory$"):
        read_rows(tmp_path, Pair)


def test_a_tasks_file_needs_references_where_a_trajectory_does_not(path):
    task = {"problem_description": "Round.", "train_index": 9}
    path.write_text(json.dumps(task) + "\n")
    with pytest.raises(BadInput, match=r"rows\.jsonl:1: 'ground_truth' is missing"):
        read_rows(path, Task)
    history = [
        {"role": "user", "content": "Round."},
        {"role": "assistant", "content": "x", "input": None, "output": "x"},
    ]
    path.write_text(json.dumps({"task": task, "dialogue_history": history, "answer": "x"}) + "\n")
    (trajectory,) = read_rows(path, Trajectory)
    assert (trajectory.task.ground_truth, trajectory.task.test_cases, trajectory.reward) == ("", {}, None)


def test_written_rows_are_read_back_equal(path):
    strange = Pair("line\u2028end \x00 \"'", "ü\n", {"seed": 1})
    write_rows(path, [FIRST, strange])
    assert read_rows(path, Pair) == [FIRST, strange]
    write_rows(path, [FIRST, Pair("half \ud800", "ü\n", {"seed": "\udfff"})])  # replaced when it is read
    assert read_rows(path, Pair) == [FIRST, Pair("half \ufffd", "ü\n", {"seed": "\ufffd"})]
    assert path.read_bytes().isascii() and path.read_bytes().count(b"\n") == 2


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (r"cut \ud83d here", "cut \ufffd here"),
        (r"\udc00\ud83d\uDE00\uD83D", "\ufffd😀\ufffd"),
        (r"\\ud83d", r"\ud83d"),
        (r"\ufffd", "\ufffd"),
    ],
)
def test_half_a_character_is_read_as_a_replacement_wherever_it_stands(path, written, read):
    row = '{"problem_description": "X", "ground_truth": "X", "test_cases": {"X": "X"}, "more": [{"X": "X"}]}'
    line = row.replace("X", written).encode()
    path.write_bytes(line)
    assert read_rows(path, Task) == [Task(read, read, {read: read}, None, {"more": [{read: read}]})]
    assert holds_half_characters(line) == (r"\ud83d" in written.replace(r"\\", "").lower())


def test_two_keys_that_differ_in_half_a_character_are_not_made_one(path):
    path.write_bytes(
        rb'{"problem_description": "p", "ground_truth": "x", "test_cases": {"\ud800": "f(1)", "\ud801": "f(2)"}}'
    )
    with pytest.raises(BadInput, match=r"rows\.jsonl:1: .*two keys of an object differ in half a character only"):
        read_rows(path, Task)


def test_a_write_that_fails_leaves_the_old_file_and_no_other(path, tmp_path):
    write_rows(path, [FIRST])
    before = path.read_bytes()
    with pytest.raises(BadInput, match=r"rows\.jsonl:2: the row cannot be written as JSON"):
        write_rows(path, [SECOND, Pair("a", "b", {"n": float("nan")})])
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["rows.jsonl"]


def test_writing_through_a_link_keeps_the_link(path, tmp_path):
    path.write_text("old")
    link = tmp_path / "link.jsonl"
    link.symlink_to(path)
    write_rows(link, [FIRST])
    assert link.is_symlink() and read_rows(path, Pair) == [FIRST]


def test_an_unwritable_place_is_an_error_in_one_sentence(path, tmp_path):
    path.write_text("")
    for write in (write_rows, append_rows):
        with pytest.raises(BadInput, match=r"x\.jsonl: cannot write the file: No such file or directory$"):
            write(tmp_path / "missing" / "x.jsonl", [FIRST])
        with pytest.raises(BadInput, match=r"x\.jsonl: cannot write the file: Not a directory$"):
            write(path / "x.jsonl", [FIRST])
        with pytest.raises(BadInput, match=r"cannot write the file: "):
            write(tmp_path, [FIRST])


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_read_only_directory_is_an_error_in_one_sentence(tmp_path):
    tmp_path.chmod(0o500)
    for write in (write_rows, append_rows):
        with pytest.raises(BadInput, match=r"x\.jsonl: cannot write the file: Permission denied$"):
            write(tmp_path / "x.jsonl", [FIRST])


def test_a_device_is_never_replaced_by_a_file():
    with pytest.raises(BadInput, match="/dev/null: cannot write the file: there is something else of that name"):
        write_rows("/dev/null", [FIRST])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux only")
def test_a_full_disk_is_an_error_in_one_sentence():
    with pytest.raises(BadInput, match="^/dev/full: cannot write the file: No space left on device$"):
        append_rows("/dev/full", [FIRST])


def test_appending_adds_whole_rows_or_nothing(path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a file cut short there would fail every later import
    append_rows(path, [FIRST])
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, hard))  # the write stops in the middle of the row
    try:
        with pytest.raises(BadInput, match=r"rows\.jsonl: cannot write the file: File too large$"):
            append_rows(path, [SECOND])
        with pytest.raises(BadInput, match=r"rows\.jsonl: cannot write the file: File too large$"):
            write_rows(path, [FIRST, SECOND])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    append_rows(path, [SECOND])
    assert read_rows(path, Pair) == [FIRST, SECOND]


def test_appending_nothing_makes_no_file(path):
    append_rows(path, [])
    assert not path.exists()


def test_appending_never_glues_two_rows(path):
    path.write_bytes(GOOD)
    append_rows(path, [SECOND])
    assert read_rows(path, Pair) == [FIRST, SECOND]


def test_resuming_without_a_file_starts_from_nothing(path):
    assert read_complete(path, Pair) == []
    path.write_bytes(b"")
    assert read_complete(path, Pair) == []


def test_wherever_a_run_was_cut_resuming_keeps_every_complete_row(path):
    write_rows(path, [FIRST, SECOND])
    content = path.read_bytes()
    first_end = content.index(b"\n") + 1
    for size in range(len(content) + 1):
        path.write_bytes(content[:size])
        kept = [row for row, end in ((FIRST, first_end), (SECOND, len(content))) if size >= end - 1]
        assert read_complete(path, Pair) == kept
        append_rows(path, [SECOND])
        assert read_rows(path, Pair) == [*kept, SECOND]


def test_resuming_does_not_hide_a_defect_that_no_interruption_explains(path):
    for content in (GOOD + b"\nx\n" + GOOD + b"\n", GOOD + b'\n{"chosen": "a"}', b"notes of mine", GOOD + b"\n{cut\n"):
        path.write_bytes(content)
        with pytest.raises(BadInput, match=r"rows\.jsonl:[12]: "):
            read_complete(path, Pair)
        assert path.read_bytes() == content


def test_half_a_character_in_any_string_of_a_row_is_read_as_the_replacement_character():
    line = rb'{"a\ud83d": ["x\udc00", {"b": "\ud83d\ude42"}], "c": "\\ud83d", "d": 1}'
    assert decode_line(line, "rows.jsonl:1") == {"a\ufffd": ["x\ufffd", {"b": "\U0001f642"}], "c": "\\ud83d", "d": 1}
