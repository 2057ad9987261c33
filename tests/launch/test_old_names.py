"""Flags, config files and run directories with the names that settings of training had before."""

import json
import re

import pytest

from colbench_env.types import BadInput
from launch.common import cli
from launch.common.old_names import current_flags, current_name
from launch.common.run_dir import RunDir
from launch.training.command_line import command_line, next_commands
from launch.training.config import TrainConfig, settings_of
from launch.training.presets import PRESETS

OLD_FLAGS = (
    "--critic.training.hyper.learning-rate=1e-3", "--critic.training.hyper.clip=2", "--critic.training.epochs", "7",
    "--policy.training.hyper.warmup_share=0.1", "--policy.training.hyper.final-share=0.2",
    "--policy.training.hyper.beta1=0.8", "--policy.training.hyper.beta2=0.9", "--policy.training.held-out-share=0.03",
)  # fmt: skip
NOW = (
    "--critic.learning-rate=1e-3", "--critic.max-grad-norm=2", "--critic.epochs", "7",
    "--policy.warmup_ratio=0.1", "--policy.min-lr-ratio=0.2",
    "--policy.adam-beta1=0.8", "--policy.adam-beta2=0.9", "--policy.held-out-fraction=0.03",
)  # fmt: skip


def before(settings):
    """The settings as config.json of a run had them before optimiser settings were part of `Training`."""
    names = {
        "learning_rate": "learning_rate", "warmup_ratio": "warmup_share", "min_lr_ratio": "final_share",
        "adam_beta1": "beta1", "adam_beta2": "beta2", "weight_decay": "weight_decay", "max_grad_norm": "clip",
        "moment_dtype": "moment_dtype",
    }  # fmt: skip
    old = json.loads(json.dumps(settings))
    for stage in ("critic", "policy", "start"):
        training = old[stage]["training"]
        training["hyper"] = {names[name]: training.pop(name) for name in names}
        training["held_out_share"] = training.pop("held_out_fraction")
    old["start"]["privileged_share"] = old["start"].pop("privileged_fraction")
    return old


def test_old_flags_are_the_flags_of_today():
    now = current_flags(OLD_FLAGS)
    assert [flag.replace("_", "-") for flag in now] == [flag.replace("_", "-") for flag in NOW]
    old, new = (cli.parse(TrainConfig, flags, PRESETS, "embedded") for flags in (OLD_FLAGS, NOW))
    assert old == new != PRESETS["embedded"]()


@pytest.mark.parametrize("name", ["design.clip", "critic.beta", "training.epochs", "critic.training", "beta1", "clip"])
def test_other_names_stay(name):
    assert current_name(name) == name


def run_of_before(folder, settings):
    (folder / "tasks").mkdir(parents=True)
    (folder / "tasks" / "done.json").write_text("{}")
    (folder / "config.json").write_text(json.dumps(before(settings)))
    return folder


def test_a_run_directory_of_before_goes_on_with_the_same_settings_and_with_no_others(tmp_path):
    settings = settings_of(PRESETS["embedded"]())
    folder = run_of_before(tmp_path / "run", settings)
    with RunDir(folder).open(settings):
        pass
    other = cli.parse(TrainConfig, ["--critic.max-grad-norm=2"], PRESETS, "embedded")
    with pytest.raises(BadInput, match=re.escape("critic.training.max_grad_norm is 1.0 there and 2.0 here")):
        with RunDir(folder).open(settings_of(other)):
            pass


def test_the_config_json_of_before_gives_the_same_run(tmp_path):
    config = PRESETS["embedded"]("sweet", "frontend")
    folder = run_of_before(tmp_path / "run", settings_of(config))
    again = cli.parse(TrainConfig, [f"--config={folder / 'config.json'}"], PRESETS, "embedded")
    assert settings_of(again) == settings_of(config)


def test_a_run_that_no_flags_can_make_is_proposed_by_its_config_json(tmp_path):
    path = tmp_path / "start.yaml"
    path.write_text("start: {epochs: 9}\nseed: 41\n")
    config = cli.parse(TrainConfig, [f"--config={path}", "--run-dir=runs/a"], PRESETS, "embedded")
    assert command_line(config) == "python -m launch.train --config=runs/a/config.json --run-dir=runs/a"
    assert next_commands(config)[0] == (
        "python -m launch.train --config=runs/a/config.json --run-dir=runs/a-sweet-seed42 --seed=42"
    )
