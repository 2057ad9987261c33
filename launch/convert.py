"""`python -m launch.convert`: a run's checkpoint as a Hugging Face directory, and back."""

from __future__ import annotations

import sys

from launch.common import cli
from launch.common.distributed import join_processes
from launch.export.config import ConvertConfig


def main() -> None:
    """Parse the flags and convert."""
    config: ConvertConfig = cli.parse_plain(ConvertConfig, sys.argv[1:], "launch.convert")

    with join_processes(config.hosts):
        # jax and what imports it only now: `--help` and bad flags should answer at once.
        from launch.export.convert_checkpoint import convert
        from sweet_jax import processes
        from sweet_jax.plugins import load_plugins

        load_plugins(config.plugin or "")
        said = convert(config)
        if processes.is_process_0():
            print(said)


if __name__ == "__main__":
    cli.run(main)
