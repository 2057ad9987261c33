"""`python -m launch.train`: SWEET-RL or a stage of it. See `main`, `launch.training.stages`, `sweet_jax.train.step`."""

from __future__ import annotations

import dataclasses
import gc
import os
import platform
import sys
import time

from launch.common import cli
from launch.common.console import Console, peak_memory_gib
from launch.common.distributed import join_processes
from launch.common.settings import toy_of
from launch.common.tracker_names import NO_TRACKER
from launch.training.config import TrainConfig, settings_of
from launch.training.presets import DEFAULT_PRESET, PRESETS


def main() -> None:
    """Parse the flags and run the stages that are not finished yet."""
    config: TrainConfig = cli.parse(TrainConfig, sys.argv[1:], PRESETS, DEFAULT_PRESET)

    with join_processes(config.hosts):
        from launch.training.preflight import settle_plugin

        config = settle_plugin(config)
        for number in range(1, config.iterations + 1):
            _train(config.iteration(number), is_first=number == 1)
        if config.iterations > 1:
            from launch.training.report import print_iterations

            print_iterations([config.iteration(number + 1).run_dir for number in range(config.iterations)])


def _train(config: TrainConfig, is_first: bool = True) -> None:
    # jax and what imports it only now: `--help` and bad flags should answer at once.
    from launch.common.open_benchmark import open_benchmark
    from launch.common.run_dir import RunDir
    from launch.training.preflight import check_inputs, settle_mesh
    from launch.training.preset_differences import preset_differences
    from launch.training.report import write_report
    from launch.training.run import Run
    from launch.training.stages import plan_stages, run_stages
    from launch.training.tracking.opening import open_trackers
    from sweet_jax import processes
    from sweet_jax.mesh import parse_mesh, start_devices

    started, console, directory = time.monotonic(), Console(audible=processes.is_process_0()), RunDir(config.run_dir)
    plan = plan_stages(config)
    stages = plan if config.stage == "all" else (config.stage,)
    if config.stage != "all" and config.stage not in plan:
        raise cli.bad_input(
            f"--stage={config.stage} is no stage of --algorithm={config.algorithm} --model={config.model}"
        )
    config = settle_mesh(config, directory, stages)
    shape, toy = parse_mesh(config.mesh), toy_of(config.model, config.toy)
    # once hours are behind it, no tracker ends the command
    check_inputs(config if is_first else dataclasses.replace(config, track=NO_TRACKER), directory, stages)
    devices = start_devices(shape)
    with (
        directory.open(settings_of(config)),
        console.logged_to(directory.log_file),
        open_benchmark(
            config.benchmark,
            config.design,
            config.grader,
            config.grader_workers,
            config.unsafe,
            toy,
            config.plugin,
        ) as benchmark,
        open_trackers(config, directory, console, may_miss=not is_first) as trackers,
    ):
        run = Run(config, directory, console, devices, shape, benchmark, trackers=trackers)
        remaining = [stage for stage in stages if directory.note(stage) is None]
        if remaining:
            _header(run)
            for sentence in preset_differences(config):
                console.say(f"differs from the paper: {sentence}")
        gc.collect()
        gc.freeze()  # the modules of jax and others are many objects, which no collection need look at again
        run_stages(run, stages, plan)
        if directory.note("evaluation") is not None:
            seconds = time.monotonic() - started if remaining else None
            processes.broadcast_from_process_0(lambda: write_report(run, seconds))
            processes.broadcast_from_process_0(trackers.send_report)


def _header(run: object) -> None:
    """Print versions, devices, mesh, network, memory, seeds and the sandbox."""
    from importlib import metadata

    from launch.common.settings import TRAINED_HERE
    from launch.training.run import Run
    from models.parameters import count_params, replicated_share
    from models.sharding import head_axis
    from sweet_jax import processes

    assert isinstance(run, Run)
    config, names = run.config, ("jax", "flax", "optax", "orbax-checkpoint", "transformers", "grain", "numpy")
    versions = " ".join(f"{name} {metadata.version(name)}" for name in names)
    rows = [
        ("versions", f"python {platform.python_version()} {versions}"),
        ("devices", f"{run.devices}; mesh {run.shape} (data x tensor)"),
    ]
    if config.model not in TRAINED_HERE or run.model_directory.exists():
        llama = run.llama_config
        count = count_params(llama)
        share, state = replicated_share(llama, run.mesh), _state_bytes(run) / 2**30 / run.shape.size
        size = f"{llama.num_layers} layers, D={llama.hidden_size}, V={llama.vocab_size}"
        rows += [
            ("model", f"{config.model}: {count:,} parameters, {size}"),
            ("memory", f"training state {state:.3f} GiB a device; {share:.2%} of the parameters on every device"),
            ("sharding", head_axis(llama, run.mesh).report),
        ]
    rows += [
        ("attention", run.attention + (f", LoRA of rank {run.lora.rank}" if run.lora else "")),
        ("benchmark", config.benchmark),
        ("grader", processes.broadcast_from_process_0(run.benchmark.describe_grader)),
        ("algorithm", f"{config.algorithm}, preset {config.preset}, human {config.simulator.human}"),
        ("seed", str(config.seed)),
        ("run", f"{config.run_dir} (process {os.getpid()}, {peak_memory_gib():.2f} GiB so far)"),
    ]
    run.console.table(rows)


def _state_bytes(run: object) -> int:
    """Count the bytes of the training state on all devices together: weights, gradients, two moments; or adapters."""
    import jax

    from launch.training.run import Run
    from models.parameters import count_params

    assert isinstance(run, Run)
    moments = 2 * (2 if run.config.policy.training.moment_dtype == "bfloat16" else 4)
    trained = sum(x.size for x in jax.tree.leaves(run.trained_shapes))
    frozen = run.dtype.itemsize * count_params(run.llama_config) if run.lora else 0
    return (8 + moments) * trained + frozen


if __name__ == "__main__":
    cli.run(main)
