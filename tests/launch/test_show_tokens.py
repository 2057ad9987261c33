"""launch.show --tokens: training rows token by token, in a pipe and in a terminal, with tokenizers of both kinds."""

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import sentencepiece

from launch import show
from launch.common.settings import EMBEDDED_DIRECTORIES
from launch.viewer.token_rows import Pieces
from launch.viewer.training_rows import rows_of_line
from sweet_jax.data.chat import Chat
from tests.launch.show_rows import RANKED, SOLVED, UNGRADED, write

INST = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }}</s>{% endif %}{% endfor %}"
)


def test_tokens_of_stored_rows_are_bracketed_by_turn(in_process, tiny_model, tmp_path):
    ids = write(tmp_path / "rows.jsonl", SOLVED)
    bare = in_process(show.main, f"--tokens={ids}", "--row=1").stdout
    assert "<p ‹0›>‹10›<1 ‹11›|‹5›>‹12›<2 ‹20›|‹5›>" in bare and "no --model was given" in bare
    done = in_process(show.main, f"--tokens={ids}", f"--model={tiny_model}").stdout
    assert "<p <|bos|>>" in done and "turns cut off: none" in done
    ranked = in_process(show.main, f"--tokens={write(tmp_path / 'ranked.jsonl', RANKED)}").stdout
    assert "candidate 1, advantage +0.3000: 4 tokens, 2 counted, prefix 1" in ranked
    assert "log-ratios: -0.900 +0.100" in ranked


@pytest.fixture(scope="module")
def run_of(tmp_path_factory, tiny_model):
    """Makes the folder of a run of that model with a file of turn pairs; the file's path."""

    def make(model, start=False):
        run = tmp_path_factory.mktemp("runs")
        (run / "config.json").write_text(json.dumps({"model": model, "algorithm": "sweet", "preset": "embedded"}))
        if start:
            (run / "start").mkdir()
            (run / "start" / "model").symlink_to(tiny_model)
        tokens = {"ids": [0, 5, 1], "spans": [[1, 1, 3]], "prefix": 1}
        pair = {"chosen": "a", "rejected": "b", "chosen_tokens": tokens, "rejected_tokens": tokens}
        return write(run / "turn-pairs" / "pairs.jsonl", pair)

    return make


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["embedded", "embedded-frontend", "scratch", "directory"])
def test_a_file_in_the_folder_of_a_run_is_read_with_the_model_of_that_run(in_process, run_of, tiny_model, kind):
    path = run_of(str(tiny_model) if kind == "directory" else kind, start=kind == "scratch")
    directory = EMBEDDED_DIRECTORIES.get(kind, tiny_model)
    first = Pieces(Chat.load(directory)).text(0)
    done = in_process(show.main, "--tokens", str(path), "--row=1")
    assert done.status == 0, done.stderr
    assert f"<p {first}>" in done.stdout and "‹" not in done.stdout and "not known" not in done.stdout
    named = in_process(show.main, f"--tokens={path}", f"--model={kind if kind.startswith('emb') else directory}")
    assert named.stdout == done.stdout


def test_where_the_model_of_the_run_cannot_be_found_numbers_stand_and_a_sentence_says_why(in_process, run_of, tmp_path):
    gone, scratch = run_of("models/gone"), run_of("scratch")
    lone = write(tmp_path / "models" / "rows.jsonl", SOLVED)
    (tmp_path / "models" / "config.json").write_text('{"model_type": "llama"}')  # of a model, not of a run
    for path, why in (
        (
            gone,
            f"{gone.parents[1]}/config.json: the run's model models/gone is no directory here; --model=DIR names one",
        ),
        (
            scratch,
            f"{scratch.parents[1]}/config.json: the run's model scratch is no directory here; --model=DIR names one",
        ),
        (lone, f"no --model was given, and {lone} is in no folder of launch.train"),
    ):
        done = in_process(show.main, f"--tokens={path}")
        assert done.status == 0 and "‹5›" in done.stdout
        assert f"The texts of the tokens are not known: {why}\n" in done.stdout


def test_the_page_and_the_terminal_find_the_model_of_the_run_as_well(in_process, run_of):
    rows = write(run_of("embedded").parents[1] / "evaluation" / "trained.jsonl", SOLVED)
    done = in_process(show.main, f"--trajectories={rows}", "--terminal")
    assert done.status == 0 and "‹0›" not in done.stdout and "turns cut off: none" in done.stdout


def test_tokens_of_rows_with_text_only_are_made_with_a_tokenizer(in_process, tiny_model, tmp_path):
    dialogue = "<|bos|><|user|>hi<|end|><|assistant|>yes<|end|><|user|>so<|end|><|assistant|>no"
    path = write(tmp_path / "pairs.jsonl", {"chosen": f"Privileged.{dialogue}", "rejected": dialogue})
    refused = in_process(show.main, f"--tokens={path}").refuses()
    assert refused.startswith(f"error: {path}:1: the row has text only, expected --model=DIR")
    every = in_process(show.main, f"--tokens={path}", f"--model={tiny_model}").stdout
    assert "counted per turn 1: " in every and "2: " in every and "<2 " in every and "<p <|bos|>|P" in every
    last = in_process(show.main, f"--tokens={path}", f"--model={tiny_model}", "--counted=last").stdout
    assert "<1 " in last and "<2 " not in last
    text = write(tmp_path / "rows.jsonl", UNGRADED)
    assert "<2 " in in_process(show.main, f"--tokens={text}", f"--model={tiny_model}").stdout


