"""`python -m launch.rank`: candidates, the critic's scores and turn pairs, without a run of `launch.train`."""

from __future__ import annotations

import sys

from launch.common import cli
from launch.common.distributed import join_processes
from launch.ranking.config import RankConfig


def main() -> None:
    """Parse the flags and run what is not finished yet."""
    config: RankConfig = cli.parse_plain(RankConfig, sys.argv[1:], "launch.rank")

    with join_processes(config.hosts):
        # jax and what imports it only now: `--help` and bad flags should answer at once.
        from launch.ranking.rank import rank
        from sweet_jax.plugins import load_plugins

        load_plugins(config.plugin or "")
        rank(config)


if __name__ == "__main__":
    cli.run(main)
