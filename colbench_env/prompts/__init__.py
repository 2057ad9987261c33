"""What the agent and a simulated human are told, one text file each; `$name` marks what is filled in."""

from importlib import resources
from string import Template


def load_prompt(name: str, **values: object) -> str:
    """The text of `NAME.txt` with its fields filled in.

    Every field of the file must be given and no other: else ValueError names both. A value is put in as it is, so
    source code with dollar signs or braces is safe.
    """
    file = resources.files(__name__) / f"{name}.txt"
    if not file.is_file():
        raise ValueError(f"there is no prompt {name!r}, there are: {', '.join(prompt_names())}")
    template = Template(file.read_text(encoding="utf-8").strip())
    if set(template.get_identifiers()) != set(values):
        wanted, given = sorted(template.get_identifiers()), sorted(values)
        raise ValueError(f"prompt {name!r} has the fields {wanted}, given were {given}")
    return template.substitute(values)


def prompt_names() -> list[str]:
    """The names of all prompts."""
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(".txt") for file in files if file.name.endswith(".txt"))
