"""Rows for `launch.data check`, and the command in this process."""

import contextlib
import json
import logging
import sys

from launch import data
from launch.common import cli

TASK = {
    "problem_description": "Double a number.",
    "ground_truth": "def f(x):\n    return 2 * x",
    "test_cases": {"test1": "f(1)", "test2": "f(2)"},
    "hidden_information": "double: Twice.",
}
PAGE = {"problem_description": "A page.", "ground_truth": "<html></html>"}
DIALOGUE = {
    "task": {"problem_description": "Double a number."},
    "dialogue_history": [
        {"role": "user", "content": "Double a number."},
        {"role": "assistant", "content": "Why?", "input": "<s>Double", "output": "Why?"},
        {"role": "user", "content": "So."},
        {"role": "assistant", "content": "def f(x): return 2 * x", "input": None, "output": None},
    ],
    "answer": "def f(x): return 2 * x",
    "reward": 1.0,
}
CANDIDATES = {
    "input": "<s>user: hi",
    "input_with_ground_truth": "In light that the final answer is: x. <s>user: hi",
    "older_output": "Up?",
    "reward": 0.5,
    "ground_truth": "def f(x): return x",
    "messages": [{"role": "user", "content": "hi"}],
    "additional_outputs": ["a", "b"],
    "additional_reference_logprobs": [-0.5, -0.25],
    "additional_reference_logprobs_sum": [-5.0, -2.5],
}


@contextlib.contextmanager
def data_command(monkeypatch, capsys):
    """Give a function that starts `launch.data` in this process: exit status, standard output, standard error."""
    handlers, level = logging.root.handlers[:], logging.root.level

    def start(*arguments):
        monkeypatch.setattr(sys, "argv", ["launch.data", *map(str, arguments)])
        try:
            status = cli.exit_status(data.main)
        except SystemExit as stop:  # --help, or flags that the parser does not know
            status = int(stop.code or 0)
        return status, *capsys.readouterr()

    yield start
    logging.captureWarnings(False)
    logging.root.handlers[:], logging.root.level = handlers, level


def row_checker(run, path):
    """Return a function that checks rows (objects, or lines as bytes): exit status, sentences, the JSON object."""

    def start(rows, *flags):
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows]
        path.write_bytes(b"".join(lines))
        status, out, err = run("check", path, "--json", *flags)
        assert "Traceback" not in err
        report = json.loads(out)
        prefix = f"{path}:"
        sentences = [defect["sentence"] for defect in report["defects"]]
        assert all(sentence.startswith(prefix) and "\n" not in sentence for sentence in sentences)
        assert all(len(sentence) < 1000 for sentence in sentences)
        return status, [sentence.removeprefix(prefix) for sentence in sentences], report

    return start
