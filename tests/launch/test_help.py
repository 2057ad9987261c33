"""`--help` and `--help-all` of every command: each setting explained, and few enough to read."""

import importlib
import re

import pytest

from launch.common import cli
from launch.common.flags import settings
from launch.common.help import shown_settings
from launch.data_tools.config import CheckConfig
from launch.data_tools.config import ConvertConfig as DataConvertConfig
from launch.data_tools.fetch_assets import AssetsConfig
from launch.evaluation.config import EvaluateConfig
from launch.export.config import ConvertConfig
from launch.planning.config import PlanConfig
from launch.ranking.config import RankConfig
from launch.rollouts.config import RolloutConfig
from launch.serving.config import ServeConfig
from launch.training.config import TrainConfig
from launch.training.presets import PRESETS
from launch.viewer.config import ShowConfig

KINDS = {
    "train": TrainConfig, "rollout": RolloutConfig, "evaluate": EvaluateConfig, "rank": RankConfig,
    "convert": ConvertConfig, "serve": ServeConfig, "show": ShowConfig, "plan": PlanConfig, "data check": CheckConfig,
    "data convert": DataConvertConfig,
    "data assets": AssetsConfig,
}  # fmt: skip
ALGORITHMS = ("sweet", "mtdpo", "rft", "zero-shot")


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    """A terminal of 110 columns, also where CI has another."""
    monkeypatch.setenv("COLUMNS", "110")


def flags(in_process, command, *arguments):
    """The flags that the help of a command explains, and its lines."""
    name, *sub = command.split()
    ended = in_process(importlib.import_module(f"launch.{name}").main, *sub, *arguments)
    assert (ended.status, ended.stderr) == (0, "")
    found = re.findall(r"^  (--[\w.\[\]-]+)", ended.stdout, re.M)
    return [flag for flag in found if flag not in ("--help-all", "--config")], ended.stdout.splitlines()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_setting_is_explained_in_one_line_of_its_own(kind):
    unexplained = [setting.name for setting in settings(kind) if not re.fullmatch(r"\S.{10,119}", setting.help)]
    assert unexplained == []


@pytest.mark.parametrize("command", KINDS)
def test_help_fits_two_screens_and_help_all_has_every_flag(in_process, command):
    common, lines = flags(in_process, command, "--help")
    everything, _ = flags(in_process, command, "--help-all")
    assert len(common) <= 40 and len(lines) <= 100
    assert set(common) <= set(everything) and len(everything) <= 90


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_algorithm_shows_its_own_settings(in_process, algorithm):
    common, _ = flags(in_process, "train", f"--algorithm={algorithm}", "--help")
    everything, _ = flags(in_process, "train", "--help-all", f"--algorithm={algorithm}")
    blocks = {flag[2:].partition(".")[0] for flag in everything if "." in flag}
    trained = {"sweet": {"critic", "ranking", "truth", "policy", "training", "lora"}, "zero-shot": set()}
    assert blocks == {"hosts", "rollouts", "evaluation"} | trained.get(algorithm, {"policy", "lora"})
    assert len(common) <= 40 and len(everything) <= 90
    assert "--start.dialogues" not in everything


def test_help_shows_the_defaults_of_preset_algorithm_benchmark_and_file(in_process, tmp_path):
    (tmp_path / "run.yaml").write_text("rollouts: {samples: 17}\n")
    chosen = ("--preset=paper-backend", "--algorithm=rft", f"--config={tmp_path / 'run.yaml'}")
    shown = "\n".join(flags(in_process, "train", *chosen, "--help")[1])
    assert re.search(r"--policy.batch-size INT .*\(32\)", shown)
    assert re.search(r"--rollouts.samples INT .*\(17\)", shown)
    assert re.search(r"--human-model TEXT .*\(meta-llama/Llama-3.1-70B-Instruct\)", shown)
    assert "--design.clip" in "\n".join(flags(in_process, "train", "--benchmark=frontend", "--help")[1])


def test_settings_that_critic_and_policy_share_are_shown_once_with_both_defaults(in_process):
    everything, lines = flags(in_process, "train", "--help-all")
    assert "--training.learning-rate" in everything and "--critic.learning-rate" not in everything
    assert any("(critic 3, policy 2)" in line for line in lines)


def test_a_flag_that_help_leaves_out_can_be_given_all_the_same():
    config = cli.parse(TrainConfig, ["--algorithm=mtdpo", "--critic.beta=0.3"], PRESETS, "embedded")
    assert config.critic.beta == 0.3
    assert "critic.beta" not in {setting.name for setting in shown_settings(TrainConfig, {"algorithm": "mtdpo"})}
