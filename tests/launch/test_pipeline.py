"""The whole pipeline in small: one run left alone, one killed again and again, and what both have written."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
import pytest

from colbench_env.tasks import read_rows
from colbench_env.types import Candidates, Pair, Ranked, Task, Trajectory
from launch.training.presets import PRESETS
from launch.training.stages.start import start_rows
from models.config import from_hf
from models.parameters import param_shapes
from sweet_jax.data.chat import Chat, privileged_prefix
from sweet_jax.mesh import MeshShape, make_mesh
from sweet_jax.train.loop import restore_params
from sweet_jax.train.settings import Training

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("optimised")]

ROOT = Path(__file__).parents[2]
STAGES = (
    "tasks", "rollouts", "grading", "pairs", "critic", "candidates", "ranking", "turn-pairs", "policy", "selection",
    "evaluation",
)  # fmt: skip
TASKS, SAMPLES, HELD_OUT, CANDIDATES, STEPS, KEPT = 17, 4, 4, 2, 4, 20
FLAGS = (
    "--preset=embedded",
    "--mesh=2x2",
    f"--num-tasks={TASKS}",
    f"--rollouts.samples={SAMPLES}",
    "--rollouts.rows=16",  # of the 68 dialogues that are wanted
    f"--ranking.candidates={CANDIDATES}",
    "--ranking.data-fraction=0.05",
    *(f"--{stage}.training.batch-size=8" for stage in ("critic", "policy")),
    *(f"--{stage}.training.max-steps={STEPS}" for stage in ("critic", "policy")),
    *(f"--{stage}.training.save-every=1" for stage in ("critic", "policy")),
    *(f"--{stage}.training.log-every=1" for stage in ("critic", "policy")),
    f"--critic.training.epochs={STEPS}",
    f"--evaluation.num-tasks={HELD_OUT}",
    "--policy.select=validation",
    "--policy.select-tasks=4",
)


def begin(run_dir: Path) -> subprocess.Popen:
    """Starts `python -m launch.train` on a run directory."""
    return subprocess.Popen(
        [sys.executable, "-m", "launch.train", f"--run-dir={run_dir}", *FLAGS], cwd=ROOT, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def straight(optimised, tmp_path_factory) -> Path:
    """The directory of a run that nobody disturbed."""
    run_dir = tmp_path_factory.mktemp("runs") / "straight"
    process = begin(run_dir)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return run_dir


def rows(run_dir, name, kind):
    return read_rows(run_dir / name, kind)


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


# --- what a run writes -----------------------------------------------------------------------------------------------


def test_every_stage_leaves_a_note_and_the_run_ends_with_a_report(straight):
    notes = {stage: json.loads((straight / stage / "done.json").read_text()) for stage in STAGES}
    assert all(note["seconds"] >= 0 for note in notes.values())
    assert notes["rollouts"]["trajectories"] == TASKS * SAMPLES
    assert notes["critic"]["steps"] == notes["policy"]["steps"] == STEPS
    json.loads((straight / "report.json").read_text())
    assert (straight / "report.html").read_text().lstrip().lower().startswith("<!doctype html")


def test_the_run_directory_holds_the_resolved_configuration(straight):
    settings = json.loads((straight / "config.json").read_text())
    assert (settings["mesh"], settings["num_tasks"], settings["model"]) == ("2x2", TASKS, "embedded")
    assert settings["critic"]["training"]["max_grad_norm"] == 1.0
    assert settings["critic"]["beta"] == PRESETS["embedded"]().critic.beta


def test_train_and_held_out_tasks_are_gradable_and_share_none(straight):
    train, held_out = rows(straight, "tasks/train.jsonl", Task), rows(straight, "tasks/eval.jsonl", Task)
    assert (len(train), len(held_out)) == (TASKS, HELD_OUT)
    assert all(len(task.test_cases) == 10 and task.hidden_information for task in train + held_out)
    assert not {task.task_id for task in train} & {task.task_id for task in held_out}


def test_rollouts_are_sample_major_and_hold_prompt_output_and_token_ids_of_each_turn(straight):
    train = rows(straight, "tasks/train.jsonl", Task)
    played = rows(straight, "rollouts/trajectories.jsonl", Trajectory)
    chat = Chat.load(ROOT / "sweet_jax" / "start_policy")
    assert len(played) == TASKS * SAMPLES
    for number, trajectory in enumerate(played):
        assert trajectory.task == train[number % TASKS]
        assert trajectory.extra["sample"] == number // TASKS
        assert trajectory.reward is None
        ids, spans = trajectory.extra["tokens"]["ids"], trajectory.extra["tokens"]["spans"]
        assert [turn for turn, _, _ in spans] == list(range(1, len(trajectory.agent_turns) + 1))
        for said, (_, begin, stop) in zip(trajectory.agent_turns, spans, strict=True):
            assert said.input == chat.decode(ids[:begin])
            assert said.output == chat.reply_text(ids[begin:stop])


def test_grading_adds_a_reward_and_verdicts_and_changes_nothing_else(straight):
    played = rows(straight, "rollouts/trajectories.jsonl", Trajectory)
    graded = rows(straight, "grading/trajectories.jsonl", Trajectory)
    for before, after in zip(played, graded, strict=True):
        assert (after.dialogue_history, after.answer) == (before.dialogue_history, before.answer)
        passed = [verdict == "pass" for verdict in after.extra["verdicts"].values()]
        assert after.reward == pytest.approx(sum(passed) / 10)
    rewards = [trajectory.reward for trajectory in graded]
    assert 0 < rewards.count(1.0) < len(rewards)


def test_critic_pairs_are_the_privileged_text_and_the_last_turns_of_a_success_and_a_worse_sample(straight):
    graded = rows(straight, "grading/trajectories.jsonl", Trajectory)
    by_text = {}
    for trajectory in graded:
        last = trajectory.agent_turns[-1]
        by_text[privileged_prefix(trajectory.task.ground_truth) + last.input + last.output] = trajectory
    pairs = rows(straight, "pairs/trajectory_pairs.jsonl", Pair)
    assert len(pairs) == json.loads((straight / "pairs" / "done.json").read_text())["pairs"]
    for pair in pairs:
        chosen, rejected = by_text[pair.chosen], by_text[pair.rejected]
        assert chosen.task == rejected.task
        assert chosen.reward == 1.0 > rejected.reward


def test_candidates_are_as_many_as_asked_with_reference_log_probs_that_agree(straight):
    graded = rows(straight, "grading/trajectories.jsonl", Trajectory)
    found = rows(straight, "candidates/candidates.jsonl", Candidates)
    used = graded[: round(0.05 * len(graded))]
    assert len(found) == sum(len(trajectory.agent_turns) for trajectory in used)
    for row in found:
        trajectory, turn = graded[row.extra["trajectory"]], row.extra["turn"]
        assert len(row.additional_outputs) == CANDIDATES
        assert row.input == trajectory.agent_turns[turn - 1].input
        assert row.older_output == trajectory.agent_turns[turn - 1].output
        assert row.input_with_ground_truth == privileged_prefix(row.ground_truth) + row.input
        assert (row.reward, row.ground_truth) == (trajectory.reward, trajectory.task.ground_truth)
        assert row.messages == trajectory.dialogue_history[: 2 * turn - 1]
        lengths = np.array([len(ids) for ids in row.extra["output_ids"]])
        sums, means = row.additional_reference_logprobs_sum, row.additional_reference_logprobs
        np.testing.assert_allclose(np.array(means) * lengths, sums, rtol=1e-5, atol=1e-6)
        assert max(sums) <= 0


def test_ranked_rows_are_the_candidates_with_an_advantage_each(straight):
    found = rows(straight, "candidates/candidates.jsonl", Candidates)
    ranked = rows(straight, "ranking/ranked.jsonl", Ranked)
    said = ("token_log_ratios", "older", "learned", "pmi")  # what the critic adds
    for row, before in zip(ranked, found, strict=True):
        kept = {name: value for name, value in row.candidates.extra.items() if name not in said}
        assert replace(row.candidates, extra=kept) == before
        ratios = row.candidates.extra["token_log_ratios"]
        assert [len(one) for one in ratios] == [len(ids) for ids in before.extra["output_ids"]]
        np.testing.assert_allclose([np.mean(one) for one in ratios], row.judge_result, atol=1e-4)
    advantages = np.array([row.judge_result for row in ranked])
    assert advantages.shape == (len(found), CANDIDATES)
    assert np.ptp(advantages) > 0  # a critic that has learned nothing at all says 0 of everything
    for row in ranked:  # equal candidates of a position are judged alike
        by_ids = dict(zip(map(tuple, row.candidates.extra["output_ids"]), row.judge_result, strict=True))
        assert [by_ids[tuple(ids)] for ids in row.candidates.extra["output_ids"]] == list(row.judge_result)


def test_turn_pairs_are_two_turns_after_one_prompt_of_which_the_critic_prefers_the_first(straight):
    ranked = rows(straight, "ranking/ranked.jsonl", Ranked)
    pairs = rows(straight, "turn-pairs/pairs.jsonl", Pair)
    for pair in pairs:
        row = ranked[pair.extra["position"]]
        texts = [row.candidates.input + output + "<|end|>" for output in row.candidates.additional_outputs]
        better, worse = pair.extra["advantages"]
        assert pair.chosen != pair.rejected
        assert texts[row.judge_result.index(better)] == pair.chosen
        assert texts[row.judge_result.index(worse)] == pair.rejected
        assert better >= worse


def test_both_policies_are_evaluated_on_the_same_held_out_tasks(straight):
    held_out = rows(straight, "tasks/eval.jsonl", Task)
    for name in ("start", "trained"):
        graded = rows(straight, f"evaluation/{name}.jsonl", Trajectory)
        assert [trajectory.task for trajectory in graded] == held_out
        assert all(0 <= trajectory.reward <= 1 for trajectory in graded)
    seeds = {t.extra["seed"] for n in ("start", "trained") for t in rows(straight, f"evaluation/{n}.jsonl", Trajectory)}
    assert len(seeds) == 1


def test_each_training_stage_writes_a_row_of_metrics_for_each_step(straight):
    for stage in ("critic", "policy"):
        found = [json.loads(line) for line in (straight / stage / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in found] == [1, 2, 3, 4]
        assert {"loss", "rewards/accuracies", "rewards/margins", "nll", "grad_norm", "lr"} <= found[0].keys()
        assert list((straight / stage / "tensorboard").iterdir())


def test_the_trained_policy_is_a_model_directory_that_differs_from_the_start_policy(straight):
    exported, shipped = straight / "policy" / "model", ROOT / "sweet_jax" / "start_policy"
    assert from_hf(exported) == from_hf(shipped)
    assert Chat.load(exported).turn_end_id == Chat.load(shipped).turn_end_id
    assert (exported / "model.safetensors").read_bytes() != (shipped / "model.safetensors").read_bytes()


def test_a_second_start_of_a_finished_run_computes_nothing_again(straight, start, files):
    before = files(straight)
    ended = start(f"--run-dir={straight}", *FLAGS)
    assert ended.status == 0, ended.stderr
    assert files(straight) == before
    assert [f" {stage}: already done" in ended.stderr for stage in STAGES] == [True] * len(STAGES)


# --- killed ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moment:
    """When to kill: the stage under way, a sign in the run directory, and what the next start must say."""

    stage: str
    sign: Callable[[Path], bool]
    continues: str


MOMENTS = (
    Moment(
        "rollouts",
        lambda run: text_of(run / "rollouts" / "trajectories.jsonl").count("\n") >= KEPT,
        " rollouts: starts",
    ),
    Moment("grading", lambda run: " grading: starts" in text_of(run / "log.txt"), " rollouts: already done"),
    Moment(
        "critic",
        lambda run: (run / "critic" / "checkpoints" / "1").exists(),
        "stage=critic continues after step ",
    ),
    Moment("ranking", lambda run: any((run / "ranking").glob("critic/*/00000.npz")), " candidates: already done"),
    Moment(  # in the middle of a save, where that is slow enough to be seen
        "policy",
        lambda run: any((run / "policy" / "checkpoints").glob("2*")),
        "stage=policy continues after step ",
    ),
)


@pytest.fixture(scope="module")
def killed(straight, tmp_path_factory) -> Path:
    """The directory of a run that was killed at every one of the moments and then left to end."""
    run_dir = tmp_path_factory.mktemp("runs") / "killed"
    for moment in MOMENTS:
        process = begin(run_dir)
        while not moment.sign(run_dir):
            assert process.poll() is None, f"ended before the moment in {moment.stage}: {process.stderr.read()}"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (run_dir / moment.stage / "done.json").exists(), f"{moment.stage} was over before the kill"
        (run_dir / "log.txt").rename(run_dir / f"log-until-{moment.stage}.txt")
    process = begin(run_dir)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return run_dir


def test_a_killed_run_continues_where_it_was(killed):
    logs = [text_of(killed / f"log-until-{moment.stage}.txt") for moment in MOMENTS[1:]] + [text_of(killed / "log.txt")]
    for moment, log in zip(MOMENTS, logs, strict=True):
        assert moment.continues in log, f"after the kill in {moment.stage}"
    first = next(line for line in logs[0].splitlines() if line.startswith("stage=rollouts done="))
    assert int(first.split("=")[2].split("/")[0]) > KEPT  # what was in the file was kept


def test_a_killed_run_writes_the_same_rows_as_one_left_alone(straight, killed):
    written = {path.relative_to(straight) for path in straight.rglob("*.jsonl")}
    assert {path.relative_to(killed) for path in killed.rglob("*.jsonl")} == written
    assert {
        "rollouts",
        "grading",
        "pairs",
        "critic",
        "candidates",
        "ranking",
        "turn-pairs",
        "policy",
        "evaluation",
    } <= {path.parts[0] for path in written}
    differing = [
        str(path) for path in sorted(written) if (straight / path).read_bytes() != (killed / path).read_bytes()
    ]
    assert differing == []


def test_a_killed_run_ends_with_the_same_policy_to_the_last_bit(straight, killed):
    name = Path("policy") / "model" / "model.safetensors"
    assert (straight / name).read_bytes() == (killed / name).read_bytes()


def test_a_killed_run_trains_the_same_critic_to_the_last_bit(straight, killed):
    config, mesh = from_hf(straight / "policy" / "model"), make_mesh(MeshShape(2, 2))
    settings = Training(batch_size=8, epochs=STEPS, max_steps=STEPS)
    count = json.loads((straight / "critic" / "done.json").read_text())["pairs"]
    shapes = param_shapes(config, mesh)
    trees = [restore_params(run / "critic", shapes, settings, count) for run in (straight, killed)]
    leaves = [jax.tree.leaves_with_path(tree) for tree in trees]
    assert len(leaves[0]) == len(leaves[1]) == len(jax.tree.leaves(shapes)) > 0
    for (path, one), (_, other) in zip(*leaves, strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes(), path


# --- one stage alone -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "first"),
    [
        ("rollouts", "tasks"),
        ("grading", "rollouts"),
        ("pairs", "grading"),
        ("critic", "pairs"),
        ("candidates", "grading"),
        ("ranking", "critic"),
        ("turn-pairs", "ranking"),
        ("policy", "turn-pairs"),
        ("evaluation", "tasks"),
    ],
)
def test_a_stage_alone_says_which_stage_has_to_run_first(stage, first, start, tmp_path):
    sentence = start(f"--run-dir={tmp_path / 'run'}", f"--stage={stage}").refuses()
    assert sentence == (
        f"error: {tmp_path / 'run'}: --stage={stage} reads what stage {first} writes, which has not finished here: "
        f"run --stage={first} first"
    )


def test_stages_alone_need_no_more_than_their_inputs(start, tmp_path, tiny_model):
    common = (
        f"--run-dir={tmp_path / 'run'}",
        f"--model={tiny_model}",
        "--num-tasks=2",
        "--evaluation.num-tasks=1",
        "--policy.select=last",
    )
    assert start(*common, "--stage=tasks").status == 0
    assert len(read_rows(tmp_path / "run" / "tasks" / "train.jsonl", Task)) == 2
    assert "stage grading" in start(*common, "--stage=pairs").refuses()
    assert "no stage of --algorithm=rft" in start(*common, "--stage=critic", "--algorithm=rft").refuses()


@pytest.mark.parametrize("critic", [(), ("--critic.parameterisation=value-head", "--critic.nll-coef=0")])
def test_a_model_that_solves_nothing_stops_at_the_pairs_or_goes_on_in_hindsight(start, tmp_path, tiny_model, critic):
    run_dir, small = tmp_path / "run", ("batch-size=4", "max-steps=1", "max-length=512")
    common = (
        f"--run-dir={run_dir}", f"--model={tiny_model}", "--num-tasks=2", "--rollouts.samples=2",
        "--rollouts.max-turns=2", "--rollouts.max-new-tokens=8", "--rollouts.rows=4", "--ranking.candidates=4",
        "--ranking.data-fraction=1.0", "--evaluation.num-tasks=2", "--policy.select=last", *critic,
        *(f"--{stage}.training.{flag}" for stage in ("critic", "policy") for flag in small),
    )  # fmt: skip
    refused = start(*common).refuses()
    assert "grading/trajectories.jsonl: no task has both" in refused and "--critic.without-pairs=hindsight" in refused
    on = (*common, "--critic.without-pairs=hindsight")
    for stage in ("pairs", "critic"):  # in the same directory: what is there stays
        ended = start(*on, f"--stage={stage}")
        assert ended.status == 0, ended.stderr
    ended = start(*on)
    assert ended.status == 0, ended.stderr
    assert " rollouts: already done" in ended.stdout + ended.stderr
    assert "No critic was trained" in ended.stdout + ended.stderr
    assert "No critic was trained" in (run_dir / "report.html").read_text()
    assert json.loads((run_dir / "critic" / "done.json").read_text())["pairs"] == 0
    assert not (run_dir / "pairs" / "trajectory_pairs.jsonl").exists()  # rather than a file without rows
    assert rows(run_dir, "turn-pairs/pairs.jsonl", Pair)
    for row in rows(run_dir, "ranking/ranked.jsonl", Ranked):  # log pi(a|c,o) - log pi(a|o), mean over the turn
        assert len(set(row.judge_result)) > 1 and max(map(abs, row.judge_result)) < 1.0


def test_the_start_policy_is_made_from_dialogues_a_part_of_which_shows_the_reference(start, tmp_path):
    run_dir = tmp_path / "run"
    (tmp_path / "small.yaml").write_text("start: {dialogues: 1500, batch_size: 4, max_steps: 1}")
    small = f"--config={tmp_path / 'small.yaml'}"
    ended = start("--model=scratch", "--stage=start", f"--run-dir={run_dir}", small)
    assert ended.status == 0, ended.stderr
    chat, dialogues = Chat.load(run_dir / "start" / "model"), rows(run_dir, "start/behaviour.jsonl", Trajectory)
    assert len(dialogues) == 1500 and all(d.task.ground_truth.startswith("def ") for d in dialogues)
    made = start_rows(dialogues[:40], chat, 0.25, seed=3)
    shown = [index for index, row in enumerate(made) if row.prefix > 1]
    assert len(shown) == 10
    for index, (row, dialogue) in enumerate(zip(made, dialogues, strict=False)):
        plain = chat.turn_ids(dialogue.dialogue_history)
        front = privileged_prefix(dialogue.task.ground_truth) if index in shown else ""
        assert chat.decode(row.ids[1 : row.prefix]) == front
        np.testing.assert_array_equal(row.ids[row.prefix :], plain.ids[1:])
        np.testing.assert_array_equal(row.turns[row.prefix :], plain.turns[1:])
