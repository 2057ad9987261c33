"""Dialogues as ids and turns."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from colbench_env.types import BadInput, Message
from sweet_jax.data.chat import Chat, privileged_prefix
from tests.sweet_jax.chats import (
    BEFORE_CONTENT,
    INST,
    KINDS,
    LLAMA3,
    SENTENCES,
    byte_level,
    chat,
    contents,
    dialogue,
    dialogues,
    real_chat,
    real_dialogues,
    same,
)


def test_a_two_turn_dialogue_has_these_ids_and_turns():
    row = chat("words").turn_ids(dialogue("hi", "ho yes", "no", "hi"))
    assert row.ids.tolist() == [0, 1, 5, 3, 2, 6, 7, 3, 1, 8, 3, 2, 5, 3]
    assert row.turns.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 2, 2]
    assert row.prefix == 1 and row.num_turns == 2 and len(row) == 14
    assert row.ids.dtype == row.turns.dtype == np.int32


THREE_TURNS = ("Write a function.", "Which unit?", "Days.", "And the limit?", "Ten.", "Ten days.")
USER, ASSISTANT, END = [128006, 882, 128007, 271], [128006, 78191, 128007, 271], [128009]
THREE_TURNS_IDS = [
    128000,
    *USER, 8144, 264, 734, 13, *END, *ASSISTANT, 23956, 5089, 30, *END,
    *USER, 21199, 13, *END, *ASSISTANT, 3112, 279, 4017, 30, *END,
    *USER, 33787, 13, *END, *ASSISTANT, 33787, 2919, 13, *END,
]  # fmt: skip
THREE_TURNS_TURNS = [*[0] * 14, *[1] * 4, *[0] * 11, *[2] * 5, *[0] * 11, *[3] * 4]
LLAMA3_WORDS = {
    "<|begin_of_text|>": 128000, "<|start_header_id|>": 128006, "<|end_header_id|>": 128007, "<|eot_id|>": 128009,
    "user": 882, "assistant": 78191, "\n\n": 271, "Write": 8144, " a": 264, " function": 734, ".": 13, "Which": 23956,
    " unit": 5089, "?": 30, "Days": 21199, "And": 3112, " the": 279, " limit": 4017, "Ten": 33787, " days": 2919,
}  # fmt: skip


def llama3_words() -> Chat:
    """A tokenizer in Llama-3 format that knows one dialogue, by the ids of Llama 3's own vocabulary."""
    tokenizer = Tokenizer(models.WordLevel(LLAMA3_WORDS, unk_token="."))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n\n| ?\w+|[.?]"), "isolated")
    tokenizer.add_special_tokens([word for word in LLAMA3_WORDS if word.startswith("<|")])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")
    fast.chat_template = LLAMA3
    return Chat(fast)


@pytest.mark.parametrize("which", ["of one dialogue", "SWEET_JAX_LLAMA3_TOKENIZER"])
def test_a_three_turn_dialogue_in_llama_3_format_has_these_ids_and_turns(which):
    c = llama3_words() if which == "of one dialogue" else real_chat(which)
    row = c.turn_ids(dialogue(*THREE_TURNS))
    assert row.ids.tolist() == THREE_TURNS_IDS
    assert row.turns.tolist() == THREE_TURNS_TURNS
    assert (row.prefix, c.bos_id, c.turn_end_id) == (1, 128000, 128009)
    assert c.prompt_ids(dialogue(*THREE_TURNS[:3])) == THREE_TURNS_IDS[:29]
    assert c.continue_ids(THREE_TURNS_IDS[:18], "Days.") == [*USER, 21199, 13, *END, *ASSISTANT]


def test_a_prompt_ends_with_the_assistant_header():
    assert chat("words").prompt_ids(dialogue("hi", "ho", "no")) == [0, 1, 5, 3, 2, 6, 3, 1, 8, 3, 2]


def test_privileged_text_stands_behind_the_single_begin_of_text_token():
    words = chat("words")
    row = words.add_prefix(words.turn_ids(dialogue("hi", "ho")), "secret is: 7.")
    assert row.ids.tolist() == [0, 9, 10, 11, 1, 5, 3, 2, 6, 3]
    assert row.turns.tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    assert row.prefix == 4
    with pytest.raises(ValueError, match="already has a privileged text: its prefix is 4 tokens"):
        words.add_prefix(row, "secret is: 7.")
    assert privileged_prefix("7") == "In light that the final answer is: 7."


