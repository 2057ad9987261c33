"""The prompts of the agent and of a user simulator, one text file each.

A field is `$name`, as in the files here, or `{name}`, as in the released ones (where `{{` stands for a brace). A file
has fields of one kind. A value is put in as it is, so source code with dollar signs or braces is safe.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Formatter, Template

from colbench_env.types import BadInput

HUMAN_FIELDS = frozenset({"problem_description", "hidden_information", "dialogue", "dialogue_history"})


def load_prompt(name: str, **values: object) -> str:
    """Load the text of `NAME.txt` with its fields filled in.

    Every field of the file must be given and no other: else ValueError names both.

    Examples:
        >>> "10" in load_prompt("backend_agent", max_turns=10)
        True
    """
    template = Template(_own_text(name))
    if set(template.get_identifiers()) != set(values):
        wanted, given = sorted(template.get_identifiers()), sorted(values)
        raise ValueError(f"prompt {name!r} has the fields {wanted}, given were {given}")
    return template.substitute(values)


def prompt_names() -> list[str]:
    """List the names of all prompts."""
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(".txt") for file in files if file.name.endswith(".txt"))


@dataclass(frozen=True)
class Prompt:
    """A prompt with fields. name: what rows say of it; for a file of the user's with a hash of its text."""

    name: str
    text: str

    def fill(self, values: Mapping[str, str]) -> str:
        """Fill in the fields of the text. Raises BadInput where it has a field that is not among the values."""
        template = Template(self.text)
        if set(template.get_identifiers()) & set(values):
            unknown, filled = set(template.get_identifiers()) - set(values), template.safe_substitute(values)
        else:
            unknown, filled = self._format(values)
        if unknown:
            raise BadInput(f"prompt {self.name}: unknown fields {sorted(unknown)}, expected some of {sorted(values)}")
        return filled

    def _format(self, values: Mapping[str, str]) -> tuple[set[str], str]:
        try:
            parts = list(Formatter().parse(self.text))
        except ValueError as problem:
            if not any(f"{{{name}}}" in self.text for name in values):
                return set(), self.text  # braces of its own, and no field
            raise BadInput(f"prompt {self.name}: {problem}, expected {{{{ and }}}} for braces") from None
        names = {name for _, name, _, _ in parts if name is not None}
        if not names & set(values):
            return set(), self.text
        filled = "".join(text + (values.get(name, "") if name is not None else "") for text, name, _, _ in parts)
        return names - set(values), filled


def read_human_prompt(name: str, hidden: bool = True) -> Prompt:
    """Read the prompt of this name here, else of this file, for a user simulator: it has to show the dialogue, and what
    is hidden.

    hidden: False where what is hidden is a picture that is shown with the prompt.
    """
    prompt = _read(name, "--human-prompt")
    blank = {field: f"\0{field}\0" for field in HUMAN_FIELDS}
    filled = prompt.fill(blank)
    shows_dialogue = any(blank[field] in filled for field in ("dialogue", "dialogue_history"))
    if not shows_dialogue or (hidden and blank["hidden_information"] not in filled):
        ours, theirs = ("$hidden_information and ", "{hidden_information} and ") if hidden else ("", "")
        raise BadInput(f"--human-prompt={name}: expected {ours}$dialogue, or {theirs}{{dialogue_history}}")
    return prompt


def read_agent_prompt(name: str, max_turns: int) -> str:
    """Read the agent's system prompt: "" for "none", else the prompt of this name here or of this file, filled in."""
    return "" if name == "none" else _read(name, "--agent-prompt").fill({"max_turns": str(max_turns)})


def _read(name: str, flag: str) -> Prompt:
    if name in prompt_names():
        return Prompt(name, _own_text(name))
    if not Path(name).is_file():
        raise BadInput(f"{flag}={name}: no such file, and none of {', '.join(prompt_names())}")
    try:
        text = Path(name).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as problem:
        raise BadInput(f"{flag}={name}: cannot be read as UTF-8 text: {problem}") from problem
    return Prompt(f"{Path(name).name} {hashlib.sha256(text.encode()).hexdigest()[:12]}", text)


def _own_text(name: str) -> str:
    file = resources.files(__name__) / f"{name}.txt"
    if not file.is_file():
        raise ValueError(f"there is no prompt {name!r}, there are: {', '.join(prompt_names())}")
    return file.read_text(encoding="utf-8").strip()


BACKEND_HUMAN = Prompt("backend_human", _own_text("backend_human"))
DESIGN_HUMAN = Prompt("design_human", _own_text("design_human"))
