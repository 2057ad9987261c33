"""From the text of an answer to the Python source that is run, and from a test to what is called.

`strict` takes what a person would: the code inside any fence (`fences`) or outside of one, whatever prose, line ends or
byte-order mark stand around it. `official` has the released grader's rules: the block-list, the text between the first
fences, nothing else.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..types import NO_ANSWER
from .fences import split_fences, without_prompts, without_prose

MAX_CHARACTERS = 1_000_000  # a longer answer is not run

# Texts for which the released grader gives 0 without running anything; `exit(` also hits `on_exit(`.
BLOCKED = ("import os", "from os", "import sys", "from sys", "sudo", "transformers", "exit(", "quit(", "argparse")

# Answers are long and hostile: every pattern and loop here takes time linear in the text.
_CALLED = re.compile(r"\s*([^\W\d]\w*)\s*\(")
_DEFINED = re.compile(
    r"^(?:(?:async[ \t]+)?(?:def|class)[ \t]+(\w+)|(?:from[ \t]+\S+[ \t]+)?import[ \t]+(\([^)]*|.+)|(\w+)[ \t]*=[^=(])",
    re.MULTILINE,
)
_DEFINITIONS_ONLY = re.compile(r"(?:(?:async[ \t]+)?def|class|import|from)[ \t]|\w+[ \t]*=[^=(]+$|[@#\s)\]}]")


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
    """Find the first text of the released block-list that occurs in an answer, None where none does."""
    return next((word for word in BLOCKED if word in text), None)


def official_source(text: str) -> str:
    """Extract the source that the released grader runs: between the first "```python" and the next fence, then any
    fence."""
    for opening in ("```python", "```"):
        if opening in text:
            text = text.split(opening)[1].split("```")[0]
    return text


def strict_source(text: str, cases: tuple[Case, ...]) -> str:
    """Extract the Python source of an answer: of several fenced blocks, the last one that defines what the tests call,
    with what it needs of the others; where none does, the code outside of fences if that defines it.

    If nothing defines it, all Python blocks together; without any fence, the whole text but its prose.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff")
    blocks, outside = split_fences(text)
    if not blocks:
        return without_prose(without_prompts(outside if outside.strip() else text))
    python = [block.source for block in blocks if block.python]
    other = [block.source for block in blocks if not block.python]
    names = "|".join(sorted({match[1] for case in cases if (match := _CALLED.match(case.call))})) or "$"
    defines = re.compile(
        rf"^[ \t]*(?:(?:async[ \t]+)?(?:def|class)[ \t]+(?:{names})\b|(?:{names})[ \t]*=[^=])", re.MULTILINE
    )
    unfenced = [without_prose(outside)] if defines.search(outside) else []
    for sources in (python, other, unfenced):
        for place in reversed(range(len(sources))):
            if defines.search(sources[place]):
                return _with_helpers(sources, place)
    return "\n".join(python or other)


def _with_helpers(sources: Sequence[str], place: int) -> str:
    """Join a source with the others that do nothing but define, in their order, as far as it names what they define."""
    names = [set(_defined_names(source)) for source in sources]
    helper = {
        name: index
        for index, source in enumerate(sources)
        if all(not line or _DEFINITIONS_ONLY.match(line) for line in source.split("\n"))
        for name in names[index]
    }
    taken, left = {place}, [place]
    while left:
        index = left.pop()
        used = set(re.findall(r"\w+", sources[index])) - names[index]
        needed = {helper[name] for name in used if name in helper} - taken
        taken |= needed
        left += needed
    return "\n".join(sources[index] for index in sorted(taken))


def _defined_names(source: str) -> Iterator[str]:
    for match in _DEFINED.finditer(source):
        yield from re.findall(r"\w+", match[match.lastindex or 0])


def parse_case(name: str, expression: str) -> Case:
    """Parse the test of a call expression. `f(..) == literal` is taken apart: the literal is never shown to the
    answer."""
    try:
        tree = ast.parse(expression.strip(), mode="eval").body if "==" in expression else None
        if isinstance(tree, ast.Compare) and len(tree.ops) == 1 and isinstance(tree.ops[0], ast.Eq):
            literal = ast.unparse(tree.comparators[0])
            ast.literal_eval(literal)
            return Case(name, ast.unparse(tree.left), literal)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pass  # not of that form: the worker will say what is wrong with it, if anything is
    return Case(name, expression.strip())
