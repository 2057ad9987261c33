import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colbench_env.types import BadInput, Message, Pair, Task, Trajectory
from sweet_jax.data.batch import TokenRow
from sweet_jax.data.chat import Chat
from sweet_jax.data.token_rows import (
    candidate_row,
    check_row,
    pair_rows,
    row_from_json,
    row_to_json,
    trajectory_row,
    turn_output,
    turn_prompt,
)
from sweet_jax.data.tokenizer import train_tokenizer


def row_of(ids, turns, prefix=0):
    return TokenRow(np.array(ids, np.int32), np.array(turns, np.int32), prefix)


def parts(row):
    return row.ids.tolist(), row.turns.tolist(), row.prefix


@functools.cache
def chat():
    return Chat(train_tokenizer(["Per day or per week? Yes, 3. return 3 Write a fee function. Be short."] * 3, 280))


ROW = row_of([1, 7, 5, 2, 9, 6], [0, 0, 1, 1, 0, 2], prefix=1)
JSON = {"ids": [1, 7, 5, 2, 9, 6], "spans": [[1, 2, 4], [2, 5, 6]], "prefix": 1}


# --- JSON ------------------------------------------------------------------------------------------------------------


def test_a_row_is_stored_as_its_ids_and_the_spans_of_its_turns():
    assert row_to_json(ROW) == JSON
    assert parts(row_from_json(JSON, "here")) == parts(ROW)


@pytest.mark.parametrize(
    ("turns", "spans"),
    [
        ([], []),
        ([0, 0], []),
        ([1, 1, 1], [[1, 0, 3]]),
        ([1, 1, 2, 3], [[1, 0, 2], [2, 2, 3], [3, 3, 4]]),  # turns without a token between them
        ([0, 3, 0, 3], [[3, 1, 2], [3, 3, 4]]),
    ],
)
def test_spans_of_turns_at_the_ends_side_by_side_and_in_pieces(turns, spans):
    row = row_of(range(len(turns)), turns)
    assert row_to_json(row)["spans"] == spans
    assert parts(row_from_json(row_to_json(row), "here")) == parts(row)


@st.composite
def token_rows(draw):
    turns = draw(st.lists(st.integers(0, 3), max_size=20))
    ids = draw(st.lists(st.integers(0, 2**31 - 1), min_size=len(turns), max_size=len(turns)))
    uncounted = next((place for place, turn in enumerate(turns) if turn), len(turns))
    return row_of(ids, turns, draw(st.integers(0, uncounted)))


@settings(deadline=None, max_examples=100)
@given(row=token_rows())
def test_every_row_comes_back_from_json_with_its_types(row):
    found = row_from_json(row_to_json(row), "here")
    assert parts(found) == parts(row)
    assert found.ids.dtype == found.turns.dtype == np.int32


@pytest.mark.parametrize(
    "data",
    [
        None,
        [1, 2],
        {"ids": [1, 2], "prefix": 0},
        {"ids": [1, "two"], "spans": [], "prefix": 0},
        {"ids": [1, 2.5], "spans": [], "prefix": 0},
        {"ids": [[1, 2]], "spans": [], "prefix": 0},
        {"ids": "12", "spans": [], "prefix": 0},
        {"ids": [1, 2**31], "spans": [], "prefix": 0},
        {"ids": [1, 2], "spans": [[1, 0]], "prefix": 0},
        {"ids": [1, 2], "spans": [[1, 0, 3]], "prefix": 0},
        {"ids": [1, 2], "spans": [[1, -1, 2]], "prefix": 0},
        {"ids": [1, 2], "spans": [[-1, 0, 1]], "prefix": 0},
        {"ids": [1, 2, 3], "spans": [[0.5, 2, 3]], "prefix": 0},
        {"ids": [1, 2, 3], "spans": [[1.5, 2, 3]], "prefix": 0},
        {"ids": [1, 2, 3], "spans": [[1, "2", 3]], "prefix": 0},
        {"ids": [1, 2], "spans": [[1, 0, 1]], "prefix": 1},  # a counted token in the prefix
        {"ids": [1, 2], "spans": [], "prefix": 3},
        {"ids": [1, 2], "spans": [], "prefix": None},
    ],
)
def test_json_that_holds_no_row_is_bad_input_with_its_place(data):
    with pytest.raises(BadInput, match="rows.jsonl:7: token ids cannot be read .* expected ids, spans and prefix"):
        row_from_json(data, "rows.jsonl:7")


# --- trajectories ----------------------------------------------------------------------------------------------------


