"""`python -m benchmarks.growth`: how the cost of drawing and of an update grows, with a random network of 8 million.

    rows      tokens drawn a second, prompts of 128 tokens
    held      milliseconds of a decode step of 16 rows over the tokens that each holds, room for 8,192
    room      the same over the room of a row, each holding 256 tokens: what is not alive should cost nothing
    length    seconds of one update of DPO on two pairs over the tokens of a row, whose first half is the prompt
    layers    milliseconds of a decode step, and seconds of an update of two pairs of 512 tokens, over layers
    devices   seconds of an update of eight pairs of 256 tokens over emulated devices, which share this machine's cores

Seconds are of the clock, the least of --rounds after one that compiles: run it on a quiet machine. Writes the figure
--svg; the last line is JSON.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.peers.trees import row
from models.config import LlamaConfig
from models.inference import inference_params
from models.llama import Llama
from models.parameters import init_params
from sweet_jax.data.batch import RowPair
from sweet_jax.data.pair_trees import pair_capacity, plant_pairs
from sweet_jax.generation import LockstepEngine, Request, Sampling
from sweet_jax.mesh import MeshShape, make_mesh, put_rows, start_devices
from sweet_jax.train.loop import shardings_of
from sweet_jax.train.objectives import PreferenceLoss
from sweet_jax.train.optim import make_optimizer
from sweet_jax.train.settings import Training
from sweet_jax.train.step import init_state, make_train_step, state_shardings
from sweet_jax.train.tree_objective import tree_preference_objective

VOCABULARY, LONGEST = 4096, 16_384 + 128
MOST_DEVICES = 8
FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "performance-growth.svg"
Points = dict[int, float]


def network(layers: int, devices: int = 1) -> tuple[Llama, Any]:
    """Make a network with random weights on a mesh of so many devices along "data"."""
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=768, num_layers=layers, num_heads=4, num_kv_heads=2,
        head_size=64, max_position_embeddings=LONGEST, tie_word_embeddings=True,
    )  # fmt: skip
    mesh = make_mesh(MeshShape(devices, 1))
    return Llama(config, mesh, remat="attention"), init_params(config, jax.random.key(0), mesh)


def least(rounds: int, work: Callable[[], Any]) -> float:
    """Return the seconds of the quickest round, after one that compiles."""
    work()
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found)


def draw_seconds(model: Llama, params: Any, rows: int, held: int, room: int, rounds: int, new: int = 64) -> float:
    """Return seconds of a decode step of `rows` rows that hold `held` tokens: of `new` and of one, the difference."""
    inference = inference_params(params, model.config, model.mesh, jnp.float32)
    engine = LockstepEngine(model.clone(remat="none"), inference, (-1,), 0, rows, room)
    numbers = iter(range(10**6))

    def draw(tokens: int) -> None:
        random = np.random.default_rng(next(numbers))
        prompts = random.integers(3, VOCABULARY, (rows, held)).tolist()
        sampling = Sampling(0.0, max_new_tokens=tokens)
        engine.sample_all([Request(prompt, 0, sampling) for prompt in prompts])

    return (least(rounds, lambda: draw(new)) - least(rounds, lambda: draw(1))) / (new - 1)


def update_seconds(model: Llama, params: Any, pairs: int, length: int, rounds: int) -> float:
    """Return seconds of an update on pairs whose first half is shared, the reference's log-probs given."""
    random, half = np.random.default_rng(0), length // 2
    made = []
    for _ in range(pairs):
        prompt = random.integers(3, VOCABULARY, half).tolist()
        made.append(RowPair(*(row(prompt, random.integers(3, VOCABULARY, length - half).tolist()) for _ in range(2))))
    references = [np.zeros(length, np.float32)] * (2 * pairs)
    planted = plant_pairs(made, references, capacity=pair_capacity(made), multiple=model.mesh.shape["data"], pad_id=0)
    batch = put_rows(planted, model.mesh)
    optimizer = make_optimizer(Training(learning_rate=1e-6), 1000)
    shardings = state_shardings(optimizer, params, shardings_of(params))
    objective = tree_preference_objective(model, PreferenceLoss("sum", 0.1, 0.0, max_turns=1))
    step = make_train_step(objective, optimizer, shardings, model.mesh)
    state = [init_state(optimizer, jax.tree.map(jnp.copy, params), shardings)]

    def update() -> None:
        state[0], _ = step(state[0], batch)
        jax.block_until_ready(state[0])

    return least(rounds, update)


