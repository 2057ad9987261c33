"""The small tokenizer of the embedded default: byte-level BPE with a chat template, made from sample texts."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

BOS, PAD, USER, ASSISTANT, SYSTEM, END = "<|bos|>", "<|pad|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# Merges stop at the end of a line only, so a frequent phrase or line of code becomes one token: rows stay short, and a
# question and an answer differ less in length, which matters to the mean over a turn's tokens.
_PIECES = r"[^\n]*\n|[^\n]+"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer of exactly `vocab_size` ids that encodes every byte; the same texts give the same tokenizer.

    Raises ValueError if the texts hold too few pieces for `vocab_size`, or it does not hold all bytes.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [BOS, PAD, USER, ASSISTANT, SYSTEM, END]
    if vocab_size < 256 + len(special):
        raise ValueError(f"vocab_size={vocab_size} does not hold 256 bytes and {len(special)} special tokens")
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    filler = [f"<|unused_{i}|>" for i in range(vocab_size - tokenizer.get_vocab_size())]
    if tokenizer.get_vocab_size() < vocab_size // 2:
        raise ValueError(
            f"the texts give {tokenizer.get_vocab_size()} pieces only, too few for vocab_size={vocab_size}"
        )
    tokenizer.add_special_tokens(filler)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=END, pad_token=PAD)
    fast.chat_template = CHAT_TEMPLATE
    return fast
