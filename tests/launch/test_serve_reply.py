"""A reply's tokens as they come: text in whole characters, log-probs whose bytes join to it, stop strings."""

import hypothesis
import hypothesis.strategies as st
import pytest

from launch.common.settings import EMBEDDED_DIRECTORY
from launch.serving.streaming import Detokenizer, LogProbs, StopStrings
from sweet_jax.data.chat import Chat
from sweet_jax.data.token_bytes import TokenBytes
from sweet_jax.generation import Token


@pytest.fixture(scope="module")
def chat():
    return Chat.load(EMBEDDED_DIRECTORY)


@pytest.fixture(scope="module")
def token_bytes(chat):
    return TokenBytes(chat.tokenizer)


def encoded(chat, text):
    return chat.tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("text", ["plain words", "naïve façade — 漢字 🙂🙃 done", "🙂" * 5, "a\n\n b  c"])
def test_pieces_of_text_are_whole_characters_and_join_to_the_text(chat, token_bytes, text):
    ids = encoded(chat, text)
    detokenizer = Detokenizer(token_bytes)
    pieces = [detokenizer.add([token]) for token in ids]
    assert "".join(pieces) == text and "\ufffd" not in "".join(pieces) and detokenizer.end() == ""


def test_half_a_character_at_the_end_is_told_at_the_end(chat, token_bytes):
    ids = encoded(chat, "a🙂")
    assert len(ids) > 2
    detokenizer = Detokenizer(token_bytes)
    assert "".join(detokenizer.add([token]) for token in ids[:-1]) == "a"
    assert set(detokenizer.end()) == {"\ufffd"}


@pytest.mark.parametrize(
    ("pieces", "stops", "shown", "found"),
    [
        (["ab", "cd", "ef"], ["cde"], ["ab", "", ""], True),
        (["ab", "cd", "xf"], ["cde"], ["ab", "", "cdxf"], False),
        (["one END two"], ["END", "two"], ["one "], True),
        (["a", "a", "b"], ["aab"], ["", "", ""], True),
        (["a", "a", "a", "b"], ["aab"], ["", "", "a", ""], True),
        (["no", "thing"], [], ["no", "thing"], False),
    ],
)
def test_stop_strings_are_found_across_pieces(pieces, stops, shown, found):
    stop = StopStrings(stops)
    assert [stop.add(piece) for piece in pieces] == shown
    assert stop.found == found


def told(token_bytes, ids, end_ids=()):
    return LogProbs(token_bytes, end_ids).add([Token(token, -1.0) for token in ids])


def test_each_token_of_a_character_is_told_with_its_own_bytes(chat, token_bytes):
    found = told(token_bytes, encoded(chat, "🙂"))
    assert [each["bytes"] for each in found] == [[240], [159], [153], [130]]
    assert {each["token"] for each in found} == {"\ufffd"}


def test_the_end_of_a_turn_is_told_by_its_name_and_has_no_bytes(chat, token_bytes):
    ids = [*encoded(chat, "a"), chat.turn_end_id]
    assert told(token_bytes, ids, chat.end_ids) == [
        {"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": []},
        {"token": "<|end|>", "logprob": -1.0, "bytes": [], "top_logprobs": []},
    ]


def test_an_end_that_is_a_word_of_the_text_has_no_bytes(chat, token_bytes):
    a, b = encoded(chat, "a") + encoded(chat, "b")
    found = told(token_bytes, [a, b], end_ids={b})
    assert [(each["token"], each["bytes"]) for each in found] == [("a", [97]), ("b", [])]


def test_alternatives_are_told_like_the_token_in_whose_place_they_stand(chat, token_bytes):
    (a,), first = encoded(chat, "a"), encoded(chat, "🙂")[0]
    (found,) = LogProbs(token_bytes, chat.end_ids).add(
        [Token(a, -0.5, ((a, -0.5), (first, -1.0), (chat.turn_end_id, float("-inf"))))]
    )
    assert [(each["token"], each["logprob"], each["bytes"]) for each in found["top_logprobs"]] == [
        ("a", -0.5, [97]), ("\ufffd", -1.0, [240]), ("<|end|>", -9999.0, []),
    ]  # fmt: skip


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(data=st.data())
def test_any_ids_in_any_pieces_have_one_text_and_its_bytes(chat, token_bytes, data):
    ids = data.draw(st.lists(st.integers(0, len(chat.tokenizer) - 1), max_size=12))
    cut = data.draw(st.integers(0, len(ids)))
    detokenizer, logprobs = Detokenizer(token_bytes), LogProbs(token_bytes, ())
    pieces = [(detokenizer.add(part), logprobs.add([Token(id, 0.0) for id in part])) for part in (ids[:cut], ids[cut:])]
    text = "".join(text for text, _ in pieces) + detokenizer.end()
    joined = b"".join(bytes(each["bytes"]) for _, told in pieces for each in told)
    assert text == joined.decode("utf-8", "replace") == chat.tokenizer.decode(ids, skip_special_tokens=True)
