"""`python -m benchmarks.load_model`: memory and seconds of loading a model in several files, beside what others need.

Writes a Llama of 1.6 billion parameters (bfloat16, random) into a temporary directory, file by file, and loads it in
fresh processes: with `models.hf_io.load_llama` on a mesh of emulated devices; with `safetensors.numpy.load_file`, numpy
and jax.device_put onto the same mesh, the short way to the same arrays; and with transformers, whose torch tensors stay
the mapped files (every page is read; nothing is turned, split or converted). The disk is warm: it was just written.

Memory is anonymous memory (RssAnon of /proc, sampled by the parent every 2 ms): pages of the mapped files are not
counted, as the kernel takes them back when it needs them. "over" is the peak less what the process held before loading
and less the bytes of the loaded weights. With --model=DIR that directory is loaded five times, too, and timed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

LOADERS = ("sweet-jax", "whole files", "transformers")
GIB = 2**30


def anonymous_bytes(pid: int | str = "self") -> int:
    """RssAnon of a process; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def write_model(directory: Path) -> int:
    """Writes the synthetic model and returns the bytes of its largest tensor."""
    import ml_dtypes
    import numpy as np

    from models.config import LlamaConfig
    from models.hf_names import hf_layout
    from models.weight_files import write_weights

    config = LlamaConfig(
        vocab_size=128_256, hidden_size=2048, intermediate_size=8192, num_layers=18, num_heads=32, num_kv_heads=8,
        head_size=64, max_position_embeddings=8192,
    )  # fmt: skip
    stored = [tensor for tensors in hf_layout(config).values() for tensor in tensors.stored]
    bfloat16 = np.dtype(ml_dtypes.bfloat16)
    block = (0.02 * np.random.default_rng(0).standard_normal(2**20 + 7, np.float32)).astype(bfloat16)

    def values() -> Iterator[np.ndarray]:
        for tensor in stored:
            yield np.resize(block, tensor.shape)

    write_weights(directory, stored, values(), bfloat16, max_file_bytes=10**9)
    (directory / "config.json").write_text(json.dumps(config.to_hf() | {"dtype": "bfloat16"}))
    return max(math.prod(tensor.shape) for tensor in stored) * bfloat16.itemsize


def load(loader: str, directory: Path, mesh: str, dtype: str) -> dict[str, float]:
    """Loads the directory in this process: seconds, bytes held before, bytes of the weights."""
    if loader == "sweet-jax":
        import jax

        from models.hf_io import load_llama
        from sweet_jax.mesh import make_mesh, parse_mesh, start_devices

        shape = parse_mesh(mesh)
        start_devices(shape)
        devices = make_mesh(shape)
        before, began = anonymous_bytes(), time.perf_counter()
        leaves = jax.tree.leaves(jax.block_until_ready(load_llama(directory, devices, dtype).params))
        seconds = time.perf_counter() - began
        held = sum(shard.data.nbytes for leaf in leaves for shard in leaf.addressable_shards)
    elif loader == "transformers":
        import torch
        import transformers

        transformers.utils.logging.disable_progress_bar()
        before, began = anonymous_bytes(), time.perf_counter()
        model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, dtype))
        # Its tensors may still be the mapped files: read every page, as ours has.
        sum(float(parameter.detach().view(-1)[::1024].float().sum()) for parameter in model.parameters())
        seconds = time.perf_counter() - began
        held = sum(parameter.nbytes for parameter in model.parameters())
    else:
        import jax
        import numpy as np
        from safetensors.numpy import load_file

        from models.config import from_hf
        from models.hf_names import hf_layout
        from models.parameters import flatten, param_shardings
        from sweet_jax.mesh import make_mesh, parse_mesh, start_devices

        shape = parse_mesh(mesh)
        start_devices(shape)
        config = from_hf(directory)
        shardings = flatten(param_shardings(config, make_mesh(shape)))
        before, began = anonymous_bytes(), time.perf_counter()
        tensors = {name: x for file in sorted(directory.glob("*.safetensors")) for name, x in load_file(file).items()}
        leaves = []
        for path, layout in hf_layout(config).items():
            values = [tensors.pop(name) for name in layout.names]
            values = [value.T if layout.transposed else value for value in values]
            value = np.stack(values) if layout.stacked else values[0]
            leaves.append(jax.block_until_ready(jax.device_put(value.astype(dtype), shardings[path])))
        seconds = time.perf_counter() - began
        held = sum(shard.data.nbytes for leaf in leaves for shard in leaf.addressable_shards)
    return {"seconds": seconds, "before": before, "held": held, "after": anonymous_bytes()}


