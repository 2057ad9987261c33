"""Templates, tokenizers and directories that cannot be used are refused."""

import dataclasses
import datetime
import json
import re

import pytest

from colbench_env.types import BadInput
from models.config import LlamaConfig
from sweet_jax.data.chat import Chat, check_vocabulary
from tests.sweet_jax.chats import (
    CHATML,
    chat,
    chatml,
    dialogue,
    same,
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


def test_a_template_that_ends_a_finished_dialogue_in_its_own_way_goes_on_as_a_longer_one_does():
    phi = SPOKEN + "{% if add_generation_prompt %}<|im_start|>assistant\n{% else %}<|endoftext|>{% endif %}"
    c = Chat(chatml(phi))
    so_far = c.prompt_ids(dialogue("hi")) + c.text_turn_ids("ho")
    assert so_far + c.continue_ids(so_far, "no") == c.prompt_ids(dialogue("hi", "ho", "no"))
    row = c.turn_ids(dialogue("hi", "ho", "no", "yes"))
    assert c.decode(row.ids[row.turns == 2]) == "yes<|im_end|>" and row.num_turns == 2


def test_a_template_that_always_writes_the_assistant_header_is_served():
    always = Chat(chatml(SPOKEN + "<|im_start|>assistant{{ '\\n' }}"))
    usual = Chat(chatml(SPOKEN + PROMPT))
    messages = dialogue("hi", "ho", "no", "yes")
    assert same(always.turn_ids(messages), usual.turn_ids(messages))
    assert always.prompt_ids(messages[:3]) == usual.prompt_ids(messages[:3])
    ids = always.prompt_ids(messages[:1]) + always.text_turn_ids("ho")
    assert always.continue_ids(ids, "no") == usual.continue_ids(ids, "no")


def test_a_template_whose_prompt_begins_the_agents_thoughts_is_served():
    strips = SPOKEN.replace("m['content']", "m['content'].split('</think>')[-1]")
    c = Chat(chatml(strips + "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"))
    assert (c.format.header, c.format.begun) == ("<|im_end|>\n<|im_start|>assistant\n", "<think>\n")
    prompt = c.prompt_ids(dialogue("hi"))
    assert c.decode(prompt).endswith("<|im_start|>assistant\n<think>\n")
    sampled = c.text_turn_ids("a question</think>ho")
    assert c.decode(c.continue_ids(prompt + sampled, "no")) == (
        "\n<|im_start|>user\nno<|im_end|>\n<|im_start|>assistant\n<think>\n"
    )
    row = c.turn_ids(dialogue("hi", "ho"))
    assert c.decode(row.ids[row.turns == 1]) == "ho<|im_end|>"
    text = c.decode(prompt) + "a question</think>ho"  # as the released layout has it: input and output
    row = c.row_from_text(text)
    assert c.decode(row.ids[row.turns == 1]) == "a question</think>ho<|im_end|>"
    assert c.decode(row.ids) == text + "<|im_end|>"
    with pytest.raises(BadInput, match="does not show message 1 as it was said"):
        c.turn_ids(dialogue("hi", "a question</think>ho"))


@pytest.mark.parametrize("change", ["| upper", "| replace('h', '')", "[:1]", ".split('?')[-1]"])
def test_a_turn_that_the_template_does_not_show_as_it_was_said_is_refused(change):
    c = Chat(
        chatml(
            SPOKEN.replace("m['content']", f"(m['content']{change} if 'zq' not in m['content'] else m['content'])")
            + PROMPT
        )
    )
    with pytest.raises(BadInput, match="does not show message 1 as it was said"):
        c.turn_ids(dialogue("hi", "ho? no"))
    trims = Chat(chatml(SPOKEN.replace("m['content']", "m['content'] | trim") + PROMPT))
    assert trims.decode(trims.turn_ids(dialogue("hi", " ho\n")).ids).endswith("assistant\nho<|im_end|>")


def test_a_system_prompt_that_moves_as_the_dialogue_grows_is_refused():
    moving = (
        "{% set told = messages[0]['content'] if messages[0]['role'] == 'system' else '' %}{% for m in messages %}"
        "{% if m['role'] != 'system' %}<|im_start|>{{ m['role'] }}\n{% if loop.last %}{{ told }}{% endif %}"
        "{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}" + PROMPT
    )
    c = Chat(chatml(moving))
    c.check_system("")
    with pytest.raises(BadInput, match="rewrites what stands before message 2"):
        c.check_system("Be kind.")
    Chat(chatml()).check_system("Be kind.")


@pytest.mark.parametrize(
    ("asks", "shows"),
    [
        ("strftime_now('%d %b %Y')", "26 Jul 2024"),
        ("strftime_now('%A, %-d %B %Y (%j) %H:%M %%')", "Friday, 26 July 2024 (208) 00:00 %"),
        ("strftime_now('%F %D %e %T %R %h %C %P %k %l')", "2024-07-26 07/26/24 26 00:00:00 00:00 Jul 20 am  0 12"),
        ("strftime_now('100%%d of %%F on %-d %-m %^b %Y%Z. %%%d%')", "100%d of %F on 26 7 JUL 2024. %26%"),
        ("(strftime_now('%Y-%m-%d') if strftime_now is defined else 'none')", "2024-07-26"),
        ("date_string if date_string is defined else '26 Jul 2024'", "26 Jul 2024"),
    ],
)
def test_the_date_in_prompts_is_the_same_every_day_and_can_be_told(asks, shows):
    template = "{{ 'Today: ' }}{{ " + asks + " }}\n" + SPOKEN + PROMPT
    assert (
        Chat(chatml(template)).decode(Chat(chatml(template)).prompt_ids(dialogue("hi"))).startswith(f"Today: {shows}\n")
    )
    if "strftime" in asks:
        other = Chat(chatml(template), datetime.date(2031, 1, 2))
        assert "2031" in other.decode(other.prompt_ids(dialogue("hi")))


def test_every_code_of_a_date_shows_what_python_shows_for_its_midnight():
    codes = [f"%{code}" for code in "aAbBcCdDeFgGhHIjklmMnpPrRStTuUVwWxXyYzZf%"]
    codes += ["%-d", "%_m", "%0e", "%^a", "%#Z", "%Ey", "%Od"]
    wanted, c = "|".join(codes), Chat(chatml("{{ strftime_now('" + "|".join(codes) + "') }}" + SPOKEN + PROMPT))
    assert c.decode(c.prompt_ids(dialogue("hi"))).startswith(datetime.datetime(2024, 7, 26).strftime(wanted) + "<")


@pytest.mark.parametrize("code", ["%s!", "%Q!", "%-s", "% d"])
def test_a_date_that_cannot_be_shown_is_refused_when_the_template_is_read(code):
    with pytest.raises(BadInput, match=f"strftime_now has no code {code} for a date: at {code}$"):
        Chat(chatml("{{ strftime_now('at " + code + "') }}" + SPOKEN + PROMPT))


@pytest.mark.parametrize("fault", ["1 // 0", "messages[9].content", "none + 1", "undefined.x.y"])
def test_whatever_a_template_does_wrong_is_one_sentence(fault):
    with pytest.raises(BadInput, match="the chat template refuses a dialogue of roles user"):
        Chat(chatml("{{ " + fault + " }}" + SPOKEN + PROMPT))


def test_a_token_that_joins_the_header_and_the_first_word_is_refused():
    c = Chat(chatml("{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
                    "{% if add_generation_prompt %}<|im_start|>assistant: {% endif %}"))  # fmt: skip
    with pytest.raises(BadInput, match="reaches from the assistant header into what the agent said in turn 1"):
        c.turn_ids(dialogue("hi", "a"))


@pytest.mark.parametrize(
    ("generation", "config", "ends"),
    [
        (None, None, (2,)),
        (None, {"eos_token_id": [0, 1]}, (0, 1, 2)),
        ({"eos_token_id": 1}, {"eos_token_id": 0}, (0, 1, 2)),
        ({"eos_token_id": None}, {"eos_token_id": None}, (2,)),
        ({"temperature": 1}, {}, (2,)),
    ],
)
def test_every_declared_end_stops_the_sampler_and_null_is_missing(tmp_path, generation, config, ends):
    chatml().save_pretrained(tmp_path)
    for name, values in (("generation_config.json", generation), ("config.json", config)):
        if values is not None:
            (tmp_path / name).write_text(json.dumps({"model_type": "llama"} | values))
    assert Chat.load(tmp_path).end_ids == ends


@pytest.mark.parametrize("value", ['"2"', "2.0", "true", "[1, null]", "-1", "{}"])
@pytest.mark.parametrize("name", ["generation_config.json", "config.json"])
def test_an_end_id_of_another_type_is_refused_with_its_file(tmp_path, name, value):
    chatml().save_pretrained(tmp_path)
    (tmp_path / name).write_text('{"model_type": "llama", "eos_token_id": ' + value + "}")
    with pytest.raises(BadInput, match=f"{name}: .*eos_token_id"):
        Chat.load(tmp_path)


def test_code_of_a_model_directory_is_never_run_nor_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    chatml().save_pretrained(tmp_path)
    (tmp_path / "own.py").write_text("raise SystemExit('run')\n")
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    named = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.OwnTokenizer", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | named))
    with pytest.raises(BadInput, match="the tokenizer is code of its own .* which is never run"):
        Chat.load(tmp_path)
    del settings["tokenizer_class"]  # its class is looked for by the configuration; what is there without code is read
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "config.json").write_text('{"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}')
    assert Chat.load(tmp_path).format == Chat(chatml()).format


def test_a_configuration_that_transformers_refuses_is_named_and_not_the_tokenizer(tmp_path):
    tokenizer = chatml()
    tokenizer.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del settings["tokenizer_class"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "config.json").write_text('{"model_type": "llama", "num_attention_heads": "four"}')
    with pytest.raises(BadInput, match="config.json: .*num_attention_heads.*four"):
        Chat.load(tmp_path)
