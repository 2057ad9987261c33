"""Llama-2 and Mistral style templates with a sentencepiece model: `[INST]` is plain text, blanks belong to tokens."""

import io
import json

import numpy as np
import pytest
import sentencepiece
import transformers

from colbench_env.types import BadInput
from sweet_jax.data.chat import Chat, privileged_prefix

CORPUS = [
    "[INST] Which currency should the function assume? [/INST] Round to the nearest ten.",
    "I WANT TO ANSWER:\ndef fee(days, late):\n    return days * 3 + (2 if late else 0)\n",
    "[INST] <<SYS>>\nYou are helpful.\n<</SYS>>\n\nWhat does it return for an empty list? [/INST] I don't know.",
]
# As published with Llama-2-chat: the system prompt goes into the first message, begin and end of text around each pair.
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0]['content'] %}"
    "{% else %}{% set rest = messages %}{% set system = false %}{% endif %}"
    "{% for m in rest %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if loop.index0 == 0 and system %}{% set text = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' + m['content'] %}"
    "{% else %}{% set text = m['content'] %}{% endif %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + text.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + text.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
# As published with Mistral-7B-Instruct-v0.1: one begin of text, and no system prompt.
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ m['content'] + eos_token + ' ' }}{% endif %}{% endfor %}"
)
TEMPLATES = {"llama2": LLAMA2, "mistral": MISTRAL}
TAIL = {"llama2": " </s>", "mistral": "</s>"}
DIALOGUES = [
    ["Which ten?", "Round it."],
    ["Which ten?", "Round it.", "I don't know.", "def fee(days):\n    return days * 3", "no", "[ten] 漢 😀 it's"],
    ["list", "a  b", "empty\n\nlist", "It returns [/] and\n\t0"],
]


