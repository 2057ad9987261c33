"""Random chat templates and dialogues: what is counted is what the agent said and its end, or the template is refused.

The oracle is the template itself, rendered with the raw contents, and the dialogue; nothing of `Chat` is used in it.
"""

import functools
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from colbench_env.types import BadInput
from sweet_jax.data.chat import Chat
from tests.sweet_jax.chats import byte_level, dialogue

SPECIAL = ["<s>", "</s>", "<|start|>", "<|stop|>", "<|user|>", "<|agent|>", "<think>"]
OUTCOMES: Counter[str] = Counter()


@functools.cache
def backend():
    return byte_level(SPECIAL, None).backend_tokenizer


@dataclass(frozen=True)
class Style:
    """How a template writes dialogues; `source` is the template."""

    bos: str
    user: str
    agent: str
    end: str
    after: str
    lead: str
    trims: str
    finish: str
    begun: str
    prompt: bool
    system: str
    thoughts: bool
    rewrites: str
    date: bool

    @property
    def joins(self) -> bool:
        """Whether the assistant header ends with a blank."""
        return (self.agent or self.end + self.after)[-1:].isspace()

    @property
    def source(self) -> str:
        said = "m['content'] | trim" if self.trims in ("agent", "both") else "m['content']"
        said = (
            f"(m['content'].split('</think>') | last){' | trim' if 'trim' in said else ''}" if self.thoughts else said
        )
        asked = "m['content'] | trim" if self.trims in ("user", "both") else "m['content']"
        if self.rewrites:
            said = f"({said}) if {self.rewrites} else '...'"
        system = {
            "none": "",
            "refused": "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}",
            "default": "{% if messages[0].role != 'system' %}<|start|>system\nBe kind.<|stop|>{% endif %}",
        }[self.system]
        date = (
            "{{ '' if not strftime_now is defined else '(' + strftime_now('%d %B %Y, %H') + ')' }}" if self.date else ""
        )
        head = "{{ '" + self.agent.replace("\n", "\\n") + "' }}"
        return (
            self.bos + date + system + "{% for m in messages %}{% if m.role == 'assistant' %}" + head + self.lead
            + "{{ " + said + " }}" + self.end + self.after
            + "{% elif m.role == 'user' %}" + self.user + "{{ " + asked + " }}" + self.end + self.after
            + "{% else %}<|start|>system\n{{ m['content'] }}<|stop|>{% endif %}{% endfor %}"
            + "{% if " + ("add_generation_prompt" if self.prompt else "true") + " %}" + head + self.begun
            + "{% else %}" + self.finish + "{% endif %}"
        )  # fmt: skip


