"""One plan: what compiling has measured, what shapes tell, and how both are printed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from launch.planning.chips import Topology
from launch.planning.flops import Flops
from launch.planning.hlo import KINDS, Collectives

GIB = 2**30


@dataclass(frozen=True)
class Plan:
    """One stage of one network on one slice; bytes and seconds are a device's.

    params, optimizer, batch: what is held when the program starts; with LoRA, params are the frozen network and the
    adapters. peak: these and the temporaries; None where the compiler refused without a number. fits: the compiler
    accepted the program and the peak is below the limit. replicated: share of the parameters' bytes that every device
    holds. estimate: temporaries and collectives are another chip's (GPUs). collectives: None where the program was
    refused. steps: how often the program runs, at `utilisation` of the peak, for `chip_hour_price` a device and hour.
    notes: sentences for the reader.
    """

    what: dict[str, Any]
    topology: Topology
    params: int
    optimizer: int
    batch: int
    peak: int | None
    fits: bool
    replicated: float
    flops: Flops
    collectives: Collectives | None
    gathered_logits: int
    compile_seconds: float
    estimate: bool = False
    steps: int = 0
    utilisation: float = 1.0
    chip_hour_price: float = 0.0
    notes: tuple[str, ...] = field(default=())

    @property
    def limit(self) -> float:
        """Bytes that a program may use."""
        return self.topology.chip.memory_gib * GIB

    @property
    def temporaries(self) -> int | None:
        """What the program needs besides its inputs, at the moment when that is most."""
        return None if self.peak is None else self.peak - self.params - self.optimizer - self.batch

    @property
    def floor_seconds(self) -> float:
        """Least time for the arithmetic of a step, nothing being computed twice: every device at its peak rate."""
        return self.flops.useful / (self.topology.devices * self.topology.chip.peak_tflops * 1e12)

    @property
    def arithmetic_seconds(self) -> float:
        """The same with what rematerialisation computes twice."""
        return self.flops.total / (self.topology.devices * self.topology.chip.peak_tflops * 1e12)

    @property
    def traffic_seconds(self) -> float:
        """Least time for the bytes that a device sends, all its links being busy."""
        return 0.0 if self.collectives is None else self.collectives.sent / (self.topology.chip.send_gb_s * 1e9)

    @property
    def estimated_seconds(self) -> float:
        """What plans are ranked by: arithmetic and traffic one after the other. A real step hides some of the traffic
        behind arithmetic and does neither at the peak rate; both hold for every plan."""
        return self.arithmetic_seconds + self.traffic_seconds

    @property
    def memory_seconds(self) -> float:
        """Least time in which sampling reads the weights, once for each token of a turn; 0 for other stages."""
        return self.what.get("new_tokens", 0) * self.params / (self.topology.chip.hbm_gb_s * 1e9)

    @property
    def hours(self) -> float:
        """Of all steps at the assumed utilisation, of arithmetic or of memory, whichever takes longer."""
        return self.steps * max(self.floor_seconds, self.memory_seconds) / self.utilisation / 3600

    @property
    def cost(self) -> float:
        """Of these hours on all devices."""
        return self.hours * self.topology.devices * self.chip_hour_price

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values: bytes, seconds, shares."""
        traffic = {}
        if self.collectives is not None:
            for kind in KINDS:
                of_kind = self.collectives.of(kind)
                traffic[kind] = {
                    "instructions": len(of_kind),
                    "runs": sum(c.times for c in of_kind),
                    "bytes": sum(c.bytes * c.times for c in of_kind),
                    "sent_bytes": round(sum(c.sent for c in of_kind)),
                }
        return self.what | {
            "topology": str(self.topology),
            "devices": self.topology.devices,
            "params_bytes": self.params,
            "optimizer_bytes": self.optimizer,
            "batch_bytes": self.batch,
            "temporary_bytes": self.temporaries,
            "peak_bytes": self.peak,
            "limit_bytes": round(self.limit),
            "fits": self.fits,
            "estimate": self.estimate,
            "replicated_share": self.replicated,
            "collectives": traffic,
            "gathered_logits": self.gathered_logits,
            "flops": asdict(self.flops),
            "floor_seconds": self.floor_seconds,
            "arithmetic_seconds": self.arithmetic_seconds,
            "memory_seconds": self.memory_seconds,
            "traffic_seconds": self.traffic_seconds,
            "estimated_seconds": self.estimated_seconds,
            "steps": self.steps,
            "utilisation": self.utilisation,
            "hours": self.hours,
            "chip_hours": self.hours * self.topology.devices,
            "cost": self.cost,
            "compile_seconds": round(self.compile_seconds, 1),
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """Format the plan for display, in some twenty lines."""
        rows = [(name.replace("_", " "), str(value)) for name, value in self.what.items()]
        chip = self.topology.chip
        rows += [
            ("slice", f"{self.topology}, {self.topology.devices} devices"),
            ("parameters", f"{_gib(self.params)} a device, {self.replicated:.3%} of their bytes on every device"),
            ("optimiser state", _gib(self.optimizer)),
            ("batch", _gib(self.batch)),
            ("temporaries", "more than there is room for" if self.temporaries is None else _gib(self.temporaries)),
            ("peak", self._peak_text()),
            ("FLOPs a step", f"{self.flops.useful:.3e}, and {self.flops.recomputed:.3e} computed twice"),
            (
                "arithmetic floor",
                f"{1e3 * self.floor_seconds:.1f} ms at {chip.peak_tflops:g} bfloat16 TFLOP/s a device, "
                f"{1e3 * self.arithmetic_seconds:.1f} ms with what is computed twice",
            ),
        ]
        if self.memory_seconds:
            rows.append(
                ("memory floor", f"{1e3 * self.memory_seconds:.1f} ms to read the weights at {chip.hbm_gb_s:g} GB/s")
            )
        if self.collectives is not None:
            for kind in KINDS:
                if of_kind := self.collectives.of(kind):
                    size, sent = sum(c.bytes * c.times for c in of_kind), sum(c.sent for c in of_kind)
                    runs = sum(c.times for c in of_kind)
                    rows.append((kind, f"{runs} a step of {_gib(size)} in all, a device sends {_gib(sent)}"))
            rows += [
                (
                    "traffic",
                    f"{1e3 * self.traffic_seconds:.1f} ms at {chip.send_gb_s:g} GB/s a device, none of it hidden",
                ),
                ("logits gathered", "no" if not self.gathered_logits else f"{self.gathered_logits} times"),
            ]
        if self.steps:
            chip_hours = self.hours * self.topology.devices
            cost = f", {self.cost:,.0f} at {self.chip_hour_price:g} each" if self.chip_hour_price else ""
            rows.append(
                (
                    "hours",
                    f"{self.hours:.1f} for {self.steps:,} steps at {self.utilisation:.0%} of the peak (assumed): "
                    f"{chip_hours:,.0f} chip-hours{cost}",
                )
            )
        rows.append(("compiled in", f"{self.compile_seconds:.1f} s"))
        width = max(len(name) for name, _ in rows)
        return "\n".join([*(f"{name:<{width}}  {value}" for name, value in rows), *(f"note: {n}" for n in self.notes)])

    def _peak_text(self) -> str:
        limit = f"{self.topology.chip.memory_gib:g} GiB"
        verdict = f"fits into {limit}" if self.fits else f"does not fit into {limit}"
        if self.estimate:
            verdict += " (an estimate)"
        return f"{'?' if self.peak is None else _gib(self.peak)}: {verdict}"


HEAD = (
    "| network | stage | length | slice | mesh | micro-batches | parameters | optimiser | temporaries | peak | limit "
    "| fits | replicated | sent | logits gathered | floor ms | with remat ms | traffic ms | compile s |\n"
    "|" + "---|" * 19
)
"""Of a table of plans: memory and bytes sent in GiB a device."""


def table_row(plan: dict[str, Any]) -> str:
    """Format one row of the table whose head is `HEAD`, from `Plan.to_json`."""

    def gib(name: str) -> str:
        return "-" if plan[name] is None else f"{plan[name] / GIB:.2f}"

    def milliseconds(name: str) -> str:
        return f"{1e3 * plan[name]:,.0f}"

    sent = sum(kind["sent_bytes"] for kind in plan["collectives"].values())
    compiled = bool(plan["collectives"])
    cells = [
        plan["model"],
        plan["stage"],
        f"{plan['length']:,}",
        plan["topology"],
        plan["mesh"],
        str(plan.get("micro_batches", "-")),
        *(gib(f"{part}_bytes") for part in ("params", "optimizer", "temporary", "peak", "limit")),
        ("yes" if plan["fits"] else "no") + (" (estimate)" if plan["estimate"] else ""),
        f"{plan['replicated_share']:.3%}",
        f"{sent / GIB:.1f}" if compiled else "-",
        ("yes" if plan["gathered_logits"] else "no") if compiled else "-",
        *(milliseconds(f"{what}_seconds") for what in ("floor", "arithmetic")),
        milliseconds("traffic_seconds") if compiled else "-",
        f"{plan['compile_seconds']:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def _gib(size: float) -> str:
    return f"{size / GIB:.2f} GiB" if size >= 0.01 * GIB else f"{size / 2**20:.2f} MiB"
