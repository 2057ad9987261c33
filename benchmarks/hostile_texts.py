"""How long every function that takes texts of strangers needs for hostile ones, in processor time.

    python -m benchmarks.hostile_texts [--size=1000000] [--limit=1] [--only=extract_html]

A text is one of PARTS over and over, behind one of OPENINGS. Prints the texts that take longer than the limit, and the
slowest of each function; exit status 1 if there is one. `tests/test_hostile_texts.py` does the same with short texts.
"""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable

from colbench_env.design.dialogue import shown_design
from colbench_env.design.html import extract_html
from colbench_env.design.matching import dice
from colbench_env.design.placeholders import placeholder
from colbench_env.design.trimming import Trimmer
from colbench_env.dialogue import marked_answer, shown_text
from colbench_env.flags import source_flags
from colbench_env.grading.answers import Case, blocked_word, official_source, parse_case, strict_source
from colbench_env.humans.scripted import first_topic, read_facts
from colbench_env.references import source_defect
from colbench_env.simulator_health import simulator_health
from colbench_env.tasks import decode_line
from colbench_env.types import Message, Task, Trajectory
from launch.data_tools.row_kinds import read_row
from launch.data_tools.row_statistics import RowStatistics
from launch.viewer.highlight import coloured
from launch.viewer.turns import thought_and_said

CASES = (Case("test1", "f(1)"),)
SHEET = Trimmer(".a{color:red}.b:hover{color:blue}@media print{.c{display:none}}")


def _dialogue(text: str) -> Trajectory:
    said = (Message("user", text), Message("assistant", text), Message("user", text), Message("assistant", text))
    return Trajectory(Task(text, text, {"t": text}, text), said, text, 0.5)


def _read(text: str) -> None:
    """As `launch.data check` does."""
    for kind in ("trajectories", "backend", "frontend"):
        task = {"problem_description": "x" + text, "ground_truth": text, "test_cases": {"t": "x" + text}}
        row = _dialogue("x" + text).to_json() if kind == "trajectories" else task
        read_row(decode_line(json.dumps(row).encode(), "f:1"), kind, "f:1")


def _row_statistics(text: str) -> None:
    RowStatistics(None).add(1, _dialogue(text))


FUNCTIONS: dict[str, Callable[[str], object]] = {
    "strict_source": lambda text: strict_source(text, CASES),
    "official_source": official_source,
    "blocked_word": blocked_word,
    "parse_case": lambda text: parse_case("t", f"{text} == 1"),
    "extract_html": extract_html,
    "shown_design": shown_design,
    "shown_text": shown_text,
    "marked_answer": marked_answer,
    "simulator_health": lambda text: simulator_health([_dialogue(text)]),
    "source_flags": lambda text: source_flags(Task("x", text, {"t": text})),
    "source_defect": lambda text: source_defect(Task("x", text, {"t": text})),
    "read_facts": lambda text: read_facts(Task("x", hidden_information=text)),
    "first_topic": lambda text: first_topic(text, {"unit": ("unit", "measure"), "rounding": ("round",)}),
    "placeholder": lambda text: placeholder("https://picsum.photos/" + text),
    "trimmed": SHEET.trim,
    "dice": lambda text: dice([text], [text[::-1]]),
    "decode_line": lambda text: decode_line(text.encode("utf-8", "replace"), "f:1"),
    "read_row": _read,
    "row_statistics": _row_statistics,
    "coloured": lambda text: coloured.__wrapped__(text),
    "thought_and_said": lambda text: thought_and_said(Message("assistant", text, None, text)),
}

CHARACTERS = [chr(code) for code in range(32, 127)] + [
    "\n",
    "\t",
    "\r",
    "\0",
    "\x0c",
    "\u00a0",
    "\u2028",
    "\ufeff",
    "é",
    "中",
]
PATTERNS = [
    "~`", "```\n", "``` ", "```x\n", "~~~\n", "~~~ x\n", "``` ~~~ ", "```f```", "x```\n", "'```", "#```", "> ```\n",
    "#\n", "- ", "1. ", "\"\"\"", "'''", "def ", "def f(\n", "async def ", "import (\n", "from a ", "a = ", "a=",
    "a b\n", "a:\n", "@a\n", ">>> ", ">>> a\n", "In [1]: ", "```python def f(x): 1", "```def f(",
    "```\ndef f(x): 1\n```\n", "{.python", "python\n", " \n", "<!--", "<!-->", "--", "<!", "<?", "</", "<html>",
    "<html ", "<body>", "<a ", "<a b=", "<a b='", "<a b=\"", "='", "=\"", "<script>", "<script ", "</script",
    "<title>", "<![CDATA[", "&#1", "&a", "&#x1", "</html", "<p/", "/>", "OUTPUT:", "I WANT TO ANSWER:", "no ",
    "error 500", "don't know", "never really ", "on", "ona ", "onclick", "integrity ", "a: b ", "a:  ", "a: b  \n",
    "1/", "1x", "/1", "id/", "[", "[1,", "{\"a\":", "\"\\ud800", "\\\\", "\\\"", "0 == ", "f(1) == ", "not ",
]  # fmt: skip
PARTS = [*CHARACTERS, *PATTERNS]
OPENINGS = ["", "```python\n", "~~~\n", "<html>", "<html><p a='", "<html><!--", "a: "]


def seconds(name: str, text: str) -> float:
    """The processor time of one call. What it raises counts as an answer, but for what no caller expects."""
    start = time.process_time()
    with contextlib.suppress(ValueError):  # BadInput is one
        FUNCTIONS[name](text)
    return time.process_time() - start


def hostile(opening: str, part: str, size: int) -> str:
    """The part over and over, `size` characters in all."""
    return opening + (part * (size // len(part) + 1))[: size - len(opening) - 1] + "x"


def main() -> None:
    """Prints what is slow; exit status 1 if something is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--limit", type=float, default=1.0)
    parser.add_argument("--only", choices=FUNCTIONS)
    arguments = parser.parse_args()
    slow = 0
    for name in [arguments.only] if arguments.only else FUNCTIONS:
        found = []
        for opening in OPENINGS:
            for part in PARTS:
                found.append((seconds(name, hostile(opening, part, arguments.size)), opening, part))
                if found[-1][0] > arguments.limit:
                    slow += 1
                    print(f"  {name}: {opening!r} {part!r}: {found[-1][0]:.2f} s", flush=True)
        taken, opening, part = max(found)
        print(f"{name}: {len(found)} texts, slowest {opening!r} {part!r}: {taken:.3f} s", flush=True)
    sys.exit(1 if slow else 0)


if __name__ == "__main__":
    main()
