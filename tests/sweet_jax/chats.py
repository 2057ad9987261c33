"""Small tokenizers in the formats of Llama 3, ChatML and Mistral, and dialogues, for the tests of chats."""

import functools
import os

import pytest
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from sweet_jax.data.chat import Chat

SENTENCES = [
    "Which currency should the function assume? Round to the nearest ten.",
    "I WANT TO ANSWER:\ndef fee(days, late):\n    return days * 3 + (2 if late else 0)\n\n",
    "system user assistant\n\nWhat does it return for an empty list?\n\n\n\n I don't know.\n\n",
]
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
CHATML = (
    "{% for m in messages %}"
    "{% if loop.first and m['role'] != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INST = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]{% else %} {{ m['content'] }}</s>{% endif %}"
    "{% endfor %}"
)
GPT2_PIECES = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3_PIECES = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def byte_level(
    special: list[str], template: str | None, pieces: str = GPT2_PIECES, **named: str
) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pieces), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)
    fast.chat_template = template
    return fast


def chatml(template: str | None = CHATML) -> PreTrainedTokenizerFast:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    named = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    return byte_level(special, template, **named)


@functools.cache
def chat(kind: str) -> Chat:
    llama3 = [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
        "<|pad|>",
    ]
    named = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>", "pad_token": "<|pad|>"}
    match kind:
        case "llama3":
            return Chat(byte_level(llama3, LLAMA3, LLAMA3_PIECES, **named))
        case "chatml":
            return Chat(chatml())
        case "inst":
            return Chat(byte_level(["<s>", "</s>"], INST, bos_token="<s>", eos_token="</s>"))
        case "words":
            vocabulary = ["<s>", "<human>", "<agent>", "<end>", "<unk>", "hi", "ho", "yes", "no", "secret", "is:", "7."]
            tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
            tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
            fast = PreTrainedTokenizerFast(
                tokenizer_object=tokenizer,
                bos_token="<s>",
                eos_token="<end>",
                unk_token="<unk>",
                additional_special_tokens=["<human>", "<agent>"],
            )
            fast.chat_template = (
                "<s>{% for m in messages %}{{ '<human> ' if m['role'] == 'user' else '<agent> ' }}"
                "{{ m['content'] }} <end> {% endfor %}{% if add_generation_prompt %}<agent> {% endif %}"
            )
            return Chat(fast)
    raise AssertionError(kind)


KINDS = ["llama3", "chatml", "inst"]
BEFORE_CONTENT = {"inst": " "}  # a blank which the template puts in front of the agent's words
contents = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<>|[]"), max_size=30).map(str.strip)
contents |= st.sampled_from(SENTENCES).map(str.strip)


def dialogue(*texts: str) -> list[dict[str, str]]:
    return [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(texts)]


def dialogues_of(contents: st.SearchStrategy[str]) -> st.SearchStrategy[list[dict[str, str]]]:
    turns = st.lists(st.tuples(contents, contents), min_size=1, max_size=4)
    return turns.map(lambda turns: dialogue(*(text for turn in turns for text in turn)))


dialogues = dialogues_of(contents)
# SmolLM2 has no token for some bytes of rare characters and loses them.
real_dialogues = dialogues_of(st.text("abcdef XYZ_()[]:=+,.'\"09é漢😀\t\n", max_size=60).map(str.strip))


def same(left, right) -> bool:
    return (left.ids.tolist(), left.turns.tolist(), left.prefix) == (
        right.ids.tolist(),
        right.turns.tolist(),
        right.prefix,
    )


@functools.cache
def real_chat(variable: str) -> Chat:
    if not os.environ.get(variable):
        pytest.skip(f"{variable} names no tokenizer directory")
    return Chat.load(os.environ[variable])
