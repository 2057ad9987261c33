"""The device mesh of a run: `--mesh=4x2` is a fully sharded data axis of 4 times a tensor axis of 2. For rows too long
for one device, `--mesh=data:2,sequence:2,tensor:2` also splits the tokens of a row.

On a machine with only a CPU the devices are emulated, which has to be said to jax before its first array: call
`start_devices` first, then `make_mesh`.
"""

import os
import re
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from colbench_env.types import BadInput

AXES = ("data", "sequence", "tensor")


@dataclass(frozen=True)
class MeshShape:
    """data: shards of the batch and of every large parameter; tensor: shards of heads, mlp and vocabulary; sequence:
    shards of the tokens of a row and, with data, of every large parameter."""

    data: int = 1
    tensor: int = 1
    sequence: int = 1

    def __post_init__(self) -> None:
        if min(self.data, self.tensor, self.sequence) < 1:
            raise BadInput(f"mesh {self}: every axis must be at least 1")

    @property
    def size(self) -> int:
        """The number of devices."""
        return self.data * self.sequence * self.tensor

    @property
    def sizes(self) -> dict[str, int]:
        """Axis -> size, in the order of the devices; a sequence axis only where it splits anything."""
        sizes = {name: getattr(self, name) for name in AXES}
        return {name: size for name, size in sizes.items() if name != "sequence" or size > 1}

    def folded(self) -> "MeshShape":
        """The same devices for sampling, whose rows grow token by token: the sequence axis becomes rows."""
        return MeshShape(self.data * self.sequence, self.tensor)

    def __str__(self) -> str:
        if self.sequence == 1:
            return f"{self.data}x{self.tensor}"
        return ",".join(f"{name}:{getattr(self, name)}" for name in AXES)


def parse_mesh(text: str) -> MeshShape:
    """The mesh written as "4x2", "4" (tensor 1) or "data:2,sequence:2,tensor:2"; BadInput for anything else.

    In:  "tensor:2,data:4"
    Out: MeshShape(data=4, tensor=2)
    """
    plain = re.fullmatch(r"(\d+)(?:x(\d+))?", text.strip())
    if plain:
        return MeshShape(int(plain[1]), int(plain[2] or 1))
    sizes: dict[str, int] = {}
    for part in text.strip().split(","):
        named = re.fullmatch(r"\s*(\w+):(\d+)\s*", part)
        if not named:
            raise BadInput(f"mesh {text!r} cannot be read, expected DATAxTENSOR (4x2) or data:4,tensor:2")
        if named[1] not in AXES:
            raise BadInput(f"mesh {text!r} names the axis {named[1]!r}, the axes are {', '.join(AXES)}")
        if named[1] in sizes:
            raise BadInput(f"mesh {text!r} names the axis {named[1]!r} twice")
        sizes[named[1]] = int(named[2])
    return MeshShape(**sizes)


@dataclass(frozen=True)
class DeviceReport:
    """What jax runs on.

    platform: "cpu", "gpu" or "tpu". kind: the maker's name. devices: how many jax sees. used: how many the mesh takes.
    emulated: the devices are threads of this CPU.
    """

    platform: str
    kind: str
    devices: int
    used: int
    emulated: bool

    def __str__(self) -> str:
        if self.emulated:
            return f"{self.used} emulated devices on one CPU (no accelerator found)"
        return f"{self.used} of {self.devices} {self.platform} devices ({self.kind})"


def start_devices(shape: MeshShape) -> DeviceReport:
    """Starts jax with enough devices for `shape` and says what it found; the first thing a command does with jax.

    Without an accelerator that many CPU devices are emulated. BadInput if the devices do not suffice: fewer TPU or GPU
    devices than the mesh needs, or a jax that was already started with fewer CPU devices.
    """
    _ask_for_cpu_devices(shape.size)
    devices = jax.devices()
    platform, kind = devices[0].platform, devices[0].device_kind
    if len(devices) < shape.size:
        raise BadInput(f"mesh {shape} needs {shape.size} devices, this machine has {len(devices)} ({platform}, {kind})")
    emulated = platform == "cpu" and shape.size > 1
    return DeviceReport(platform, kind, len(devices), shape.size, emulated)


def _ask_for_cpu_devices(count: int) -> None:
    # Only the CPU client reads this option, so it is harmless where an accelerator is found. XLA_FLAGS, where the user
    # set the number there, goes first: jax refuses to be told twice.
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    if count <= jax.config.jax_num_cpu_devices:
        return
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # jax is already running; the count is checked against its devices by the caller
        return


def make_mesh(shape: MeshShape) -> Mesh:
    """The mesh with the axes of `shape.sizes` over the first `shape.size` devices; BadInput if there are fewer."""
    devices = jax.devices()
    if len(devices) < shape.size:
        raise BadInput(f"mesh {shape} needs {shape.size} devices, jax was started with {len(devices)}")
    # Auto: the compiler propagates shardings from our constraints; jax's default (Explicit) would make them types.
    names, sizes = zip(*shape.sizes.items(), strict=True)
    return jax.make_mesh(sizes, names, axis_types=(AxisType.Auto,) * len(names), devices=devices[: shape.size])


def rows_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of every array whose first axis is B: rows over "data", whole over the other axes."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of scalars and of results every process reads: a whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def check_rows(rows: int, mesh: Mesh, micro_batches: int = 1) -> None:
    """Raises BadInput unless `rows` can be cut into micro-batches of which each divides over the mesh's data axis."""
    data = mesh.shape["data"]
    if rows == 0 or rows % (micro_batches * data):
        raise BadInput(
            f"a batch of {rows} cannot be divided into {micro_batches} micro-batches over a data axis of {data}: "
            f"it must be a multiple of {micro_batches * data}"
        )


def put_rows(tree: Any, mesh: Mesh) -> Any:
    """The tree of host arrays [B, ...] on the devices, rows over "data"; BadInput if B does not divide."""
    leaves = jax.tree.leaves(tree)
    for rows in {np.shape(leaf)[0] for leaf in leaves}:
        check_rows(rows, mesh)
    return jax.device_put(tree, rows_sharding(mesh))
