"""The device mesh of a run: `--mesh=4x2` is a fully sharded data axis of 4 times a tensor axis of 2.

For rows too long for one device, `--mesh=data:2,sequence:2,tensor:2` also splits the tokens of a row. On a machine with
only a CPU the devices are emulated, which jax must know before its first array: call `start_devices`, then `make_mesh`.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from colbench_env.types import BadInput
from sweet_jax import processes
from sweet_jax.compilation_cache import keep_compiled_programs

AXES = ("data", "sequence", "tensor")
MOST_EMULATED = 1024  # devices on one CPU; jax would start threads for any number
_NUMBER = "[0-9]{1,9}"


@dataclass(frozen=True)
class MeshShape:
    """The axes of a mesh. BadInput for an axis below 1.

    data: shards of the batch and of every large parameter.
    tensor: shards of heads, mlp and vocabulary.
    sequence: shards of the tokens of a row and, with data, of every large parameter.
    """

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
        """Axis -> size, in the order of the devices; a sequence axis only if it is above 1."""
        sizes = {name: getattr(self, name) for name in AXES}
        return {name: size for name, size in sizes.items() if name != "sequence" or size > 1}

    def folded(self) -> "MeshShape":
        """Fold the sequence axis into the data axis: in sampling rows grow token by token and are not split."""
        return MeshShape(self.data * self.sequence, self.tensor)

    def __str__(self) -> str:
        if self.sequence == 1:
            return f"{self.data}x{self.tensor}"
        return ",".join(f"{name}:{getattr(self, name)}" for name in AXES)


def parse_mesh(text: str) -> MeshShape:
    """Parse a mesh written as "4x2", "4" (tensor 1) or "data:2,sequence:2,tensor:2"; BadInput for anything else.

    In:  "tensor:2,data:4"
    Out: MeshShape(data=4, tensor=2)
    """
    plain = re.fullmatch(rf"({_NUMBER})(?:x({_NUMBER}))?", text.strip())
    if plain:
        return MeshShape(int(plain[1]), int(plain[2] or 1))
    sizes: dict[str, int] = {}
    for part in text.strip().split(","):
        named = re.fullmatch(rf"\s*(\w+):({_NUMBER})\s*", part)
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

    platform: "cpu", "gpu" or "tpu".
    kind: the maker's name of a device.
    devices: how many jax sees.
    used: how many the mesh takes.
    emulated: whether the devices are threads of this CPU.
    processes: how many work together.
    """

    platform: str
    kind: str
    devices: int
    used: int
    emulated: bool
    processes: int = 1

    def __str__(self) -> str:
        if self.emulated:
            location = "one CPU" if self.processes == 1 else f"the CPUs of {self.processes} processes"
            return f"{self.used} emulated devices on {location} (no accelerator found)"
        location = "" if self.processes == 1 else f" in {self.processes} processes"
        return f"{self.used} of {self.devices} {self.platform} devices{location} ({self.kind})"


def count_devices() -> int:
    """Start jax and count the devices that a mesh can take here: all accelerators of all processes.

    Without an accelerator, the processes, one device each; of a single one that may use two cores, two emulated
    devices, as XLA leaves the second core idle in small products.
    """
    _hush_libtpu()
    keep_compiled_programs()
    count = processes.count()
    emulated = 2 if count == 1 and len(os.sched_getaffinity(0)) > 1 else 1
    _fix_cpu_threads(count)
    _ask_for_cpu_devices(emulated)
    devices = jax.devices()
    return min(count * emulated, len(devices)) if devices[0].platform == "cpu" else len(devices)


