"""What transformers and TRL make of the rows of `peers.trees` and `peers.training`: a process of its own, asked over
stdin.

A line of JSON asks, a line answers with seconds of the clock and of the processor, and what the process has held at
most. Nothing of this project is imported, so that any Python with `benchmarks/peers/trl.txt` will do.

    score    log-probs of the last tokens of each row: one full row each, rows of one length together
    policy   an update of DPO, one full row each: TRL's DPOTrainer, or without TRL the same loss on transformers
    nll      an update of the next-token loss on whole rows of one length, in one batch
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM


def seconds(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Run the work; how long it took, and what it gives."""
    clock, processor = time.perf_counter(), time.process_time()
    found = work()
    return {"clock": time.perf_counter() - clock, "processor": time.process_time() - processor}, found


class TorchSide:
    """A model in float32 and what is asked of it. dtype: of updates; bfloat16 by autocast."""

    def __init__(self, directory: str, dtype: str = "float32"):
        self.directory, self.half = directory, dtype == "bfloat16"
        self.model = self.load().eval()

    def load(self) -> Any:
        """Read the weights."""
        return AutoModelForCausalLM.from_pretrained(self.directory, dtype=torch.float32)

    def score(self, rows: Sequence[list[int]], last: int, at_once: int) -> list[list[float]]:
        """Log-probs of the last tokens of each row; only their logits are made."""
        by_length: dict[int, list[int]] = {}
        for number, row in enumerate(rows):
            by_length.setdefault(len(row), []).append(number)
        found: list[list[float]] = [[] for _ in rows]
        for numbers in by_length.values():
            for start in range(0, len(numbers), at_once):
                part = numbers[start : start + at_once]
                ids = torch.tensor([rows[number] for number in part])
                with torch.no_grad():
                    logits = self.model(ids, logits_to_keep=last + 1, use_cache=False).logits[:, :-1]
                    logps = torch.log_softmax(logits, -1).gather(-1, ids[:, -last:, None])[..., 0]
                for number, values in zip(part, logps.tolist(), strict=True):
                    found[number] = values
        return found

    def policy(
        self,
        pairs: Sequence[dict[str, list[int]]],
        beta: float,
        learning_rate: float,
        gradients: str = "",
        precomputed: bool = False,
        at_once: int = 1,
        checkpointing: bool = False,
    ) -> dict[str, Any]:
        """Make one update on the pairs.

        gradients: the file to save them in, "" for none. precomputed: the reference's log-probs are there before the
        clock starts (TRL only). at_once: pairs that are computed together. checkpointing: activations
        are computed again in the backward pass (TRL only).
        """
        self.model = None  # TRL holds two
        try:
            import trl  # noqa: F401
        except ImportError:
            told = self._plain_update(pairs, beta, learning_rate, gradients)
        else:
            told = self._trl_update(pairs, beta, learning_rate, gradients, precomputed, at_once, checkpointing)
        self.model = self.load().eval()
        return told

    def _trl_update(
        self,
        pairs: Sequence[dict[str, list[int]]],
        beta: float,
        learning_rate: float,
        gradients: str,
        precomputed: bool,
        at_once: int,
        checkpointing: bool,
    ) -> dict[str, Any]:
        from datasets import Dataset
        from transformers import AutoTokenizer, TrainerCallback
        from trl import DPOConfig, DPOTrainer

        class Clock(TrainerCallback):
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                self.clock, self.processor = time.perf_counter(), time.process_time()

            def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
                if gradients:
                    save_gradients(model, gradients)

            def on_step_end(self, *_: Any, **__: Any) -> None:
                self.clock, self.processor = time.perf_counter() - self.clock, time.process_time() - self.processor

        class Trainer(DPOTrainer):
            def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
                return dataset  # the ids themselves

        tokenizer = AutoTokenizer.from_pretrained(self.directory)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        timer = Clock()
        with tempfile.TemporaryDirectory() as folder:
            config = DPOConfig(
                output_dir=folder, per_device_train_batch_size=at_once, max_steps=1,
                gradient_accumulation_steps=len(pairs) // at_once, precompute_ref_log_probs=precomputed,
                beta=beta, learning_rate=learning_rate, max_grad_norm=0.0, gradient_checkpointing=checkpointing,
                bf16=self.half,
                report_to=[], save_strategy="no", use_cpu=True, max_length=None, disable_tqdm=True,
                warmup_steps=0, lr_scheduler_type="constant", weight_decay=0.0, dataloader_drop_last=False,
            )  # fmt: skip
            trainer = Trainer(
                self.load(), self.load(), config, train_dataset=Dataset.from_list(list(pairs)),
                processing_class=tokenizer, callbacks=[timer],
            )  # fmt: skip
            loss = trainer.train().training_loss
        return {"clock": timer.clock, "processor": timer.processor, "loss": loss, "peer": "TRL DPOTrainer"}

    def nll(self, rows: Sequence[list[int]], learning_rate: float) -> dict[str, Any]:
        """Make one update on rows of one length."""
        self.model = None
        model = self.load().train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
        ids = torch.tensor(rows)

        def update() -> float:
            with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
                loss = model(ids, labels=ids, use_cache=False).loss
            loss.backward()
            optimizer.step()
            return float(loss.detach())

        times, loss = seconds(update)
        self.model = self.load().eval()
        return {**times, "loss": loss, "peer": "transformers and torch"}

    def _plain_update(
        self, pairs: Sequence[dict[str, list[int]]], beta: float, learning_rate: float, gradients: str
    ) -> dict[str, Any]:
        model, reference = self.load().train(), self.load().eval()
        optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)

        def logps(network: Any, pair: dict[str, list[int]]) -> list[torch.Tensor]:
            sums = []
            for side in ("chosen_ids", "rejected_ids"):
                ids, last = torch.tensor([pair["prompt_ids"] + pair[side]]), len(pair[side])
                with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
                    logits = network(ids, logits_to_keep=last + 1, use_cache=False).logits[:, :-1].float()
                sums.append(torch.log_softmax(logits, -1).gather(-1, ids[:, -last:, None]).sum())
            return sums

        def update() -> float:
            total = 0.0
            for pair in pairs:
                with torch.no_grad():
                    before = logps(reference, pair)
                chosen, rejected = (now - old for now, old in zip(logps(model, pair), before, strict=True))
                loss = -torch.nn.functional.logsigmoid(beta * (chosen - rejected)) / len(pairs)
                loss.backward()
                total += float(loss)
            if gradients:
                save_gradients(model, gradients)
            optimizer.step()
            return total

        times, loss = seconds(update)
        return {**times, "loss": loss, "peer": "the loss on transformers"}


def save_gradients(model: Any, path: str) -> None:
    """Write each parameter's gradient under its name."""
    from safetensors.torch import save_file

    save_file({name: value.grad.contiguous() for name, value in model.named_parameters()}, path)


def main() -> None:
    """Answer until stdin ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries may print
    side = TorchSide(*sys.argv[1:])
    for line in sys.stdin:
        asked = json.loads(line)
        if (do := asked.pop("do")) == "score":
            told, found = seconds(lambda asked=asked: side.score(asked["rows"], asked["last"], asked["at_once"]))
            told["logps"] = np.array(found).tolist()
        else:
            told = getattr(side, do)(**asked)
        told["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps(told), file=out, flush=True)


if __name__ == "__main__":
    main()