def trajectory(**extra):
    messages = (
        Message("user", "Write a fee function."),
        Message("assistant", "Per day?", output="Per day or per week?"),
        Message("user", "Yes, 3."),
        Message("assistant", "return 3"),
    )
    return Trajectory(Task("Write a fee function."), messages, "return 3", extra=extra)


def test_a_trajectory_with_stored_ids_is_trained_on_as_it_was_sampled():
    assert parts(trajectory_row(trajectory(tokens=JSON), chat(), "Be short.", "here")) == parts(ROW)
    with pytest.raises(BadInput, match="here: token ids cannot be read"):
        trajectory_row(trajectory(tokens={"ids": [1]}), chat(), "", "here")


def test_a_trajectory_without_ids_is_tokenised_from_the_agents_raw_output():
    row = trajectory_row(trajectory(), chat(), "", "here")
    assert chat().decode(row.ids) == (
        "<|bos|><|user|>Write a fee function.<|end|><|assistant|>Per day or per week?<|end|>"
        "<|user|>Yes, 3.<|end|><|assistant|>return 3<|end|>"
    )
    assert chat().decode(turn_output(row, 1)) == "Per day or per week?<|end|>"
    assert chat().decode(turn_output(row, 2)) == "return 3<|end|>"
    assert row.prefix == 1


def test_the_system_text_stands_before_the_dialogue_and_is_not_counted():
    plain, told = (trajectory_row(trajectory(), chat(), system, "here") for system in ("", "Be short."))
    assert chat().decode(told.ids).startswith("<|bos|><|system|>Be short.<|end|><|user|>Write")
    assert told.ids[told.turns > 0].tolist() == plain.ids[plain.turns > 0].tolist()


def test_the_prompt_and_the_output_of_a_turn_are_read_from_its_row():
    row = row_of([1, 7, 8, 5, 2, 9, 9, 6, 2], [0, 0, 0, 1, 1, 0, 0, 2, 2], prefix=1)
    assert (turn_prompt(row, 1), turn_output(row, 1)) == ([1, 7, 8], [5, 2])
    assert (turn_prompt(row, 2), turn_output(row, 2)) == ([1, 7, 8, 5, 2, 9, 9], [6, 2])


def test_a_candidate_row_counts_its_turn_only():
    assert parts(candidate_row([1, 7, 8], [5, 2], 1)) == ([1, 7, 8, 5, 2], [0, 0, 0, 1, 1], 1)
    assert parts(candidate_row([1], [], 1)) == ([1], [0], 1)
    row = candidate_row([1, 7, 8], [5, 2], 1)
    assert (turn_prompt(row, 1), turn_output(row, 1)) == ([1, 7, 8], [5, 2])
    assert row.ids.dtype == row.turns.dtype == np.int32


# --- pairs -----------------------------------------------------------------------------------------------------------

FIRST = "<|bos|><|user|>Write a fee function.<|end|><|assistant|>Per day?<|end|><|user|>Yes, 3.<|end|><|assistant|>"


def test_a_pair_with_stored_ids_is_taken_as_it_was_sampled():
    other = {"ids": [1, 7, 4], "spans": [[1, 2, 3]], "prefix": 1}
    pair = Pair("text", "other text", {"chosen_tokens": JSON, "rejected_tokens": other})
    rows = pair_rows(pair, chat(), last_turn_only=True, location="here")
    assert parts(rows.chosen) == parts(ROW)
    assert parts(rows.rejected) == ([1, 7, 4], [0, 0, 1], 1)


def test_a_pair_of_text_counts_all_turns_or_the_last_one_as_its_first():
    pair = Pair(FIRST + "return 3<|end|>", FIRST + "Be short.<|end|>")
    whole = pair_rows(pair, chat(), last_turn_only=False, location="here")
    assert [chat().decode(turn_output(whole.chosen, turn)) for turn in (1, 2)] == ["Per day?<|end|>", "return 3<|end|>"]
    last = pair_rows(pair, chat(), last_turn_only=True, location="here")
    assert (last.chosen.num_turns, last.rejected.num_turns) == (1, 1)
    assert chat().decode(turn_prompt(last.chosen, 1)) == FIRST
    assert chat().decode(turn_output(last.chosen, 1)) == "return 3<|end|>"
    assert chat().decode(turn_output(last.rejected, 1)) == "Be short.<|end|>"
    assert last.chosen.prefix == 1


