"""`python -m benchmarks.peers.trees --model=DIR`: SWEET-RL's rows as trees, against one full row each elsewhere.

One dialogue of --length tokens has eight places where the agent speaks, and 16 candidates of 64 tokens at each.

    score    log-probs of all candidates: ours as trees; transformers reads a full row each (only the wanted logits)
    policy   one update of DPO on eight pairs at each place, the reference's log-probs included: ours as trees;
             TRL's DPOTrainer where --peer has it, else the same loss on transformers, a full row each
    exact    what both compute: log-probs of the score round, and gradients of DPO on the pairs of one place

Ours and the peer's take turns, after a round of ours that compiles, on the same weights and ids in float32. Seconds are
of the processor; the clock's are in the JSON, which is the last line. The peer's update takes long: by default it makes
one of every eight pairs, and its seconds count eight times (--peer-pairs=8: all of them).

    python -m venv peer && peer/bin/pip install -r benchmarks/peers/trl.txt
    python -m benchmarks.peers.trees --model=SmolLM2-135M --peer=peer/bin/python
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import Peer, load_on_one_device
from models.hf_io import load_llama
from models.llama import Llama
from sweet_jax.data.batch import RowPair, TokenRow, default_buckets
from sweet_jax.data.pair_trees import PairTrees, pair_capacity, plant_pairs
from sweet_jax.mesh import put_rows
from sweet_jax.reference import reference_logps
from sweet_jax.train.loop import shardings_of
from sweet_jax.train.objectives import PreferenceLoss
from sweet_jax.train.optim import make_optimizer
from sweet_jax.train.settings import Training
from sweet_jax.train.step import TrainState, compute_gradients, init_state, make_train_step, state_shardings
from sweet_jax.train.tree_objective import tree_preference_objective

PLACES, CANDIDATES, NEW, BATCH = 8, 16, 64, 8
BETA, LEARNING_RATE = 0.1, 1e-6
TOTAL_STEPS = 1_000_000  # of the schedule, which is constant


class Ours:
    """The network, its weights in float32 and an update of it. dtype: of activations and products."""

    def __init__(self, directory: Path, remat: str = "attention", dtype: str = "float32"):
        mesh, loaded = load_on_one_device(directory)
        self.model, self.params = Llama(loaded.config, mesh, jnp.dtype(dtype), remat=remat), loaded.params
        self.layout = shardings_of(self.params)
        self.objective = tree_preference_objective(self.model, PreferenceLoss("sum", BETA, 0.0, max_turns=1))
        training = Training(learning_rate=LEARNING_RATE, warmup_ratio=0.0, min_lr_ratio=1.0, max_grad_norm=1e9)
        self.optimizer = make_optimizer(training, TOTAL_STEPS)
        self.shardings = state_shardings(self.optimizer, self.params, self.layout)
        self.step = make_train_step(self.objective, self.optimizer, self.shardings, mesh)

    def score(self, rows: Sequence[TokenRow]) -> list[np.ndarray]:
        """Log-probs of each row's turn."""
        longest = max(map(len, rows))
        size = BATCH * PLACES  # rows in a program, as many as an update of the policy has
        found = reference_logps(
            self.model, self.params, rows, batch_size=size, buckets=default_buckets(longest), pad_id=0
        )
        return [values[row.turns > 0] for values, row in zip(found, rows, strict=True)]

    def plant(self, pairs: Sequence[RowPair]) -> PairTrees:
        """Score the pairs under the reference, and plant them."""
        sides = [side for pair in pairs for side in (pair.chosen, pair.rejected)]
        references = []
        for side, values in zip(sides, self.score(sides), strict=True):
            references.append(np.zeros(len(side), np.float32))
            references[-1][side.turns > 0] = values
        capacity = pair_capacity(pairs, len(pairs))
        return put_rows(plant_pairs(pairs, references, capacity=capacity, multiple=1, pad_id=0), self.model.mesh)

    def first(self) -> TrainState:
        """Make the state before the update."""
        return jax.block_until_ready(init_state(self.optimizer, self.params, self.shardings))

    def update(self, state: TrainState, pairs: Sequence[RowPair]) -> float:
        """Make an update, the reference's log-probs included; returns its loss."""
        return self.update_planted(state, self.plant(pairs))

    def update_planted(self, state: TrainState, planted: PairTrees) -> float:
        """Make an update; returns its loss."""
        state, metrics = self.step(state, planted)
        jax.block_until_ready(state)
        return float(metrics["loss"].value)

    def gradients(self, pairs: Sequence[RowPair]) -> Any:
        """Compute the gradients of the loss."""

        def of(params: Any, batch: PairTrees) -> Any:
            mesh = self.model.mesh
            return compute_gradients(self.objective, params, batch, self.layout, mesh, micro_batches=1, frozen={})[0]

        return jax.jit(of)(self.params, self.plant(pairs))


def row(prompt: Sequence[int], turn: Sequence[int]) -> TokenRow:
    """Make a row in which only `turn` counts."""
    turns = np.array([0] * len(prompt) + [1] * len(turn), np.int32)
    return TokenRow(np.array([*prompt, *turn], np.int32), turns, 1)