def test_privileged_text_leads_where_the_begin_of_text_token_is_part_of_each_header():
    row = chat("chatml").turn_ids(dialogue("hi", "ho"))
    told = chat("chatml").add_prefix(row, "secret")
    assert (row.prefix, told.prefix) == (0, len(told) - len(row))
    assert (
        chat("chatml")
        .decode(told.ids)
        .startswith("secret<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user")
    )


def test_the_template_is_read_from_its_own_rendering():
    assert chat("llama3").format.header == "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    assert (chat("llama3").format.bos, chat("llama3").format.end) == ("<|begin_of_text|>", "<|eot_id|>")
    assert chat("chatml").format.header == "<|im_end|>\n<|im_start|>assistant\n"
    assert (chat("chatml").format.bos, chat("chatml").format.after) == ("", "\n")
    assert (chat("inst").format.header, chat("inst").format.opening) == (" [/INST]", "<s>")


def test_pad_may_equal_the_end_and_several_ids_may_end_a_turn(tmp_path):
    assert chat("chatml").pad_id == chat("chatml").turn_end_id == 2 and chat("chatml").end_ids == (2,)
    assert chat("llama3").end_ids == (1, 4) and chat("llama3").pad_id == 5
    assert chat("inst").pad_id == chat("inst").turn_end_id == 1
    chat("llama3").tokenizer.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 0, 3]}))
    assert Chat.load(tmp_path).end_ids == (0, 1, 3, 4)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 0}))
    assert Chat.load(tmp_path).end_ids == (0, 1, 4)
    (tmp_path / "generation_config.json").write_text("[]")
    with pytest.raises(BadInput, match=r"generation_config.json: holds \[\], expected an object"):
        Chat.load(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=100)
@given(messages=dialogues)
def test_counted_tokens_are_exactly_the_agents_words_and_the_end_of_turn(kind, messages):
    c = chat(kind)
    row = c.turn_ids(messages)
    for turn, said in enumerate(messages[1::2], start=1):
        (place,) = np.nonzero(row.turns == turn)
        assert place.tolist() == list(range(place[0], place[-1] + 1))
        assert c.decode(row.ids[place]) == BEFORE_CONTENT.get(kind, "") + said["content"] + c.format.end
        assert c.decode(row.ids[: place[0]]).endswith(c.format.header)
    assert row.num_turns == len(messages) // 2 and row.turns[-1] == row.num_turns
    assert c.bos_id is None or row.ids.tolist().count(c.bos_id) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=100)
@given(messages=dialogues)
def test_pieces_kept_as_sampled_equal_one_tokenisation(kind, messages):
    c = chat(kind)
    whole = c.turn_ids(messages)
    prompt, turns = c.prompt_ids(messages[:1]), []
    so_far = list(prompt)
    for turn in range(1, whole.num_turns + 1):
        output = whole.ids[whole.turns == turn].tolist()
        replied = 2 * turn < len(messages)
        following = c.continue_ids(so_far + output, messages[2 * turn]["content"]) if replied else []
        turns.append((output, following))
        so_far += output + following
        assert not replied or so_far == c.prompt_ids(messages[: 2 * turn + 1])
    assert same(c.row_from_turns(prompt, turns), whole)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=100)
@given(messages=dialogues, reference=contents)
def test_a_row_of_the_released_layout_is_the_row_of_its_dialogue(kind, messages, reference):
    c = chat(kind)
    row = c.turn_ids(messages)
    text, told = c.decode(row.ids), privileged_prefix(reference)
    assert same(c.row_from_text(text), row)
    assert same(c.row_from_text(text + c.format.after), row)
    assert same(c.row_from_text(told + c.format.bos + text), c.add_prefix(row, told))
    # The released critic pairs leave the last end-of-turn token out.
    assert same(c.row_from_text(told + text.removesuffix(c.format.end)), c.add_prefix(row, told))


@pytest.mark.parametrize("kind", KINDS)
def test_an_end_that_was_not_sampled_is_appended_and_not_counted(kind):
    c = chat(kind)
    prompt = c.prompt_ids(dialogue("hi"))
    cut = c.turn_ids(dialogue("hi", "Which currency")).ids[len(prompt) : -1].tolist()
    following = c.continue_ids(prompt + cut, "no")
    assert following == [c.turn_end_id, *c.continue_ids([*prompt, *cut, c.turn_end_id], "no")]
    row = c.row_from_turns(prompt, [(cut, following)])
    assert row.ids.tolist() == c.prompt_ids(dialogue("hi", "Which currency", "no"))
    assert row.turns.tolist() == [0] * len(prompt) + [1] * len(cut) + [0] * len(following)


