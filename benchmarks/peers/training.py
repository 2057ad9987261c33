"""`python -m benchmarks.peers.training --model=DIR`: updates of whole rows, against TRL and torch.

    pairs    one update of DPO on two pairs of --lengths tokens, whose first half is the prompt, the reference's
             log-probs included; the peer is TRL's DPOTrainer, which holds the reference beside the policy
    known    the same where the reference's log-probs are there before (TRL: precompute_ref_log_probs)
    nll      one update of the next-token loss on two rows of 512 tokens; the peer is transformers with torch's AdamW

Ours and the peer's take turns, after a round of ours that compiles, on the same weights and ids; both must give the
same loss. --dtype=bfloat16: activations and products, the weights stay float32 (torch: autocast). Seconds are of the
processor; the clock's are in the JSON, which is the last line.

    python -m venv peer && peer/bin/pip install -r benchmarks/peers/trl.txt
    python -m benchmarks.peers.training --model=SmolLM2-135M --peer=peer/bin/python
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.peers import Peer
from benchmarks.peers.trees import BETA, LEARNING_RATE, TOTAL_STEPS, Ours, ratio, row, seconds
from sweet_jax.data.batch import RowPair, pad_rows
from sweet_jax.mesh import put_rows
from sweet_jax.train.objectives import nll_objective
from sweet_jax.train.optim import make_optimizer
from sweet_jax.train.settings import Training
from sweet_jax.train.step import make_train_step

PAIRS, NLL_ROWS, NLL_LENGTH = 2, 2, 512
CLOSE = {"float32": 2e-3, "bfloat16": 2e-2}  # of two losses


def alternate(
    name: str, rounds: int, close: float, ours: Callable[[int], tuple[dict, float]], peer: Callable[[int], dict]
) -> dict[str, Any]:
    """Run both by turns; round 0 is not counted. Ends the program where their losses differ by more than `close`."""
    mine, theirs = [], []
    for number in range(rounds + 1):
        times, loss = ours(number)
        if not number:
            continue
        answer = peer(number)
        if abs(answer["loss"] - loss) > close:
            sys.exit(f"error: {name}: the losses differ, ours {loss:.5f}, the peer's {answer['loss']:.5f}")
        mine.append({**times, "loss": loss})
        theirs.append(answer)
    told = ratio(name, mine, theirs) | {"loss": [one["loss"] for one in mine], "peer": theirs[-1]["peer"]}
    peaks = {"ours_peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
    return told | peaks | {"peer_peak_gib": theirs[-1]["peak_gib"]}


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face directory of a Llama")
    parser.add_argument("--peer", default=sys.executable, help="Python that has torch, transformers and TRL")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lengths", default="512,2048", help="tokens of a pair's rows")
    parser.add_argument("--remat", default="attention", help="what ours computes again: none, dots, attention, full")
    parser.add_argument("--dtype", choices=tuple(CLOSE), default="float32")
    parser.add_argument("--only", default="pairs,known,nll")
    parser.add_argument(
        "--peer-checkpointing", action="store_true", help="TRL computes activations again, as by default"
    )
    told = parser.parse_args()
    ours = Ours(told.model, told.remat, told.dtype)
    peer, close = Peer(told.peer, "torch_side.py", told.model, told.dtype), CLOSE[told.dtype]
    wanted = told.only.split(",")
    vocabulary = ours.model.config.vocab_size
    found: dict[str, Any] = {"pairs": PAIRS, "dtype": told.dtype}

    def draw(seed: int, length: int) -> list[int]:
        return np.random.default_rng([seed, length]).integers(3, vocabulary, length).tolist()

    def pairs_of(number: int, length: int) -> list[RowPair]:
        half = length // 2
        return [
            RowPair(*(row(draw(seed, half), draw(seed + side, length - half)) for side in (1, 2)))
            for seed in range(100 * number, 100 * number + 10 * PAIRS, 10)
        ]

    def ask(pairs: Sequence[RowPair], precomputed: bool) -> dict[str, Any]:
        rows = []
        for pair in pairs:
            start = int(np.argmax(pair.chosen.turns > 0))
            chosen, rejected = pair.chosen.ids.tolist(), pair.rejected.ids.tolist()
            rows.append({"prompt_ids": chosen[:start], "chosen_ids": chosen[start:], "rejected_ids": rejected[start:]})
        return peer.ask(
            "policy", pairs=rows, beta=BETA, learning_rate=LEARNING_RATE, precomputed=precomputed, at_once=len(pairs),
            checkpointing=told.peer_checkpointing,
        )  # fmt: skip

    for length in map(int, told.lengths.split(",")):

        def whole(number: int, length: int = length) -> tuple[dict, float]:
            state, pairs = ours.first(), pairs_of(number, length)
            return seconds(lambda: ours.update(state, pairs))

        def known(number: int, length: int = length) -> tuple[dict, float]:
            state, planted = ours.first(), ours.plant(pairs_of(number, length))
            return seconds(lambda: ours.update_planted(state, planted))

        for name, work in (("pairs", whole), ("known", known)):
            if name in wanted:
                theirs = lambda number, length=length, name=name: ask(pairs_of(number, length), name == "known")  # noqa: E731
                found[f"{name}_{length}"] = alternate(f"{name} {length}", told.rounds, close, work, theirs)
    if "nll" in wanted:
        mesh = ours.model.mesh
        training = Training(learning_rate=LEARNING_RATE, warmup_ratio=0.0, min_lr_ratio=1.0, max_grad_norm=1e9)
        optimizer = make_optimizer(training, TOTAL_STEPS)
        step = make_train_step(nll_objective(ours.model), optimizer, ours.shardings, mesh)

        def rows_of(number: int) -> list[list[int]]:
            return [draw(1000 * number + place, NLL_LENGTH) for place in range(NLL_ROWS)]

        def nll(number: int) -> tuple[dict, float]:
            state = ours.first()
            rows = [row(ids[:1], ids[1:]) for ids in rows_of(number)]
            batch = put_rows(pad_rows(rows, NLL_LENGTH, pad_id=0, nll="all"), mesh)

            def update() -> float:
                told, metrics = step(state, batch)
                jax.block_until_ready(told)
                return float(metrics["loss"].value)

            return seconds(update)

        found["nll"] = alternate(
            "nll",
            told.rounds,
            close,
            nll,
            lambda number: peer.ask("nll", rows=rows_of(number), learning_rate=LEARNING_RATE),
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
