"""Bad input of `launch.train`: one sentence on standard error, exit status 2, nothing lost."""

import errno
import json
import os
import shutil

import pytest

from colbench_env.mini import make_tasks
from colbench_env.tasks import read_rows, write_rows
from colbench_env.types import BadInput, Message, Task, Trajectory
from launch.common import cli
from launch.common.run_dir import RunDir
from launch.training import preflight
from launch.training.config import Critic, Ranking, Rollouts, Start, TrainConfig
from launch.training.preflight import check_mesh, settle_mesh
from launch.training.presets import PRESETS
from models.config import ModelError
from sweet_jax.mesh import MeshShape
from sweet_jax.train.settings import Training

SMALL = (
    "--num-tasks=4",
    "--rollouts.rows=16",
    "--rollouts.max-turns=2",
    "--rollouts.max-new-tokens=8",
    "--policy.batch-size=4",
    "--evaluation.num-tasks=2",
    "--policy.select=last",
)


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """A file of graded dialogues: of each of four tasks one with the reference as its answer and one that fails."""
    rows = []
    for text, reward in (("I WANT TO ANSWER:\n{}", 1.0), ("I WANT TO ANSWER:\npass", 0.0)):
        for task in make_tasks("train", 4, 0):
            said = text.format(task.ground_truth)
            history = (Message("user", task.problem_description), Message("assistant", said, output=said))
            rows.append(Trajectory(task, history, said.partition(":")[2], reward))
    path = tmp_path_factory.mktemp("given") / "graded.jsonl"
    write_rows(path, rows)
    return path


@pytest.fixture
def small(tmp_path, tiny_model, graded):
    """Flags of a run that trains the random model on given dialogues."""
    return (f"--run-dir={tmp_path / 'run'}", f"--model={tiny_model}", f"--trajectories={graded}", *SMALL)


# --- flags -----------------------------------------------------------------------------------------------------------


def test_an_unknown_preset_is_named_beside_the_known_ones(start):
    names = "embedded, scenes, paper-backend, paper-frontend, released-backend, tiny"
    sentence = f"error: --preset=huge: there is no such preset, expected one of {names}"
    assert start("--preset=huge").refuses() == sentence
    assert start("--preset", "huge").refuses() == sentence


@pytest.mark.parametrize("flag", ["--no-such-flag=1", "--seed=many", "--algorithm=ppo", "--critic.beta"])
def test_flags_that_cannot_be_read_end_with_status_2(start, flag):
    ended = start(flag)
    assert ended.status == 2
    assert "Traceback" not in ended.stderr
    assert flag.partition("=")[0] in ended.stderr


def test_a_preset_sets_what_the_flags_leave_open():
    config = cli.parse(TrainConfig, ["--preset=tiny", "--rollouts.samples=5"], PRESETS, "embedded")
    assert (config.preset, config.num_tasks, config.rollouts.samples, config.rollouts.rows) == ("tiny", 6, 5, 4)


def test_help_explains_the_flags(start):
    ended = start("--help")
    assert (ended.status, ended.stderr) == (0, "")
    for flag in (
        "--mesh",
        "--run-dir",
        "--model",
        "--algorithm",
        "--stage",
        "--rollouts.samples",
        "--critic.beta",
        "--config",
    ):
        assert flag in ended.stdout


@pytest.mark.slow
def test_help_and_bad_flags_do_without_jax(python):
    code = (
        "import sys; from launch import train; from launch.common import cli; sys.argv = ['launch.train', '--help']\n"
        "try: train.main()\n"
        "finally: print(sorted({'jax', 'torch'} & set(sys.modules)))"
    )
    done = python("-c", code)
    assert done.status == 0, done.stderr
    assert "--rollouts.samples" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: TrainConfig(ranking=Ranking(candidates=1)), "ranking.candidates is 1, it must be at least 2"),
        (lambda: TrainConfig(ranking=Ranking(data_fraction=0.0)), "ranking.data_fraction is 0.0, it must be above 0"),
        (lambda: TrainConfig(rollouts=Rollouts(samples=0)), "rollouts.samples is 0, it must be at least 1"),
        (lambda: TrainConfig(num_tasks=-1), "num_tasks is -1"),
        (lambda: TrainConfig(start=Start(privileged_fraction=1.5)), "start.privileged_fraction is 1.5, .* at most 1"),
        (lambda: TrainConfig(critic=Critic(parameterisation="value-head")), "critic.nll_coef is 0.01, .* must be 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_their_numbers(make, sentence):
    with pytest.raises(BadInput, match=sentence):
        make()


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (BadInput("file:3: is wrong"), 2, "error: file:3: is wrong"),
        (ModelError("no such model"), 2, "error: no such model"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.txt"), 2, "error: a.txt: No such file"),
        (cli.Stopped("stage policy: loss is nan"), 1, "error: stage policy: loss is nan"),
        (KeyboardInterrupt(), 1, "stopped; run the same command again to continue"),
    ],
)
def test_errors_of_the_user_are_one_sentence(capsys, error, status, sentence):
    def command():
        raise error

    assert cli.exit_status(command) == status
    assert capsys.readouterr().err.rstrip() == sentence


