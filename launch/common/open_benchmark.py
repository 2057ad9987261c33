"""Opens the benchmark of a command, with what plugins bring to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from colbench_env.types import BenchmarkName
from launch.common.benchmarks import Backend, Benchmark, Frontend
from launch.common.plugins import PluggedBenchmark
from launch.common.settings import Design, Toy
from sweet_jax.plugins import load_plugins


@contextlib.contextmanager
def open_benchmark(
    name: BenchmarkName,
    design: Design,
    mode: str = "strict",
    workers: int = 2,
    unsafe: bool = False,
    toy: Toy = "miniature",
    plugin: str | None = None,
) -> Iterator[Benchmark]:
    """Open the benchmark of that name and close it at the end of the block.

    mode, workers, unsafe: settings of the backend's grader; toy: whose tasks are played where nobody gives any.
    design: settings of the frontend. plugin: the modules that bring parts of it.
    """
    with contextlib.ExitStack() as held:
        opened = Backend(mode, workers, unsafe, toy) if name == "backend" else Frontend(design)
        benchmark: Benchmark = held.enter_context(contextlib.closing(opened))
        if plugin:
            benchmark = PluggedBenchmark(benchmark, load_plugins(plugin))
        yield benchmark
