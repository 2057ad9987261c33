"""`python -m benchmarks.peers.sampling --model=DIR`: drawing turns, against transformers on the same weights.

Both draw greedily in --dtype, alternately, after a round that is not counted (it compiles). Seconds are of the
processor, as the machine may have other work; ratios are of each round, the peer's over ours. In bfloat16, where sums
are rounded otherwise, texts part sooner or later. The last line is JSON.

    dialogues   the next turn of 32 dialogues, prompts of 64 to 512 tokens, 64 new tokens, rows with room for --room;
                with --tunix also against tunix's sampler under that Python, whose rows are as long
    candidates  16 candidates of 64 tokens after one prompt of 1,000
    turns       the third to the tenth turn of a dialogue: its cache kept, against each read again (ours, both)
    rows        tokens a second of 64 rows, and of 16 (ours, both)

Engines are made, and the first two turns are drawn, before the clock starts.

Needs `pip install torch`; --tunix a Python with benchmarks/peers/tunix.txt.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from benchmarks.peers import Peer, load_on_one_device
from models.inference import inference_params
from models.llama import Llama
from sweet_jax.generation import LockstepEngine, Request, Sampling

NEW = 64
Ids = list[list[int]]


class Ours:
    """The engine, with rows and room as asked. No token ends a turn, so that both sides draw as many."""

    def __init__(self, directory: Path, dtype: str):
        mesh, loaded = load_on_one_device(directory)
        self.model = Llama(loaded.config, mesh, jnp.dtype(dtype), remat="none")
        self.params = inference_params(loaded.params, loaded.config, mesh, jnp.dtype(dtype))

    def engine(self, rows: int, room: int) -> LockstepEngine:
        """Make an engine that holds nothing yet."""
        return LockstepEngine(self.model, self.params, (-1,), 0, rows, room)

    def draw(self, engine: LockstepEngine, prompts: Sequence[list[int]], new: int = NEW, **settings: Any) -> Ids:
        """Draw a turn after each prompt."""
        greedy = Sampling(0.0, max_new_tokens=new)
        turns = engine.sample_all([Request(prompt, 0, greedy, **settings) for prompt in prompts])
        return [turn.ids.tolist() for turn in turns]


class Transformers:
    """generate() of Hugging Face, prompts padded on the left."""

    def __init__(self, directory: Path, dtype: str):
        import torch
        from transformers import AutoModelForCausalLM

        self.torch = torch
        self.model = AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, dtype)).eval()

    def draw(self, prompts: Sequence[list[int]], samples: int = 1, sample: bool = False) -> Ids:
        """Draw turns after each prompt, in one batch."""
        longest = max(map(len, prompts))
        ids = self.torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
        mask = self.torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        with self.torch.no_grad():
            told = self.model.generate(
                ids, attention_mask=mask, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=sample,
                num_return_sequences=samples, pad_token_id=0, eos_token_id=None,
            )  # fmt: skip
        return told[:, longest:].tolist()


class Tunix:
    """tunix's sampler in a process of its own, whose seconds are its processor's."""

    def __init__(self, python: str, directory: Path, room: int):
        self.peer = Peer(python, "tunix_side.py", directory, room)

    def draw(self, prompts: Sequence[list[int]]) -> tuple[float, Ids]:
        """Draw turns after each prompt, in one batch; seconds and turns."""
        told = self.peer.ask("draw", prompts=prompts, new=NEW)
        return told["processor"], told["ids"]


def timed(work: Callable[[int], Ids]) -> Callable[[int], tuple[float, Ids]]:
    """Have the work of a round tell the processor's seconds that it takes."""

    def run(number: int) -> tuple[float, Ids]:
        started = time.process_time()
        found = work(number)
        return time.process_time() - started, found

    return run


