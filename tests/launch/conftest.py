"""What the tests of `launch` share: the command started in this process, and a random model that compiles fast."""

import contextlib
import io
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import pytest

from colbench_env.mini import behaviour_dialogues
from launch import train
from launch.common import cli
from models.config import LlamaConfig
from models.parameters import init_params
from sweet_jax.data.tokenizer import train_tokenizer
from sweet_jax.export import export_model
from sweet_jax.mesh import MeshShape, make_mesh

ROOT = Path(__file__).parents[2]
TINY = LlamaConfig(
    vocab_size=512, hidden_size=32, intermediate_size=64, num_layers=2, num_heads=4, num_kv_heads=2, head_size=8,
    max_position_embeddings=512, tie_word_embeddings=True,
)  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status and what it wrote."""

    status: int
    stdout: str
    stderr: str

    @property
    def errors(self) -> list[str]:
        """The sentences that tell the user what is wrong."""
        return [line for line in self.stderr.splitlines() if line.startswith("error: ")]

    def refuses(self) -> str:
        """The one sentence of a command that ended for bad input: status 2, no traceback, nothing after it."""
        assert "Traceback" not in self.stderr, self.stderr
        assert (self.status, len(self.errors)) == (2, 1), self.stderr
        assert self.stderr.rstrip().splitlines()[-1] == self.errors[0]
        return self.errors[0]


@pytest.fixture(scope="session")
def in_process() -> Callable[..., Ended]:
    """Runs a command's `main` in this process with flags, gives `Ended`."""

    def run(main: Callable[[], None], *flags: str) -> Ended:
        argv, handlers, level, hook = sys.argv, logging.root.handlers[:], logging.root.level, sys.unraisablehook
        said = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="", write_through=True) for _ in range(2)]
        sys.argv = ["launch", *flags]
        try:
            with contextlib.redirect_stdout(said[0]), contextlib.redirect_stderr(said[1]):
                status = cli.exit_status(main)
        except SystemExit as stop:  # flags that the parser does not know
            status = int(stop.code or 0)
        finally:
            logging.captureWarnings(False)  # the console had it on, and had the root logger to itself
            sys.argv, logging.root.handlers[:], logging.root.level, sys.unraisablehook = argv, handlers, level, hook
        return Ended(status, *(stream.buffer.getvalue().decode() for stream in said))

    return run


@pytest.fixture(scope="session")
def start(in_process) -> Callable[..., Ended]:
    """Starts `launch.train` in this process with flags, on the miniature where they name no preset; gives `Ended`."""

    def run(*flags: str, **others: Any) -> Ended:
        preset = [] if any(flag.startswith("--preset") for flag in flags) else ["--preset=embedded"]
        return in_process(train.main, *preset, *flags, **others)

    return run


@pytest.fixture(scope="session")
def python() -> Callable[..., Ended]:
    """Runs Python in a process of its own with arguments, gives `Ended`."""

    def run(*arguments: str) -> Ended:
        done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300)
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A Hugging Face directory with random weights and a tokenizer of 512 ids that knows the words of the miniature."""
    dialogues = list(behaviour_dialogues("train", 50, 0))
    tokenizer = train_tokenizer((message.content for d in dialogues for message in _messages(d)), TINY.vocab_size)
    directory = tmp_path_factory.mktemp("models") / "tiny"
    export_model(directory, TINY, init_params(TINY, jax.random.key(0), make_mesh(MeshShape(1, 1))), tokenizer)
    return directory


def _messages(dialogue: Any) -> Any:
    return dialogue.trajectory().dialogue_history


@pytest.fixture(scope="session")
def files() -> Callable[[Path], dict[str, tuple[int, int]]]:
    """A function: every file under a directory with its size and time, without the log and the lock of a run."""

    def look(directory: Path) -> dict[str, tuple[int, int]]:
        found = (path for path in sorted(directory.rglob("*")) if path.is_file())
        return {
            str(path.relative_to(directory)): (path.stat().st_size, path.stat().st_mtime_ns)
            for path in found
            if path.name not in ("log.txt", ".lock")
        }

    return look