@pytest.fixture(scope="module")
def vocabulary():
    """A byte-pair model with byte fallback, as Llama 2's, of 340 pieces."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=written, vocab_size=340, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True, minloglevel=2,
    )  # fmt: skip
    return written.getvalue()


@pytest.fixture(scope="module")
def chat_of(vocabulary, tmp_path_factory):
    """The chat of a directory with only tokenizer.model and tokenizer_config.json."""

    def load(template, legacy):
        directory = tmp_path_factory.mktemp("tokenizer")
        (directory / "tokenizer.model").write_bytes(vocabulary)
        settings = {
            "tokenizer_class": "LlamaTokenizer", "legacy": legacy, "chat_template": template,
            "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        }  # fmt: skip
        (directory / "tokenizer_config.json").write_text(json.dumps(settings))
        return Chat.load(directory)

    return load


@pytest.fixture(scope="module", params=[(name, legacy) for name in TEMPLATES for legacy in (True, False)], ids=str)
def styled(request, chat_of):
    """(name of the template, chat, legacy). `legacy` sentencepiece puts a blank behind every special token."""
    name, legacy = request.param
    return name, chat_of(TEMPLATES[name], legacy), legacy


def dialogue(texts):
    return [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(texts)]


def same(left, right):
    return (left.ids.tolist(), left.turns.tolist(), left.prefix) == (
        right.ids.tolist(),
        right.turns.tolist(),
        right.prefix,
    )


def test_the_template_is_read_from_its_own_rendering(styled):
    name, chat, _ = styled
    assert (chat.format.header, chat.format.end, chat.format.tail.rstrip(" ")) == (" [/INST]", "</s>", TAIL[name])
    assert (chat.format.opening, chat.format.bos) == ("<s>", "<s>")
    assert (chat.bos_id, chat.turn_end_id, chat.end_ids) == (1, 2, (2,))


@pytest.mark.parametrize("texts", DIALOGUES)
def test_counted_tokens_are_the_agents_words_and_the_end(styled, texts):
    name, chat, _ = styled
    row = chat.turn_ids(dialogue(texts))
    assert row.num_turns == len(texts) // 2
    for turn, said in enumerate(texts[1::2], start=1):
        (place,) = np.nonzero(row.turns == turn)
        assert place.tolist() == list(range(place[0], place[-1] + 1))
        assert chat.decode(row.ids[: place[0]]).endswith(" [/INST]")
        assert chat.decode(row.ids[place]).removeprefix(" ") == said + TAIL[name]
        assert chat.reply_text(row.ids[place]) == said + TAIL[name].removesuffix("</s>")


@pytest.mark.parametrize("texts", DIALOGUES)
def test_pieces_kept_as_sampled_equal_one_tokenisation(styled, texts):
    _, chat, _ = styled
    whole, messages = chat.turn_ids(dialogue(texts)), dialogue(texts)
    prompt = chat.prompt_ids(messages[:1])
    so_far, turns = list(prompt), []
    for turn in range(1, whole.num_turns + 1):
        output = whole.ids[whole.turns == turn].tolist()
        following = chat.continue_ids(so_far + output, texts[2 * turn]) if 2 * turn < len(texts) else []
        turns.append((output, following))
        so_far += output + following
        assert not following or so_far == chat.prompt_ids(messages[: 2 * turn + 1])
    assert same(chat.row_from_turns(prompt, turns), whole)


@pytest.mark.parametrize("texts", DIALOGUES)
def test_a_row_of_the_released_layout_is_the_row_of_its_dialogue(styled, texts):
    _, chat, legacy = styled
    row = chat.turn_ids(dialogue(texts))
    text, told = chat.decode(row.ids), privileged_prefix("def fee(days):\n    return 3")
    rendered = chat.tokenizer.apply_chat_template(dialogue(texts), tokenize=False)
    # Legacy tokenizers put a blank behind a special token unless there is one: the ids are the same, which is which is
    # lost, and the text comes back without.
    lost = "</s> [INST]" if legacy else "</s>[INST]"
    assert text == rendered.removesuffix(chat.format.after).replace(lost, "</s>[INST]")
    assert same(chat.row_from_text(rendered), row)
    assert same(chat.row_from_text(text), row)
    assert same(chat.row_from_text(told + text), chat.add_prefix(row, told))
    assert same(chat.row_from_text("<s>" + text), row)


def test_llama_2_ids_are_those_of_its_authors_code(chat_of, vocabulary):
    pieces = sentencepiece.SentencePieceProcessor(model_proto=vocabulary)
    said = [("Which ten?", "Round it."), ("no", "fee(days)")]
    # Their code encodes each pair of messages alone, between begin and end of text.
    expected = [[1, *pieces.encode(f"[INST] {asked} [/INST] {reply} "), 2] for asked, reply in said]
    row = chat_of(LLAMA2, legacy=True).turn_ids(dialogue([text for pair in said for text in pair]))
    assert row.ids.tolist() == expected[0] + expected[1]


def test_llama_2_ids_and_turns_of_a_dialogue_are_these(chat_of):
    chat = chat_of(LLAMA2, legacy=False)
    row = chat.turn_ids(dialogue(["days", "on", "list", "days"]))
    pieces = chat.tokenizer.convert_ids_to_tokens(row.ids.tolist())
    inst, end = ["[", "INST", "]"], ["▁[/", "INST", "]"]
    first = ["<s>", *inst, "▁d", "ays", *end, "▁", "on", "▁", "</s>"]
    second = ["<s>", *inst, "▁l", "i", "st", *end, "▁d", "ays", "▁", "</s>"]
    assert pieces == first + second
    assert row.turns.tolist() == [0] * 9 + [1] * 4 + [0] * 10 + [2] * 4
    assert row.prefix == 1


def test_a_system_prompt_goes_where_the_template_puts_it_or_is_refused(chat_of):
    told = [{"role": "system", "content": "You are helpful."}, {"role": "user", "content": "ten"}]
    llama2 = chat_of(LLAMA2, legacy=True)
    assert llama2.decode(llama2.prompt_ids(told)) == "<s>[INST] <<SYS>>\nYou are helpful.\n<</SYS>>\n\nten [/INST]"
    with pytest.raises(BadInput, match="refuses a dialogue of roles system, user: Conversation roles must alternate"):
        chat_of(MISTRAL, legacy=True).prompt_ids(told)


def test_a_tokenizer_that_is_not_fast_is_refused():
    class Slow(transformers.PythonBackend):
        vocab_size = 2

        def get_vocab(self):
            return {"a": 0, "b": 1}

        def _convert_token_to_id(self, token):
            return 0

        def _convert_id_to_token(self, index):
            return "a"

    with pytest.raises(BadInput, match=r"Slow does not tell where in the text a token stands; .* \(tokenizer\.json"):
        Chat(Slow())
