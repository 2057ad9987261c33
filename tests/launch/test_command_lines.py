"""A few random command lines of every command (see `fuzz_command_lines`), and what all commands have in common."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from colbench_env.types import BadInput
from launch import convert, data, evaluate, plan, rank, rollout, serve, show, train
from launch.common import cli
from launch.common.flags import flags_of
from launch.data_tools.config import CheckConfig
from launch.evaluation.config import EvaluateConfig
from launch.export.config import ConvertConfig
from launch.ranking.config import RankConfig
from launch.rollouts.config import RolloutConfig
from launch.serving.config import ServeConfig
from launch.training.config import TrainConfig
from launch.training.presets import PRESETS
from launch.viewer.config import ShowConfig
from tests.launch.evaluate_rows import three_tasks
from tests.launch.fuzz_command_lines import CONFIGS, fuzz

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "train": train, "rollout": rollout, "evaluate": evaluate, "rank": rank, "convert": convert, "serve": serve,
    "show": show, "plan": plan, "data": data,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_no_command_line_ends_in_a_traceback(name):
    for found in fuzz(name, 8, seed=1):
        assert found.status in (0, 1, 2), found
        assert "Traceback" not in found.said, found


# --- usage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["evaluate", "rank", "convert", "show", "data"])
def test_a_command_without_what_it_needs_prints_its_usage_and_ends_with_status_2(in_process, name):
    ended = in_process(COMMANDS[name].main)
    assert (ended.status, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"usage: python -m launch.{name} ")
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("arguments", [("nope",), ("", "rows.jsonl"), ("--file=rows.jsonl",)])
def test_an_unknown_subcommand_prints_the_usage_and_the_known_ones(in_process, arguments):
    ended = in_process(data.main, *arguments)
    assert ended.refuses().endswith("expected one of check, convert, assets")
    assert ended.stderr.startswith("usage: python -m launch.data COMMAND ")


@pytest.mark.parametrize("name", [*(name for name in COMMANDS if name != "data"), "data check", "data assets"])
def test_usage_names_the_command_that_people_type(in_process, name):
    module, *sub = name.split()
    helped = in_process(COMMANDS[module].main, *sub, "--help")
    assert (helped.status, helped.stderr) == (0, "")
    assert helped.stdout.startswith(f"usage: python -m launch.{name} [-h] ")
    mistaken = in_process(COMMANDS[module].main, *sub, "--no-such-flag=1")
    assert mistaken.status == 2
    for said in (helped.stdout, mistaken.stderr):
        assert f"python -m launch.{name}" in said and str(ROOT / "launch") not in said


# --- values ----------------------------------------------------------------------------------------------------------


HUMAN = ("--human=openai", "--human-model=m")
AGENT = ("--agent-url=http://a/v1", "--agent-model=m")


def parsed(kind, *flags):
    return cli.parse_plain(kind, list(flags), "launch.command")


def test_flags_are_named_as_people_type_them():
    names = dict(flags_of(TrainConfig()))
    assert {"--critic.max-grad-norm", "--human-temperature", "--rollouts.top-p", "--run-dir"} <= names.keys()
    assert dict(flags_of(parsed(ConvertConfig, "--from=a", "--to=b")))["--from"] == Path("a")


@pytest.mark.parametrize(
    ("kind", "flags", "sentence"),
    [
        (RolloutConfig, ["--temperature=nan"], "temperature is nan, it must be finite and not negative"),
        (RolloutConfig, ["--temperature=-0.5"], "temperature is -0.5, it must be finite and not negative"),
        (RolloutConfig, ["--top-p=0"], "top_k is 0 and top_p 0.0: at least 0 (off), and above 0 and at most 1 (off)"),
        (RolloutConfig, ["--top-k=-1"], "top_k is -1 and top_p 1.0: at least 0 (off), and above 0 and at most 1 (off)"),
        (RolloutConfig, ["--human-temperature=inf"], "human_temperature is inf, it must be finite and not negative"),
        (RolloutConfig, ["--agent-timeout=inf"], "--agent-timeout is inf, it must be a finite number"),
        (RolloutConfig, ["--max-turns=-1"], "max_turns is -1, it must be at least 0"),
        (RolloutConfig, ["--seed=-1"], "--seed is -1, it must not be negative"),
        (RolloutConfig, ["--num-tasks=9999999999"], "--num-tasks is 1e+10, it must be at most 2147483647"),
        (RolloutConfig, [f"--seed=1{'0' * 400}"], "--seed is beyond 1e+300, it must be at most 2147483647"),
        (RolloutConfig, [f"--agent-body={'[' * 200_000}", *AGENT], "--agent-body=[[["),
        (RolloutConfig, ['--agent-body={"a": NaN}', *AGENT], '--agent-body={"a": NaN}: not JSON: NaN is no number'),
        (TrainConfig, ["--human-body={", *HUMAN], "--human-body={: not JSON"),
        (TrainConfig, ["--human-omit=foo", *HUMAN], "--human-omit: 'foo' cannot be left out"),
        (TrainConfig, ["--human-template=[", *HUMAN], "--human-template=[: not JSON"),
        (RolloutConfig, ["--output="], "--output is empty, expected a path"),
        (RolloutConfig, ["--tasks", ""], "--tasks is empty, expected a path"),
        (EvaluateConfig, ["--trajectories=x", "--json="], "--json is empty, expected a path"),
        (EvaluateConfig, ["--trajectories=x", "--fail-under=nan"], "--fail-under=nan is no share, expected 0 to 1"),
        (ConvertConfig, ["--from=", "--to=b"], "--from is empty, expected a path"),
        (ServeConfig, ["--host=\udcff"], "--host=\udcff: the bytes are no UTF-8"),
        (ShowConfig, ["--run_dir=", "--terminal"], "--run-dir is empty, expected a path"),
        (CheckConfig, ["x", "--workers=0"], "workers is 0, it must be at least 1"),
        (RankConfig, ["--critic=a", "--output=b", "--candidates=c", "--samples=1"], "samples is 1, it must be at leas"),
    ],
)  # fmt: skip
def test_values_that_make_no_sense_are_one_sentence(capsys, kind, flags, sentence):
    with pytest.raises(BadInput) as refused:
        parsed(kind, *flags)
    assert str(refused.value).startswith(sentence)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("--critic.beta=nan", "critic.beta is nan, critic.nll_coef 0.01 and critic.label_smoothing 0.0: above 0, "),
        ("--policy.label-smoothing=0.5", "policy.beta is 0.1, policy.nll_coef 0.01 and policy.label_smoothing 0.5: "),
        ("--critic.max-grad-norm=inf", "--critic.max-grad-norm is inf, it must be a finite number"),
        ("--policy.batch-size=0", "policy.batch_size is 0, it must be at least 1"),
        ("--rollouts.temperature=-1", "rollouts.temperature is -1.0, it must be finite and not negative"),
        ("--evaluation.temperature=nan", "evaluation.temperature is nan, it must be finite and not negative"),
        ("--rollouts.samples=0", "rollouts.samples is 0, it must be at least 1"),
        ("--ranking.num-pairs=0", "ranking.num_pairs is 0, it must be at least 1"),
        ("--lora.alpha=nan", "lora.rank is 0 and lora.alpha nan: at least 0, and above 0"),
        ("--grader-workers=0", "num_tasks is 800 and grader_workers 0: at least 0 (all), and at least 1"),
        ("--run-dir=", "--run-dir is empty, expected a path"),
    ],
)
def test_values_of_stages_that_make_no_sense_are_one_sentence(flag, sentence):
    with pytest.raises(BadInput) as refused:
        cli.parse(TrainConfig, [flag], PRESETS, "embedded")
    assert str(refused.value).startswith(sentence)


@pytest.mark.parametrize(
    ("mesh", "sentence"),
    [
        ("0x0", "mesh 0x0: every axis must be at least 1"),
        ("-1x2", "mesh '-1x2' cannot be read, expected DATAxTENSOR (4x2) or data:4,tensor:2"),
        ("9" * 5000, f"mesh '{'9' * 5000}' cannot be read, expected DATAxTENSOR (4x2) or data:4,tensor:2"),
        ("٣x1", "mesh '٣x1' cannot be read, expected DATAxTENSOR (4x2) or data:4,tensor:2"),
    ],
)
def test_absurd_meshes_are_one_sentence(start, tmp_path, mesh, sentence):
    assert start(f"--mesh={mesh}", f"--run-dir={tmp_path / 'run'}").refuses() == f"error: {sentence}"


def test_no_machine_emulates_any_number_of_devices(start, tmp_path):
    flags = ("--mesh=65536x1", "--stage=tasks", f"--run-dir={tmp_path / 'run'}")
    assert start(*flags).refuses().startswith("error: mesh 65536x1 needs 65536 devices, this machine has ")


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("--tasks=/nope", "/nope: cannot read the file: No such file or directory"),
        ("--tasks=/", "/: cannot read the file: Is a directory"),
        ("--tasks=/dev/zero", "/dev/zero: is a device, expected a file"),
        ("--eval-tasks=/nope", "/nope: cannot read the file: No such file or directory"),
        ("--trajectories=/nope", "/nope: cannot read the file: No such file or directory"),
        ("--turn-pairs=/nope", "/nope: cannot read the file: No such file or directory"),
        ("--candidates=/nope", "/nope: cannot read the file: No such file or directory"),
        ("--model=/nope", "/nope: no such model directory"),
        ("--agent-prompt=/nope", "--agent-prompt=/nope: no such file, and none of "),
        ("--design.clip=/nope", "--design.clip=/nope: no such directory"),
    ],
)
def test_files_that_are_not_there_are_told_before_anything_is_written(start, tmp_path, flag, reason):
    assert start(flag, f"--run-dir={tmp_path / 'run'}").refuses().startswith(f"error: {reason}")
    assert not (tmp_path / "run").exists()


def test_a_device_is_no_file_of_rows_whoever_reads_it(in_process):
    for main, flags in ((evaluate.main, []), (show.main, ["--terminal"])):
        refused = in_process(main, "--trajectories=/dev/zero", *flags).refuses()
        assert refused == "error: /dev/zero: is a device, expected a file"


# --- standard output -------------------------------------------------------------------------------------------------


def python(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, env=os.environ | environment,
        timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii:strict"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "utf-8"},
    ],
)
def test_what_the_encoding_of_standard_output_lacks_is_written_escaped(environment):
    code = "from launch.common import cli; cli.run(lambda: print('a', '\\xe9 \\u2013 \\U0001f600', '\\udcff'))"
    done = python("-c", code, **environment)
    assert (done.returncode, done.stderr) == (0, b"")
    escaped = {"latin-1": b"\xe9 \\u2013 \\U0001f600", "utf-8": "é – 😀".encode()}
    middle = escaped.get(environment.get("PYTHONIOENCODING"), b"\\xe9 \\u2013 \\U0001f600")
    assert done.stdout == b"a " + middle + b" \\udcff\n"


@pytest.mark.slow
def test_a_report_goes_to_a_standard_output_that_is_no_utf_8(tmp_path):
    rows = three_tasks(tmp_path / "rows.jsonl")
    done = python("-m", "launch.evaluate", f"--trajectories={rows}", "--no-references", PYTHONIOENCODING="ascii:strict")
    assert done.returncode == 0 and b"Traceback" not in done.stderr
    assert b"\\u2588" in done.stdout  # the bars of the histogram


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirection", "status", "said"),
    [
        (">/dev/full", 1, "standard output cannot be written: No space left on device"),
        (">&-", 0, ""),
        (">/dev/null 2>&-", 0, ""),
    ],
)
def test_a_standard_output_that_is_not_open_or_full_is_one_sentence(redirection, status, said):
    command = f"{sys.executable} -m launch.train --help {redirection}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == status
    assert done.stderr == (f"error: {said}\n" if said else "")


def test_a_reader_that_has_gone_is_one_sentence():
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-m", "launch.train", "--help"]
    done = subprocess.run(command, cwd=ROOT, stdout=writes, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(writes)
    assert (done.returncode, done.stderr) == (1, "error: standard output was closed before everything was printed\n")


def test_the_help_of_convert_does_without_jax(python):
    code = (
        "import sys; from launch import convert; sys.argv = ['launch.convert', '--help']\n"
        "try: convert.main()\n"
        "finally: print(sorted({'jax', 'torch'} & set(sys.modules)))"
    )
    done = python("-c", code)
    assert done.status == 0, done.stderr
    assert "--from" in done.stdout and done.stdout.splitlines()[-1] == "[]"


def test_the_flags_of_convert_are_named_as_in_the_documents():
    config = cli.parse_plain(ConvertConfig, ["--from=a", "--to=b"], "launch.convert")
    assert (str(config.source), str(config.to), config.dtype) == ("a", "b", "same")
