"""Collectives of a compiled program, read from its HLO text: what kind, how large, how often.

What is counted: every all-gather, all-reduce, reduce-scatter, all-to-all and collective-permute of the optimised
program, times the trip counts of the loops around it. A start and its done are one; so are the pieces of a collective
that the TPU compiler spreads over the products beside it (they share a channel). A product whose operand goes round a
ring shows as collective-permutes. A loop whose trip count the text does not say (the decode loop ends when all rows
have ended) is counted at its bound, or once where there is none, and its name is given.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
DTYPE_BITS = {"pred": 8, "f8e4m3fn": 8, "f8e5m2": 8, "bf16": 16, "s4": 4, "u4": 4}

_COMPUTATION = re.compile(r"^(ENTRY )?%?([^\s(]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([^\s=]+) = (.*)$")
_OPCODE = re.compile(r"(?:^|[\s})])([a-z][a-z0-9-]*)\(")
_ARRAY = re.compile(r"\b([a-z][a-z0-9]*)\[([\d,]*)\]")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.-]+)")
_CALLED_LISTS = re.compile(r"\b(?:branch_computations|called_computations)=\{([^}]*)\}")
_TRIPS = re.compile(r'known_trip_count\\?":\{\\?"n\\?":\\?"(\d+)')


@dataclass(frozen=True)
class Collective:
    """One collective instruction.

    shape: of its result, one entry an array, as (dtype, dimensions). bytes: of the whole result on one device (of the
    operand for reduce-scatter: the larger side). group: devices that take part. times: how often a step runs it.
    where: the jax operation it comes from.
    """

    kind: str
    shape: tuple[tuple[str, tuple[int, ...]], ...]
    bytes: int
    group: int
    times: int
    where: str

    @property
    def sent(self) -> float:
        """Bytes that a device sends in a step if every collective goes round a ring, which is the least there is."""
        share = (self.group - 1) / self.group
        each = {"all-reduce": 2 * share, "collective-permute": 1.0}.get(self.kind, share)
        return each * self.bytes * self.times


@dataclass(frozen=True)
class Collectives:
    """All of a program. unknown_loops: `where` of loops that were counted once because nothing bounds them."""

    found: tuple[Collective, ...]
    unknown_loops: tuple[str, ...]

    def of(self, kind: str) -> tuple[Collective, ...]:
        return tuple(collective for collective in self.found if collective.kind == kind)

    @property
    def sent(self) -> float:
        """Bytes that a device sends in a step."""
        return sum(collective.sent for collective in self.found)

    def gathered_logits(self, vocab_size: int, hidden_size: int) -> tuple[Collective, ...]:
        """Find all-gathers that bring a whole vocabulary of anything but the (un)embedding matrix onto every device."""

        def holds_logits(dimensions: Sequence[int]) -> bool:
            true_dimensions = sorted(size for size in dimensions if size > 1)
            return vocab_size in dimensions and true_dimensions != sorted((vocab_size, hidden_size))

        return tuple(c for c in self.of("all-gather") if any(holds_logits(dimensions) for _, dimensions in c.shape))


@dataclass
class Instruction:
    name: str
    opcode: str
    shape: str
    operands: tuple[str, ...]
    rest: str


@dataclass
class Computation:
    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)
    root: str = ""


def collectives(text: str) -> Collectives:
    """Find the collectives in the HLO text of a compiled program (`compiled.as_text()`)."""
    computations, entry = parse(text)
    found: dict[str, Collective] = {}
    unknown: list[str] = []

    def walk(name: str, times: int) -> None:
        for instruction in computations[name].instructions.values():
            kind = instruction.opcode.removesuffix("-start")
            if kind in KINDS and not instruction.opcode.endswith("-done"):
                key = _chain(instruction) or f"{name} {instruction.name}"
                if key not in found or times < found[key].times:
                    found[key] = _collective(kind, name, instruction, times)
                continue
            inner = times
            if instruction.opcode == "while":
                trips = trip_count(computations, computations[name], instruction)
                if trips is None:
                    unknown.append(_where(instruction))
                inner *= 1 if trips is None else trips
            for called in called_by(instruction):
                if called in computations:
                    walk(called, inner)

    walk(entry, 1)
    return Collectives(tuple(found.values()), tuple(unknown))


def parse(text: str) -> tuple[Mapping[str, Computation], str]:
    """Read the computations of an HLO text, and the name of the first to run."""
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        header = _COMPUTATION.match(line)
        if header:
            current = computations[header[2]] = Computation(header[2])
            entry = header[2] if header[1] else entry
        elif current is not None and (found := _INSTRUCTION.match(line)):
            instruction = _instruction(found[2], found[3])
            current.instructions[instruction.name] = instruction
            current.root = instruction.name if found[1] else current.root
    if not entry:
        raise ValueError("the HLO text has no ENTRY computation")
    return computations, entry


def _instruction(name: str, text: str) -> Instruction:
    # The result's type comes first and may be a tuple with comments; layouts hold parentheses, as {1,0:T(8,128)}, but
    # never a space before them, as the opcode has.
    end = _closing(text, 0) if text.startswith("(") else text.index(" ")
    shape = text[:end]
    found = _OPCODE.match(text[end:])
    if not found:
        return Instruction(name, "", shape, (), text)
    start = end + found.end() - 1
    stop = _closing(text, start)
    operands = tuple(re.findall(r"%([\w.-]+)", text[start:stop]))
    return Instruction(name, found[1], shape, operands, text[start:])


def _closing(text: str, start: int) -> int:
    depth = 0
    for place in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place + 1
    return len(text)


def _chain(instruction: Instruction) -> str:
    """Return what the pieces of a collective that is spread over several fusions share, "" for any other collective.

    Some pieces stand in loops that the collective itself does not belong to, so it runs as often as the piece that runs
    least.
    """
    chain = re.search(r'chain_id="\d+"', instruction.rest)
    channel = re.search(r"channel_id=\d+", instruction.rest)
    return f"{chain[0]} {channel[0]}" if chain and channel else ""


def called_by(instruction: Instruction) -> Iterator[str]:
    """Name the computations that an instruction runs as kernels of their own."""
    if instruction.opcode in ("reduce", "all-reduce", "sort", "scatter", "select-and-scatter", "map"):
        return
    yield from _CALLED.findall(instruction.rest)
    for names in _CALLED_LISTS.findall(instruction.rest):
        yield from re.findall(r"%?([\w.-]+)", names)


def _where(instruction: Instruction) -> str:
    found = re.search(r'op_name="([^"]*)"', instruction.rest)
    return found[1] if found else instruction.name


def arrays_of(shape: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """List the arrays of a shape.

    In: "(f32[2,3]{1,0}, s32[])". Out: (("f32", (2, 3)), ("s32", ())).
    """
    return tuple(
        (dtype, tuple(int(size) for size in sizes.split(",") if size)) for dtype, sizes in _ARRAY.findall(shape)
    )


def array_bytes(dtype: str, dimensions: Sequence[int]) -> int:
    """Count the bytes of an array."""
    digits = re.search(r"\d+", dtype)
    bits = DTYPE_BITS.get(dtype, int(digits[0]) if digits else 0)
    return math.prod(dimensions) * bits // 8


def _collective(kind: str, computation: str, instruction: Instruction, times: int) -> Collective:
    arrays = arrays_of(instruction.shape)
    arrays = tuple(array for array in arrays if array[1] or len(arrays) == 1)
    if instruction.opcode.endswith("-start") and instruction.shape.startswith("("):
        # (operand, result, context ...): the larger of the two sides that carry data
        arrays = (max(arrays, key=lambda array: array_bytes(*array)),)
    group = _group_size(instruction.rest)
    size = sum(array_bytes(*array) for array in arrays)
    if kind == "all-reduce" and computation.startswith("all-reduce-scatter"):
        kind = "reduce-scatter"  # the TPU compiler writes one as a fusion of an all-reduce and a slice
    elif kind == "reduce-scatter":
        size *= group
    return Collective(kind, arrays, size, group, times, _where(instruction))


def _group_size(rest: str) -> int:
    """Count the devices of one group, in any of the three ways that XLA writes groups.

    In:  "replica_groups=[2,8]<=[8,2]T(1,0)", "replica_groups={{0,2},{1,3}}",
         "replica_groups=mesh['a'=8,'b'=2] {'b'}"
    Out: 8, 2, 2
    """
    if found := re.search(r"replica_groups=\[\d+,(\d+)\]", rest):
        return int(found[1])
    if found := re.search(r"replica_groups=\{\{([\d,]*)\}", rest):
        return len(found[1].split(","))
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", rest):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", found[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'([^']+)'", found[2]))
    if found := re.search(r"source_target_pairs=\{(.*?)\}\}", rest):
        return 2
    return 1


def trip_count(computations: Mapping[str, Computation], outer: Computation, loop: Instruction) -> int | None:
    """Count the rounds of a while loop: from its backend config, or from "counter < bound" in its condition."""
    if found := _TRIPS.search(loop.rest):
        return int(found[1])
    condition = computations[re.search(r"condition=%?([\w.-]+)", loop.rest)[1]]  # type: ignore[index]
    body = computations[re.search(r"body=%?([\w.-]+)", loop.rest)[1]]  # type: ignore[index]
    bounds = [
        bound
        for compare in _compares(condition, condition.root)
        if (bound := _bound(compare, condition, body, outer, loop)) is not None
    ]
    return min(bounds) if bounds else None


def _compares(condition: Computation, name: str) -> Iterator[Instruction]:
    instruction = condition.instructions.get(name)
    if instruction is None:
        return
    if instruction.opcode == "compare":
        yield instruction
    elif instruction.opcode in ("and", "copy", "bitcast"):
        for operand in instruction.operands:
            yield from _compares(condition, operand)


def _bound(
    compare: Instruction, condition: Computation, body: Computation, outer: Computation, loop: Instruction
) -> int | None:
    direction = re.search(r"direction=(\w+)", compare.rest)
    if direction is None or direction[1] not in ("LT", "GT") or len(compare.operands) != 2:
        return None
    counter, limit = compare.operands if direction[1] == "LT" else reversed(compare.operands)
    last, first = (_value(name, condition, outer, loop) for name in (limit, counter))
    if last is None:
        return None
    return -(-max(0, last - (first or 0)) // _step(counter, condition, body))


def _step(counter: str, condition: Computation, body: Computation) -> int:
    """Return what a round of the loop adds to its counter: more than 1 where the compiler unrolled it."""
    instruction, root = condition.instructions.get(counter), body.instructions.get(body.root)
    if instruction is None or root is None or root.opcode != "tuple" or instruction.opcode != "get-tuple-element":
        return 1
    total, name = 0, root.operands[_index(instruction)]
    while (found := body.instructions.get(name)) is not None and found.opcode in ("add", "copy", "bitcast"):
        others = [body.instructions.get(operand) for operand in found.operands]
        total += sum(_constant(other) or 0 for other in others if other is not None and other.opcode == "constant")
        name = next((other.name for other in others if other is not None and other.opcode != "constant"), "")
    return max(total, 1)


def _index(get_tuple_element: Instruction) -> int:
    return int(re.search(r"index=(\d+)", get_tuple_element.rest)[1])  # type: ignore[index]


def _value(name: str, condition: Computation, outer: Computation, loop: Instruction) -> int | None:
    """Return the constant that a name stands for when the loop starts: in its condition, or among its operands."""
    instruction = condition.instructions.get(name)
    if instruction is None:
        return None
    if instruction.opcode == "constant":
        return _constant(instruction)
    if instruction.opcode in ("copy", "bitcast", "convert"):
        return _value(instruction.operands[0], condition, outer, loop)
    if instruction.opcode != "get-tuple-element":
        return None
    given = outer.instructions.get(loop.operands[0]) if loop.operands else None
    if given is None or given.opcode != "tuple":
        return None
    source = outer.instructions.get(given.operands[_index(instruction)])
    while source is not None and source.opcode in ("copy", "bitcast", "convert"):
        source = outer.instructions.get(source.operands[0])
    return _constant(source) if source is not None and source.opcode == "constant" else None


def _constant(instruction: Instruction) -> int | None:
    found = re.match(r"\((-?\d+)\)", instruction.rest)
    return int(found[1]) if found else None
