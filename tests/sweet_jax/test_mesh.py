"""Reading --mesh, starting devices, and batches that a mesh does not divide."""

import os
import socket
import subprocess
import sys
from dataclasses import dataclass

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from colbench_env.types import BadInput
from sweet_jax.mesh import (
    MeshShape,
    _check_processes,
    check_rows,
    count_devices,
    make_mesh,
    parse_mesh,
    process_local_rows,
    put_process_local_rows,
    put_rows,
    rows_sharding,
    start_devices,
)


@pytest.mark.parametrize(
    ("text", "data", "tensor"),
    [("4x2", 4, 2), ("8", 8, 1), ("data:4,tensor:2", 4, 2), ("tensor:2,data:4", 4, 2), ("tensor:2", 1, 2)],
)
def test_a_mesh_is_read_in_both_spellings(text, data, tensor):
    assert parse_mesh(text) == MeshShape(data, tensor)


@pytest.mark.parametrize("text", ["", "4x", "x2", "4x2x1", "-1x2", "data:4;tensor:2", "fsdp:4", "data:2,data:2", "0x2"])
def test_a_mesh_that_cannot_be_read_is_refused(text):
    with pytest.raises(BadInput, match="mesh"):
        parse_mesh(text)


def test_the_axes_are_named_data_and_tensor():
    mesh = make_mesh(MeshShape(4, 2))
    assert dict(mesh.shape) == {"data": 4, "tensor": 2}
    assert mesh.axis_types == (AxisType.Auto, AxisType.Auto)


def test_a_mesh_larger_than_the_machine_names_both_numbers():
    with pytest.raises(BadInput, match=f"mesh 64x2 needs 128 devices.* {len(jax.devices())}"):
        start_devices(MeshShape(64, 2))
    with pytest.raises(BadInput, match=f"mesh 64x2 needs 128 devices.* {len(jax.devices())}"):
        make_mesh(MeshShape(64, 2))


@pytest.mark.slow
def test_a_machine_without_accelerator_emulates_the_devices_and_says_so():
    program = """
from sweet_jax.mesh import MeshShape, make_mesh, start_devices
print(start_devices(MeshShape(3, 2)))
print(*make_mesh(MeshShape(3, 2)).shape.items())
"""
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": "", "JAX_PLATFORMS": "cpu", "PYTHONPATH": ":".join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.startswith("6 emulated devices on one CPU")
    assert "('data', 3) ('tensor', 2)" in run.stdout


def test_a_batch_that_the_mesh_does_not_divide_is_refused_with_the_numbers():
    mesh = make_mesh(MeshShape(4, 2))
    check_rows(8, mesh, micro_batches=2)
    with pytest.raises(BadInput, match="batch of 12 .* 2 micro-batches .* data axis of 4: .* multiple of 8"):
        check_rows(12, mesh, micro_batches=2)
    with pytest.raises(BadInput, match="batch of 0 "):
        check_rows(0, mesh)
    with pytest.raises(BadInput, match="batch of 6 "):
        put_rows({"x": np.zeros((6, 2))}, mesh)


def test_rows_are_laid_over_the_data_axis():
    placed = put_rows({"x": np.arange(8).reshape(4, 2)}, make_mesh(MeshShape(4, 2)))["x"]
    assert {shard.data.shape for shard in placed.addressable_shards} == {(1, 2)}
    np.testing.assert_array_equal(placed, [[0, 1], [2, 3], [4, 5], [6, 7]])


def test_one_process_owns_all_rows_and_gives_them_whole():
    mesh = make_mesh(MeshShape(4, 2))
    assert process_local_rows(8, mesh).tolist() == list(range(8))
    placed = put_process_local_rows({"x": np.arange(16).reshape(8, 2)}, 8, mesh)["x"]
    assert placed.sharding == rows_sharding(mesh)
    np.testing.assert_array_equal(placed, np.arange(16).reshape(8, 2))


def test_a_mesh_over_several_processes_must_take_all_devices_and_the_same_number_of_each():
    @dataclass
    class Device:
        process_index: int
        platform: str = "tpu"

    devices = [Device(process) for process in (0, 0, 0, 0, 1, 1, 1, 1)]
    _check_processes(MeshShape(4, 2), devices, 2)
    with pytest.raises(BadInput, match=r"mesh 2x2 takes 4 devices, the 2 processes have 2 x 4 = 8 \(tpu\)"):
        _check_processes(MeshShape(2, 2), devices, 2)
    with pytest.raises(BadInput, match="the 2 processes have different numbers of tpu devices: 4, 3"):
        _check_processes(MeshShape(7), devices[:7], 2)


SPANNED = """
import functools, sys
import jax
import numpy as np
from colbench_env.types import BadInput
from sweet_jax.mesh import (
    MeshShape, local_copies, local_mesh, make_mesh, process_local_rows, put_process_local_rows, put_rows, replicated,
    start_devices,
)
say = functools.partial(print, "said:", file=sys.stderr)  # gloo has standard output
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]), cluster_detection_method="deactivate")
shape = MeshShape(*map(int, sys.argv[3].split("x")))
say(start_devices(shape))
mesh, rows = make_mesh(shape), np.arange(24).reshape(8, 3)
mine = process_local_rows(8, mesh)
say(mine.tolist())
made, given = put_process_local_rows(rows[mine], 8, mesh), put_rows(rows, mesh)
assert bool((made == given).all()) and made.sharding == given.sharding
say([shard.data[:, 0].tolist() for shard in made.addressable_shards])
try:
    own = local_mesh(mesh)
except BadInput as error:
    say(error)
else:  # what all hold whole is held by each on a mesh of its own, and computed with by it alone
    whole = jax.jit(lambda x: x, out_shardings=replicated(mesh))(made)
    copy = local_copies(whole, replicated(own))
    say(dict(own.shape), [device.process_index for device in own.devices.flat], int((copy * 2).sum()))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mesh", "own", "shards", "alone"),
    [
        (
            "4x1",
            ([0, 1, 2, 3], [4, 5, 6, 7]),
            ([[0, 3], [6, 9]], [[12, 15], [18, 21]]),
            [f"{{'data': 2, 'tensor': 1}} [{i}, {i}] 552" for i in range(2)],
        ),
        (
            "1x4",
            (list(range(8)), list(range(8))),
            ([list(range(0, 24, 3))] * 2, [list(range(0, 24, 3))] * 2),
            ["mesh 1x4: only its data axis may span processes here, as each process has its own work"] * 2,
        ),
    ],  # fmt: skip
)
def test_two_processes_give_the_rows_of_their_devices_also_where_the_tensor_axis_spans_both(mesh, own, shards, alone):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SPANNED, address, str(process), mesh],
            env={"JAX_PLATFORMS": "cpu", "PYTHONPATH": ":".join(path for path in sys.path if path)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]
    for process, mine, held, word in zip(processes, own, shards, alone, strict=True):
        _, text = process.communicate(timeout=60)
        assert process.returncode == 0, text
        said = [line.removeprefix("said: ") for line in text.splitlines() if line.startswith("said: ")]
        assert said[0] == "4 emulated devices on the CPUs of 2 processes (no accelerator found)"
        assert said[1:] == [str(mine), str(held), word]


def test_a_mesh_of_ones_own_takes_two_devices_of_a_cpu_where_two_cores_are_allowed(monkeypatch):
    for cores, expected in (({0}, 1), ({0, 1}, 2), (set(range(64)), 2)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: cores)
        assert count_devices() == expected
