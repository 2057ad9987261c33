"""The hyper-parameters of the paper and of the released code, by name: every number of the table, literally."""

import dataclasses
import json
from pathlib import Path

import pytest

from launch.common import cli
from launch.common.settings import Lora
from launch.training.config import TrainConfig
from launch.training.preset_differences import preset_differences
from launch.training.presets import PRESETS


def parsed(*flags: str) -> TrainConfig:
    return cli.parse(TrainConfig, list(flags), PRESETS, "embedded")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "algorithm", "batch", "epochs"),
    [
        ("paper-backend", "rft", 32, 4),
        ("paper-backend", "mtdpo", 8, 4),
        ("paper-backend", "sweet", 8, 1),
        ("paper-frontend", "rft", 32, 8),
        ("paper-frontend", "mtdpo", 8, 8),
        ("paper-frontend", "sweet", 8, 1),
    ],
)
def test_the_policy_trains_as_in_the_column_of_the_paper(preset, algorithm, batch, epochs):
    config = parsed(f"--preset={preset}", f"--algorithm={algorithm}")
    assert (config.preset, config.algorithm) == (preset, algorithm)
    policy, training = config.policy, config.policy.training
    assert (training.batch_size, training.epochs, training.max_length, training.max_steps) == (batch, epochs, 16384, 0)
    assert (policy.beta, policy.nll_coef, policy.nll_mask, training.truncation) == (0.1, 0.01, "turn", "raise")


@pytest.mark.parametrize(
    ("preset", "epochs", "head", "nll"),
    [("paper-backend", 4, "log-ratio", 0.01), ("paper-frontend", 8, "value-head", 0.0)],
)
def test_the_critic_trains_as_in_the_column_of_the_paper(preset, epochs, head, nll):
    critic = PRESETS[preset]().critic
    assert (critic.training.batch_size, critic.training.epochs, critic.training.max_length) == (8, epochs, 8192)
    assert (critic.parameterisation, critic.beta, critic.nll_coef) == (head, 0.1, nll)
    assert (critic.aggregation, critic.privileged) == ("turn-mean", True)


@pytest.mark.parametrize("preset", ["paper-backend", "paper-frontend", "released-backend"])
@pytest.mark.parametrize("algorithm", ["sweet", "mtdpo", "rft"])
def test_the_optimiser_is_the_papers_in_every_stage(preset, algorithm):
    config = PRESETS[preset](algorithm)
    for training in (config.critic.training, config.policy.training):
        wanted = {
            "learning_rate": 2e-7, "warmup_ratio": 0.03, "min_lr_ratio": 0.1, "adam_beta1": 0.9, "adam_beta2": 0.95,
            "weight_decay": 0.0, "max_grad_norm": 1.0, "moment_dtype": "float32",
        }  # fmt: skip
        assert {name: getattr(training, name) for name in wanted} == wanted
    assert (config.seed, config.compute_dtype) == (42, "bfloat16")


def test_dialogues_and_candidates_are_as_many_as_in_the_paper():
    backend, frontend = PRESETS["paper-backend"](), PRESETS["paper-frontend"]()
    assert (backend.rollouts.samples, frontend.rollouts.samples) == (3, 6)
    for config in (backend, frontend):
        rollouts, ranking = config.rollouts, config.ranking
        assert (rollouts.max_turns, rollouts.max_new_tokens, rollouts.temperature) == (10, 1024, 1.0)
        assert (ranking.candidates, ranking.num_pairs, ranking.data_fraction) == (16, 4, 0.1)
        assert ranking.reference_context == "privileged"
    assert backend.evaluation.num_tasks == 1000
    assert (backend.num_tasks, frontend.num_tasks) == (5000, 1000)
    assert (backend.simulator.human, backend.simulator.human_model) == ("openai", "meta-llama/Llama-3.1-70B-Instruct")


def test_another_human_than_the_papers_can_be_named():
    assert PRESETS["paper-backend"](human="model").simulator.human_model == ""
    named = PRESETS["released-backend"](human="scripted").simulator
    assert (named.human, named.human_model) == ("scripted", "")


@pytest.mark.parametrize("preset", ["paper-backend", "paper-frontend", "released-backend"])
def test_a_preset_of_the_paper_is_refused_without_a_model_before_anything_is_written(start, tmp_path, preset):
    failed = ("--design.failed=zero",) if preset == "paper-frontend" else ()
    sentence = start(f"--preset={preset}", f"--run-dir={tmp_path / 'run'}", *failed).refuses()
    assert f"--preset={preset} trains a real model: --model=DIR is needed" in sentence
    assert not (tmp_path / "run").exists()


