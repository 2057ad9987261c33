"""Write Hugging Face model directories that transformers and vLLM load: complete ones or none.

Both want `config.json` with `architectures` and a dtype, safetensors (with an index where there are several), the
tokenizer's files, its chat template, and `generation_config.json`, whose end ids stop the sampler.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jax.typing import DTypeLike

from colbench_env.types import BadInput
from models.config import LlamaConfig
from models.hf_io import save_llama, write_llama
from models.json_settings import ModelError, read_object, token_ids
from sweet_jax import processes
from sweet_jax.data.chat import Chat

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
GENERATION_FILE, TOKENIZER_CONFIG = "generation_config.json", "tokenizer_config.json"


def export_model(directory: Path, config: LlamaConfig, params: Any, tokenizer: Any) -> None:
    """Write a model that was made here, and its tokenizer. BadInput where the disk refuses."""
    with replace_directory(directory) as tmp_path:
        save_llama(tmp_path, config, params)
        if _writes():
            try:
                tokenizer.save_pretrained(tmp_path)
            except Exception as error:  # tokenizers raises a bare Exception for a full disk
                raise BadInput(f"{directory}: the tokenizer cannot be written: {error}") from error
            _name_tokenizer_class(tmp_path)
            _write_generation_config(tmp_path, config, {}, Chat(tokenizer).end_ids)


def export_trained(
    directory: Path,
    config: LlamaConfig,
    parameter: Callable[[str], Any],
    dtype: DTypeLike,
    source: Path,
) -> None:
    """Write a model that was trained from the directory `source`, with a copy of the source's tokenizer files.

    parameter: path -> array, called for one parameter after another. dtype: of the written weights.
    The source's `generation_config.json` is kept, and every end id that stops our sampler is added to its end ids.
    BadInput where the disk refuses.
    """
    chat = Chat.load(source)
    with replace_directory(directory) as tmp_path:
        write_llama(tmp_path, config, parameter, dtype)
        if _writes():
            copy_tokenizer(source, tmp_path)
            _write_generation_config(tmp_path, config, generation_settings(source), chat.end_ids)


@contextlib.contextmanager
def replace_directory(directory: Path) -> Iterator[Path]:
    """Give a temporary directory to write in; it replaces `directory` at the end and is removed after an error.

    With several processes process 0 makes and moves it. BadInput where the disk refuses.
    """
    tmp_path = directory.with_name(directory.name + ".tmp")
    try:
        if _writes():
            shutil.rmtree(tmp_path, ignore_errors=True)
            tmp_path.mkdir(parents=True)
        yield tmp_path
        if _writes():
            shutil.rmtree(directory, ignore_errors=True)
            tmp_path.rename(directory)
        processes.broadcast_from_process_0(lambda: None)  # the others go on when it is there
        processes.wait_for(directory)
    except BaseException as error:
        if _writes():
            shutil.rmtree(tmp_path, ignore_errors=True)
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise BadInput(f"{directory}: the model cannot be written: {reason}") from error
        raise


def copy_tokenizer(source: Path, directory: Path) -> None:
    """Copy the tokenizer's files and its chat templates."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, directory / name)
    if (source / "additional_chat_templates").is_dir():
        shutil.copytree(source / "additional_chat_templates", directory / "additional_chat_templates")
    _name_tokenizer_class(directory)


def generation_settings(source: Path) -> dict[str, Any]:
    """Read a model's `generation_config.json`; {} where there is none. ModelError for damaged end ids."""
    path = source / GENERATION_FILE
    settings = read_object(path) if path.is_file() else {}
    try:
        token_ids(settings, "eos_token_id")
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    return settings


def _write_generation_config(
    directory: Path, config: LlamaConfig, settings: Mapping[str, Any], end_ids: Iterable[int]
) -> None:
    named = token_ids(settings, "eos_token_id")
    ids = [*named, *sorted({*config.eos_token_ids, *end_ids} - set(named))]
    bos = {} if config.bos_token_id is None else {"bos_token_id": config.bos_token_id}
    written = bos | dict(settings) | {"eos_token_id": ids[0] if len(ids) == 1 else ids}
    (directory / GENERATION_FILE).write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


def _name_tokenizer_class(directory: Path) -> None:
    """Replace the tokenizer class of transformers 5, which transformers 4 and vLLM do not know, by one all know."""
    path = directory / TOKENIZER_CONFIG
    if not path.is_file():
        return
    settings = json.loads(path.read_text(encoding="utf-8"))
    if settings.get("tokenizer_class") == "TokenizersBackend":
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _writes() -> bool:
    return processes.is_process_0()