def start_devices(shape: MeshShape) -> DeviceReport:
    """Start jax with enough devices for `shape` and report them; call it before anything else uses jax.

    Compiled programs are kept (`sweet_jax.compilation_cache`). Without an accelerator that many CPU devices are
    emulated, equally many in each process. BadInput if there are fewer TPU or GPU devices than the mesh needs, or jax
    was already started with fewer CPU devices; with several processes, unless each has the same number of devices and
    the mesh takes them all.
    """
    _hush_libtpu()
    _fix_cpu_threads(shape.size)
    keep_compiled_programs()
    count = processes.count()
    _ask_for_cpu_devices(-(-shape.size // count))
    devices = jax.devices()
    platform, kind = devices[0].platform, devices[0].device_kind
    if count > 1:
        _check_processes(shape, devices, count)
    if len(devices) < shape.size:
        raise BadInput(f"mesh {shape} needs {shape.size} devices, this machine has {len(devices)} ({platform}, {kind})")
    emulated = platform == "cpu" and shape.size > 1
    return DeviceReport(platform, kind, len(devices), shape.size, emulated, count)


def _check_processes(shape: MeshShape, devices: Sequence[Any], processes: int) -> None:
    """Raise BadInput unless every process holds equally many devices of the mesh."""
    counts = Counter(device.process_index for device in devices)
    each = [counts[process] for process in range(processes)]
    if len(set(each)) > 1:
        raise BadInput(
            f"the {processes} processes have different numbers of {devices[0].platform} devices: "
            f"{', '.join(map(str, each))}; every process needs as many"
        )
    if shape.size != len(devices):
        raise BadInput(
            f"mesh {shape} takes {shape.size} devices, the {processes} processes have {processes} x {each[0]} = "
            f"{len(devices)} ({devices[0].platform}): with several processes the mesh must take all of them"
        )


def _ask_for_cpu_devices(count: int) -> None:
    # Only the CPU client reads this option, so it is harmless where an accelerator is found. If the user has set the
    # number in XLA_FLAGS, that holds: jax refuses to get it twice.
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    if not jax.config.values["jax_num_cpu_devices"] < count <= MOST_EMULATED:
        return
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # jax is already running; the count is checked against its devices by the caller
        return


def _fix_cpu_threads(devices: int) -> None:
    # The CPU client has as many threads as the larger of NPROC (by default the cores) and its devices, and a long sum
    # is split among them: with as many as the whole mesh needs, its bits do not depend on how devices lie in processes.
    if not jax.distributed.is_initialized() or devices > MOST_EMULATED:
        return
    told = os.environ.get("NPROC", "")
    threads = int(told) if told.isdecimal() else len(os.sched_getaffinity(0))
    os.environ["NPROC"] = str(max(threads, devices))


def _hush_libtpu() -> None:
    # jax sets this variable where it finds no TPU chip. libtpu, if installed (`launch.plan` needs it), then still looks
    # for one, and complains on standard error that it does not know of which slice.
    if os.environ.get("TPU_SKIP_MDS_QUERY") == "1":
        os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
        os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")


def make_mesh(shape: MeshShape, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Make the mesh with the axes of `shape.sizes` over the first `shape.size` devices; BadInput if there are fewer.

    devices: by default those of this machine; or those of a slice that programs are only compiled for. On a TPU torus
    neighbours in the mesh are neighbours on the torus where possible, and an axis may take a part of a torus axis.
    """
    devices = jax.devices() if devices is None else devices
    if len(devices) < shape.size:
        raise BadInput(f"mesh {shape} needs {shape.size} devices, jax was started with {len(devices)}")
    names, sizes = zip(*shape.sizes.items(), strict=True)
    # Not jax.make_mesh: on v5p and v6e it refuses to split an axis of the torus (8x2 on a slice of 4x4).
    grid = mesh_utils.create_device_mesh(sizes, devices[: shape.size], allow_split_physical_axes=True)
    # Auto: the compiler propagates shardings from our constraints; jax's default (Explicit) would make them types.
    return Mesh(grid, names, axis_types=(AxisType.Auto,) * len(names))


def local_mesh(mesh: Mesh) -> Mesh:
    """Cut out the part of the mesh that this process holds: some of "data", and the other axes whole.

    BadInput where one of the other axes spans processes.
    """
    is_local = [
        [device.process_index == jax.process_index() for device in row.flat]
        for row in np.moveaxis(mesh.devices, mesh.axis_names.index("data"), 0)
    ]
    if not all(all(row) or not any(row) for row in is_local):
        raise BadInput(
            f"mesh {'x'.join(map(str, mesh.shape.values()))}: only its data axis may span processes here, as each "
            "process has its own work"
        )
    grid = np.compress([all(row) for row in is_local], mesh.devices, axis=mesh.axis_names.index("data"))
    return Mesh(grid, mesh.axis_names, axis_types=mesh.axis_types)


def local_copies(tree: Any, shardings: Any) -> Any:
    """View arrays of a mesh, replicated over "data", as arrays of `shardings` on the `local_mesh`, without a copy."""

    def put(leaf: jax.Array, sharding: NamedSharding) -> jax.Array:
        shards = [shard.data for shard in leaf.addressable_shards]
        return jax.make_array_from_single_device_arrays(leaf.shape, sharding, shards)

    return jax.tree.map(put, tree, shardings)


def rows_sharding(mesh: Mesh) -> NamedSharding:
    """Give the sharding of arrays [B, ...]: rows over "data", replicated over the other axes."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """Give the sharding of scalars and of results that every process reads: a full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def check_rows(rows: int, mesh: Mesh, micro_batches: int = 1) -> None:
    """Raise BadInput unless a batch of `rows` splits into micro-batches that divide over the mesh's data axis."""
    data = mesh.shape["data"]
    if rows == 0 or rows % (micro_batches * data):
        raise BadInput(
            f"a batch of {rows} cannot be divided into {micro_batches} micro-batches over a data axis of {data}: "
            f"it must be a multiple of {micro_batches * data}"
        )


def put_rows(tree: Any, mesh: Mesh, micro_batches: int = 1) -> Any:
    """Put a tree of host arrays [B, ...], the same in every process, on the devices, rows over "data".

    BadInput if B does not split into micro-batches that divide over "data".
    """

    def put(leaf: Any) -> jax.Array:
        rows = np.shape(leaf)[0]
        check_rows(rows, mesh, micro_batches)
        return put_process_local_rows(np.asarray(leaf)[process_local_rows(rows, mesh)], rows, mesh)

    return jax.tree.map(put, tree)


def process_local_rows(rows: int, mesh: Mesh) -> np.ndarray:
    """Find the rows of a batch of `rows` that lie on devices of this process: their numbers, ascending.

    Two processes hold the same rows where another axis of the mesh spans both.

    In:  8 rows, mesh 4x2, the first of two processes
    Out: [0, 1, 2, 3]
    """
    places = rows_sharding(mesh).addressable_devices_indices_map((rows,)).values()
    return np.unique(np.concatenate([np.arange(rows)[place] for place in places]))


def put_process_local_rows(tree: Any, rows: int, mesh: Mesh) -> Any:
    """Put arrays [B, ...] on all devices, rows over "data"; each process gives its `process_local_rows(B, mesh)` only.

    Where a row lies depends on the mesh alone and not on the number of processes.
    """
    sharding = rows_sharding(mesh)
    return jax.tree.map(
        lambda leaf: jax.make_array_from_process_local_data(sharding, leaf, (rows, *leaf.shape[1:])), tree
    )