@pytest.mark.parametrize("error", [RuntimeError("ours"), OSError(errno.EBADF, "Bad file descriptor")])
def test_errors_of_ours_keep_their_traceback_and_have_status_1(capsys, error):
    def command():
        raise error

    assert cli.exit_status(command) == 1
    assert "Traceback" in capsys.readouterr().err
    assert cli.exit_status(lambda: None) == 0


# --- meshes ----------------------------------------------------------------------------------------------------------


def test_a_mesh_that_cannot_be_read_is_quoted(start, tmp_path):
    sentence = start("--mesh=4y2", f"--run-dir={tmp_path / 'run'}").refuses()
    assert sentence == "error: mesh '4y2' cannot be read, expected DATAxTENSOR (4x2) or data:4,tensor:2"
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_mesh_of_more_devices_than_there_are_names_both_numbers(start, small):
    flags = (*small, "--mesh=16x1", "--policy.batch-size=16")
    assert "error: mesh 16x1 needs 16 devices, this machine has 8 (cpu" in start(*flags, "--algorithm=rft").refuses()


def test_a_batch_that_the_mesh_does_not_divide_is_refused_before_anything_is_made(start, tmp_path):
    sentence = start("--mesh=5x1", f"--run-dir={tmp_path / 'run'}").refuses()
    assert sentence == (
        "error: critic.batch_size is 16, which mesh 5x1 cannot divide: it must be a multiple of 5 (5 devices)"
    )
    assert not (tmp_path / "run").exists()


def divides(mesh, stages, **settings):
    check_mesh(TrainConfig(**settings), mesh, stages)


def test_batches_are_checked_for_the_stages_that_run_only():
    divides(MeshShape(3, 1), ["tasks", "grading", "pairs", "turn-pairs"])
    with pytest.raises(BadInput, match=r"policy\.batch_size is 8, which mesh 3x1 cannot divide"):
        divides(MeshShape(3, 1), ["policy"])
    with pytest.raises(BadInput, match=r"start\.batch_size is 32, which mesh 3x1 cannot divide"):
        divides(MeshShape(3, 1), ["start"])


def test_micro_batches_and_the_layout_of_the_sampler_count():
    four = Critic(training=Training(batch_size=8, micro_batches=4))
    with pytest.raises(
        BadInput, match=r"batch_size is 8, .*: it must be a multiple of 16 \(4 micro-batches over 4 dev"
    ):
        divides(MeshShape(4, 2), ["critic"], critic=four)
    few = Rollouts(rows=60)
    divides(MeshShape(4, 2), ["rollouts", "candidates"], rollouts=few)
    with pytest.raises(BadInput, match=r"rollouts\.rows is 60, .* a multiple of 8"):
        divides(MeshShape(4, 2), ["candidates"], rollouts=few, sampler_mesh="rows")


def test_without_a_mesh_as_many_devices_are_taken_as_the_batches_divide_over(monkeypatch, tmp_path):
    def mesh(devices, stages=("critic", "rollouts"), directory=tmp_path / "none", **settings):
        monkeypatch.setattr(preflight, "count_devices", lambda: devices)
        return settle_mesh(TrainConfig(**settings), RunDir(directory), stages).mesh

    assert [mesh(devices) for devices in (1, 2, 3, 8)] == ["1x1", "2x1", "2x1", "8x1"]
    assert mesh(8, critic=Critic(training=Training(batch_size=12))) == "4x1"
    assert mesh(8, mesh="2x2") == "2x2"
    monkeypatch.setattr(preflight.processes, "count", lambda: 3)
    with pytest.raises(BadInput, match=r"critic\.batch_size is 8, which mesh 3x1 cannot divide"):
        mesh(3)


