"""Token rows for display: the text of each token, the turn it counts for, log-ratios, and counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from colbench_env.types import BadInput
from launch.common.run_dir import RunDir, enclosing_run
from launch.common.settings import EMBEDDED_DIRECTORIES
from launch.viewer.config import ShowConfig
from sweet_jax.data.batch import TokenRow
from sweet_jax.data.chat import Chat


@dataclass(frozen=True)
class Shown:
    """A token row to look at and what it is. log_ratios: of its counted tokens, None where not recorded."""

    title: str
    row: TokenRow
    log_ratios: tuple[float | None, ...] | None = None


@dataclass(frozen=True)
class ShownRows:
    """What is looked at together: the row of a dialogue, or the chosen and the rejected one of a pair."""

    title: str
    rows: tuple[Shown, ...]


@dataclass(frozen=True)
class Counts:
    """tokens: all of the row. counted: those that a loss sees. prefix: leading ones that left truncation keeps.
    turns: counted tokens of each agent turn. cut: turns without an end-of-turn token; None without a tokenizer."""

    tokens: int
    counted: int
    prefix: int
    turns: dict[int, int]
    cut: tuple[int, ...] | None

    @property
    def text(self) -> str:
        """One line with all of it."""
        turns = ", ".join(f"{turn}: {count}" for turn, count in self.turns.items()) or "none"
        cut = "not known without a tokenizer" if self.cut is None else ", ".join(map(str, self.cut)) or "none"
        return (
            f"{self.tokens} tokens, {self.counted} counted, prefix {self.prefix}; counted per turn {turns}; "
            f"turns cut off: {cut}"
        )


def counts(row: TokenRow, chat: Chat | None) -> Counts:
    """Count the tokens of a row. chat: knows the end ids."""
    turns = turn_counts(row)
    lasts = {turn: int(row.ids[row.turns == turn][-1]) for turn in turns}
    cut = None if chat is None else tuple(turn for turn, last in lasts.items() if last not in chat.end_ids)
    return Counts(len(row), sum(turns.values()), row.prefix, turns, cut)


def turn_counts(row: TokenRow) -> dict[int, int]:
    """Return agent turn -> its counted tokens, in order."""
    return {turn: int((row.turns == turn).sum()) for turn in sorted(set(row.turns[row.turns > 0].tolist()))}


class Pieces:
    """The text of single tokens; the number in guillemets where no tokenizer is known, where it has no such id, and for
    tokens that are only a part of a character."""

    def __init__(self, chat: Chat | None):
        self.chat = chat
        self._known: dict[int, str] = {}
        if chat is not None:
            # Behind another token, because sentencepiece takes the blank away from the first one it decodes.
            self._before = int(chat.tokenizer("a", add_special_tokens=False)["input_ids"][-1])
            self._text_before = chat.decode([self._before])

    def text(self, token: int) -> str:
        """Return the text of a token.

        In: 318   Out: " is", or "‹318›" without a tokenizer
        """
        if token not in self._known:
            self._known[token] = self._read(token) or f"‹{token}›"
        return self._known[token]

    def table(self, tokens: Iterable[int]) -> dict[int, str]:
        """Return token -> text of all that occur."""
        return {token: self.text(token) for token in sorted(set(tokens))}

    def _read(self, token: int) -> str:
        if self.chat is None or not 0 <= token < len(self.chat.tokenizer):
            return ""
        text = self.chat.decode([self._before, token]).removeprefix(self._text_before)
        return "" if "\ufffd" in text else text


def find_chat(model: str | None, run_dir: Path | None) -> Chat | None:
    """Load the tokenizer that `model` names, else the run directory's own, else None. Raises BadInput if unreadable."""
    if model is not None:
        return Chat.load(EMBEDDED_DIRECTORIES.get(model, model))
    if run_dir is None:
        return None
    run = RunDir(run_dir)
    directory = run.start_model() if run.config_file.is_file() else None
    if directory is None:
        what = "not a run's configuration" if run.config_file.is_file() else "No such file or directory"
        raise BadInput(f"{run.config_file}: {what}, expected a folder of launch.train with its config.json")
    if not directory.is_dir():
        raise BadInput(f"{run.config_file}: the run's model {run.read_config()['model']} is no directory here")
    return Chat.load(directory)


def tokenizer_for(config: ShowConfig, path: Path | None) -> tuple[Chat | None, str]:
    """Load the tokenizer that the flags name, else that of the run in whose folder the file lies; else return why not.

    Raises BadInput where the flags name one that cannot be read.
    """
    if config.model is not None or config.run_dir is not None or path is None:
        return find_chat(config.model, config.run_dir), ""
    run = enclosing_run(path)
    if run is None:
        return None, f"no --model was given, and {path} is in no folder of launch.train"
    try:
        return find_chat(None, run.path), ""
    except BadInput as problem:
        return None, f"{problem}; --model=DIR names one"


def check_ratios(ratios: object, count: int, location: str) -> Sequence[float]:
    """Check and return the log-ratios of `count` tokens. Raises BadInput."""
    if not isinstance(ratios, list) or len(ratios) != count or not all(isinstance(x, int | float) for x in ratios):
        raise BadInput(f"{location}: 'token_log_ratios' is not a list of {count} numbers, one a token of its turn")
    return ratios
