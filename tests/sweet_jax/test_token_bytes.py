"""Bytes of single tokens join to those of the text: byte-level, sentencepiece, metaspace and WordPiece tokenizers."""

import io
import json

import hypothesis
import hypothesis.strategies as st
import pytest
import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from sweet_jax.data.token_bytes import TokenBytes
from sweet_jax.data.tokenizer import train_tokenizer

CORPUS = [
    "[INST] Which currency should the function assume? [/INST] Round to the nearest ten.",
    "I WANT TO ANSWER:\ndef fee(days, late):\n    return days * 3 + (2 if late else 0)\n",
    "it's a list , or not . naïve façade \ufffd",
] * 3
TEXTS = st.text(
    st.sampled_from("ab 'é\n\t▁漢🙂🙃\u200d\ufffd<0xF>Ġ#I.,") | st.characters(exclude_categories=["Cs"]), max_size=20
)


def byte_level():
    tokenizer = train_tokenizer(CORPUS, 400)
    tokenizer.add_tokens(["<think>", "漢字"])
    return tokenizer


def llama2(directory, legacy):
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=written, vocab_size=330, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,
    )  # fmt: skip
    (directory / "tokenizer.model").write_bytes(written.getvalue())
    settings = {"tokenizer_class": "LlamaTokenizer", "legacy": legacy, "bos_token": "<s>", "eos_token": "</s>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings | {"unk_token": "<unk>"}))
    return AutoTokenizer.from_pretrained(directory)


def metaspace(prepend_scheme):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend_scheme)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=prepend_scheme)
    trained = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trained)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def word_piece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
    trained = trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trained)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")


MADE = {
    "byte-level": lambda _: byte_level(),
    "llama2": lambda directory: llama2(directory, legacy=True),
    "llama2-new": lambda directory: llama2(directory, legacy=False),
    "metaspace-always": lambda _: metaspace("always"),
    "metaspace-first": lambda _: metaspace("first"),
    "metaspace-never": lambda _: metaspace("never"),
    "wordpiece": lambda _: word_piece(),
}


@pytest.fixture(scope="module", params=MADE)
def made(request, tmp_path_factory):
    tokenizer = MADE[request.param](tmp_path_factory.mktemp("tokenizer"))
    return request.param, tokenizer, TokenBytes(tokenizer)


@pytest.fixture(scope="module")
def sentencepiece_like(tmp_path_factory):
    return llama2(tmp_path_factory.mktemp("tokenizer"), legacy=True)


def encoded(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def decoded(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


SEVERAL = hypothesis.settings(
    max_examples=100, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)


@SEVERAL
@hypothesis.given(text=TEXTS)
@hypothesis.example(text="🙂")
@hypothesis.example(text="  two blanks  ")
@hypothesis.example(text="<|end|>漢字<think> a")
def test_the_bytes_of_a_text_are_those_of_its_tokens_joined(made, text):
    name, tokenizer, token_bytes = made
    ids = encoded(tokenizer, text)
    joined = b"".join(token_bytes.convert(ids)[0])
    assert joined == decoded(tokenizer, ids).encode()
    # Sentencepiece writes a blank as ▁, and takes one away from the beginning.
    if name == "byte-level" and "<|" not in text or "llama2" in name and "▁" not in text and text[:1] != " ":
        assert joined == text.encode()


@pytest.mark.slow
@SEVERAL
@hypothesis.given(data=st.data())
def test_ids_in_any_order_join_to_the_bytes_of_what_they_decode_to(made, data):
    _, tokenizer, token_bytes = made
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) + 3), max_size=6))
    text, cut = decoded(tokenizer, ids), data.draw(st.integers(0, len(ids)))
    early, begun = token_bytes.convert(ids[:cut])
    late, _ = token_bytes.convert(ids[cut:], begun)
    hypothesis.assume("\ufffd" not in text)  # how many stand for broken bytes is the decoder's own affair
    assert b"".join(early + late) == text.encode()


def test_a_character_of_four_tokens_has_one_byte_in_each():
    tokenizer = byte_level()
    ids = encoded(tokenizer, "🙂")
    assert TokenBytes(tokenizer).convert(ids) == ([b"\xf0", b"\x9f", b"\x99", b"\x82"], True)


def test_sentencepiece_words_keep_their_blanks_and_the_first_has_none(sentencepiece_like):
    token_bytes = TokenBytes(sentencepiece_like)
    pieces = ["▁the", "ays", "▁", "▁f", "<0xF0>", "<0x41>", "<0x0A>", "</s>", "<unk>"]
    ids = sentencepiece_like.convert_tokens_to_ids(pieces)
    assert token_bytes.convert(ids)[0] == [b"the", b"ays", b" ", b" f", b"\xf0", b"A", b"\n", b"", b""]
    assert token_bytes.convert(ids[:1], begun=True)[0] == [b" the"]


def test_what_adds_nothing_is_not_the_first_token_and_a_blank_that_is_taken_away_is(sentencepiece_like):
    token_bytes = TokenBytes(sentencepiece_like)
    bos, blank, word = sentencepiece_like.convert_tokens_to_ids(["<s>", "▁", "▁f"])
    unknown = len(sentencepiece_like) + 5
    assert token_bytes.convert([bos, unknown, word, word]) == ([b"", b"", b"f", b" f"], True)
    assert token_bytes.convert([bos, unknown]) == ([b"", b""], False)
    assert token_bytes.convert([blank, word]) == ([b"", b" f"], True)


def test_word_pieces_are_told_with_the_blank_that_stands_before_them():
    tokenizer = word_piece()
    ids = tokenizer.convert_tokens_to_ids(["I", "W", "##A", "##N", "I"])
    assert TokenBytes(tokenizer).convert(ids)[0] == [b"I", b" W", b"A", b"N", b" I"]


def test_added_tokens_are_text_unless_they_are_special():
    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken("<tool>", special=True)])
    ids = tokenizer.convert_tokens_to_ids(["<think>", "漢字", "<tool>", "<|end|>"])
    assert TokenBytes(tokenizer).convert(ids)[0] == [b"<think>", "漢字".encode(), b"", b""]
    assert [TokenBytes(tokenizer).name(token) for token in ids] == ["<think>", "漢字", "<tool>", "<|end|>"]


def test_a_piece_that_reads_like_a_byte_or_holds_the_replacement_character_is_what_it_says():
    tokenizer = byte_level()
    tokenizer.add_tokens(["<0xF0>", "\ufffd!"])
    ids = tokenizer.convert_tokens_to_ids(["<0xF0>", "\ufffd!"])
    assert TokenBytes(tokenizer).convert(ids)[0] == [b"<0xF0>", "\ufffd!".encode()]