def test_a_run_goes_on_with_the_mesh_that_it_was_begun_with(monkeypatch, tmp_path):
    monkeypatch.setattr(preflight, "count_devices", lambda: 2)
    (tmp_path / "config.json").write_text('{"mesh": "4x2"}')
    assert settle_mesh(TrainConfig(), RunDir(tmp_path), ["critic"]).mesh == "2x1"  # a start that has left nothing
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "done.json").write_text("{}")
    assert settle_mesh(TrainConfig(), RunDir(tmp_path), ["critic"]).mesh == "4x2"
    assert settle_mesh(TrainConfig(mesh="1x1"), RunDir(tmp_path), ["critic"]).mesh == "1x1"  # refused when it is opened


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_missing_tasks_file_is_named_and_the_right_one_can_follow(start, tmp_path, tiny_model):
    common = (f"--run-dir={tmp_path / 'run'}", f"--model={tiny_model}", "--stage=tasks", *SMALL)
    sentence = start(*common, f"--tasks={tmp_path / 'none.jsonl'}").refuses()
    assert sentence == f"error: {tmp_path / 'none.jsonl'}: cannot read the file: No such file or directory"
    write_rows(tmp_path / "tasks.jsonl", make_tasks("train", 6, 0))
    ended = start(*common, f"--tasks={tmp_path / 'tasks.jsonl'}")
    assert ended.status == 0, ended.stderr
    assert len(read_rows(tmp_path / "run" / "tasks" / "eval.jsonl", Task)) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ('{"problem_description": ', "invalid JSON"),
        ('{"problem_description": "Write it."}', "'ground_truth' is missing"),
        ('{"problem_description": "Write it.", "ground_truth": "<p>"}', "the task has no 'test_cases'"),
    ],
)
def test_a_malformed_task_is_named_by_file_and_line(start, tmp_path, tiny_model, line, wrong):
    path = tmp_path / "tasks.jsonl"
    write_rows(path, make_tasks("train", 5, 0))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], line, *lines[3:]]) + "\n")
    flags = (f"--run-dir={tmp_path / 'run'}", f"--model={tiny_model}", f"--tasks={path}", *SMALL)
    sentence = start(*flags).refuses()
    assert sentence.startswith(f"error: {path}:3: ")
    assert wrong in sentence
    assert not (tmp_path / "run" / "tasks" / "train.jsonl").exists()


def test_too_few_tasks_to_hold_some_out_are_counted(start, tmp_path, tiny_model):
    write_rows(tmp_path / "tasks.jsonl", make_tasks("train", 4, 0))
    flags = (f"--run-dir={tmp_path / 'run'}", f"--model={tiny_model}", f"--tasks={tmp_path / 'tasks.jsonl'}", *SMALL)
    assert "has 4 tasks, too few for 4 to train on and 2 held out" in start(*flags).refuses()


@pytest.mark.slow
def test_a_row_longer_than_the_limit_is_named_by_file_line_and_numbers(start, small, tmp_path):
    pairs = tmp_path / "run" / "pairs" / "trajectory_pairs.jsonl"
    flags = ("--algorithm=mtdpo", "--policy.max-length=32")
    sentence = start(*small, *flags).refuses()
    assert sentence.startswith(f"error: {pairs}:1: the row has ")
    assert sentence.endswith("tokens, more than policy.max_length of 32: raise it, or choose a policy.truncation")
    assert len(pairs.read_text().splitlines()) == 4
    longest = max(len(row["ids"]) for row in map(json.loads(pairs.read_text().splitlines()[0]).get, TOKEN_KEYS))
    assert f"the row has {longest} tokens" in sentence


TOKEN_KEYS = ("chosen_tokens", "rejected_tokens")


@pytest.mark.slow
def test_no_success_among_the_dialogues_is_said_with_what_to_do(start, small, tmp_path, graded):
    failures = [row for row in read_rows(graded, Trajectory) if row.reward == 0]
    write_rows(tmp_path / "failures.jsonl", failures)
    flags = (*small, f"--trajectories={tmp_path / 'failures.jsonl'}")
    assert "so there are no pairs to learn from: sample more" in start(*flags, "--algorithm=mtdpo").refuses()
    flags = (*flags, f"--run-dir={tmp_path / 'other'}")
    assert (
        "no trajectory passes all tests, so there is nothing to imitate" in start(*flags, "--algorithm=rft").refuses()
    )


