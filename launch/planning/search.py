"""Which mesh, and how many micro-batches: the likeliest are compiled, and the fastest of those that fit is named."""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from dataclasses import dataclass

from colbench_env.types import BadInput
from launch.planning.chips import Topology, parse_topology
from launch.planning.config import PlanConfig
from launch.planning.planning import check, compiled_plan, with_kernel
from launch.planning.report import GIB, Plan
from launch.planning.shapes import network
from models.config import LlamaConfig, ModelError
from models.parameters import count_params
from sweet_jax.mesh import MeshShape

MICRO_BATCHES = (1, 2, 4, 8)


@dataclass(frozen=True)
class Candidate:
    """A mesh and a number of micro-batches. least_bytes: what a device must hold at the very least; traffic_bytes: a
    guess of what it sends in a step, only used to decide what is compiled first."""

    shape: MeshShape
    micro_batches: int
    least_bytes: float
    traffic_bytes: float

    def __str__(self) -> str:
        return f"mesh {self.shape}" + (f", {self.micro_batches} micro-batches" if self.micro_batches > 1 else "")


def search(config: PlanConfig) -> Plan:
    """Find the plan that fits and has the lowest `Plan.estimated_seconds` of those compiled; report on standard error.

    Raises BadInput where no mesh goes with slice and batch, or none of those compiled fits.
    """
    topology, llama = parse_topology(config.topology), network(config.model)
    config = with_kernel(config, topology)
    found = candidates(config, topology, llama)
    limit = topology.chip.memory_gib * GIB
    hopeful = [candidate for candidate in found if candidate.least_bytes <= limit]
    if not found:
        raise BadInput(
            f"no mesh of {topology.devices} devices divides heads, batch and length of this stage on {topology}"
        )
    if not hopeful:
        least = min(candidate.least_bytes for candidate in found)
        raise BadInput(
            f"{config.model} needs {least / GIB:.2f} GiB a device on {topology} whatever the mesh, "
            f"which has {topology.chip.memory_gib:g}: take a larger slice"
        )
    tried: list[tuple[Candidate, Plan]] = []
    for number, candidate in enumerate(hopeful[: config.tries], start=1):
        begun = time.monotonic()
        one = dataclasses.replace(config, mesh=str(candidate.shape), micro_batches=candidate.micro_batches)
        plan = compiled_plan(one, topology, candidate.shape, llama)
        tried.append((candidate, plan))
        peak = "too large" if plan.peak is None else f"{plan.peak / GIB:.2f} GiB"
        verdict = f"fits, {1e3 * plan.estimated_seconds:.0f} ms" if plan.fits else "does not fit"
        print(
            f"{number}/{min(config.tries, len(hopeful))} {candidate}: {peak}, {verdict} "
            f"({time.monotonic() - begun:.0f} s to compile)",
            file=sys.stderr,
            flush=True,
        )
    fitting = [plan for _, plan in tried if plan.fits]
    if not fitting:
        raise BadInput(
            f"none of the {len(tried)} plans compiled for {topology} fits (of {len(hopeful)} that might): "
            "raise --tries, or take a larger slice"
        )
    best = min(fitting, key=lambda plan: plan.estimated_seconds)
    note = (
        f"best of {len(tried)} plans compiled, of {len(hopeful)} that might fit and {len(found)} that are possible: "
        "ranked by arithmetic with what is computed twice + traffic, one after the other"
    )
    return dataclasses.replace(best, notes=(note, *best.notes))


def candidates(config: PlanConfig, topology: Topology, llama: LlamaConfig) -> list[Candidate]:
    """List every mesh and number of micro-batches that `check` lets pass, the least traffic first."""
    found = []
    for data, sequence, tensor in _factors(topology.devices):
        if sequence > 1 and config.stage == "sample":
            continue
        shape = MeshShape(data, tensor, sequence)
        for micro_batches in MICRO_BATCHES if config.trains else (1,):
            one = dataclasses.replace(config, mesh=str(shape), micro_batches=micro_batches)
            try:
                check(one, topology, shape, llama)
            except (BadInput, ModelError):
                continue
            found.append(
                Candidate(shape, micro_batches, least_bytes(one, shape, llama), traffic_bytes(one, shape, llama))
            )
    return sorted(
        found, key=lambda candidate: (candidate.traffic_bytes, candidate.shape.tensor, candidate.micro_batches)
    )


def _factors(devices: int) -> list[tuple[int, int, int]]:
    divisors = [size for size in range(1, devices + 1) if devices % size == 0]
    return [(a, b, devices // a // b) for a in divisors for b in divisors if devices % (a * b) == 0]


def least_bytes(config: PlanConfig, shape: MeshShape, llama: LlamaConfig) -> float:
    """Count the bytes that a device holds at least.

    These are parameters (float32; matrices that are only read in the compute dtype) and, in training, gradients, two
    moments and one residual stream a layer.
    """
    weights = 4 * count_params(llama)
    if config.stage == "sample":
        weights = _size(config) * count_params(llama)
        slots = config.tokens + config.new_tokens
        cache = 2 * llama.num_layers * config.rows * slots * llama.num_kv_heads * llama.head_size * _size(config)
        return weights / shape.tensor + cache / shape.size
    if config.stage == "score":
        return weights / shape.size
    rows = 2 * config.batch_size / config.micro_batches
    stream = rows * config.tokens * llama.hidden_size * llama.num_layers * _size(config)
    moment = 2 if config.moment_dtype == "bfloat16" else 4
    a_weight = _size(config) if config.lora_rank else 4 + 4 + 2 * moment
    return a_weight * count_params(llama) / shape.size + stream / (shape.data * shape.sequence)


def traffic_bytes(config: PlanConfig, shape: MeshShape, llama: LlamaConfig) -> float:
    """Count the bytes that a device sends in a step.

    These are weights gathered over data and sequence for every pass and micro-batch, gradients scattered; activations
    summed over tensor four times a layer and pass; keys and values gathered over sequence.
    """
    passes = (3 if config.remat == "full" else 2) if config.trains else 1
    shards = shape.data * shape.sequence
    gathered = _size(config) * count_params(llama) / shape.tensor * (1 - 1 / shards)
    rows = config.rows if config.stage == "sample" else 2 * config.batch_size
    tokens = rows * config.tokens / shards
    summed = 4 * (1 - 1 / shape.tensor) * tokens * llama.hidden_size * llama.num_layers * _size(config)
    kv = 2 * llama.num_kv_heads * llama.head_size / shape.tensor
    ring = (shape.sequence - 1) * tokens * kv * llama.num_layers * _size(config)
    weights = 0.0 if config.stage == "sample" else (passes + config.trains) * config.micro_batches * gathered
    return weights + passes * (summed + ring) if math.isfinite(summed) else math.inf


def _size(config: PlanConfig) -> int:
    return 2 if config.compute_dtype == "bfloat16" else 4
