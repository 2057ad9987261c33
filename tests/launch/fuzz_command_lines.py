"""Random command lines for every command, of its own flags with empty, missing and absurd values.

No command line may end in a traceback: the status is 0, 1 or 2. The heavy work is cut off where it would begin (see
`BORDERS`): everything that parses, checks and reads flags and files is the command's own. By hand, 500 of each:

    python -m tests.launch.fuzz_command_lines 500
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import itertools
import logging
import os
import pkgutil
import random
import sys
import tempfile
import types
import typing
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import launch
from launch.common import cli
from launch.common.settings import EMBEDDED_DIRECTORY
from launch.data_tools.config import CheckConfig
from launch.data_tools.config import ConvertConfig as DataConvertConfig
from launch.data_tools.fetch_assets import AssetsConfig
from launch.evaluation.config import EvaluateConfig
from launch.export.config import ConvertConfig
from launch.planning.config import PlanConfig
from launch.ranking.config import RankConfig
from launch.rollouts.config import RolloutConfig
from launch.serving.config import ServeConfig
from launch.training.config import TrainConfig
from launch.viewer.config import ShowConfig
from tests.launch.evaluate_rows import three_tasks

CONFIGS: dict[str, type[Any]] = {
    "train": TrainConfig, "rollout": RolloutConfig, "evaluate": EvaluateConfig, "rank": RankConfig,
    "convert": ConvertConfig, "serve": ServeConfig, "show": ShowConfig, "plan": PlanConfig, "data check": CheckConfig,
    "data convert": DataConvertConfig,
    "data assets": AssetsConfig,
}  # fmt: skip


class WorkBegins(Exception):
    """The command has come to where its heavy work begins."""


BORDERS = (
    "launch.training.stages.run_stage", "launch.train._header",  # train, rank
    "sweet_jax.generation.load.load_llama", "launch.export.convert_checkpoint.load_llama",  # weights
    "launch.export.convert_checkpoint.open_llama",
    "launch.planning.planning.slice_devices", "launch.data_tools.fetch_assets._get",  # a compiler, a download
    "colbench_env.endpoint.Endpoint.check", "uvicorn.Server.run", "launch.common.distributed._join",  # the network
    "launch.training.tracking.opening.check_tracker",
    "colbench_env.grading.Grader", "colbench_env.design.renderer.Renderer.__enter__",  # a sandbox, a browser
)  # fmt: skip
"""Functions that raise WorkBegins in place of their work."""

NUMBERS = ("0", "-1", "1", "2", "7", "1e99", "1e30", "nan", "inf", "-inf", "1.5", "99999999999999999999", "0x10", "٣")
USUAL = ("1", "2", "4", "8")
TEXTS = (
    "", " ", "x" * 10_000, "\udcff", "é–😀", "-", "--", "{}", "[]", "null", "none", "default", "embedded", "all",
    "a\nb",
)  # fmt: skip
MESHES = (
    "1x1", "1", "data:1,tensor:1", "2x2", "0x0", "-1x2", "1000000000x1", "data:0", "tensor:1,tensor:1", "9" * 5000,
)  # fmt: skip


LIKELY = {
    "--critic": "start_policy", "--model": "start_policy", "--from": "start_policy", "--to": "new", "--output": "new",
    "--trajectories": "dialogues.jsonl", "--file": ".jsonl",
}  # fmt: skip
"""Flags that most command lines have, and what their right values end with."""


@dataclasses.dataclass(frozen=True)
class Found:
    """How a command line ended."""

    arguments: list[str]
    status: int
    said: str

    @property
    def wrong(self) -> bool:
        return self.status not in (0, 1, 2) or "Traceback" in self.said


def flags_of(kind: type[Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every flag of a configuration and its type."""
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint, name = hints[field.name], field.name
        for mark in getattr(hint, "__metadata__", ()):
            name = mark.name if getattr(mark, "name", None) is not None else name
        plain = hint.__origin__ if hasattr(hint, "__metadata__") else hint
        if dataclasses.is_dataclass(plain):
            yield from flags_of(plain, f"{prefix}{name}." if name else prefix)
        else:
            yield f"--{prefix}{name}".replace("_", "-"), plain


def places(folder: Path) -> list[str]:
    """Paths of all sorts: missing, folders, devices, files that are no JSON, rows of a known kind, models."""
    (folder / "binary").write_bytes(bytes(range(256)) * 20)
    (folder / "empty").write_bytes(b"")
    (folder / "rows.jsonl").write_text(
        '{"problem_description": "Write f.", "ground_truth": "def f():\\n    return 1"}\n'
    )
    three_tasks(folder / "dialogues.jsonl")
    (folder / "pairs.jsonl").write_text('{"chosen": "a", "rejected": "b"}\n')
    (folder / "list.json").write_text("[1, 2]")
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("[]")
    return [
        "/nope", "/nope/nope", "/dev/null", "/dev/full", "/", ".", "", "x" * 300, "x/" * 3000, "\udcff",
        *(str(folder / name) for name in ("binary", "empty", "rows.jsonl", "list.json", "model", "new", "new/new")),
        str(folder / "dialogues.jsonl"), str(folder / "pairs.jsonl"), str(EMBEDDED_DIRECTORY),
    ]  # fmt: skip


