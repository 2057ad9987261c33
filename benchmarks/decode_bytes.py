"""`python -m benchmarks.decode_bytes`: bytes that one decode step moves as compiled for an H100, and those it must.

The program is the sampler's own, compiled by XLA's compiler for GPUs without a card (`pip install '.[cuda]'`). Counted
are the reads and writes of every kernel in the decode loop; of an array that a kernel only slices or updates in place,
the slices; of the cache, what the attention kernel reads: the blocks that rows hold when half of the turn is drawn.
Nothing is timed, and what a cache of the card would hold is counted all the same. A step must read the weights and the
tokens that its rows hold. The last line is JSON.

XLA splits the inner dimension of the products into parts where it cannot time them ("split_k"); their sums are written
and read again. The compiler on a card times both; here the bytes are told with and without.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping

import jax

from launch.planning.config import PlanConfig
from launch.planning.gpu_compiler import as_on_h100, h100_devices, is_installed
from launch.planning.hlo import Computation, Instruction, array_bytes, arrays_of, called_by, parse, trip_count
from launch.planning.programs import device_bytes, make_program
from launch.planning.shapes import network
from models.kv_cache import BLOCK
from sweet_jax.mesh import make_mesh, parse_mesh

FREE = {
    "parameter", "get-tuple-element", "tuple", "bitcast", "constant", "after-all", "copy-done", "async-done",
    "optimization-barrier", "partition-id",
}  # fmt: skip
SLICES, UPDATES = ("dynamic-slice", "slice", "gather"), ("dynamic-update-slice", "scatter")
KERNEL = "paged_attention"


def size_of(shape: str) -> int:
    """Count the bytes of a shape, a tuple's members together; scratch of library calls (s8) is not counted."""
    return sum(array_bytes(*array) for array in arrays_of(shape) if array[0] != "s8")


class Program:
    """The HLO of a compiled program. cache: shape of a layer's keys or values -> bytes of it that a kernel reads."""

    def __init__(self, text: str, cache: Mapping[tuple[int, ...], int]):
        self.computations, _ = parse(text)
        self.cache = cache

    def decode_step(self) -> int:
        """Count the bytes of one round of the loop that attends in the kernel."""
        for computation in self.computations.values():
            for loop in computation.instructions.values():
                for name in called_by(loop) if loop.opcode == "while" else ():
                    if any(_is_kernel(one) for one in self.computations[name].instructions.values()):
                        return self.moved(self.computations[name])
        raise SystemExit("error: the compiled program has no loop with the attention kernel")

    def moved(self, computation: Computation) -> int:
        """Count what the kernels of a computation read and write."""
        return sum(self._kernel(computation, one) for one in computation.instructions.values())

    def _kernel(self, within: Computation, kernel: Instruction) -> int:
        inside = [self.computations[name] for name in called_by(kernel) if name in self.computations]
        if kernel.opcode in FREE:
            return 0
        if kernel.opcode == "while":
            body = max(inside, key=self.moved)
            return self.moved(body) * (trip_count(self.computations, within, kernel) or 1)
        if kernel.opcode == "conditional":
            return min(map(self.moved, inside))  # no alternatives are asked for
        if kernel.opcode in ("call", "command-buffer"):
            return sum(map(self.moved, inside))
        if kernel.opcode.startswith("fusion"):
            (fused,) = inside
            return self._fusion(fused)
        operands = [within.instructions[name].shape for name in kernel.operands]
        if _is_kernel(kernel):
            known = [self.cache.get(arrays_of(shape)[0][1]) for shape in operands]
            reads = [size_of(shape) if live is None else live for shape, live in zip(operands, known, strict=True)]
            return sum(reads) + size_of(kernel.shape)
        if kernel.opcode in SLICES:
            return 2 * size_of(kernel.shape)
        if kernel.opcode in UPDATES:
            return 2 * size_of(operands[-1 if kernel.opcode == "scatter" else 1])
        return sum(map(size_of, operands)) + size_of(kernel.shape)

    def _fusion(self, fused: Computation) -> int:
        total = self._written(fused, fused.instructions[fused.root])
        for one in fused.instructions.values():
            if one.opcode == "parameter":
                total += self._read(fused, one)
        return total

    def _read(self, fused: Computation, source: Instruction) -> int:
        """Count what a fusion reads of a parameter: the slices, where it takes nothing else of it."""
        total, whole = 0, size_of(source.shape)
        for user in fused.instructions.values():
            if source.name not in user.operands:
                continue
            if user.opcode == "bitcast":
                total += self._read(fused, user)
            elif user.opcode in SLICES and user.operands[0] == source.name:
                total += size_of(user.shape)
            elif not (user.opcode in UPDATES and user.operands[0] == source.name):
                return whole
        return min(total, whole)

    def _written(self, fused: Computation, result: Instruction) -> int:
        if result.opcode == "tuple":
            return sum(self._written(fused, fused.instructions[name]) for name in result.operands)
        if result.opcode == "bitcast":
            return self._written(fused, fused.instructions[result.operands[0]])
        if result.opcode in UPDATES:
            return size_of(fused.instructions[result.operands[-1 if result.opcode == "scatter" else 1]].shape)
        return size_of(result.shape)


