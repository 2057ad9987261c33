"""Chips and the slices that are made of them: memory, peak arithmetic, bandwidths, with where the numbers are from.

Memory is what the compiler lets a program use, as it says when it refuses one (libtpu 0.0.42.1): some of the chip's is
its own. Peak bfloat16 FLOP/s, HBM and ICI bandwidth are the makers':
v4    docs.cloud.google.com/tpu/docs/v4, six links of 50 GB/s each way (Jouppi et al. 2023, arXiv:2304.01433)
v5e   docs.cloud.google.com/tpu/docs/v5e     v5p   docs.cloud.google.com/tpu/docs/v5p
v6e   docs.cloud.google.com/tpu/docs/v6e     tpu7x docs.cloud.google.com/tpu/docs/tpu7x
h100  NVIDIA H100 SXM5 80 GB data sheet: dense bfloat16, HBM3, NVLink 4 (900 GB/s both ways together)
Google gives ICI bandwidth of all links of a chip, both ways together; half of it is what a chip can send.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from colbench_env.types import BadInput
from launch.planning import gpu_compiler


@dataclass(frozen=True)
class Chip:
    """One device as jax sees it: a chip, or for tpu7x one of the two halves of a chip.

    memory_gib: what a program may use. peak_tflops: dense bfloat16, 10^12 FLOP/s. hbm_gb_s, send_gb_s: 10^9 bytes a
    second read from its memory, and sent to its neighbours over all links together. halves: devices on one chip.
    """

    name: str
    memory_gib: float
    peak_tflops: float
    hbm_gb_s: float
    send_gb_s: float
    halves: int = 1


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 30.75, 275.0, 1228.0, 300.0),
        Chip("v5e", 15.75, 197.0, 819.0, 200.0),
        Chip("v5p", 95.74, 459.0, 2765.0, 600.0),
        Chip("v6e", 31.25, 918.0, 1638.0, 400.0),
        Chip("tpu7x", 94.75, 1153.5, 3690.0, 300.0, halves=2),
        Chip("h100", 79.6, 989.4, 3350.0, 450.0),
    )
}
GPUS = ("h100",)
GPU_STAND_INS = {1: "1x1x1", 4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4"}
"""GPUs -> the v5p slice of as many chips whose compiler is asked where XLA's for GPUs is not installed."""


@dataclass(frozen=True)
class Topology:
    """A slice: `v5e:4x4` is sixteen chips on a torus of four by four, `h100:8` eight GPUs that all see each other."""

    chip: Chip
    layout: str

    @property
    def devices(self) -> int:
        """Devices as jax counts them."""
        return math.prod(map(int, self.layout.split("x"))) * self.chip.halves

    @property
    def is_gpu(self) -> bool:
        return self.chip.name in GPUS

    def compiled_for(self) -> Topology:
        """Return the slice that programs are compiled for: this one, or a stand-in for GPUs without their compiler."""
        stands_in = self.is_gpu and not gpu_compiler.is_installed()
        return Topology(CHIPS["v5p"], GPU_STAND_INS[self.devices]) if stands_in else self

    def __str__(self) -> str:
        return f"{self.chip.name}:{self.layout}"


def parse_topology(text: str) -> Topology:
    """Parse a slice written as GENERATION:LAYOUT. Raises BadInput; what libtpu does not know is found out later.

    In:  "v5p:2x2x2"
    Out: Topology(CHIPS["v5p"], "2x2x2"), eight devices
    """
    found = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", text.strip())
    if not found:
        raise BadInput(
            f"--topology={text} cannot be read, expected GENERATION:LAYOUT such as v5e:4x4, v5p:2x2x2, h100:8"
        )
    name, layout = found.groups()
    if name not in CHIPS:
        raise BadInput(f"--topology={text}: there is no chip {name!r} in the table, expected one of {', '.join(CHIPS)}")
    if name in GPUS and (not layout.isdecimal() or int(layout) not in GPU_STAND_INS):
        raise BadInput(f"--topology={text}: expected {name}:N for one of {', '.join(map(str, GPU_STAND_INS))} GPUs")
    return Topology(CHIPS[name], layout)