def value_for(kind: Any, rng: random.Random, some_places: list[str]) -> str:
    """A value for a flag of this type, mostly of the right sort."""
    sort = rng.random()
    if sort < 0.05:
        return rng.choice(TEXTS + NUMBERS)
    options = typing.get_args(kind)
    if kind is bool:
        return rng.choice(("True", "False"))
    if typing.get_origin(kind) is typing.Literal:
        return rng.choice(options)
    if Path in (kind, *options):
        return rng.choice(some_places)
    if kind in (int, float) or {int, float} & set(options):
        return rng.choice(NUMBERS if rng.random() < 0.3 else USUAL)
    return rng.choice((*TEXTS, *some_places, *MESHES))


def command_line(kind: type[Any], rng: random.Random, some_places: list[str]) -> list[str]:
    """Some of the command's flags, with values; now and then one that is unknown, twice there, or has no value."""
    known = [*flags_of(kind), ("--config", Path)]
    arguments: list[str] = []
    for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 5, 8))):
        flag, of = rng.choice(known)
        value = rng.choice(MESHES) if flag == "--mesh" else value_for(of, rng, some_places)
        match rng.randrange(50):
            case 0:
                arguments.append(flag)
            case 1:
                arguments += [f"{flag}-nope={value}"]
            case 2:
                arguments += [flag, value]
            case 3:
                arguments += [f"{flag}={value}", f"{flag}={value}"]
            case 4:
                arguments.append(value)
            case 5:
                arguments.append(rng.choice(("--help", "-h", "--", "-", "---", "--=", "-x")))
            case 6:
                arguments.append(flag.replace("--", "--no-", 1))
            case _:
                arguments.append(f"{flag}={value}")
    likely = [flag for flag, _ in known if flag in LIKELY]  # without these little else is ever looked at
    for flag in likely if rng.random() < 0.7 else ():
        value = rng.choice([place for place in some_places if place.endswith(LIKELY[flag])])
        arguments.append(value if flag == "--file" else f"{flag}={value}")
    return arguments


def ended(name: str, arguments: list[str]) -> Found:
    """Runs a command in this process up to its heavy work."""
    module, *sub = name.split()
    main: Callable[[], None] = importlib.import_module(f"launch.{module}").main
    said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace", write_through=True)

    def command() -> None:
        with contextlib.suppress(WorkBegins):
            main()

    with (
        mock.patch.object(sys, "argv", [module, *sub, *arguments]),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        try:
            status = cli.exit_status(command)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(bool(end.code))
    return Found([*sub, *arguments], status, said.buffer.getvalue().decode("utf-8"))  # type: ignore[attr-defined]


@contextlib.contextmanager
def without_work(folder: Path, borders: Collection[str] = BORDERS) -> Iterator[None]:
    """Inside, commands end where their heavy work begins, and work in this folder."""
    handlers, level, hook, here = logging.root.handlers[:], logging.root.level, sys.unraisablehook, os.getcwd()
    with contextlib.ExitStack() as held:
        # All are imported before the first is replaced: a module imported afterwards would keep the replacement.
        found = [(_imported(border.rpartition(".")[0]), border.rpartition(".")[2]) for border in borders]
        for module in pkgutil.walk_packages(launch.__path__, "launch."):
            importlib.import_module(module.name)
        for owner, attribute in found:
            held.enter_context(mock.patch.object(owner, attribute, mock.Mock(side_effect=WorkBegins)))
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(here)
            logging.captureWarnings(False)
            logging.root.handlers[:], logging.root.level, sys.unraisablehook = handlers, level, hook


def _imported(name: str) -> types.ModuleType | type:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return getattr(importlib.import_module(module), attribute)


def fuzz(name: str, count: int, seed: int = 0) -> Iterator[Found]:
    """How so many random command lines of a command end."""
    rng = random.Random(f"{name} {seed}")
    with (
        tempfile.TemporaryDirectory() as empty,
        without_work(Path(empty)),
        tempfile.TemporaryDirectory() as folder,
    ):
        some_places = places(Path(folder))
        for _ in range(count):
            yield ended(name, command_line(CONFIGS[name], rng, some_places))


def main() -> None:
    """Counts how the command lines end, and prints those that end wrongly."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    names, wrong = sys.argv[2:] or list(CONFIGS), 0
    for name in names:
        results = list(fuzz(name, count))
        print(name, dict(Counter(result.status for result in results)), flush=True)
        for result in itertools.islice((result for result in results if result.wrong), 10):
            wrong += 1
            print(f"  {result.status} {ascii(result.arguments)[:600]}\n{ascii(result.said[-1500:])}", flush=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
