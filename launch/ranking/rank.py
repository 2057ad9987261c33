"""What `launch.rank` does: the stages candidates, ranking and turn-pairs of `launch.train`, with a given critic."""

from __future__ import annotations

import dataclasses
import json
import typing
from pathlib import Path
from typing import Any

from colbench_env.rewards import check_rewards
from colbench_env.tasks import read_located_rows, read_rows
from colbench_env.types import BadInput, Trajectory
from launch.common.benchmarks import open_benchmark
from launch.common.console import Console
from launch.common.files import check_model_directory, check_readable
from launch.common.old_names import current_settings
from launch.common.run_dir import RunDir, write_rows
from launch.common.settings import EMBEDDED_FRONTEND, start_model
from launch.common.stopping import Terminated
from launch.ranking.config import RankConfig
from launch.training.config import Critic, Lora, Ranking, Rollouts, TrainConfig, settings_of
from launch.training.preflight import check_mesh
from launch.training.run import GivenCritic, Run
from launch.training.stages import run_stage
from launch.training.stages.ranking import share_of
from sweet_jax import processes
from sweet_jax.mesh import parse_mesh, start_devices
from sweet_jax.train.settings import Training

STAGES = ("candidates", "ranking", "turn-pairs")


@dataclasses.dataclass(frozen=True)
class FoundCritic:
    """Where the critic is and how it was trained. model: the start policy of its run, None where nothing tells."""

    given: GivenCritic
    settings: Critic
    lora: Lora
    model: str | None
    max_new_tokens: int


def rank(config: RankConfig) -> None:
    """Write candidates, ranked rows and turn pairs under `config.output`; what is there is not done again."""
    found = find_critic(config)
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
        console.logged_to(config.output / "log.txt"),
        open_benchmark(train.benchmark, train.design, train.grader, 1, False) as benchmark,
    ):
        run = Run(train, directory, console, devices, shape, benchmark, found.given)
        if config.trajectories is not None and directory.note("candidates") is None:
            processes.broadcast_from_process_0(lambda: _take_trajectories(run, config.trajectories))
        if config.trajectories is not None:
            console.say(processes.broadcast_from_process_0(lambda: _what_is_taken(config, directory)))
        for number, stage in enumerate(STAGES, start=1):
            title = f"stage {number}/{len(STAGES)} {stage}"
            if directory.note(stage) is not None:
                console.say(f"{title}: already done")
                continue
            console.say(f"{title}: starts")
            try:
                note = run_stage(run, stage)
            except Terminated as terminated:
                raise Terminated(f"in stage {stage}") from terminated
            run.finish(stage, note)
            console.say(f"{title}: done " + " ".join(f"{name}={value}" for name, value in note.items()))


def _what_is_taken(config: RankConfig, directory: RunDir) -> str:
    """Say in a line how much there is to do: candidates are sampled and scored in every agent turn."""
    rows = read_rows(directory.path / "grading" / "trajectories.jsonl", Trajectory)
    used = share_of(rows, config.data_fraction)
    positions = sum(len(row.agent_turns) for row in used)
    return (
        f"{len(used)} of {len(rows)} dialogues (--data-fraction={config.data_fraction:g}; launch.train takes the first "
        f"{Ranking().data_fraction:.0%}), {positions} agent turns with {config.samples} candidates each"
    )


def find_critic(config: RankConfig) -> FoundCritic:
    """Find the critic that `--critic` names. Raises BadInput where there is none, or where flags contradict its run."""
    source = config.critic
    if not source.is_dir():
        raise BadInput(f"--critic={source}: no such directory")
    if "model_type" in (network := _json(source / "config.json")):
        positions = network.get("max_position_embeddings", 0)  # a directory without is refused when it is read
        if positions and config.max_length > positions:
            raise BadInput(f"--max-length={config.max_length}: the critic of {source} has {positions} positions")
        settings = Critic(
            aggregation=config.aggregation or "turn-mean",
            privileged=config.privileged != "no",
            training=Training(max_length=config.max_length or 8192),
        )
        return FoundCritic(GivenCritic(source, None), settings, Lora(), None, 1024)
    stage = source if (source / "checkpoints").is_dir() else source / "critic"
    run, note = current_settings(_json(stage.parent / "config.json")), _json(stage / "done.json")
    if not run or not note:
        raise BadInput(
            f"--critic={source}: neither a run directory whose stage critic has finished, nor that stage, nor a "
            "Hugging Face directory (config.json with a model_type)"
        )
    if note.get("pairs", 0) == 0:
        raise BadInput(f"--critic={source}: no critic was trained in that run, it had no pairs")
    where = stage.parent / "config.json"
    settings, lora = _read(Critic, run, "critic", where), _read(Lora, run, "lora", where)
    for name, wanted, has in (
        ("aggregation", config.aggregation, settings.aggregation),
        ("privileged", config.privileged, "yes" if settings.privileged else "no"),
        ("max_length", config.max_length, settings.training.max_length),
    ):
        if wanted and wanted != has:
            raise BadInput(f"--{name.replace('_', '-')}={wanted}: the critic of {source} was trained with {has}")
    model = run.get("model", "")
    return FoundCritic(
        GivenCritic(stage, note["pairs"]),
        settings,
        lora,
        str(start_model(model, stage.parent)),
        _read(Rollouts, run, "rollouts", where).max_new_tokens,
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
        critic=found.settings, lora=found.lora,
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
        where, row = found.where, found.row
        if row.reward is None:
            raise BadInput(f"{where}: the dialogue has no reward: launch.evaluate --output=FILE grades it")
        if run.config.critic.privileged and not row.task.ground_truth:
            raise BadInput(f"{where}: the task has no 'ground_truth', which this critic is to see")
    run.directory.stage("grading")
    write_rows(run.directory.path / "grading" / "trajectories.jsonl", [found.row for found in given])


def _read(kind: Any, plain: dict[str, Any], part: str, path: Path) -> Any:
    try:
        return _from_plain(kind, plain[part])
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path}: the settings of {part!r} cannot be read: {error}") from error


def _from_plain(kind: Any, plain: dict[str, Any]) -> Any:
    """The dataclass that was written as JSON: what is not there has its default."""
    hints = typing.get_type_hints(kind)
    values = {}
    for name, value in plain.items():
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            value = _from_plain(hint, value)
        values[name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise BadInput(f"{path}: not JSON: {error}") from error
    return found if isinstance(found, dict) else {}
