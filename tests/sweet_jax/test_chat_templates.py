"""Templates, tokenizers and directories that cannot be used are refused."""

import dataclasses
import re

import pytest

from colbench_env.types import BadInput
from models.config import LlamaConfig
from sweet_jax.chat import Chat, check_vocabulary
from tests.sweet_jax.chats import (
    CHATML,
    chat,
    chatml,
    dialogue,
)

SPOKEN = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
PLAIN = (
    "{% for m in messages %}\n{{ m['role'] }}: {{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}\nassistant: {% endif %}"
)


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        (None, "the tokenizer has no chat template"),
        (SPOKEN, "no assistant header"),
        ("{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}", "no assistant header"),
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", "no assistant header"),
        (PLAIN.replace("m['content']", "m['content'] if m['role'] == 'user'"), "no assistant header"),
        (PLAIN, "ends an agent turn with '', not a special token"),
    ],
)
def test_a_template_without_assistant_header_or_end_is_bad_input(tmp_path, template, complaint):
    chatml(template).save_pretrained(tmp_path)
    with pytest.raises(BadInput, match=re.escape(str(tmp_path)) + ".*" + re.escape(complaint)):
        Chat.load(tmp_path)


def test_a_template_that_rewrites_earlier_turns_is_bad_input_when_it_is_read():
    forgetful = SPOKEN.replace("m['content']", "(m['content'] if loop.last or m['role'] == 'user' else '...')")
    with pytest.raises(BadInput, match="does not show what the agent said once the human has replied"):
        Chat(chatml(forgetful + PROMPT))
    later = SPOKEN.replace("m['content']", "(m['content'] if loop.index != 2 or loop.length < 5 else '...')")
    with pytest.raises(BadInput, match="rewrites earlier turns when more messages follow"):
        Chat(chatml(later + PROMPT))


def test_what_the_template_refuses_is_bad_input():
    with pytest.raises(BadInput, match="refuses a dialogue of roles user, user: roles must alternate"):
        chat("inst").turn_ids([{"role": "user", "content": "hi"}, {"role": "user", "content": "ho"}])
    with pytest.raises(BadInput, match="no agent turn in the text"):
        chat("inst").row_from_text("<s>[INST] hi")


def test_a_template_that_takes_no_system_prompt_is_bad_input():
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    c = Chat(chatml(refusing + CHATML))
    assert c.prompt_ids(dialogue("hi"))
    with pytest.raises(BadInput, match="refuses a dialogue of roles system, user: System role not supported"):
        c.prompt_ids([{"role": "system", "content": "Ask."}, *dialogue("hi")])


def test_a_tokenizer_with_more_ids_than_the_embedding_has_rows_is_bad_input():
    config = LlamaConfig(
        vocab_size=400, hidden_size=8, intermediate_size=8, num_layers=1, num_heads=1, num_kv_heads=1, head_size=8,
        max_position_embeddings=8,
    )  # fmt: skip
    c = Chat(chatml())
    ids = len(c.tokenizer)
    check_vocabulary(c, config)
    check_vocabulary(c, dataclasses.replace(config, vocab_size=ids))
    sentence = f"has ids up to {ids - 1}, the model's embedding has {ids - 1} rows, for ids up to {ids - 2}"
    with pytest.raises(BadInput, match=sentence):
        check_vocabulary(c, dataclasses.replace(config, vocab_size=ids - 1))


def test_a_directory_without_tokenizer_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match="no such directory"):
        Chat.load(tmp_path / "nowhere")
    chat("inst").tokenizer.save_pretrained(tmp_path)
    assert Chat.load(tmp_path).format == chat("inst").format
    for text in ("{broken", "{}"):
        (tmp_path / "tokenizer.json").write_text(text)
        with pytest.raises(BadInput, match="the tokenizer cannot be read: "):
            Chat.load(tmp_path)
