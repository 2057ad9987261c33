"""`python -m launch.evaluate`: grades the answers of dialogues and reports what they are worth.

Read `main`, then `launch.evaluation.evaluate_file` (what is done), `launch.evaluation.report_data` (what is counted).
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
from collections.abc import Sequence

from launch.common import cli
from launch.evaluation.config import STDOUT, EvaluateConfig


def main() -> None:
    """Parse the flags, check that everything can be written, grade, report.

    Problems of the input are reported last, when everything else has been graded and written.
    """
    config: EvaluateConfig = cli.parse_plain(EvaluateConfig, _with_json_value(sys.argv[1:]), "launch.evaluate")

    # Only now what takes long to import: `--help` and bad flags should answer at once.
    from colbench_env.grade_file import alone_on
    from colbench_env.types import BadInput
    from launch.common.console import Console
    from launch.common.files import check_model_directory, check_readable, check_writable, write_json, write_text
    from launch.common.plugins import takes_place
    from launch.evaluation.evaluate_file import evaluate
    from launch.evaluation.report_text import report_text
    from sweet_jax.plugins import load_plugins

    brought = load_plugins(config.plugin or "").reward
    if takes_place(config.plugin, "--grader", config.grader, EvaluateConfig.grader, brought, "a reward"):
        config = dataclasses.replace(config, grader="plugin")
    check_readable(config.trajectories, config.tasks, config.baseline, config.suspected)
    if config.model is not None:
        check_model_directory(config.model)
    for path in config.outputs.values():
        check_writable(path)
    with alone_on(config.output):
        evaluation = evaluate(config, Console())
    if config.json == STDOUT:
        print(json.dumps(evaluation.to_json(), indent=2))
    elif config.json is not None:
        write_json(config.json, evaluation.to_json())
    if config.html is not None:
        from launch.evaluation.report_page import page

        write_text(config.html, page(evaluation))
    print(report_text(evaluation), file=sys.stderr if config.json == STDOUT else sys.stdout, flush=True)

    tasks, metric_names = evaluation.evaluated.tasks, evaluation.results.metric_names
    found = getattr(evaluation.evaluated, metric_names.headline).mean
    if evaluation.defects:
        count = len(evaluation.defects)
        raise BadInput(
            f"{count} {'defect' if count == 1 else 'defects'} in the input, named above; everything else was evaluated"
        )
    if not tasks:
        raise BadInput(f"{config.trajectories}: no dialogue has a reward, and none could be graded")
    if config.fail_under is not None and found < config.fail_under:
        name, figure = metric_names.headline_name.lower(), f"{100 * found:.1f}{metric_names.headline_unit}"
        raise cli.Stopped(f"{name} is {figure}, below --fail-under={config.fail_under:g}")


def _with_json_value(argv: Sequence[str]) -> list[str]:
    """Insert "-" for the file where `--json` stands alone."""
    return [
        f"--json={STDOUT}" if argument == "--json" and after.startswith("--") else argument
        for argument, after in itertools.pairwise([*argv, "--"])
    ]


if __name__ == "__main__":
    cli.run(main)