def _is_kernel(instruction: Instruction) -> bool:
    return instruction.opcode == "custom-call" and KERNEL in instruction.rest


def count(model: str, rows: int, prompt: int, new: int) -> dict[str, float]:
    """Compile the sampler for that many rows, and count."""
    config = PlanConfig(model=model, stage="sample", rows=rows, max_length=prompt, new_tokens=new)
    shape, mesh = network(model), make_mesh(parse_mesh("1x1"), h100_devices(1))
    with as_on_h100():
        program = make_program(config, shape, mesh)
        lowered = program.lower()
    pool = rows * (-(-(prompt + new) // BLOCK) + 1)
    token = shape.num_kv_heads * shape.head_size * 2  # bytes of a token's keys, or values, in a layer
    held = prompt + new // 2
    read = rows * -(-held // BLOCK) * BLOCK * token
    cache = {
        (pool, shape.num_kv_heads, shape.head_size, BLOCK): read,
        (pool, shape.num_kv_heads, BLOCK, shape.head_size): read,
    }
    weights = device_bytes(program.params)
    if not shape.tie_word_embeddings:
        weights -= shape.vocab_size * shape.hidden_size * 2  # of the embedding a step reads a few rows
    floor = weights + 2 * shape.num_layers * rows * held * token
    told: dict[str, float] = {"rows": rows, "must_gb": floor / 1e9}
    for name, options in (("as_compiled", {}), ("no_split_k", {"xla_gpu_experimental_force_split_k": "1"})):
        text = lowered.compile(options).as_text()
        assert text is not None
        told[f"{name}_gb"] = Program(text, cache).decode_step() / 1e9
        told[f"{name}_ratio"] = told[f"{name}_gb"] / told["must_gb"]
    return told


def main() -> None:
    """Count for each number of rows, print a table and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llama-3.2-1b", help="a shape of launch.plan")
    parser.add_argument("--rows", default="16,64", help="rows that are drawn side by side")
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the prompts")
    parser.add_argument("--new", type=int, default=128, help="tokens of the turns")
    told = parser.parse_args()
    if not is_installed():
        parser.error("needs XLA's compiler for GPUs: pip install '.[cuda]'")
    os.environ["JAX_PLATFORMS"] = "cpu"
    jax.config.update("jax_platforms", "cpu")
    found = [count(told.model, int(rows), told.prompt, told.new) for rows in told.rows.split(",")]
    for row in found:
        print("  ".join(f"{name} {value:.2f}" for name, value in row.items()), flush=True)
    print(json.dumps({"model": told.model, "prompt": told.prompt, "new": told.new, "steps": found}))


if __name__ == "__main__":
    main()