def test_an_unknown_agent_prompt_is_named(start, tmp_path, tiny_model):
    flags = (f"--run-dir={tmp_path / 'run'}", f"--model={tiny_model}", "--agent-prompt=nobody", *SMALL)
    assert start(*flags).refuses().startswith("error: --agent-prompt=nobody: no such file, and none of ")


# --- models ----------------------------------------------------------------------------------------------------------


def test_an_unknown_model_directory_is_named_and_binds_no_run_directory(start, tmp_path, tiny_model):
    run_dir, nowhere = tmp_path / "run", tmp_path / "no-model"
    assert start(f"--run-dir={run_dir}", f"--model={nowhere}").refuses() == f"error: {nowhere}: no such model directory"
    weights = tiny_model / "model.safetensors"
    refused = start(f"--run-dir={run_dir}", f"--model={weights}").refuses()
    assert refused.startswith(f"error: {weights}: a file, expected a model directory, which holds config.json")
    ended = start(f"--run-dir={run_dir}", f"--model={tiny_model}", "--stage=tasks", *SMALL)
    assert ended.status == 0, ended.stderr


def test_a_template_without_assistant_header_is_named(start, tmp_path, tiny_model, small):
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    (model / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}<|end|>{% endfor %}")
    sentence = start(*small, f"--model={model}", "--algorithm=rft").refuses()
    said = "the chat template has no assistant header: it marks the human's turns and the agent's alike"
    assert sentence == f"error: {model}: {said}"


# --- the run directory -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_directory_of_another_configuration_names_the_setting_and_both_values(start, tmp_path, tiny_model, files):
    common = (f"--run-dir={tmp_path / 'run'}", f"--model={tiny_model}", "--stage=tasks", *SMALL)
    assert start(*common).status == 0
    before = files(tmp_path / "run")
    sentence = start(*common, "--critic.learning-rate=0.5", "--seed=7").refuses()
    assert sentence == (
        f"error: {tmp_path / 'run'} is the run directory of another configuration: "
        "critic.training.learning_rate is 0.0004 there and 0.5 here; seed is 42 there and 7 here. "
        "Use another --run-dir"
    )
    assert files(tmp_path / "run") == before
    assert " tasks: already done" in start(*common).stderr


def test_a_run_directory_in_use_is_refused(start, tmp_path, tiny_model):
    with RunDir(tmp_path / "run").open({}):
        sentence = start(f"--run-dir={tmp_path / 'run'}", f"--model={tiny_model}").refuses()
    assert sentence == f"error: {tmp_path / 'run'}: another process is working in this run directory"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_run_directory_is_refused(start, tmp_path, tiny_model):
    (tmp_path / "run").mkdir(mode=0o500)
    sentence = start(f"--run-dir={tmp_path / 'run'}", f"--model={tiny_model}").refuses()
    assert sentence == f"error: {tmp_path / 'run'}: the run directory cannot be written: Permission denied"


FULL_DISK = """
import resource, runpy, sys
size = int(sys.argv.pop(1))  # no file can grow beyond so many bytes
sys.dont_write_bytecode = True  # a file cut short there would fail every later import
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
runpy.run_module("launch.train", run_name="__main__")
"""


@pytest.mark.slow
def test_a_full_disk_ends_the_run_with_a_sentence_and_the_same_command_continues(start, python, small, tmp_path):
    run_dir, flags = tmp_path / "run", (*small, "--algorithm=rft", "--preset=embedded")
    places = {
        5_000: "rollouts/trajectories.jsonl: cannot write",
        50_000: "policy/checkpoints: the checkpoint of step 1",
    }
    for size, place in places.items():
        sentence = python("-c", FULL_DISK, str(size), *flags).refuses()
        assert sentence.startswith(f"error: {run_dir}/{place}")
    ended = start(*flags)
    assert ended.status == 0, ended.stderr
    assert " grading: already done" in ended.stderr
    ended = start(*flags, f"--run-dir={tmp_path / 'undisturbed'}")
    assert ended.status == 0, ended.stderr
    for name in ("policy/model/model.safetensors", "evaluation/trained.jsonl"):
        assert (run_dir / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


def test_a_disk_that_is_full_while_a_file_is_open_is_named_by_the_run_directory(tmp_path):
    with pytest.raises(BadInput, match=rf"^{tmp_path}: a file of the run cannot be written: No space left on device$"):
        with RunDir(tmp_path).open({}):
            raise OSError(errno.ENOSPC, "No space left on device")
