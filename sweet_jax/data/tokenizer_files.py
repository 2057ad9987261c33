"""Read the files of a tokenizer directory: the tokenizer itself, and the end ids that its other files name."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from colbench_env.terminal_text import shorten
from colbench_env.types import BadInput
from models.config import check_config_file
from models.json_settings import ModelError, read_object, token_ids


def load_tokenizer(directory: str | Path) -> PreTrainedTokenizerBase:
    """Load a Hugging Face tokenizer directory, without running code of its own. BadInput when there is none."""
    if not Path(directory).is_dir():
        raise BadInput(f"{directory}: no such directory; expected a Hugging Face tokenizer directory")
    try:
        check_config_file(directory)  # it is read to find the tokenizer
    except ModelError as error:
        raise BadInput(str(error)) from error
    try:
        return AutoTokenizer.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a malformed tokenizer.json gives a KeyError or a bare Exception, too
        if "trust_remote_code" in str(error):
            raise BadInput(
                f"{directory}: the tokenizer is code of its own ('auto_map'), which is never run; expected a "
                "tokenizer that transformers itself has"
            ) from error
        raise BadInput(f"{directory}: the tokenizer cannot be read: {_reason(error)}") from error


def declared_end_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """List the end ids of a tokenizer, and of `generation_config.json` and `config.json` in its directory. BadInput."""
    ids = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    if tokenizer.name_or_path:
        for name in ("generation_config.json", "config.json"):
            path = Path(tokenizer.name_or_path) / name
            ids += _end_ids_of(path) if path.is_file() else []
    return ids


def _end_ids_of(path: Path) -> list[int]:
    """Read `eos_token_id` of a JSON file: an id, a list of ids, or null or missing for none. Raises BadInput."""
    try:
        settings = read_object(path)
    except ModelError as error:
        raise BadInput(str(error)) from error
    try:
        return list(token_ids(settings, "eos_token_id"))
    except ModelError as error:
        raise BadInput(f"{path}: {error}") from error


def _reason(error: Exception) -> str:
    """Format the error in one line of at most 300 characters."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return shorten(text, 300)
