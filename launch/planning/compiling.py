"""Compiling for a TPU slice on a machine without one, and what the compiled program says about itself."""

from __future__ import annotations

import importlib.util
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from colbench_env.types import BadInput
from launch.planning.chips import Topology
from launch.planning.gpu_compiler import h100_devices
from launch.planning.hlo import Collectives, collectives

GIB = 2**30
QUIET = {
    # This process only compiles: it asks no metadata server what it runs on, and shares the library with any other.
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}


@dataclass(frozen=True)
class Compiled:
    """What the compiler says of a program, a device each. arguments, peak: bytes; peak is arguments, results that take
    no argument's place, and temporaries, when they are largest together. seconds: of compiling."""

    arguments: int
    peak: int
    collectives: Collectives
    seconds: float


@dataclass(frozen=True)
class OutOfMemory:
    """A program that the compiler did not accept: bytes it would need on a device, where known, and its own words."""

    peak: int | None
    reason: str
    seconds: float


def slice_devices(topology: Topology) -> Sequence[jax.Device]:
    """Return the devices of the slice, to compile for. Raises BadInput without libtpu and for an unknown slice."""
    if topology.is_gpu:
        return h100_devices(topology.devices)
    if importlib.util.find_spec("libtpu") is None:
        raise BadInput(
            f"--topology={topology}: compiling for a TPU needs libtpu, which is not installed: "
            f"pip install 'libtpu=={_wanted_libtpu()}' (Linux x86-64)"
        )
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    from jax.experimental import topologies

    options: dict[str, Any] = {"chip_config_name": "megacore"} if topology.chip.name == "v4" else {}
    if set(topology.layout.split("x")) == {"1"}:
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        found = topologies.get_topology_desc(topology_name=str(topology), platform="tpu", **options)
    except jax.errors.JaxRuntimeError as error:
        raise BadInput(f"--topology={topology}: libtpu knows no such slice: {_first_sentence(error)}") from error
    return found.devices


def _wanted_libtpu() -> str:
    """Return the version that the installed jax requires in its extra `tpu`."""
    from importlib import metadata

    asked = [re.search(r"libtpu\s*==([\w.*]+)", line) for line in metadata.requires("jax") or ()]
    return next((found[1] for found in asked if found), "*")


def compile_program(lowered: jax.stages.Lowered) -> Compiled | OutOfMemory:
    """Compile the program, or return why the compiler refused it for lack of memory. Raises any other failure."""
    begun = time.monotonic()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        needed = re.search(r"\(([\d.]+)G\) exceeds|Used ([\d.]+)G of", str(error))
        peak = int(float(needed[1] or needed[2]) * GIB) if needed else None
        return OutOfMemory(peak, _first_sentence(error), time.monotonic() - begun)
    seconds = time.monotonic() - begun
    memory, text = compiled.memory_analysis(), compiled.as_text()
    if memory is None or text is None:
        raise RuntimeError("the compiler tells neither memory nor HLO text of what it compiled")
    # On TPUs not temp_size_in_bytes: it adds up temporaries that lie in the same place at different times. For GPUs it
    # is the size of the one arena that they lie in, and there is no peak.
    kept = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    peak = memory.peak_memory_in_bytes or kept + memory.temp_size_in_bytes
    return Compiled(memory.argument_size_in_bytes, peak, collectives(text), seconds)


def _first_sentence(error: Exception) -> str:
    return str(error).splitlines()[0].partition(": ")[2] or str(error)
