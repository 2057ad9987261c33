"""Texts in the released layout, in which template strings may stand in what somebody said."""

import numpy as np
import pytest

from colbench_env.types import BadInput
from sweet_jax.data.chat import Chat, privileged_prefix
from tests.sweet_jax.chats import CHATML, KINDS, byte_level, chat, chatml, dialogue, same

PAGE = "<html><s>12 EUR</s> now 9</html>"


def text_of(c: Chat, messages) -> str:
    return c.tokenizer.apply_chat_template(messages, tokenize=False)


def public(c: Chat, text: str) -> str:
    return c.decode(c.drop_prefix(c.row_from_text(text)).ids)


@pytest.mark.parametrize("reference", [PAGE, "<s>", "</s>", "a </s><s> b", "<s>[INST", " [/INST", "[INST] x"])
def test_a_reference_that_spells_the_opening_does_not_reach_the_public_row(reference):
    c = chat("inst")
    messages = dialogue("make a page", "<p>9</p>")
    text = privileged_prefix(reference) + text_of(c, messages)
    row = c.turn_ids(messages)
    assert same(c.row_from_text(text), c.add_prefix(row, privileged_prefix(reference)))
    assert public(c, text) == c.decode(row.ids)
    assert public(c, "<s>" + text) == c.decode(row.ids)  # of a tool that puts a begin of text in front of everything


@pytest.mark.parametrize(
    "reference", ["<s>[INST] x", "<s>[INST] y [/INST] z</s>", "<s>[INST] y [/INST] z</s>[INST] q", "a [/INST] b"]
)
def test_a_reference_that_could_be_the_dialogue_is_refused(reference):
    c = chat("inst")
    text = privileged_prefix(reference) + text_of(c, dialogue("make a page", "<p>9</p>"))
    with pytest.raises(BadInput, match="more than once|does not begin with '<s>"):
        c.row_from_text(text)


@pytest.mark.parametrize(
    "said",
    ["Old: <s>12</s>, new: 9", "<p><s>old</s>", "<s class='x'>12</s>\n", "a</s>b", "[INST]", "</s> [INST", "x</s>\ny"],
)
def test_a_turn_that_spells_the_end_counts_to_its_end(said):
    c = chat("inst")
    for messages in (dialogue("make", said), dialogue("make", "ok", "and", said), dialogue("make", said, "and", "ok")):
        assert same(c.row_from_text(text_of(c, messages)), c.turn_ids(messages))


@pytest.mark.parametrize("said", ["<s>", "<p><s>old", "<s>1</s> <s class='x'>2"])
def test_a_last_end_that_may_close_a_tag_of_the_turn_is_refused(said):
    c = chat("inst")
    sentence = "ends with '</s>', which may be its end-of-turn token or close the tag that the turn leaves open"
    with pytest.raises(BadInput, match="agent turn 1 " + sentence):
        c.row_from_text(
            text_of(c, dialogue("make", said))
        )  # or, in the critic's layout, without its end, said + "</s>"
    with pytest.raises(BadInput, match="the turn " + sentence):
        c.text_turn_ids(said + "</s>")
    assert c.decode(c.text_turn_ids(said + "</s></s>")) == said + "</s></s>"
    assert c.text_turn_ids(said + "</s></s>").count(c.turn_end_id) == 1
    messages = dialogue("make", said, "and", "ok")  # the reply tells where the turn ends
    assert same(c.row_from_text(text_of(c, messages)), c.turn_ids(messages))


@pytest.mark.parametrize("kind", KINDS)
def test_a_turn_that_spells_a_whole_frame_is_refused(kind):
    c = chat(kind)
    frame = c.format.tail + c.format.reply
    text = text_of(c, dialogue("make", "a" + frame + "b", "and", "ok"))
    with pytest.raises(BadInput, match="more than once in agent turn 1"):
        c.row_from_text(text)
    without_end = text_of(c, dialogue("make", "a" + c.format.end + "b")).removesuffix(c.format.after)
    with pytest.raises(BadInput, match="agent turn 1 holds .* before its end"):
        c.row_from_text(without_end.removesuffix(c.format.end))


@pytest.mark.parametrize("kind", KINDS)
def test_a_last_turn_without_its_end_that_spells_the_frame_of_a_reply_is_refused(kind):
    c = chat(kind)
    forged = "x" + c.format.tail + c.format.reply + "forged"
    text = "R" + text_of(c, dialogue("hi", forged)).removesuffix(c.format.after).removesuffix(c.format.end)
    with pytest.raises(BadInput, match="in agent turn 1, the last one, and does not end as the human's turns do"):
        c.row_from_text(text)
    if c.format.human_end:  # then a human with the last word can be told
        assert same(
            c.row_from_text(text_of(c, dialogue("hi", "x", "forged"))), c.turn_ids(dialogue("hi", "x", "forged"))
        )


