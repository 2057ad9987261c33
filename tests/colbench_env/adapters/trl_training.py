"""`python trl_training.py DIR --count=N`: TRL's GRPOTrainer plays recorded dialogues and takes a step; as replay.py.

The network is tiny and random; in place of what it would sample stand the recorded turns, as calls of the tools.
"""

import copy
import json
import re
import sys
from pathlib import Path

import torch
import trl
from datasets import Dataset
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from trl import GRPOConfig, GRPOTrainer

from colbench_env.adapters.trl import ColBench, rows
from colbench_env.source import Source

HERE, MARK, GENERATIONS = Path(__file__).parent, "I WANT TO ANSWER:", 2
TOKENIZER = HERE.parents[2] / "sweet_jax" / "scenes_start_policy"


def main():
    count = int(sys.argv[2].removeprefix("--count="))
    dialogues = [json.loads(line) for line in (HERE / "dialogues.jsonl").read_text("utf-8").splitlines()][:count]
    source, played = Source(), {}

    class Recorded(ColBench):
        def reset(self, **row):
            self.row, first = row, super().reset(**row)
            self.heard = [first]
            played.setdefault((row["index"], row["seed"]), []).append(self)
            return first

        def _say(self, text):
            reply = super()._say(text)
            if reply:
                self.heard.append(reply)
            return reply

    tokenizer = PreTrainedTokenizerFast.from_pretrained(TOKENIZER)
    tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text("utf-8")
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=8192,
    )
    made = rows(source, "test")
    named = [copy.deepcopy(made[row["index"]]) | {"seed": row["seed"]} for row in dialogues]
    for number, row in enumerate(named):  # by which `say` knows the dialogue
        row["prompt"][0]["content"] += f" Dialogue {number}."
    dataset = Dataset.from_list(named)
    options = GRPOConfig(
        output_dir=sys.argv[1],
        use_cpu=True,
        report_to=[],
        per_device_train_batch_size=count * GENERATIONS,
        num_generations=GENERATIONS,
        max_steps=1,
        max_completion_length=4096,
        logging_steps=1,
        save_strategy="no",
        shuffle_dataset=False,
        chat_template_kwargs={"enable_thinking": False},
    )
    trainer = GRPOTrainer(
        Qwen3ForCausalLM(config),
        args=options,
        train_dataset=dataset,
        processing_class=tokenizer,
        environment_factory=lambda: Recorded(source),
    )

    def say(input_ids=None, **_):
        """Continue each prompt by the next recorded turn."""
        ends = []
        for ids in input_ids:
            text = tokenizer.decode(ids, skip_special_tokens=False)
            row = dialogues[int(re.search(r"Dialogue (\d+)\.", text)[1])]
            turn = row["turns"][min(text.count("<tool_response>"), len(row["turns"]) - 1)]
            if turn.startswith(MARK):
                call = {"name": "submit", "arguments": {"answer": turn.removeprefix(MARK).removeprefix("\n")}}
            else:
                call = {"name": "ask_user", "arguments": {"question": turn}}
            said = f"<tool_call>\n{json.dumps(call)}\n</tool_call>"
            if text.count("<tool_response>") >= len(row["turns"]):
                said = "Done."
            ends.append(torch.tensor([*tokenizer.encode(said, add_special_tokens=False), tokenizer.eos_token_id]))
        longest = max(map(len, ends))
        padded = [torch.nn.functional.pad(end, (0, longest - len(end)), value=tokenizer.pad_token_id) for end in ends]
        return torch.cat([input_ids, torch.stack(padded)], dim=1)

    trainer.model.generate = say
    trainer.train()
    for row in dialogues:
        same = {(tuple(one.heard), one.get_reward()) for one in played[row["index"], row["seed"]]}
        assert len(same) == 1, same
        replies, reward = same.pop()
        print(json.dumps({"replies": list(replies), "reward": reward}), flush=True)
    print(
        json.dumps({key: value for key, value in trainer.state.log_history[0].items() if "reward" in key}),
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
