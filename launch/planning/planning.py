"""From a configuration to a `Plan`: what can be known to be wrong first, then the shapes, then the compiler."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from colbench_env.types import BadInput
from launch.planning.chips import Topology, parse_topology
from launch.planning.compiling import OutOfMemory, compile_program, slice_devices
from launch.planning.config import PlanConfig
from launch.planning.flops import Flops, sampling_flops, scoring_flops, training_flops
from launch.planning.gpu_compiler import as_on_h100
from launch.planning.programs import device_bytes, make_program, replicated_share
from launch.planning.report import Plan
from launch.planning.shapes import network
from models.attention import LANES
from models.config import LlamaConfig
from models.sharding import head_axis
from sweet_jax.mesh import MeshShape, make_mesh, parse_mesh


def make_plan(config: PlanConfig, say: Callable[[str], None] = lambda line: None) -> Plan:
    """Make the plan of the configuration on its own mesh.

    say: called with a line for each step and its seconds.
    Raises BadInput and ModelError before anything is compiled.
    """
    topology, shape, llama = parse_topology(config.topology), parse_mesh(config.mesh), network(config.model)
    config = with_kernel(config, topology)
    check(config, topology, shape, llama)
    return compiled_plan(config, topology, shape, llama, say)


def with_kernel(config: PlanConfig, topology: Topology) -> PlanConfig:
    """Put the kernel that "auto" means for the slice's compiler in its place."""
    if config.attention != "auto":
        return config
    on_gpu = topology.compiled_for().is_gpu
    return replace(
        config, attention="splash" if not on_gpu else "cudnn" if config.compute_dtype == "bfloat16" else "xla"
    )


def check(config: PlanConfig, topology: Topology, shape: MeshShape, llama: LlamaConfig) -> None:
    """Raise BadInput where mesh, slice, batch, length and network do not go together."""
    if shape.size != topology.devices:
        raise BadInput(f"mesh {shape} has {shape.size} devices, the slice {topology} has {topology.devices}")
    _check_network(shape, llama)
    longest = config.tokens + (config.new_tokens if config.stage == "sample" else 0)
    if longest > llama.max_position_embeddings:
        raise BadInput(f"rows of {longest} tokens are longer than the network's {llama.max_position_embeddings}")
    if config.stage == "sample":
        _check_sampling(config, shape)
        return
    parts = shape.data * (config.micro_batches if config.trains else 1)
    rows = config.batch_size if config.trains else 2 * config.batch_size
    if rows % parts:
        split = f"{config.micro_batches} micro-batches over " if config.trains else ""
        raise BadInput(
            f"a batch of {rows} {'pairs' if config.trains else 'rows'} cannot be divided into {split}a data axis of "
            f"{shape.data}: it must be a multiple of {parts}"
        )
    if config.attention == "cudnn" and shape.sequence > 1:
        raise BadInput(f"mesh {shape}: attention 'cudnn' does not split the tokens of a row; use {shape.folded()}")
    if config.attention == "cudnn" and config.trains and config.remat == "attention":
        raise BadInput("remat 'attention' saves nothing with attention 'cudnn': use remat 'full' or 'dots'")
    block = LANES if config.attention == "splash" and shape.sequence > 1 else 1
    if config.tokens % (shape.sequence * block):
        raise BadInput(
            f"mesh {shape}: rows of {config.tokens} tokens do not divide over a sequence axis of {shape.sequence}: "
            f"they must be a multiple of {shape.sequence * block}"
        )


def _check_network(shape: MeshShape, llama: LlamaConfig) -> None:
    """Raise BadInput for what `models.sharding` refuses, without a mesh.

    Query heads must divide here, though the network would compute them whole on every device.
    """
    sharded = shape.data * shape.sequence
    for what, size, axis, parts in (
        ("query heads", llama.num_heads, "tensor", shape.tensor),
        ("hidden dimensions", llama.hidden_size, "data x sequence", sharded),
        ("hidden dimensions", llama.hidden_size, "tensor", shape.tensor),
        ("key/value dimensions", llama.num_kv_heads * llama.head_size, "tensor", shape.tensor),
        ("mlp dimensions", llama.intermediate_size, "tensor", shape.tensor),
        ("words", llama.vocab_size, "tensor", shape.tensor),
    ):
        if size % parts:
            raise BadInput(f"mesh {shape}: a {axis} axis of {parts} does not divide {size} {what}")


