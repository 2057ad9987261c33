import functools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sweet_jax.data.chat import Chat
from sweet_jax.data.tokenizer import ASSISTANT, BOS, END, PAD, SYSTEM, USER, train_tokenizer

TEXTS = [
    "I WANT TO ANSWER:\ndef fee(days, late):\n    return days * 3 + (2 if late else 0)\n",
    "Which currency should the function assume? Round to the nearest ten, please.",
    "\tif x >= 10:\n\t\treturn 'naïve'  # no",
] * 3
VOCAB = 340


@functools.cache
def tokenizer():
    return train_tokenizer(TEXTS, VOCAB)


@functools.cache
def chat():
    return Chat(tokenizer())


def ids_of(text):
    return tokenizer()(text, add_special_tokens=False)["input_ids"]


@settings(deadline=None, max_examples=200)
@given(text=st.text())
@example("😀 👩‍👩‍👧 🇩🇪\ttab\t\ttwo\n\n  \r\n end ")
@example("e\u0301 \u00a0 ﬁ ² ½ ٣ 漢字 \x00\x7f \u2028")
@example("  don 't  ,  wo n't . ")
@example("<|unused_0|><|user|> <|end|>")
def test_any_text_comes_back_from_its_ids_unchanged(text):
    ids = ids_of(text)
    assert chat().decode(ids) == text
    assert all(0 <= token < VOCAB for token in ids)


def test_code_of_the_training_texts_takes_fewer_tokens_than_bytes():
    assert all(len(ids_of(text)) < len(text.encode()) * 0.8 for text in TEXTS)


def test_the_vocabulary_has_exactly_the_size_that_was_asked_for():
    assert len(tokenizer()) == VOCAB
    assert len(set(tokenizer().get_vocab().values())) == VOCAB
    filled = train_tokenizer(["ab"], 300)
    assert len(filled) == 300 and max(filled.get_vocab().values()) == 299


def test_special_tokens_have_the_first_ids_and_are_never_split():
    assert [ids_of(token) for token in (BOS, PAD, USER, ASSISTANT, SYSTEM, END)] == [[0], [1], [2], [3], [4], [5]]
    assert (tokenizer().bos_token_id, tokenizer().pad_token_id, tokenizer().eos_token_id) == (0, 1, 5)


def test_the_same_texts_give_the_same_tokenizer():
    again = train_tokenizer(iter(TEXTS), VOCAB)
    assert again.backend_tokenizer.to_str() == tokenizer().backend_tokenizer.to_str()
    assert again.chat_template == tokenizer().chat_template
    other = train_tokenizer(TEXTS[:1], VOCAB)
    assert other.backend_tokenizer.to_str() != tokenizer().backend_tokenizer.to_str()


def test_a_saved_tokenizer_is_the_same_when_it_is_loaded(tmp_path):
    tokenizer().save_pretrained(tmp_path)
    loaded = Chat.load(tmp_path)
    assert loaded.format == chat().format
    assert loaded.end_ids == chat().end_ids and loaded.pad_id == chat().pad_id
    assert loaded.prompt_ids(DIALOGUE[:1]) == chat().prompt_ids(DIALOGUE[:1])


def test_a_frequent_phrase_or_line_is_one_token_and_no_token_goes_on_behind_the_end_of_its_line():
    often = train_tokenizer(["What about tax?", "def fee(days):\n    return days * 3\n    # 10"] * 50, 340)
    assert [often.decode(token) for token in often("What about tax?")["input_ids"]] == ["What about tax?"]
    code = often("def fee(days):\n    return days * 3\n")["input_ids"]
    assert [often.decode(token) for token in code] == ["def fee(days):\n", "    return days * 3\n"]
    pieces = [often.decode(token) for token in often.get_vocab().values()]
    assert not [piece for piece in pieces if "\n" in piece[:-1]]


DIALOGUE = [
    {"role": "user", "content": " Write a fee function.\n"},
    {"role": "assistant", "content": "Per day?"},
    {"role": "user", "content": "Yes, 3."},
]


def test_the_chat_template_writes_one_bos_and_the_headers_it_should():
    ids = chat().prompt_ids(DIALOGUE)
    assert chat().decode(ids) == (
        "<|bos|><|user|>Write a fee function.<|end|><|assistant|>Per day?<|end|><|user|>Yes, 3.<|end|><|assistant|>"
    )
    assert ids[0] == chat().bos_id == 0
    assert ids.count(0) == 1
    system = chat().prompt_ids([{"role": "system", "content": "Be short."}, *DIALOGUE])
    assert chat().decode(system).startswith("<|bos|><|system|>Be short.<|end|><|user|>Write")
    assert system.count(0) == 1


def test_the_agents_words_and_its_end_token_are_the_counted_ones():
    row = chat().turn_ids([*DIALOGUE, {"role": "assistant", "content": "I WANT TO ANSWER:\nreturn 3"}])
    assert chat().decode(row.ids[row.turns == 1]) == "Per day?<|end|>"
    assert chat().decode(row.ids[row.turns == 2]) == "I WANT TO ANSWER:\nreturn 3<|end|>"
    assert (row.prefix, chat().turn_end_id, chat().end_ids, chat().pad_id) == (1, 5, (5,), 1)


def test_a_vocabulary_too_small_for_all_bytes_or_too_large_for_the_texts_is_an_error():
    with pytest.raises(ValueError, match="vocab_size=261 does not hold 256 bytes and 6 special tokens"):
        train_tokenizer(TEXTS, 261)
    assert len(train_tokenizer(TEXTS, 262)) == 262
    with pytest.raises(ValueError, match="pieces only, too few for vocab_size=5000"):
        train_tokenizer(TEXTS, 5000)
