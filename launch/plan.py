"""`python -m launch.plan`: does a stage fit a TPU slice, and how long must a step take? Compiles it, without a TPU.

Read `main`, then `launch.planning.programs` (what is compiled) and `launch.planning.report` (what is told).
"""

from __future__ import annotations

import json
import os
import sys

from launch.common import cli
from launch.planning.config import PlanConfig


def main() -> None:
    """Parse the flags, check them, compile and print."""
    config: PlanConfig = cli.parse_plain(PlanConfig, sys.argv[1:], "launch.plan")

    # jax and what imports it only now: `--help` and bad flags should answer at once.
    os.environ["JAX_PLATFORMS"] = "cpu"  # nothing is computed; an accelerator of this machine is left alone
    from launch.planning.planning import make_plan
    from launch.planning.report import HEAD, table_row
    from launch.planning.search import search
    from sweet_jax.plugins import load_plugins

    load_plugins(config.plugin or "")
    plan = search(config) if config.search else make_plan(config, lambda line: print(line, file=sys.stderr, flush=True))
    if config.json:
        print(json.dumps(plan.to_json(), indent=2))
    elif config.markdown:
        print(f"{HEAD}\n{table_row(plan.to_json())}")
    else:
        print(plan.to_text())


if __name__ == "__main__":
    cli.run(main)