def test_privileged_text_before_the_dialogue_is_the_prefix_of_both_rows():
    told = "In light that the final answer is: return 3."
    pair = Pair(told + FIRST + "return 3<|end|>", told + FIRST + "Be short.<|end|>")
    rows = pair_rows(pair, chat(), last_turn_only=False, location="here")
    for row in (rows.chosen, rows.rejected):
        assert chat().decode(row.ids[: row.prefix]) == "<|bos|>" + told
        assert row.num_turns == 2


def test_a_pair_that_cannot_be_read_is_refused_with_its_place_and_side():
    with pytest.raises(BadInput, match="rows.jsonl:3: 'chosen': no agent turn in the text"):
        pair_rows(Pair("hi", FIRST + "ho"), chat(), last_turn_only=True, location="rows.jsonl:3")
    with pytest.raises(BadInput, match="rows.jsonl:3: 'rejected': no agent turn in the text.*holds no header [^;]*$"):
        pair_rows(Pair(FIRST + "ho", "hi"), chat(), last_turn_only=True, location="rows.jsonl:3")
    apart = Pair("ho", "hi", {"prompt": "Write a fee function."})  # TRL's form
    with pytest.raises(
        BadInput, match="'chosen': no agent turn.*the row has a 'prompt' of its own, expected it in front"
    ):
        pair_rows(apart, chat(), last_turn_only=True, location="rows.jsonl:3")


def test_rows_that_the_network_cannot_be_trained_on_are_refused_with_their_place():
    check_row(ROW, 10, "rows.jsonl:4")
    check_row(row_of([], []), 10, "rows.jsonl:4")
    with pytest.raises(BadInput, match="rows.jsonl:4: token id 9 is none of the network's, expected 0 to 8"):
        check_row(ROW, 9, "rows.jsonl:4")
    with pytest.raises(BadInput, match="rows.jsonl:4: token id -1 is none of the network's"):
        check_row(row_of([1, -1], [0, 1]), 10, "rows.jsonl:4")
    with pytest.raises(BadInput, match="the first token counts as the agent's, expected a prompt before it"):
        check_row(row_of([1, 2], [1, 1]), 10, "rows.jsonl:4")
    for turns, last, missing in (
        ([0, 3, 3, 3], 3, 1),
        ([0, 1, 3, 3], 3, 2),
        ([0, 2, 1, 4], 4, 3),
        ([0, 2**31 - 1], 2**31 - 1, 1),
    ):
        sentence = f"rows.jsonl:4: tokens of turn {last} are counted and none of turn {missing}, expected turns counted"
        with pytest.raises(BadInput, match=sentence):
            check_row(row_of([1] * len(turns), turns), 10, "rows.jsonl:4")
    for turns in ([0, 1, 2, 2], [0, 0], [0, 1, 0, 1, 2]):
        check_row(row_of([1] * len(turns), turns), 10, "rows.jsonl:4")


def test_a_spelled_end_is_kept_in_what_was_said_and_dropped_where_it_was_recorded():
    def row(content, output):
        messages = (Message("user", "Yes, 3."), Message("assistant", content, output=output))
        found = trajectory_row(Trajectory(Task("Yes, 3."), messages, "return 3"), chat(), "", "here")
        return chat().decode(turn_output(found, 1))

    said, end = "Per <|end|>", "<|end|>"
    assert row(said, None) == row(said, said) == row(said, said + end) == said + end
    assert row("Per", "Per<|end|>") == row("Per", "Per") == "Per" + end
    assert row(said, "Per day? " + said) == "Per day? " + said + end


def test_a_recorded_end_is_counted_once_and_a_stripped_thought_is_refused_with_its_place():
    ended = trajectory()
    messages = [entry if entry.role == "user" else Message("assistant", entry.content, output=entry.content + "<|end|>")
                for entry in ended.dialogue_history]  # fmt: skip
    row = trajectory_row(Trajectory(ended.task, tuple(messages), "return 3"), chat(), "", "rows.jsonl:5")
    assert [chat().decode(turn_output(row, turn)) for turn in (1, 2)] == ["Per day?<|end|>", "return 3<|end|>"]
    tokenizer = train_tokenizer(["Per day or per week? Yes, 3. return 3 Write a fee function."] * 3, 280)
    tokenizer.chat_template = tokenizer.chat_template.replace("m['content']", "m['content'].split('?')[-1]")
    with pytest.raises(BadInput, match="rows.jsonl:5: .* does not show message 1 as it was said"):
        trajectory_row(ended, Chat(tokenizer), "", "rows.jsonl:5")