def test_candidates_with_text_only_become_rows_in_which_the_candidate_counts(tiny_model, tmp_path):
    chat, prompt = Chat.load(tiny_model), "<|bos|><|user|>hi<|end|><|assistant|>"
    ours = ("trajectory", "turn", "prompt_ids", "output_ids", "prefix_length", "token_log_ratios", "older")
    released = {key: value for key, value in RANKED.items() if key not in ours} | {"input": prompt}
    rows = rows_of_line(write(tmp_path / "ranked.jsonl", released), 1, chat, False)
    assert [shown.title for shown in rows][:2] == ["candidate 0, advantage -0.4000", "candidate 1, advantage +0.3000"]
    assert [chat.decode(shown.row.ids[shown.row.turns == 1]) for shown in rows] == [
        "worst<|end|>", "best<|end|>", "middle<|end|>",
    ]  # fmt: skip
    assert chat.decode(rows[0].row.ids[rows[0].row.turns == 0]) == prompt


@pytest.fixture(scope="module", params=[True, False], ids=["legacy", "new"])
def sentences(request, tmp_path_factory):
    """A directory with a sentencepiece model, in which a piece has its blank in front of it, as a marker."""
    folder, written = tmp_path_factory.mktemp("sentencepiece"), io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["[INST] Which unit is it? [/INST] The unit is one day."]), model_writer=written,
        vocab_size=300, model_type="bpe", byte_fallback=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, minloglevel=2,
    )  # fmt: skip
    (folder / "tokenizer.model").write_bytes(written.getvalue())
    settings = {
        "tokenizer_class": "LlamaTokenizer", "legacy": request.param, "chat_template": INST,
        "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_pieces_of_sentencepiece_keep_their_blanks_and_parts_of_a_character_are_numbers(sentences):
    chat = Chat.load(sentences)
    row = chat.turn_ids([{"role": "user", "content": "Which  unit?"}, {"role": "assistant", "content": "one\n day 漢"}])
    texts = [Pieces(chat).text(token) for token in row.ids.tolist()]
    parts = [f"‹{chat.tokenizer.convert_tokens_to_ids(name)}›" for name in ("<0xE6>", "<0xBC>", "<0xA2>")]
    said = "".join(texts).replace("<s> [INST]", "<s>[INST]")  # the older form puts a blank behind special tokens
    assert said == "<s>[INST] Which  unit? [/INST] one\n day " + "".join(parts) + "</s>"


def test_a_text_pair_of_a_sentencepiece_model_is_bracketed_like_any_other(in_process, sentences, tmp_path):
    text = "<s>[INST] Which unit? [/INST] one day</s>"
    path = write(tmp_path / "pairs.jsonl", {"chosen": text, "rejected": text})
    done = in_process(show.main, f"--tokens={path}", f"--model={sentences}")
    assert done.status == 0, done.stderr
    counted = done.stdout.splitlines()[3].partition("<1 ")[2]
    assert counted.replace("|", "").strip() == "one day</s>>" and "Which unit? [/INST]<1 " in done.stdout


@pytest.fixture(scope="module")
def in_terminal(tmp_path_factory):
    """Runs launch.show on a file in a pseudo-terminal of many colours, gives what it wrote."""
    path = write(tmp_path_factory.mktemp("rows") / "rows.jsonl", SOLVED)

    def run(*flags, **environment):
        ours, theirs = pty.openpty()
        kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
        done = subprocess.Popen(
            [sys.executable, "-m", "launch.show", *(flag.format(path) for flag in flags)],
            cwd=Path(__file__).parents[2], stdout=theirs, stderr=subprocess.PIPE,
            env={**kept, "TERM": "xterm-256color", "COLUMNS": "100", **environment},
        )  # fmt: skip
        os.close(theirs)
        written = b""
        try:
            while part := os.read(ours, 65536):
                written += part
        except OSError:  # Linux ends a terminal that nobody writes to any more so
            pass
        os.close(ours)
        assert done.wait() == 0, done.stderr.read()
        done.stderr.close()
        return written.decode()

    return run


@pytest.mark.slow
def test_a_terminal_has_colours_by_turn_and_none_under_no_color(in_terminal):
    coloured = in_terminal("--tokens={}")
    assert "\x1b[30;48;5;178m‹0›" in coloured  # the prefix
    assert "\x1b[30;48;5;74m‹11›" in coloured and "\x1b[30;48;5;117m‹5›" in coloured  # turn 1, its two shades
    plain = in_terminal("--trajectories={}", "--terminal", NO_COLOR="1")
    assert "\x1b" not in plain and "<p ‹0›>‹10›<1 ‹11›|‹5›>" in plain