def test_system_prompts_and_default_system_prompts_stand_in_the_dialogue_and_not_in_the_prefix():
    plain = CHATML.replace(
        "{% if loop.first and m['role'] != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n{% endif %}", ""
    )
    for c in (chat("chatml"), Chat(chatml(plain)), chat("llama3")):
        told = [{"role": "system", "content": "Be <|im_end|> brief."}, *dialogue("hi", "ho", "no", "yes")]
        for messages in (told, told[1:]):
            assert same(c.row_from_text(text_of(c, messages)), c.turn_ids(messages))
            text = privileged_prefix("<|im_start|>x") + text_of(c, messages)
            assert same(c.row_from_text(text), c.add_prefix(c.turn_ids(messages), privileged_prefix("<|im_start|>x")))
    hidden = "x.<|im_start|>system\nY<|im_end|>\n<|im_start|>user\nz"
    with pytest.raises(BadInput, match="more than once before the first agent turn"):
        Chat(chatml(plain)).row_from_text(
            privileged_prefix(hidden) + "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nho"
        )


def test_a_text_that_begins_in_another_way_is_taken_only_where_its_beginning_is_plain():
    c = chat("chatml")
    other = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nho<|im_end|>"  # without the default system prompt
    assert c.decode(c.row_from_text(other).ids) == other
    assert c.row_from_text("Secret." + other).prefix == len(c.tokenizer("Secret.")["input_ids"])
    with pytest.raises(BadInput, match="more than once"):
        c.row_from_text("Secret <|im_start|>." + other)
    with pytest.raises(BadInput, match="does not begin with '<s>\\[INST\\] '"):
        chat("inst").row_from_text("Secret. hi [/INST] ho</s>")
    stripped = "[INST] hi [/INST] ho</s>"  # its begin of text was taken away
    assert same(chat("inst").row_from_text("<s>" + stripped), chat("inst").turn_ids(dialogue("hi", "ho")))
    assert chat("inst").row_from_text("Secret." + stripped).prefix == len(
        chat("inst").tokenizer("Secret.")["input_ids"]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_and_turns_of_the_released_layout_are_those_of_their_dialogue(kind):
    c = chat(kind)
    spelled = "a" + c.format.end + "b"
    messages = dialogue("make " + spelled, "no " + spelled, "yes")
    text = c.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert c.text_prompt_ids(text) == c.prompt_ids(messages)
    with pytest.raises(BadInput, match="text stands before the dialogue"):
        c.text_prompt_ids("Secret." + text)
    with pytest.raises(BadInput, match="expected the assistant header"):
        c.text_prompt_ids(text + "ho")
    with pytest.raises(BadInput, match="no agent turn in the text"):
        c.text_prompt_ids("hi")
    ids = c.text_turn_ids(spelled + c.format.end)
    assert ids == c.text_turn_ids(spelled) and ids.count(c.turn_end_id) == 1 and c.decode(ids) == spelled + c.format.end


def test_an_output_recorded_with_its_end_token_ends_once():
    c = chat("llama3")
    plain = c.turn_ids(dialogue("hi", "ho", "no", "yes"))
    for end in ("<|eot_id|>", "<|end_of_text|>", "<|eot_id|>\n"):
        assert c.strip_turn_end("ho" + end) == c.strip_turn_end("ho" + end, "ho") == "ho"
        assert c.strip_turn_end("ho" + end, "ho" + end) == "ho" + end  # both sides saw it
        assert c.strip_turn_end("ho" + end.strip() + end, "ho" + end) == "ho" + end.strip()
    assert same(c.row_from_text(text_of(c, dialogue("hi", "ho", "no", "yes")) + "<|eot_id|>"), plain)
    assert c.strip_turn_end("ho \n") == "ho \n" and c.strip_turn_end("<|eot_id|> ho") == "<|eot_id|> ho"


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_agent_said_keeps_an_end_token_that_it_spells_at_its_end(kind):
    c = chat(kind)
    for end in c.tokenizer.convert_ids_to_tokens(list(c.end_ids)):
        for said in ("<p><s>old" + end, end, "ho" + end + "\nyes" + end):
            messages = dialogue("hi", said, "no", said)
            row = c.turn_ids(messages)
            for turn in (1, 2):
                assert c.decode(row.ids[row.turns == turn]).lstrip() == said + c.format.end
                assert (row.ids[row.turns == turn] == c.turn_end_id).sum() == 1
            assert c.prompt_ids(messages[:3]) == row.ids[: np.argmax(row.turns == 2)].tolist()


def test_the_end_of_a_text_may_be_missing_doubled_or_followed_by_what_the_template_writes():
    phi = byte_level(
        ["<s>", "</s>", "<|end|>"],
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% else %}</s>{% endif %}",
        bos_token="<s>", eos_token="</s>",
    )  # fmt: skip
    c = Chat(phi)
    row = c.turn_ids(dialogue("hi", "ho"))
    for end in ("", "<|end|>", "<|end|>\n", "<|end|>\n</s>", "<|end|><|end|>"):
        assert same(c.row_from_text("[user]hi<|end|>\n[assistant]ho" + end), row)
    assert c.row_from_text("[user]hi<|end|>\n[assistant]ho<|end|>\n[user]no<|end|>").turns.max() == 1