def measured(loader: str, directory: Path, mesh: str, dtype: str) -> dict[str, float]:
    """`load` in a fresh process, with its peak of anonymous memory, its largest resident set and its whole seconds."""
    command = [sys.executable, "-m", "benchmarks.load_model", f"--loader={loader}", f"--directory={directory}"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}
    began, peak = time.perf_counter(), 0
    process = subprocess.Popen(
        [*command, f"--mesh={mesh}", f"--dtype={dtype}"], stdout=subprocess.PIPE, env=environment, text=True
    )
    while process.poll() is None:
        peak = max(peak, anonymous_bytes(process.pid))
        time.sleep(0.002)
    assert process.stdout is not None
    output = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"{loader} ended with status {process.returncode}")
    found = json.loads(output.splitlines()[-1])
    return found | {"peak": peak, "process_seconds": time.perf_counter() - began}


def compare(mesh: str, dtype: str) -> None:
    """The table of loaders for the synthetic model."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        largest = write_model(directory)
        files = sorted(directory.glob("*.safetensors"))
        size = sum(file.stat().st_size for file in files)
        print(f"{size / 2:,.0f} parameters in {len(files)} files, {size / 1e9:.2f} GB; mesh {mesh}, weights in {dtype}")
        bound = GIB + largest
        print(f"bound on what is held over the weights: 1 GiB + the largest tensor = {bound / GIB:.2f} GiB")
        print(f"{'loader':<14}{'weights':>10}{'peak over':>12}{'peak':>10}{'seconds':>10}{'GB/s':>8}")
        for loader in LOADERS:
            found = measured(loader, directory, mesh, dtype)
            over = found["peak"] - found["before"] - found["held"]
            print(
                f"{loader:<14}{found['held'] / GIB:>6.2f} GiB{over / GIB:>8.2f} GiB{found['peak'] / GIB:>6.2f} GiB"
                f"{found['seconds']:>10.2f}{size / found['seconds'] / 1e9:>8.2f}"
            )
            if loader == "sweet-jax":
                print(f"{'':<14}{'within the bound' if over <= bound else 'ABOVE THE BOUND'}")


def repeat(directory: Path, mesh: str, times: int) -> None:
    """Median seconds of loading `directory` as float32 in fresh processes."""
    found = [measured("sweet-jax", directory, mesh, "float32") for _ in range(times)]
    loads, wholes = ([run[name] for run in found] for name in ("seconds", "process_seconds"))
    print(
        f"{directory.name} on mesh {mesh}, float32: median of {times} fresh processes {statistics.median(loads):.2f} s "
        f"({min(loads):.2f} to {max(loads):.2f}), {statistics.median(wholes):.2f} s with start-up"
    )


def main() -> None:
    """Parses the flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mesh", default="4x2", help="DATAxTENSOR emulated devices")
    parser.add_argument("--dtype", default="bfloat16", help="of the loaded weights")
    parser.add_argument("--model", type=Path, help="a directory to load five times as well, as float32")
    parser.add_argument("--loader", choices=LOADERS, help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.loader:
        print(json.dumps(load(flags.loader, flags.directory, flags.mesh, flags.dtype)))
        return
    if flags.model:
        repeat(flags.model, flags.mesh, 5)
    compare(flags.mesh, flags.dtype)


if __name__ == "__main__":
    main()
