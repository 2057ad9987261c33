"""`--config=FILE`: what files may say, what wins over what, and the sentence for what they may not say."""

import ast
import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from colbench_env.types import BadInput
from launch.common import cli
from launch.data_tools.config import CheckConfig
from launch.evaluation.config import EvaluateConfig
from launch.rollouts.config import RolloutConfig
from launch.training.config import TrainConfig, settings_of
from launch.training.presets import FOLDER, PRESETS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def trained(tmp_path):
    """Parses flags of launch.train with a config file of that text."""

    def parse(text: str | bytes, *flags: str) -> TrainConfig:
        (tmp_path / "run.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return cli.parse(TrainConfig, [f"--config={tmp_path / 'run.yaml'}", *flags], PRESETS, "embedded")

    return parse


# --- what a file may say ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("algorithm", ["sweet", "mtdpo", "rft", "zero-shot"])
def test_the_config_json_of_a_run_gives_the_same_run(trained, preset, algorithm):
    config = dataclasses.replace(PRESETS[preset](algorithm), algorithm=algorithm)
    again = trained(json.dumps(settings_of(config), indent=2))
    assert settings_of(again) == settings_of(config)
    assert again == config  # all that is left out has its default here


def test_a_config_json_with_settings_of_every_type_gives_the_same_run(trained):
    flags = ("--tasks=/a/é.jsonl", "--eval-tasks=/😀", "--lora.targets", "q", "v", "--no-leaks", "--design.clip=/c")
    config = cli.parse(TrainConfig, [*flags, "--critic.no-privileged", "--policy.adam-beta1=1e-4"], PRESETS, "embedded")
    assert settings_of(trained(json.dumps(settings_of(config)))) == settings_of(config)


def test_flags_win_over_the_file_and_the_file_over_the_preset(trained):
    config = trained("preset: tiny\nrollouts:\n  samples: 5\n  max_turns: 6\n", "--rollouts.samples=7")
    assert (config.preset, config.num_tasks) == ("tiny", 6)
    assert (config.rollouts.samples, config.rollouts.max_turns, config.rollouts.rows) == (7, 6, 4)


def test_the_file_chooses_the_defaults_by_algorithm_benchmark_and_human(trained):
    assert trained("benchmark: frontend").model == "embedded-frontend"
    assert trained("preset: paper-backend\nalgorithm: rft").policy.training.batch_size == 32
    assert trained("preset: paper-backend\nhuman: rules").simulator.human_model == ""
    assert trained("preset: paper-backend", "--human=rules").simulator.human_model == ""


@pytest.mark.slow
def test_blocks_and_dotted_names_say_the_same(trained):
    nested = trained("critic:\n  learning_rate: 1e-3\n  beta: 0.5\nno_leaks: true")
    assert nested == trained("critic.learning_rate: 0.001\ncritic.beta: 5.0e-1\nno_leaks: yes")
    assert nested == trained("critic: {training: {learning_rate: 1E-3}, beta: .5}\nsimulator: {no_leaks: on}")
    assert (nested.critic.training.learning_rate, nested.simulator.no_leaks) == (0.001, True)


def test_names_of_before_are_taken(trained):
    config = trained("critic: {training: {hyper: {clip: 2.0}, held_out_share: 0.1}}\npolicy.training.hyper.beta1: 0.5")
    assert (config.critic.training.max_grad_norm, config.critic.training.held_out_fraction) == (2.0, 0.1)
    assert config.policy.training.adam_beta1 == 0.5


def test_the_shared_block_sets_critic_and_policy_where_they_do_not_say_otherwise(trained):
    text = "policy: {epochs: 9}\ntraining: {epochs: 5, batch_size: 4}"
    config = trained(text)
    assert [(t.epochs, t.batch_size) for t in (config.critic.training, config.policy.training)] == [(5, 4), (9, 4)]
    config = trained(text, "--policy.batch-size=2", "--training.batch-size=8")
    assert [(t.epochs, t.batch_size) for t in (config.critic.training, config.policy.training)] == [(5, 8), (9, 2)]
    assert config.start == PRESETS["embedded"]().start


def test_the_shared_flag_comes_before_others_wherever_it_stands():
    for flags in (
        ("--policy.epochs=2", "--training.epochs=5"),
        ("--training.epochs", "5", "--policy.training.epochs", "2"),
        ("--policy.epochs=2", "--training.epochs=4", "--training.epochs=5"),
    ):
        config = cli.parse(TrainConfig, flags, PRESETS, "embedded")
        assert (config.critic.training.epochs, config.policy.training.epochs) == (5, 2)


def test_the_base_policys_training_is_set_by_a_file_only(trained, start):
    config = trained("start:\n  dialogues: 1500\n  batch_size: 4\n  max_steps: 1")
    assert (config.start.dialogues, config.start.training.batch_size, config.start.training.epochs) == (1500, 4, 4)
    assert start("--start.dialogues=5").status == 2


def test_other_commands_take_files_and_a_file_gives_what_has_to_be_given(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("trajectories: a.jsonl\nworkers: 3\ndesign: {pages: 2}\n")
    config = cli.parse_plain(EvaluateConfig, ["--config", str(path), "--workers=4"], "launch.evaluate")
    assert (config.trajectories, config.workers, config.design.pages) == (Path("a.jsonl"), 4, 2)
    path.write_text("file: a.jsonl\nkind: null\n")
    assert cli.parse_plain(CheckConfig, [f"--config={path}"], "launch.data check").file == Path("a.jsonl")
    assert cli.parse_plain(CheckConfig, [f"--config={path}", "b.jsonl"], "launch.data check").file == Path("b.jsonl")


def test_json_without_spaces_with_tabs_and_escapes_is_read(trained):
    assert trained('{\n\t"seed":3,"model":"a\\/b",\n\t"lora":{"targets":["q","k"]}}').lora.targets == ("q", "k")
    assert trained('{"model": "\\ud83d\\ude00"}').model == "😀"
    assert trained("# nothing but a comment\n") == trained("") == PRESETS["embedded"]()


# --- what it may not say ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        ("seed: 1\ncritic:\n  lerning_rate: 1e-3\n", 3,
         "critic.lerning_rate is no setting of python -m launch.train, the nearest is critic.learning_rate"),
        ("epochs: 3", 1, "epochs is no setting of python -m launch.train, the nearest is training.epochs"),
        ("trajectories: a\nfail_under: 0.5\n", 2,
         "fail_under is no setting of python -m launch.train, the nearest is design.failed; is the file for another "),
        ("seed: 1\nseed: 2\n", 2, "seed is there twice, first in line 1"),
        ("rollouts: {samples: 1}\n\nrollouts.samples: 1\n", 3, "rollouts.samples is there twice, first in line 1"),
        ("seed: many", 1, "seed is many, expected a whole number"),
        ("seed: 1.0", 1, "seed is 1.0, expected a whole number"),
        ('{\n  "seed": "3"\n}', 2, "seed is '3', expected a whole number"),
        ("seed: null", 1, "seed is null, expected a whole number"),
        ("critic: {beta: .nan}", 1, "critic.beta is .nan, expected a finite number"),
        ("unsafe: 1", 1, "unsafe is 1, expected true or false"),
        ("mesh: [4, 2]", 1, "mesh is a list, expected text"),
        ("tasks: [a]", 1, "tasks is a list, expected a path, or null"),
        ("run_dir: ''", 1, "run_dir is '', expected a path"),
        ("lora: {targets: q}", 1, "lora.targets is q, expected a list"),
        ("lora: {targets: [x]}", 1, "lora.targets is a list, expected one of q, k, v, o, gate, up, down"),
        ("algorithm: ppo", 1, "algorithm is ppo, expected one of sweet, mtdpo, rft, zero-shot"),
        ("critic: 3", 1, "critic is 3, expected settings as NAME: VALUE"),
        ("- seed", 1, "the file is a list, expected settings as NAME: VALUE"),
        ("mesh: 1x1\nrollouts:\n  samples: 0\n", 3, "rollouts.samples is 0, it must be at least 1"),
        ("policy:\n  batch_size: 0\n", 2, "policy.batch_size is 0, it must be at least 1"),
        ("policy:\n  beta: 0.1\n  nll_coef: -1\n", 3, "policy.beta is 0.1, policy.nll_coef -1.0 and "),
        ("start:\n  epochs: 0\n", 2, "start.epochs is 0, it must be at least 1"),
        ("mesh: 1x1\nseed: -1\n", 2, "--seed is -1, it must not be negative"),
        ("seed: 99999999999", 1, "--seed is 1e+11, it must be at most 2147483647"),
        ("human: openai", 1, "--human=openai needs --human-model=NAME"),
        ("seed: 1\nmesh: [\n", 3, "neither YAML nor JSON: "),
        ("seed: 1\n---\nseed: 2\n", 2, "neither YAML nor JSON: "),
        (b"seed: 1\nmodel: \xff\n", 2, "the bytes are no UTF-8"),
        ("[" * 5000, 1, "nested too deeply for settings"),
        ("a: &a\n  b: *a\n", 1, "a is no setting of python -m launch.train, "),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_is_told_with_file_line_and_key(trained, tmp_path, text, line, sentence):
    with pytest.raises(BadInput) as refused:
        trained(text)
    assert str(refused.value).startswith(f"{tmp_path / 'run.yaml'}:{line}: {sentence}")


def test_a_bad_flag_beside_a_file_is_not_blamed_on_the_file(trained):
    with pytest.raises(BadInput, match=r"^rollouts.samples is 0, it must be at least 1"):
        trained("seed: 3\nrollouts: {samples: 2}", "--rollouts.samples=0")


def test_a_file_that_is_not_there_is_bad_input(tmp_path):
    for name, sentence in (
        ("/nope.yaml", "/nope.yaml: cannot read the file: No such file"),
        ("/dev/zero", "/dev/zero: is a device, expected a file"),
        ("", "--config is empty, expected a path"),
    ):
        with pytest.raises(BadInput, match=f"^{sentence}"):
            cli.parse_plain(RolloutConfig, [f"--config={name}"], "launch.rollout")


def test_the_command_ends_with_one_sentence_and_status_2(start, tmp_path):
    (tmp_path / "run.yaml").write_text("seed: 1\ncritc:\n  beta: 1\n")
    refused = start(f"--config={tmp_path / 'run.yaml'}", f"--run-dir={tmp_path / 'run'}").refuses()
    assert refused.startswith(f"error: {tmp_path / 'run.yaml'}:2: critc is no setting of python -m launch.train, ")
    assert not (tmp_path / "run").exists()


# --- presets ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_preset_is_a_file_that_is_shipped_and_can_be_given_as_one():
    calls = (node for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())) if isinstance(node, ast.Call))
    given = {keyword.arg: keyword.value for call in calls for keyword in call.keywords}
    assert "*.yaml" in ast.literal_eval(given["package_data"])["launch.training.presets"]
    assert any(name.startswith("pyyaml") for name in ast.literal_eval(given["install_requires"]))
    for name in PRESETS:
        path = FOLDER / f"{name}.yaml"
        assert yaml.safe_load(path.read_text())["preset"] == name
        assert cli.parse(TrainConfig, [f"--config={path}"], PRESETS, "embedded") == PRESETS[name]()


def test_the_file_of_the_guide_is_taken_as_it_stands(trained):
    guide = (ROOT / "docs" / "configuration.md").read_text()
    config = trained(guide.partition("```yaml\n")[2].partition("```")[0])
    training = config.critic.training, config.policy.training
    assert [(each.batch_size, each.learning_rate, each.max_steps) for each in training] == [
        (16, 4e-7, 0),
        (16, 2e-7, 200),
    ]
    assert (config.preset, config.lora.targets, config.start.training.epochs) == ("paper-backend", ("q", "v"), 8)
