"""XLA's own compiler for GPUs, which compiles for a described card without one (`pip install '.[cuda]'`)."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Sequence
from unittest import mock

import jax

PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")
DEVICES_OF_A_NODE = 8
CUDNN = 91200  # the version that is compiled for

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024  threads_per_warp: 32  shared_memory_per_block: 49152  shared_memory_per_core: 233472
  threads_per_core_limit: 2048  core_count: 132  fpus_per_core: 128  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535  block_dim_limit_z: 65535  memory_bandwidth: 3352320000000  l2_cache_size: 52428800
  clock_rate_ghz: 1.98  device_memory_size: 84929347584  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 }  registers_per_core_limit: 65536  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 12 }
runtime_version { major: 13 minor: 0 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
"""An H100 SXM5 as XLA describes one (its hlo_opt/gpu_specs)."""


def is_installed() -> bool:
    """Whether jax's plugin for CUDA is there."""
    return any(importlib.util.find_spec(name) is not None for name in PLUGINS)


def h100_devices(count: int) -> Sequence[jax.Device]:
    """Describe so many H100s, eight in a node, to compile for."""
    from jax.experimental import topologies

    nodes, each = max(1, count // DEVICES_OF_A_NODE), min(count, DEVICES_OF_A_NODE)
    return topologies.get_topology_desc(platform="cuda", target_config=H100, topology=f"1x{nodes}x{each}").devices


@contextlib.contextmanager
def as_on_h100() -> Iterator[None]:
    """While programs are traced: jax asks the card of this machine what cuDNN's attention can do there."""
    where = "jax._src.cudnn.fused_attention_stablehlo"
    with (
        mock.patch(f"{where}.check_cudnn_version", return_value=CUDNN),
        mock.patch(f"{where}.check_compute_capability", side_effect=lambda wanted: float(wanted) <= 9.0),
    ):
        yield