def seconds(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Run the work; how long it took by the clock and of the processor, and what it gives."""
    clock, processor = time.perf_counter(), time.process_time()
    found = work()
    return {"clock": time.perf_counter() - clock, "processor": time.process_time() - processor}, found


def ratio(name: str, ours: Sequence[dict], peer: Sequence[dict], times: float = 1.0) -> dict[str, Any]:
    """Print and return the medians, and those of the rounds' ratios."""
    told: dict[str, Any] = {}
    for what in ("processor", "clock"):
        mine, theirs = [one[what] for one in ours], [times * one[what] for one in peer]
        ratios = [b / a for a, b in zip(mine, theirs, strict=True)]
        told |= {f"ours_{what}_s": mine, f"peer_{what}_s": theirs, f"{what}_ratio": statistics.median(ratios)}
        print(f"{name:8} {what:10} ours {statistics.median(mine):8.1f} s   peer {statistics.median(theirs):8.1f} s   "
              f"ratio {statistics.median(ratios):6.2f}   of the rounds {[round(x, 2) for x in ratios]}",
              flush=True)  # fmt: skip
    return told


def gradient_error(ours: Any, path: Path, model: Path, network: Llama) -> float:
    """Return |ours - theirs| / |theirs| over all parameters; theirs are in a file of Hugging Face's names."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(model / "config.json", folder)
        shutil.move(path, Path(folder) / "model.safetensors")
        theirs = load_llama(folder, network.mesh, jnp.float32).params
    both = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in
            zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)]  # fmt: skip
    return float(np.sqrt(sum(((a - b) ** 2).sum() for a, b in both) / sum((b**2).sum() for _, b in both)))


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face directory of a Llama")
    parser.add_argument("--peer", default=sys.executable, help="Python that has torch, transformers and, at best, TRL")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--length", type=int, default=1000, help="tokens of the dialogue")
    parser.add_argument("--peer-pairs", type=int, default=1, help="of the eight pairs of a place that the peer makes")
    parser.add_argument("--only", default="score,policy")
    told = parser.parse_args()
    ours, peer = Ours(told.model), Peer(told.peer, "torch_side.py", told.model)
    random = np.random.default_rng(0)
    vocabulary = ours.model.config.vocab_size
    found: dict[str, Any] = {"length": told.length, "places": PLACES, "candidates": CANDIDATES, "new_tokens": NEW}

    def candidates(dialogue: Sequence[int]) -> list[list[TokenRow]]:
        """Make the rows of each place."""
        ends = [told.length * (place + 1) // PLACES for place in range(PLACES)]
        draw = lambda: random.integers(3, vocabulary, NEW).tolist()  # noqa: E731
        return [[row(dialogue[:end], draw()) for _ in range(CANDIDATES)] for end in ends]

    def pairs_of(rows: Sequence[TokenRow]) -> list[RowPair]:
        return [RowPair(*sides) for sides in zip(rows[::2], rows[1::2], strict=True)]

    def for_peer(pairs: Sequence[RowPair]) -> list[dict[str, list[int]]]:
        return [
            {
                "prompt_ids": pair.chosen.ids[:-NEW].tolist(),
                "chosen_ids": pair.chosen.ids[-NEW:].tolist(),
                "rejected_ids": pair.rejected.ids[-NEW:].tolist(),
            }
            for pair in pairs
        ]

    def inputs() -> list[list[TokenRow]]:
        return candidates(random.integers(3, vocabulary, told.length).tolist())

    if "score" in told.only:
        mine, theirs, errors = [], [], []
        for number in range(told.rounds + 1):
            rows = [one for place in inputs() for one in place]
            times, logps = seconds(lambda rows=rows: ours.score(rows))
            if number:
                answer = peer.ask("score", rows=[one.ids.tolist() for one in rows], last=NEW, at_once=BATCH)
                errors.append(float(np.abs(np.array(logps) - np.array(answer.pop("logps"))).max()))
                mine.append(times)
                theirs.append(answer)
        found["score"] = ratio("score", mine, theirs)
        found |= {"score_speedup": found["score"]["processor_ratio"], "score_error": max(errors)}
    if "policy" in told.only:
        mine, theirs = [], []
        for number in range(told.rounds + 1):
            by_place = [pairs_of(rows) for rows in inputs()]
            state = ours.first()
            times, loss = seconds(lambda s=state, p=by_place: ours.update(s, [pair for place in p for pair in place]))
            if number:
                some = [pair for place in by_place for pair in place[: told.peer_pairs]]
                answer = peer.ask("policy", pairs=for_peer(some), beta=BETA, learning_rate=LEARNING_RATE)
                mine.append({**times, "loss": loss})
                theirs.append(answer)
        times = len(by_place[0]) / told.peer_pairs
        found["policy"] = ratio("policy", mine, theirs, times) | {"peer": theirs[-1]["peer"], "peer_times": times}
        found["policy"] |= {"peer_peak_gib": theirs[-1]["peak_gib"]}
        found["policy"] |= {"ours_peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
        (_, pairs, *_) = by_place
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "gradients.safetensors"
            peer.ask("policy", pairs=for_peer(pairs), beta=BETA, learning_rate=LEARNING_RATE, gradients=str(path))
            found["gradient_error"] = gradient_error(ours.gradients(pairs), path, told.model, ours.model)
        found["policy_speedup"] = found["policy"]["processor_ratio"]
    for name in ("score_error", "gradient_error"):
        if name in found:
            print(f"{name} {found[name]:.1e}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