styles = st.builds(
    Style,
    bos=st.sampled_from(["", "<s>"]),
    user=st.sampled_from(["<|user|>", "<|start|>user\n", "[user] ", "<s><|user|>", "<|start|>"]),
    agent=st.sampled_from(["<|agent|>", "<|start|>agent\n", "[agent]", "", "<|agent|>\n\n"]),
    end=st.sampled_from([*["<|stop|>", "</s>", " </s>", "<|stop|></s>"] * 3, "."]),
    after=st.sampled_from(["", "\n", " "]),
    lead=st.sampled_from(["", "", " "]),
    trims=st.sampled_from(["", "user", "agent", "both"]),
    finish=st.sampled_from(["", "</s>", "\n"]),
    begun=st.sampled_from(["", "", "<think>\n"]),
    prompt=st.sampled_from([True, True, True, False]),
    system=st.sampled_from(["none", "refused", "default"]),
    thoughts=st.sampled_from([False, False, True]),
    rewrites=st.sampled_from([*[""] * 12, "loop.last", "loop.index > loop.length - 4"]),
    date=st.booleans(),
)
parts = st.sampled_from(
    [*SPECIAL, "</think>", "hi", "Which unit?", " ", "\n", "\n\n", "é漢", "\ud83d", "[agent]", "a", "."]
)
words = st.lists(parts, min_size=1, max_size=5).map("".join)
dialogues = st.lists(words, min_size=2, max_size=6).map(lambda texts: dialogue(*texts[: len(texts) // 2 * 2]))


def whole(text: str) -> str:
    return text.replace("\ud83d", "\ufffd")


@pytest.mark.slow
@settings(deadline=None, max_examples=400, derandomize=True)
@given(style=styles, messages=dialogues)
def test_of_random_templates_exactly_what_the_agent_said_is_counted_or_they_are_refused(style, messages):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend(), bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = style.source
    try:
        chat = Chat(tokenizer)
    except BadInput:
        OUTCOMES["template refused"] += 1
        return
    assert style.end != "." and style.agent != style.user and not style.rewrites

    spoken = [m | {"content": whole(m["content"])} for m in messages]
    said = [m["content"] for m in spoken[1::2]]

    def render(upto: int, prompt: bool) -> str:
        text = tokenizer.apply_chat_template(spoken[:upto], tokenize=False, add_generation_prompt=prompt)
        return text.removeprefix("<s>") if text.startswith("<s><s>") else text

    def dated(text: str) -> str:  # the rest of the date is today's in the oracle
        import datetime

        today = datetime.datetime.now().strftime("(%d %B %Y, %H)")
        return text.replace(today, "(26 July 2024, 00)", 1)

    try:
        row = chat.turn_ids(messages)
    except BadInput as error:
        OUTCOMES["dialogue refused"] += 1
        known = {"does not show message": style.thoughts, "reaches from the assistant header": style.agent[-1:] != ">"}
        assert [holds for sentence, holds in known.items() if sentence in str(error)] == [True], error
        return
    OUTCOMES["read"] += 1
    assert dated(render(len(messages), False)).startswith(chat.decode(row.ids))
    assert row.num_turns == len(said)
    special = [tokenizer.convert_tokens_to_ids(token) for token in SPECIAL if token != "<think>"]
    for turn, words in enumerate(said, start=1):
        (place,) = np.nonzero(row.turns == turn)
        assert place.tolist() == list(range(place[0], place[-1] + 1))
        counted = chat.decode(row.ids[place])
        assert counted.endswith(chat.format.tail)
        said_so, before = counted.removesuffix(chat.format.tail), chat.decode(row.ids[: place[0]])
        prompt = dated(render(2 * turn - 1, True))
        prompts = (prompt, prompt.removesuffix(style.begun))
        if style.joins:  # the tokenizer may join its newline with blanks that follow
            assert said_so.strip() == words.strip()
            assert before.rstrip() in [text.rstrip() for text in prompts]
        else:
            shown = (words, words.strip(), words.lstrip(), words.rstrip())
            assert said_so in [lead + text for lead in ("", style.lead) for text in shown]
            assert before in prompts
        # A special token in the turn is the template's: the end, and nothing that somebody spelled.
        in_tail = [tokenizer.convert_tokens_to_ids(token) for token in SPECIAL if token in chat.format.tail]
        assert Counter(row.ids[place][np.isin(row.ids[place], special)].tolist()) == Counter(in_tail)
    assert (row.turns > 0).sum() == sum((row.turns == turn).sum() for turn in range(1, len(said) + 1))

    prompt = chat.prompt_ids(messages[:1])
    assert chat.decode(prompt) == dated(render(1, True))
    if len(messages) > 2:
        first = row.ids[row.turns == 1].tolist()
        following = chat.continue_ids(prompt + first, messages[2]["content"])
        joined = style.joins and said[0][:1].isspace()  # the turn's first blank may be in the header's last token
        if not style.begun and not style.thoughts and not joined:
            assert chat.decode(prompt + first + following) == chat.decode(chat.prompt_ids(messages[:3]))
            if not style.joins:  # else the header's last token depends on what follows it
                assert prompt + first + following == chat.prompt_ids(messages[:3])
        assert chat.decode(first + following).endswith(dated(render(3, True))[-len(chat.decode(following)) :])
    if any(text.rstrip().endswith(("</s>", "<|stop|>")) for text in said):
        return  # in one string this cannot be told from a turn that was recorded with its end
    try:
        again = chat.row_from_text(dated(render(len(messages), False)))
    except BadInput:
        OUTCOMES["text refused"] += 1
    else:
        OUTCOMES["text read"] += 1
        assert chat.decode(again.ids) == chat.decode(row.ids)
        assert again.turns.tolist() == row.turns.tolist() and again.ids.tolist() == row.ids.tolist()


def test_most_of_the_random_templates_and_texts_were_read():
    if OUTCOMES:
        assert OUTCOMES["read"] >= 200 and OUTCOMES["text read"] > 60, OUTCOMES
