"""`python -m launch.data check FILE`: names every defective row of a file of rows and prints what the file holds.
`python -m launch.data convert FILE`: converts rows to a format of other tools, or such a file to rows.
`python -m launch.data assets`: fetches what the frontend renderer needs, with a checked hash.

Each command is an entry of COMMANDS. Read `check`, then `launch.data_tools.check_file` (the path through a file);
`convert` has its own, `launch.data_tools.convert.convert_file`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence

from launch.common import cli
from launch.data_tools.config import CheckConfig, ConvertConfig


def check(argv: Sequence[str]) -> None:
    """Name every defective row of a file and print what the file holds; exit status 2 if there is a defective row."""
    config: CheckConfig = cli.parse_plain(CheckConfig, argv, "launch.data check")

    # What runs references only now: `--help` and bad flags should answer at once.
    from colbench_env.terminal_text import printable
    from launch.common.console import Console
    from launch.data_tools.check_file import check_file
    from launch.data_tools.report_text import to_text

    on_defect = (lambda sentence: None) if config.json else (lambda sentence: print(printable(sentence)))
    report = check_file(config, Console(), on_defect)
    print(json.dumps(report.to_json()) if config.json else printable(to_text(report)))
    if report.defects:
        raise cli.bad_input(f"{config.file}: {len(report.defects)} of {report.rows} rows are defective")


def convert(argv: Sequence[str]) -> None:
    """Convert a file of another tool to our rows, or our rows to its format; exit status 2 if a row cannot be."""
    config: ConvertConfig = cli.parse_plain(ConvertConfig, argv, "launch.data convert")

    from colbench_env.terminal_text import printable
    from launch.common.console import Console
    from launch.data_tools.convert.convert_file import convert_file

    print(printable(convert_file(config, Console())))


def assets(argv: Sequence[str]) -> None:
    """Fetch what the frontend renderer needs, once, and check its hash."""
    from launch.data_tools.fetch_assets import AssetsConfig, fetch_assets

    fetch_assets(cli.parse_plain(AssetsConfig, argv, "launch.data assets"))


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {"check": check, "convert": convert, "assets": assets}


_USAGE = cli.usage("launch.data", "COMMAND [FLAGS]")


def main() -> None:
    """Run the command that the first argument names."""
    name, *rest = sys.argv[1:] or [""]
    if name in COMMANDS:
        COMMANDS[name](rest)
    elif name in ("-h", "--help"):
        print(_USAGE, *(f"    {command}    {function.__doc__}" for command, function in COMMANDS.items()), sep="\n")
    else:
        print(_USAGE, file=sys.stderr)
        problem = f"{name!r} is no command of launch.data" if name else "no command of launch.data is named"
        raise cli.bad_input(f"{problem}, expected one of {', '.join(COMMANDS)}")


if __name__ == "__main__":
    cli.run(main)