def test_sampled_ids_that_no_tokenisation_would_give_stay_as_they_are():
    c = chat("llama3")
    letters = [c.tokenizer.convert_tokens_to_ids(letter) for letter in "Which"]
    assert letters != c.tokenizer.encode("Which", add_special_tokens=False)
    output = [*letters, 1]  # ends with <|end_of_text|>, another end id than the template's
    row = c.row_from_turns([0, 9], [(output, c.continue_ids(output, "no"))])
    assert row.ids[2:8].tolist() == output and row.turns[:9].tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 0]
    assert c.reply_text(output) == c.reply_text([*output, 7, 7]) == "Which"
    assert c.decode(output) == "Which<|end_of_text|>"


def test_a_reply_is_encoded_as_the_middle_of_a_text_and_not_as_its_beginning():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
        prepend_scheme="first"
    )  # as Mistral: a blank before the first word
    tokenizer.train_from_iterator([*SENTENCES, "[INST] /"], trainers.BpeTrainer(special_tokens=["<s>", "</s>"]))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.chat_template = INST
    c = Chat(fast)
    so_far = c.turn_ids(dialogue("Which", "ten")).ids.tolist()
    assert so_far + c.continue_ids(so_far, "Round") == c.prompt_ids(dialogue("Which", "ten", "Round"))


def test_a_token_across_the_border_of_header_and_content_belongs_to_the_header():
    c = chat("chatml")
    row = c.turn_ids(dialogue("hi", "\n\nWhich"))
    counted = c.decode(row.ids[row.turns == 1])
    border = int(np.argmax(row.turns == 1))
    assert c.decode(row.ids[border - 1 : border]) == "\n\n"  # the header's newline and the first one of the content
    assert counted == "\nWhich<|im_end|>"


def test_rows_may_be_messages_or_their_json_objects_and_may_end_with_the_human():
    c = chat("words")
    messages = [Message("user", "hi"), Message("assistant", "ho", input="x"), Message("user", "no")]
    row = c.turn_ids(messages)
    assert same(row, c.turn_ids([message.to_json() for message in messages]))
    assert row.ids.tolist() == [0, 1, 5, 3, 2, 6, 3, 1, 8, 3]
    assert row.turns.tolist() == [0, 0, 0, 0, 0, 1, 1, 0, 0, 0]
    assert c.turn_ids(messages[:1]).turns.tolist() == [0, 0, 0, 0]


def test_a_second_begin_of_text_token_is_stripped():
    doubled = byte_level(["<s>", "</s>"], "<s>" + INST, bos_token="<s>", eos_token="</s>")
    messages = dialogue("hi", "ho", "no", "yes")
    assert same(Chat(doubled).turn_ids(messages), chat("inst").turn_ids(messages))
    assert Chat(doubled).prompt_ids(messages[:3]) == chat("inst").prompt_ids(messages[:3])


def test_the_real_llama_3_tokenizer_gives_the_known_ids():
    c = real_chat("SWEET_JAX_LLAMA3_TOKENIZER")
    row = c.turn_ids(dialogue("hi", "hi"))
    header = [128007, 271]
    assert row.ids.tolist() == [128000, 128006, 882, *header, 6151, 128009, 128006, 78191, *header, 6151, 128009]
    assert row.turns.tolist() == [0] * 11 + [1, 1]
    assert c.turn_end_id == 128009 in c.end_ids


@pytest.mark.parametrize("variable", ["SWEET_JAX_SMOLLM2", "SWEET_JAX_LLAMA3_TOKENIZER"])
@settings(deadline=None, max_examples=100)
@given(messages=real_dialogues)
def test_real_tokenizers_count_the_agents_words_and_keep_sampled_pieces(variable, messages):
    c = real_chat(variable)
    whole = c.turn_ids(messages)
    for turn, said in enumerate(messages[1::2], start=1):
        assert c.decode(whole.ids[whole.turns == turn]) == said["content"] + c.format.end
    first = whole.ids[whole.turns == 1].tolist()
    if len(messages) > 2:
        prompt = c.prompt_ids(messages[:1])
        so_far = prompt + first + c.continue_ids(prompt + first, messages[2]["content"])
        assert so_far == c.prompt_ids(messages[:3])
    told = privileged_prefix("def f(x):\n    return x")
    assert same(c.row_from_text(told + c.decode(whole.ids)), c.add_prefix(whole, told))


def test_smollm2_pads_with_its_end_of_turn_token():
    c = real_chat("SWEET_JAX_SMOLLM2")
    assert (c.turn_end_id, c.pad_id, c.end_ids, c.bos_id) == (2, 2, (2,), None)
    assert c.decode(c.prompt_ids(dialogue("hi"))).endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