def _check_sampling(config: PlanConfig, shape: MeshShape) -> None:
    if config.rows % config.samples:
        raise BadInput(f"{config.samples} samples of a prompt do not fill a batch of {config.rows} rows evenly")
    prompts = config.rows // config.samples
    if shape.sequence > 1:
        raise BadInput(
            f"mesh {shape}: sampling has no sequence axis, its rows grow token by token; use {shape.folded()}"
        )
    if prompts % shape.data:
        raise BadInput(
            f"a batch of {prompts} prompts ({config.rows} rows / {config.samples} samples) cannot be divided over a "
            f"data axis of {shape.data}"
        )


def step_flops(config: PlanConfig, llama: LlamaConfig) -> Flops:
    """Count the FLOPs of one run of the stage's program, all devices together."""
    if config.stage == "sample":
        prompts = config.rows // config.samples
        return sampling_flops(llama, prompts, config.tokens, config.samples, config.new_tokens)
    if config.stage == "score":
        return scoring_flops(llama, 2 * config.batch_size, config.tokens)
    return training_flops(llama, 2 * config.batch_size, config.tokens, config.remat, adapters=config.lora_rank > 0)


def compiled_plan(
    config: PlanConfig, topology: Topology, shape: MeshShape, llama: LlamaConfig,
    say: Callable[[str], None] = lambda line: None,
) -> Plan:  # fmt: skip
    """Compile the plan of one mesh; for GPUs without their compiler on a stand-in (`chips.GPU_STAND_INS`)."""
    begun = time.monotonic()
    mesh = make_mesh(shape, slice_devices(topology.compiled_for()))
    say(f"1/3 the slice {topology.compiled_for()} described: {time.monotonic() - begun:.0f} s")
    begun, program = time.monotonic(), make_program(config, llama, mesh)
    with as_on_h100() if topology.compiled_for().is_gpu else contextlib.nullcontext():
        lowered = program.lower()
    say(f"2/3 stage {config.stage} of {config.model} on mesh {shape} traced: {time.monotonic() - begun:.0f} s")
    say("3/3 compiling, which takes from seconds to minutes")
    result = compile_program(lowered)
    say(f"3/3 compiled: {result.seconds:.0f} s")
    params, optimizer, batch = (device_bytes(tree) for tree in (program.params, program.optimizer, program.batch))
    limit, accepted = topology.chip.memory_gib * 2**30, not isinstance(result, OutOfMemory)
    peak, notes = result.peak, _notes(topology, llama, mesh)
    if isinstance(result, OutOfMemory):
        notes = (f"the compiler refused the program: {result.reason}", *notes)
    elif result.collectives.unknown_loops:
        notes = (*notes, f"loops without a known end, counted once: {', '.join(result.collectives.unknown_loops)}")
    found = None if isinstance(result, OutOfMemory) else result.collectives
    return Plan(
        what=_what(config, shape),
        topology=topology,
        params=params,
        optimizer=optimizer,
        batch=batch,
        peak=peak,
        fits=accepted and peak is not None and peak <= limit,
        replicated=replicated_share(program.params),
        flops=step_flops(config, llama),
        collectives=found,
        gathered_logits=0 if found is None else len(found.gathered_logits(llama.vocab_size, llama.hidden_size)),
        compile_seconds=result.seconds,
        estimate=topology.compiled_for() != topology,
        steps=config.steps,
        utilisation=config.utilisation,
        chip_hour_price=config.chip_hour_price,
        notes=notes,
    )


def _what(config: PlanConfig, shape: MeshShape) -> dict[str, Any]:
    what: dict[str, Any] = {"model": config.model, "stage": config.stage, "mesh": str(shape), "length": config.tokens}
    if config.stage == "sample":
        what |= {"rows": config.rows, "samples": config.samples, "new_tokens": config.new_tokens}
    else:
        what["pairs"] = config.batch_size
    if config.trains:
        what |= {"micro_batches": config.micro_batches, "remat": config.remat, "moments": config.moment_dtype}
    if config.trains and config.lora_rank:
        what["lora_rank"] = config.lora_rank
    if config.stage != "sample":
        what["attention"] = config.attention
    return what | {"compute_dtype": config.compute_dtype}


def _notes(topology: Topology, llama: LlamaConfig, mesh: Any) -> tuple[str, ...]:
    notes = [head_axis(llama, mesh).report]
    if topology.compiled_for() != topology:
        notes.append(
            f"temporaries and collectives are those of the same program compiled for {topology.compiled_for()}, as XLA "
            "for GPUs is not installed (pip install '.[cuda]'); parameters and optimiser state are exact"
        )
    return tuple(notes)