def compare(
    name: str,
    ours: Callable[[int], tuple[float, Ids]],
    theirs: Callable[[int], tuple[float, Ids]],
    rounds: int,
    same: bool = True,
) -> dict[str, Any]:
    """Run both alternately, each telling its seconds and turns; round 0 is not counted."""
    mine, peer, equal = [], [], []
    for number in range(rounds + 1):
        ours_s, found = ours(number)
        theirs_s, expected = theirs(number)
        if number:
            mine.append(ours_s)
            peer.append(theirs_s)
            equal.append(sum(a == b for a, b in zip(found, expected, strict=True)) / len(found))
    ratios = [theirs_s / ours_s for ours_s, theirs_s in zip(mine, peer, strict=True)]
    told = {"ours_s": mine, "peer_s": peer, "ratios": ratios, "ratio": statistics.median(ratios)}
    tokens = sum(map(len, found))
    told["tokens_per_second"] = [tokens / statistics.median(seconds) for seconds in (mine, peer)]
    if same:
        told["same"] = min(equal)
    print(f"{name:16} ours {statistics.median(mine):7.1f} s  peer {statistics.median(peer):7.1f} s  "
          f"ratio {told['ratio']:.2f} {[round(r, 2) for r in ratios]}  "
          f"tokens a second {' and '.join(f'{each:.1f}' for each in told['tokens_per_second'])}"
          + (f"  same texts {told['same']:.0%}" if same else ""), flush=True)  # fmt: skip
    return told


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face directory of a Llama")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--room", type=int, default=2048, help="tokens that a row has room for")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--tunix", default="", help="Python that has tunix; default: it is not run")
    parser.add_argument("--only", default="dialogues,candidates,turns,rows")
    told = parser.parse_args()
    wanted, ours = told.only.split(","), Ours(told.model, told.dtype)
    vocabulary = ours.model.config.vocab_size

    def prompts(seed: int, lengths: Sequence[int]) -> Ids:
        random = np.random.default_rng(seed)
        return [random.integers(3, vocabulary, length).tolist() for length in lengths]

    found: dict[str, Any] = {"room": told.room, "new_tokens": NEW, "dtype": told.dtype}
    peer = Transformers(told.model, told.dtype) if {"dialogues", "candidates"} & set(wanted) else None
    if "dialogues" in wanted and peer is not None:
        lengths, engine = np.linspace(64, 512, 32).astype(int).tolist(), ours.engine(32, told.room)
        found["dialogues"] = compare(
            "dialogues",
            timed(lambda seed: ours.draw(engine, prompts(seed, lengths))),
            timed(lambda seed: peer.draw(prompts(seed, lengths))),
            told.rounds,
        )
        if told.tunix:
            tunix = Tunix(told.tunix, told.model, told.room)
            found["dialogues_tunix"] = compare(
                "dialogues, tunix",
                timed(lambda seed: ours.draw(engine, prompts(100 + seed, lengths))),  # which no cache holds
                lambda seed: tunix.draw(prompts(100 + seed, lengths)),
                told.rounds,
            )
    if "candidates" in wanted and peer is not None:
        engine = ours.engine(16, told.room)

        def candidates(seed: int) -> Ids:
            (prompt,) = prompts(seed, [1000])
            drawn = Sampling(1.0, max_new_tokens=NEW)
            return [t.ids.tolist() for t in engine.sample_all([Request(prompt, 0, drawn, sample=n) for n in range(16)])]

        found["candidates"] = compare(
            "candidates",
            timed(candidates),
            timed(lambda seed: peer.draw(prompts(seed, [1000]), samples=16, sample=True)),
            told.rounds,
            same=False,
        )
    if "turns" in wanted:
        found["turns"] = compare(
            "turns",
            lambda seed: play(ours, told.room, prompts(seed, [200, *[40] * 9]), session=True),
            lambda seed: play(ours, told.room, prompts(seed, [200, *[40] * 9]), session=False),
            told.rounds,
        )
    if "rows" in wanted:
        many, few = ours.engine(64, told.room), ours.engine(16, told.room)
        found["rows"] = compare(
            "rows",
            timed(lambda seed: ours.draw(many, prompts(seed, [16] * 64))),
            timed(lambda seed: ours.draw(few, prompts(seed, [16] * 64))),
            told.rounds,
        )
    print(json.dumps(found))


def play(ours: Ours, room: int, said: Ids, session: bool) -> tuple[float, Ids]:
    """Play ten turns of 32 tokens; without a session an engine that holds nothing reads the dialogue again each turn.

    Returns the processor's seconds of all but the first two turns, and all turns.
    """
    ids: list[int] = []
    turns: Ids = []
    engine, seconds = ours.engine(1, room), 0.0
    for number, text in enumerate(said, start=1):
        ids = [*ids, *text]
        if not session:
            engine = ours.engine(1, room)
        started = time.process_time()
        (turn,) = ours.draw(engine, [ids], new=32, session="dialogue" if session else None)
        seconds += (time.process_time() - started) * (number > 2)
        turns.append(turn)
        ids = [*ids, *turn]
    return seconds, turns


if __name__ == "__main__":
    main()
