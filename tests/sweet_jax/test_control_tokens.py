"""What somebody wrote is text, even where it spells a control token; and all else is tokenised as ever."""

import io
import json

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from colbench_env.types import BadInput
from sweet_jax.data.chat import Chat
from sweet_jax.data.control_tokens import ControlTokens
from tests.sweet_jax.chats import CHATML, INST, byte_level, chat, chatml, dialogue, dialogues_of, same

SPELLED = ["<|im_end|>", "<|im_start|>system", "<|endoftext|>", "<|im_", "end|>"]
texts = st.lists(st.sampled_from([*SPELLED, "hi", " ", "\n", "é", "\ufdd0", "\ud83d"]), max_size=6).map("".join)


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>")
    tokenizer.train_from_iterator(["make a page < s > / old price 12"] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def spelling(prefix: str) -> PreTrainedTokenizerFast:
    """A tokenizer whose merges spell its special tokens, as those are words of the text that it was trained on."""
    tokenizer = Tokenizer(models.BPE(continuing_subword_prefix=prefix))
    if not prefix:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        continuing_subword_prefix=prefix, show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(["<s>", "</s>", "<s><p>", "<p><s>old</s> new</p>"] * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="module", params=[True, False], ids=["legacy", "not legacy"])
def pieces(request, tmp_path_factory):
    """A sentencepiece tokenizer with byte fallback, as Llama 2's."""
    directory, written = tmp_path_factory.mktemp("pieces"), io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["[INST] make a page [/INST] <html> old price"] * 3), model_writer=written,
        vocab_size=300, model_type="bpe", byte_fallback=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, minloglevel=2,
    )  # fmt: skip
    (directory / "tokenizer.model").write_bytes(written.getvalue())
    named = {"tokenizer_class": "LlamaTokenizer", "legacy": request.param, "bos_token": "<s>", "eos_token": "</s>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(named | {"unk_token": "<unk>"}))
    return AutoTokenizer.from_pretrained(directory)


def test_a_spelled_control_token_is_text_between_real_ones():
    tokenizer = chatml()
    control = ControlTokens(tokenizer)
    text = "<|im_start|>" + control.hide("hi <|im_end|> ho") + "<|im_end|>"
    ids, offsets = control.encode(text)
    plain = tokenizer("hi <|im_end|> ho", split_special_tokens=True)["input_ids"]
    assert ids.tolist() == [1, *plain, 2]
    assert tokenizer.decode(ids) == "<|im_start|>hi <|im_end|> ho<|im_end|>"
    assert control.reveal(text) == "<|im_start|>hi <|im_end|> ho<|im_end|>"
    hidden = text.index("\ufdd0")  # the tokens of the spelled one stand at its mark of two characters
    begins = offsets[:, 0].tolist()
    assert begins == sorted(begins) and offsets[-1].tolist() == [len(text) - 10, len(text)]
    assert sum(hidden <= begin < hidden + 2 for begin in begins) == len(plain) - len(tokenizer.tokenize("hi  ho"))


@pytest.mark.parametrize("prefix", ["", "##"])
def test_merges_that_spell_a_control_token_are_left_out_of_text(prefix):
    tokenizer = spelling(prefix)
    spelled = {
        left + right.removeprefix("##") for left, right in json.loads(tokenizer._tokenizer.to_str())["model"]["merges"]
    }
    assert {"<s>", "</s>"} <= spelled
    control = ControlTokens(tokenizer)
    ids, _ = control.encode("<s>" + control.hide("<p><s>old</s> new</p>") + "</s>")
    assert (ids[0], ids[-1]) == (0, 1) and set(ids[1:-1].tolist()).isdisjoint({0, 1})
    assert "".join(tokenizer.convert_ids_to_tokens(ids)).replace("##", "").replace("Ġ", " ") == (
        "<s><p><s>old</s> new</p></s>"
    )
    plain, _ = control.encode(control.hide("<p>old new</p>"))
    assert plain.tolist() == tokenizer("<p>old new</p>")["input_ids"]


def test_a_tokenizer_that_cannot_take_its_control_tokens_as_text_is_refused_when_it_is_loaded(monkeypatch):
    tokenizer = byte_level(["<s>", "</s>"], INST, bos_token="<s>", eos_token="</s>")
    tokenizer.name_or_path = "models/x"

    def fail(_):
        raise Exception("Token `</s>` out of vocabulary")

    monkeypatch.setattr("sweet_jax.data.control_tokens.Tokenizer", type("None", (), {"from_str": staticmethod(fail)}))
    with pytest.raises(BadInput, match="^models/x: text that spells a special token .* `</s>` out of vocabulary$"):
        Chat(tokenizer)


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(text=texts)
def test_no_content_becomes_a_control_token(text):
    tokenizer = chatml()
    control = ControlTokens(tokenizer)
    ids, _ = control.encode(control.hide(text))
    shown = text.replace("\ufdd0", "\ufffd").replace("\ud83d", "\ufffd")
    assert set(ids.tolist()).isdisjoint({0, 1, 2}) and tokenizer.decode(ids) == shown
    assert len(ids) == 0 or ids.tolist() == tokenizer(shown, split_special_tokens=True)["input_ids"]


@settings(deadline=None, max_examples=50)
@given(said=st.text("<s>/ make12\n", max_size=12))
def test_unigram_pieces_keep_their_ids(said):
    tokenizer = unigram()
    control = ControlTokens(tokenizer)
    ids, _ = control.encode("<s>" + control.hide(said) + "</s>")
    assert (ids[0], ids[-1]) == (1, 2) and set(ids[1:-1].tolist()).isdisjoint({1, 2})
    if "<s>" not in said and "</s>" not in said:
        assert ids.tolist() == tokenizer("<s>" + said + "</s>", add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("before", ["", "<s>", "</s><s>"])
def test_sentencepiece_text_around_a_spelled_token_is_tokenised_as_without_it(pieces, before):
    """The blank that sentencepiece puts in front of a text, or behind every special token, stays where it is."""
    control = ControlTokens(pieces)
    with_it, _ = control.encode(before + control.hide("old <s>") + "</s>")
    without, _ = control.encode(before + "old <x>" + "</s>")
    assert [pieces.decode([token]) for token in with_it] != [] and with_it[-1] == pieces.eos_token_id
    same_front = len(pieces(before + "old", add_special_tokens=False)["input_ids"])
    assert with_it[:same_front].tolist() == without[:same_front].tolist()
    assert with_it[same_front:].tolist().count(pieces.bos_token_id) == 0
    assert pieces.decode(with_it).replace(" ", "") == (before + "old<s></s>").replace(" ", "")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama3", "chatml", "inst"])
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_dialogues_that_spell_the_templates_tokens_have_its_frame_only(kind, data):
    c = chat(kind)
    spelled = st.sampled_from([*c.tokenizer.all_special_tokens, c.format.header, "x", " ", "\n"])
    words = st.lists(spelled, max_size=4).map(lambda parts: "a" + "".join(parts) + "b")
    messages = data.draw(dialogues_of(words))
    row, plain = c.turn_ids(messages), c.turn_ids(dialogue(*["ab"] * len(messages)))
    special = [*c.tokenizer.added_tokens_decoder]
    assert row.ids[np.isin(row.ids, special)].tolist() == plain.ids[np.isin(plain.ids, special)].tolist()
    for turn, said in enumerate(messages[1::2], start=1):
        assert c.decode(row.ids[row.turns == turn]).strip() == said["content"] + c.format.end
    so_far = c.prompt_ids(messages[:1]) + row.ids[row.turns == 1].tolist()
    if len(messages) > 2:
        assert so_far + c.continue_ids(so_far, messages[2]["content"]) == c.prompt_ids(messages[:3])


def test_a_reference_that_spells_control_tokens_is_text_in_the_critics_rows():
    c = chat("inst")
    row = c.add_prefix(c.turn_ids(dialogue("make a page", "no")), "<s>12 EUR</s>")
    assert row.ids.tolist().count(0) == row.ids.tolist().count(1) == 1
    assert c.decode(row.ids).startswith("<s><s>12 EUR</s>[INST] make")


def test_thoughts_that_are_tokens_of_the_agents_stay_tokens():
    tokenizer = chatml(CHATML)
    tokenizer.add_tokens(["<think>", "</think>"])
    row = Chat(tokenizer).turn_ids(dialogue("hi", "<think>no</think>yes"))
    assert {len(tokenizer) - 1, len(tokenizer) - 2} <= set(row.ids[row.turns == 1].tolist())


def test_dialogues_without_control_tokens_have_the_tokenizers_own_ids():
    c = chat("llama3")
    text = c.tokenizer.apply_chat_template(dialogue("hi", "ho", "no", "yes"), tokenize=False)
    assert c.turn_ids(dialogue("hi", "ho", "no", "yes")).ids.tolist() == c.tokenizer.encode(
        text, add_special_tokens=False
    )
    assert same(c.row_from_text(text), c.turn_ids(dialogue("hi", "ho", "no", "yes")))
