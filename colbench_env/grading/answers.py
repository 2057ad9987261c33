"""From the text of an answer to the Python source that is run, and from a test to what is called.

`strict` takes what a person would: the code inside any fence, whatever prose, line ends or byte-order mark stand around
it. `official` has the released grader's rules: the block-list, the text between the first fences, nothing else.
"""

import ast
import re
import textwrap
from dataclasses import dataclass

from ..types import NO_ANSWER

MAX_CHARACTERS = 1_000_000  # a longer answer is not run

# Texts for which the released grader gives 0 without running anything; `exit(` also hits `on_exit(`.
BLOCKED = ("import os", "from os", "import sys", "from sys", "sudo", "transformers", "exit(", "quit(", "argparse")

# Answers are long and hostile: every pattern and loop here takes time linear in the text.
_PYTHON = re.compile(r"(?:python[0-9.]*|py[0-9]*|ipython|pycon)?", re.IGNORECASE)
_LABEL = re.compile(r"[\w.+#-]*")
_FENCE = re.compile(r"`{3,}|~{3,}")
_CALLED = re.compile(r"\s*([^\W\d]\w*)\s*\(")


@dataclass(frozen=True)
class Case:
    """One test: the expression to run, and the literal it was compared with (its source), if it was."""

    name: str
    call: str
    literal: str | None = None


def is_no_answer(text: str) -> bool:
    """Whether the episode ended without an answer."""
    return text.strip() in ("", NO_ANSWER)


def blocked_word(text: str) -> str | None:
    """The first text of the released block-list that occurs in an answer, or None."""
    return next((word for word in BLOCKED if word in text), None)


def official_source(text: str) -> str:
    """The source that the released grader runs: between the first "```python" and the next fence, then any fence."""
    for opening in ("```python", "```"):
        if opening in text:
            text = text.split(opening)[1].split("```")[0]
    return text


def strict_source(text: str, cases: tuple[Case, ...]) -> str:
    """The Python source in an answer: of several fenced blocks, the last one that defines what the tests call.

    If no block defines it, all Python blocks together; without any fence, the whole text.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff")
    blocks = _blocks(text)
    if not blocks:
        return text
    names = "|".join(sorted({match[1] for case in cases if (match := _CALLED.match(case.call))})) or "$"
    defines = re.compile(rf"^[ \t]*(?:async[ \t]+)?(?:def|class)[ \t]+(?:{names})\b", re.MULTILINE)
    defining = [block for block in blocks if defines.search(block)]
    return defining[-1] if defining else "\n".join(blocks)


def _blocks(text: str) -> list[str]:
    """The contents of the Python fences, or of all fences if none says Python. A last one may lack its end."""
    python, other = [], []
    fence = block = None
    for line in text.split("\n"):
        indent = len(line) - len(line.lstrip())
        if fence is not None:
            if line.strip() == fence[0] and indent <= fence[1]:
                fence = None
            else:
                block.append(line)
        elif opening := _FENCE.search(line):
            fence = opening[0], indent if opening.start() == indent else 0
            label = line[opening.end() :].strip()
            if _LABEL.fullmatch(label):
                block = []
            else:  # code begins on the line of the fence
                first, _, rest = label.partition(" ")
                block = [rest if _PYTHON.fullmatch(first) else label]
                label = ""
            (python if _PYTHON.fullmatch(label) else other).append(block)
    return [textwrap.dedent("\n".join(lines)).lstrip("\ufeff") for lines in python or other]


def parse_case(name: str, expression: str) -> Case:
    """The test of a call expression. `f(..) == literal` is taken apart: the literal is never shown to the answer."""
    try:
        tree = ast.parse(expression.strip(), mode="eval").body if "==" in expression else None
        if isinstance(tree, ast.Compare) and len(tree.ops) == 1 and isinstance(tree.ops[0], ast.Eq):
            literal = ast.unparse(tree.comparators[0])
            ast.literal_eval(literal)
            return Case(name, ast.unparse(tree.left), literal)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pass  # not of that form: the worker will say what is wrong with it, if anything is
    return Case(name, expression.strip())
