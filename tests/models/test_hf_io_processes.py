"""Two processes of four emulated devices each: everyone reads its own half, and one file set comes out."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "sweet_jax" / "start_policy"
PROGRAM = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
port, process, model, target = sys.argv[1:]
jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(process))
from jax.experimental import multihost_utils
from jax.sharding import AxisType
from models import hf_io

mesh = jax.make_mesh((4, 2), ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)
read, counted = hf_io._read, []
hf_io._read = lambda *arguments: counted.append(read(*arguments)) or counted[-1]
for small, piece in ((hf_io.SMALL_BYTES, hf_io.PIECE_BYTES), (0, 200_000)):
    hf_io.SMALL_BYTES, hf_io.PIECE_BYTES = small, piece
    counted.clear()
    loaded = hf_io.load_llama(model, mesh)
    print("read", sum(part.nbytes for part in counted), max(part.nbytes for part in counted))
    hf_io.save_llama(f"{target}/{small}", loaded.config, loaded.params)
    multihost_utils.sync_global_devices("saved")
"""


def test_each_of_two_processes_reads_its_half_and_both_write_the_model_together(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", PROGRAM, str(port)]
    processes = [
        subprocess.Popen(
            [*command, str(process), str(MODEL), str(tmp_path)],
            cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )
        for process in (0, 1)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    original = load_file(MODEL / "model.safetensors")
    size = sum(value.nbytes for value in original.values())
    for stdout, _ in outputs:
        (whole, _), (pieces, largest) = (
            [int(x) for x in line.split()[1:]] for line in stdout.splitlines() if "read" in line
        )
        # Half of each matrix and all of the norms; in pieces, of which the last overlap, a little more.
        assert whole < 0.502 * size and pieces < 0.52 * size and largest <= 200_000
    for folder in tmp_path.iterdir():
        written = load_file(folder / "model.safetensors")
        assert written.keys() == original.keys()
        for name, value in original.items():
            np.testing.assert_array_equal(written[name], value, err_msg=name)