def test_the_papers_human_needs_an_address(start, tmp_path, tiny_model):
    flags = ("--preset=paper-backend", f"--run-dir={tmp_path / 'run'}", f"--model={tiny_model}")
    real = (f"--tasks={tmp_path / 'tasks.jsonl'}", f"--eval-tasks={tmp_path / 'tasks.jsonl'}")
    assert "--human-url=URL is needed" in start(*flags, *real).refuses()
    assert not (tmp_path / "run").exists()


def test_a_preset_of_the_paper_is_refused_without_real_tasks(start, tmp_path, tiny_model):
    flags = ("--preset=paper-backend", f"--run-dir={tmp_path / 'run'}", f"--model={tiny_model}", "--human-url=http://a")
    sentence = "--preset=paper-backend plays real tasks, not those of the miniature: --{}=FILE is needed"
    assert start(*flags).refuses().endswith(sentence.format("tasks"))
    assert start(*flags, "--trajectories=released.jsonl").refuses().endswith(sentence.format("eval-tasks"))
    assert not (tmp_path / "run").exists()


def test_what_still_differs_from_the_paper_is_told():
    paper = PRESETS["paper-backend"]()
    always = ["answers are run as modules", "the dialogues are this model's own", "the prompts of agent and human"]
    assert [sentence[:20] for sentence in preset_differences(paper)] == [sentence[:20] for sentence in always]
    less = dataclasses.replace(paper, num_tasks=50, grader="official", trajectories=Path("released.jsonl"), mesh="8x2")
    assert preset_differences(less)[:-1] == ["num_tasks is 50, the preset has 5000"]
    other = dataclasses.replace(PRESETS["paper-backend"](human="rules"), lora=Lora(rank=16))
    assert "lora.rank is 16, the preset has 0" in preset_differences(other)
    assert "the human is rules, the paper's meta-llama/Llama-3.1-70B-Instruct" in preset_differences(other)
    assert preset_differences(PRESETS["embedded"]()) == []
    quiet = dataclasses.replace(paper, simulator=dataclasses.replace(paper.simulator, human_temperature=0.0))
    assert "human_temperature is 0.0, the preset has 1.0" in preset_differences(quiet)
    pages = PRESETS["paper-frontend"]()
    white = dataclasses.replace(pages, design=dataclasses.replace(pages.design, failed="zero"))
    assert "design.failed is 'zero', the preset has 'black'" in preset_differences(white)


def test_the_released_preset_differs_from_the_paper_in_what_the_table_names_and_in_nothing_else():
    paper, released = (dataclasses.asdict(PRESETS[name]()) for name in ("paper-backend", "released-backend"))
    assert dict(differences(paper, released)) == {
        "preset": "released-backend",
        "critic.aggregation": "token-mean",
        "critic.nll_coef": 0.0,
        "critic.training.held_out_fraction": 0.03,
        "ranking.reference_context": "public",
        "policy.nll_mask": "all",
        "policy.training.held_out_fraction": 0.03,
    }


def differences(one, other, prefix=""):
    for name in one:
        if isinstance(one[name], dict):
            yield from differences(one[name], other[name], f"{prefix}{name}.")
        elif one[name] != other[name]:
            yield prefix + name, other[name]


def test_a_flag_wins_over_preset_and_algorithm_wherever_it_stands():
    for flags in (
        ("--policy.training.batch-size=64", "--algorithm=rft", "--preset=paper-backend"),
        ("--preset", "paper-backend", "--algorithm", "rft", "--policy.training.batch-size", "64"),
    ):
        config = parsed(*flags)
        assert (config.policy.training.batch_size, config.policy.training.epochs) == (64, 4)


VALUES = json.loads((Path(__file__).parent / "preset_values.json").read_text())
EACH = [(case, differing["are"]) for differing in VALUES["differences"] for case in differing["of"]]


@pytest.mark.parametrize(("case", "differing"), EACH, ids=[case for case, _ in EACH])
def test_every_preset_has_the_values_that_it_always_had(case, differing):
    """As they were before presets became files: `base` is those of the embedded preset, the rest differs from it."""
    name, algorithm, *benchmark = case.split()
    config = PRESETS[name](algorithm, *benchmark)
    assert flat(json.loads(json.dumps(dataclasses.asdict(config), default=str))) == VALUES["base"] | differing


def flat(block, prefix=""):
    inner = {f"{prefix}{name}": value for name, value in block.items()}
    return dict(
        pair
        for name, value in inner.items()
        for pair in (flat(value, f"{name}.") if isinstance(value, dict) else {name: value}).items()
    )
