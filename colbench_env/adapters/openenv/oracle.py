"""The oracle of the package: what an agent that knows the reference says.

python -m colbench_env.adapters.openenv.oracle --split=test --index=3     # prints the turns as a JSON list
"""

import argparse
import json
from collections.abc import Sequence

from colbench_env.dialogue import ANSWER_MARKER
from colbench_env.source import Source
from colbench_env.types import Task


def oracle_turns(task: Task) -> list[str]:
    """Answer with the reference at once."""
    return [f"{ANSWER_MARKER}\n{task.ground_truth}"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the turns about one task of the source that the environment variables name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", default="test")
    parser.add_argument("--index", type=int, default=0)
    told = parser.parse_args(arguments)
    print(json.dumps(oracle_turns(Source.from_environment().task(told.split, told.index))))


if __name__ == "__main__":
    main()