def measure(wanted: Sequence[str], rounds: int) -> dict[str, Points]:
    """Measure what is asked for: name -> number -> value."""
    found: dict[str, Points] = {}
    model, params = network(8)

    def note(name: str, number: int, value: float) -> None:
        found.setdefault(name, {})[number] = value
        print(f"{name:22} {number:6} {value:10.4g}", flush=True)

    if "rows" in wanted:
        for rows in (1, 4, 16, 64):
            note("rows: tokens/s", rows, rows / draw_seconds(model, params, rows, 128, 256, rounds))
    if "held" in wanted:
        for held in (256, 1024, 2048, 4096):
            note("held: ms", held, 1000 * draw_seconds(model, params, 16, held, 8192, rounds))
    if "room" in wanted:
        for room in (2048, 4096, 8192, 16_384):
            note("room: ms", room, 1000 * draw_seconds(model, params, 16, 256, room, rounds))
    if "length" in wanted:
        for length in (256, 512, 1024, 2048, 4096, 8192):
            note("length: s", length, update_seconds(model, params, 2, length, rounds))
    if "layers" in wanted:
        for layers in (2, 4, 8, 16):
            deep, weights = network(layers)
            note("layers: ms", layers, 1000 * draw_seconds(deep, weights, 16, 256, 512, rounds))
            note("layers: s", layers, update_seconds(deep, weights, 2, 512, rounds))
    if "devices" in wanted:
        for devices in (1, 2, 4, MOST_DEVICES):
            note("devices: s", devices, update_seconds(*network(8, devices), 8, 256, rounds))
    return found


LABELS = {
    "rows: tokens/s": ("rows side by side", "tokens a second"),
    "held: ms": ("tokens that a row holds", "ms a decode step"),
    "room: ms": ("room of a row, tokens", "ms a decode step"),
    "length: s": ("tokens of a pair's rows", "s an update"),
    "layers: ms": ("layers", "ms a decode step"),
    "layers: s": ("layers", "s an update"),
    "devices: s": ("emulated devices", "s an update"),
}


def draw_figure(found: Mapping[str, Points]) -> str:
    """Draw a panel for each as SVG."""
    style = {"svg.fonttype": "none", "svg.hashsalt": "growth", "font.size": 9, "axes.grid": True}
    with rc_context(style):
        columns = min(4, len(found))
        lines = -(-len(found) // columns)
        figure = Figure(figsize=(2.6 * columns, 2.2 * lines), layout="constrained")
        for place, (name, points) in enumerate(found.items(), start=1):
            axes = figure.add_subplot(lines, columns, place)
            axes.plot(list(points), list(points.values()), "o-", color="#0b62a4", markersize=4)
            axes.set_xscale("log", base=2)
            axes.set_xticks(list(points), [f"{number:,}" for number in points], rotation=45)
            axes.minorticks_off()
            axes.set_ylim(bottom=0)
            axes.set_xlabel(LABELS[name][0])
            axes.set_ylabel(LABELS[name][1])
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def main() -> None:
    """Measure what is asked for, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="rows,held,room,length,layers,devices")
    parser.add_argument("--svg", type=Path, default=FIGURE)
    told = parser.parse_args()
    start_devices(MeshShape(MOST_DEVICES, 1))
    found = measure(told.only.split(","), told.rounds)
    told.svg.write_text(draw_figure(found), encoding="utf-8")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
