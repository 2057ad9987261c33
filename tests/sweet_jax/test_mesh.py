"""Reading --mesh, starting devices, and batches that a mesh does not divide."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from colbench_env.types import BadInput
from sweet_jax.mesh import MeshShape, check_rows, make_mesh, parse_mesh, put_rows, start_devices


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
