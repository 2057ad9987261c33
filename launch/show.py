"""`python -m launch.show`: looks at dialogues and training rows, as one HTML file or in the terminal.

Read `main`, then `launch.viewer.inputs` (files to episodes), `episodes` (what is known of one), `page`, `terminal`.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from launch.common import cli
from launch.viewer.config import ShowConfig


def main() -> None:
    """Parse the flags, read everything, and only then write the page or print."""
    config: ShowConfig = cli.parse_plain(ShowConfig, sys.argv[1:], "launch.show")

    from colbench_env.types import BadInput
    from launch.common.console import Console
    from launch.common.files import check_writable, write_text
    from launch.viewer.inputs import find_groups, read_episodes
    from launch.viewer.token_rows import Pieces, tokenizer_for

    if config.tokens is not None:
        from launch.viewer.training_rows import print_tokens

        chat, why = tokenizer_for(config, config.tokens)
        print_tokens(config.tokens, config.row, chat, config.counted == "last", why)
        return
    if config.output is not None:
        check_writable(config.output)
    console = Console()
    if config.trajectories is not None and config.trajectories.is_dir():
        if config.run_dir is not None:
            raise BadInput(f"{config.trajectories}: is a directory, expected a file of trajectories beside --run-dir")
        config = replace(config, run_dir=config.trajectories, trajectories=None)
    groups = find_groups(config)
    chat, _ = tokenizer_for(config, config.trajectories)
    if config.terminal:
        from launch.viewer.terminal import print_episode

        episodes = read_episodes(config, groups[:1] if groups[0].baseline is None else groups, console.progress)
        print_episode(episodes, groups[0], config.row, chat)
        return
    from launch.viewer.viewer_page import page

    episodes = read_episodes(config, groups, console.progress)
    assert config.output is not None  # ShowConfig sees to it
    text = page(episodes, groups, Pieces(chat))
    assert config.output is not None  # `ShowConfig` asks for one of the three
    write_text(config.output, text)
    print(f"{config.output}: {len(episodes)} episodes, {len(text) / 2**20:.1f} MiB; open it in a browser")


if __name__ == "__main__":
    cli.run(main)
