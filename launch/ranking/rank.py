"""What `launch.rank` does: the stages candidates, ranking and turn-pairs of `launch.train`, with a given critic."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from colbench_env.rewards import check_rewards
from colbench_env.tasks import read_located_rows, read_rows
from colbench_env.types import BadInput, Trajectory
from launch.common.console import Console
from launch.common.files import check_model_directory, check_readable, is_model_directory, read_object
from launch.common.open_benchmark import open_benchmark
from launch.common.run_dir import RunDir, stage_folder, write_rows
from launch.common.settings import EMBEDDED_FRONTEND, UNTRAINED, toy_of
from launch.ranking.config import RankConfig
from launch.training.config import Critic, Lora, Ranking, Rollouts, TrainConfig, settings_of
from launch.training.preflight import check_mesh
from launch.training.run import GivenCritic, Run
from launch.training.stages import run_stages
from launch.training.stages.ranking import select_first
from sweet_jax import processes
from sweet_jax.mesh import parse_mesh, start_devices
from sweet_jax.plugins import load_plugins
from sweet_jax.train.settings import Training

STAGES = ("candidates", "ranking", "turn-pairs")


@dataclasses.dataclass(frozen=True)
class FoundCritic:
    """Where the critic is and how it was trained.

    model: the start policy of its run, None where nothing tells. plugin: the modules of its run.
    """

    given: GivenCritic
    settings: Critic
    lora: Lora
    model: str | None
    max_new_tokens: int
    reference_context: Literal["privileged", "public"] = "privileged"
    plugin: str | None = None


def rank(config: RankConfig) -> None:
    """Write candidates, ranked rows and turn pairs under `config.output`; what is there is not done again."""
    found = find_critic(config.critic, config.aggregation, config.privileged, config.max_length)
    train, shape = _as_training(config, found), parse_mesh(config.mesh)
    check_readable(config.trajectories, config.candidates)
    if not train.embedded:
        check_model_directory(train.model)
    check_mesh(train, shape, STAGES if config.candidates is None else ())
    console, directory = Console(audible=processes.is_process_0()), RunDir(config.output)
    devices = start_devices(shape)
    settings = settings_of(train) | {"critic_from": str(found.given.directory)}
    with (
        directory.open(settings),
        console.logged_to(directory.log_file),
        open_benchmark(train.benchmark, train.design, train.grader, 1, False, toy_of(train.model)) as benchmark,
    ):
        run = Run(train, directory, console, devices, shape, benchmark, found.given)
        if (given := config.trajectories) is not None:
            if directory.note("candidates") is None:
                processes.broadcast_from_process_0(lambda: _take_trajectories(run, given))
            console.say(processes.broadcast_from_process_0(lambda: _what_is_taken(config, directory)))
        run_stages(run, STAGES, STAGES)


def _what_is_taken(config: RankConfig, directory: RunDir) -> str:
    """Say in a line how much there is to do: candidates are sampled and scored in every agent turn."""
    rows = read_rows(directory.rows_file("grading"), Trajectory)
    used = select_first(rows, config.data_fraction)
    positions = sum(len(row.agent_turns) for row in used)
    return (
        f"{len(used)} of {len(rows)} dialogues (--data-fraction={config.data_fraction:g}; launch.train takes the first "
        f"{Ranking().data_fraction:.0%}), {positions} agent turns with {config.samples} candidates each"
    )


def find_critic(
    source: Path,
    aggregation: Literal["", "turn-mean", "token-mean", "sum"] = "",
    privileged: Literal["", "yes", "no"] = "",
    max_length: int = 0,
) -> FoundCritic:
    """Find the critic that `--critic` names. Raises BadInput where there is none, or where flags contradict its run."""
    if not source.is_dir():
        raise BadInput(f"--critic={source}: no such directory")
    if is_model_directory(source):
        network = read_object(source / "config.json")
        positions = network.get("max_position_embeddings", 0)  # a directory without is refused when it is read
        if positions and max_length > positions:
            raise BadInput(f"--max-length={max_length}: the critic of {source} has {positions} positions")
        settings = Critic(
            aggregation=aggregation or "turn-mean",
            privileged=privileged != "no",
            training=Training(max_length=max_length or 8192),
        )
        return FoundCritic(GivenCritic(source, None), settings, Lora(), None, 1024)
    stage = stage_folder(source, "critic")
    run = RunDir(stage.parent)
    note = read_object(run.note_file(stage.name))
    if not note and run.read_config().get("critic", {}).get("parameterisation") in UNTRAINED:
        note = {"pairs": 1}  # nothing is trained
    if not run.config_file.is_file() or not note:
        raise BadInput(
            f"--critic={source}: neither a run directory whose stage critic has finished, nor that stage, nor a "
            "Hugging Face directory (config.json with a model_type)"
        )
    if note.get("pairs", 0) == 0:
        raise BadInput(f"--critic={source}: no critic was trained in that run, it had no pairs")
    settings, plugin = run.read_settings("critic", Critic), run.read_config().get("plugin")
    load_plugins(plugin or "")  # its critic, and families of models
    if settings.parameterisation == "belief":
        raise BadInput(
            f"--critic={source}: belief asks the user simulator after every turn, which only launch.train does"
        )
    for name, wanted, trained in (
        ("aggregation", aggregation, settings.aggregation),
        ("privileged", privileged, "yes" if settings.privileged else "no"),
        ("max_length", max_length, settings.training.max_length),
    ):
        if wanted and wanted != trained:
            raise BadInput(f"--{name.replace('_', '-')}={wanted}: the critic of {source} was trained with {trained}")
    return FoundCritic(
        GivenCritic(stage, note["pairs"]),
        settings,
        run.read_settings("lora", Lora),
        str(run.start_model()),
        run.read_settings("rollouts", Rollouts).max_new_tokens,
        run.read_settings("ranking", Ranking).reference_context,
        plugin,
    )


def _as_training(config: RankConfig, found: FoundCritic) -> TrainConfig:
    model = config.model or found.model
    if model is None:
        raise BadInput(
            f"--critic={config.critic} is a Hugging Face directory, so --model=DIR is needed: the start policy"
        )
    return TrainConfig(
        benchmark="frontend" if model == EMBEDDED_FRONTEND else "backend",
        mesh=config.mesh, run_dir=config.output, model=model, seed=config.seed, agent_prompt=config.agent_prompt,
        trajectories=config.trajectories, candidates=config.candidates, compute_dtype=config.compute_dtype,
        critic=found.settings, lora=found.lora, plugin=found.plugin,
        rollouts=Rollouts(
            max_new_tokens=config.max_new_tokens or found.max_new_tokens, rows=config.rows,
            temperature=config.temperature,
        ),
        ranking=Ranking(config.samples, config.data_fraction, config.pairs, config.reference_context),
    )  # fmt: skip


def _take_trajectories(run: Run, path: Path) -> None:
    given = read_located_rows(path, Trajectory)
    check_rewards(given, run.benchmark.metric_names.benchmark)
    for found in given:
        location, row = found.location, found.row
        if row.reward is None:
            raise BadInput(f"{location}: the dialogue has no reward: launch.evaluate --output=FILE grades it")
        if run.config.critic.privileged and not row.task.ground_truth:
            raise BadInput(f"{location}: the task has no 'ground_truth', which this critic is to see")
    run.directory.stage("grading")
    write_rows(run.directory.rows_file("grading"), [found.row for found in given])
