"""A user simulator for real tasks that needs no model: answers from the reference by rules, in plain sentences, never
code.

Each question of the agent's turn is given the fact about the function that it asks for (`knowledge`); a question about
which nothing is known gets a shrug. What is said depends on the task and the dialogue alone, without chance, and gives
nothing away that the detector of leaks would find (`simulator_health.leaks`).
"""

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from colbench_env.dialogue import BACKEND_REPLY_LIMIT
from colbench_env.humans import SimulatorRequest
from colbench_env.humans.facts import Fact, stems
from colbench_env.humans.knowledge import read_knowledge
from colbench_env.python_source import NotPython
from colbench_env.simulator_health import leaks
from colbench_env.types import BadInput, NoReply, Task

VERSION = 2  # of the rules: goes up with whatever changes a reply
SHRUG = "I don't know, that is up to you."
NO_QUESTION = "I can't read code. Please ask me what you need to know, or give your answer."
MOST = 3  # facts in one reply
ENOUGH = 0.5  # the least score of a fact that is told

_CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_SENTENCE = re.compile(r"[^.?!\n]*(?:\.(?=\S)[^.?!\n]*)*[.?!]?")
_REQUEST = re.compile(
    r"\b(clarify|tell me|specify|explain|describe|provide|confirm|please|let me know)\b", re.IGNORECASE
)
_CUES: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), kinds)
    for pattern, kinds in (
        (r"\bround|\bdecimal|\bprecision|whole number|\binteger", ("rounding",)),
        (r"\bsort|\border(ed|ing)?\b|\brank|\bpriorit", ("order",)),
        (r"\b(type|format|structure|represent\w*|list|dictionar\w+|keys?|string)\b", ("parameter",)),
        (r"\b(default|missing|optional)\b", ("parameter",)),
        (r"\breturn|\boutput|\bresult", ("outcome",)),
        (r"\b(empty|invalid|zero|negative|none|edge cases?|error|exception|fail)\b", ("outcome",)),
        (
            r"\b(threshold|criteri\w+|condition|rule|determin\w+|decid\w+|defin\w+|logic|qualif\w+|factor)",
            ("outcome", "step"),
        ),
        (r"\b(formula|calculat\w+|comput\w+|weight\w*|combin\w+|rate|percent\w*|multipl\w+)", ("step", "outcome")),
        (r"\b(values?|categor\w+|options?|keywords?|list of|examples?)\b", ("values",)),
    )
)


@dataclass(frozen=True)
class RulesSimulator:
    """Answers questions about backend tasks from their references. called: the name in rows.

    Examples:
        >>> import asyncio
        >>> task = Task("Add up prices.", "def f(prices): return round(sum(prices), 2)", {"test1": "f([1.234])"})
        >>> dialogue = (Message("user", task.problem_description), Message("assistant", "How do I round the total?"))
        >>> asyncio.run(RulesSimulator().reply(SimulatorRequest(task, dialogue, seed=0)))
        'Round to 2 decimals. The result is the sum of prices rounded to 2 decimals.'
    """

    called: str = "rules"

    @property
    def name(self) -> str:
        """The name of this kind of user simulator."""
        return self.called

    @property
    def settings(self) -> dict[str, Any]:
        """The version of the rules."""
        return {"answers": "from the reference by rules", "version": VERSION}

    async def reply(self, request: SimulatorRequest) -> str:
        """Reply with facts. Raises BadInput for a task without a reference; NoReply where the reference is not
        Python."""
        task = request.task
        if not task.ground_truth.strip():
            raise BadInput(f"task {task.task_id} has no reference to answer from")
        try:
            facts = _facts_of(task)
        except NotPython as reason:
            raise NoReply(f"the reference of task {task.task_id} is not Python ({reason})") from None
        previous = " ".join(message.content for message in request.messages[1:] if message.role == "user")
        reply = answer(request.question, facts, previous)
        return reply if not leaks(task, reply) else SHRUG  # no fact leaks; neither shall two of them together


def answer(turn: str, facts: Sequence[Fact], previous: str = "") -> str:
    """Answer an agent's turn in at most BACKEND_REPLY_LIMIT characters. previous: the replies before this one.

    In:  "How do I round?", facts of which one is "Round to 2 decimals."   Out: "Round to 2 decimals."
    """
    questions = list(_questions(turn))
    if not questions:
        return NO_QUESTION if _CODE.search(turn) or len(turn) > 200 else SHRUG
    new = [fact for fact in facts if fact.sentence not in previous]
    asked = questions if len(questions) > 1 else questions * MOST  # a single question may be a wide one
    chosen: list[str] = []
    for question in asked:
        remaining = [fact for fact in new if fact.sentence not in chosen]
        fact = _best(question, remaining, facts)
        if fact is None and not chosen:
            fact = _best(question, facts, facts)  # said before, and asked for again
        if fact is None or fact.sentence in chosen:
            continue
        if len(" ".join([*chosen, fact.sentence])) <= BACKEND_REPLY_LIMIT:
            chosen.append(fact.sentence)
        if len(chosen) == MOST:
            break
    return " ".join(chosen) or SHRUG


@functools.lru_cache(maxsize=4096)
def _facts_of(task: Task) -> tuple[Fact, ...]:
    return tuple(fact for fact in read_knowledge(task) if not leaks(task, fact.sentence))


def _questions(turn: str) -> Iterator[str]:
    """Split the questions and requests out of what the agent has said, its code left out."""
    for sentence in _SENTENCE.findall(_CODE.sub(" ", turn)):
        if sentence.endswith("?") or _REQUEST.search(sentence):
            yield sentence


def _best(question: str, among: Sequence[Fact], facts: Sequence[Fact]) -> Fact | None:
    """Find the fact among these that the question asks for, or None. A word counts more the fewer of all `facts`
    have it."""
    asked = stems(question)
    cued = {kind for pattern, kinds in _CUES if pattern.search(question) for kind in kinds}
    best, most = None, ENOUGH
    for fact in among:
        rare = sum(1 / sum(word in other.words for other in facts) ** 0.5 for word in asked & fact.words)
        score = rare + (0.6 if fact.kind in cued else 0.0)
        if score > most:
            best, most = fact, score
    return best
