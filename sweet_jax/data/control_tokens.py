"""Control tokens in foreign text: what a person or an agent wrote is text, even where it spells a special token.

A chat template mixes its own strings, whose special tokens are control tokens, with the contents of messages, in which
"<s>" or "<|im_end|>" is text (HTML has an `<s>` tag). So contents are hidden before the template sees them: a control
string in them becomes a mark of two characters. `encode` then makes ids of the rendered text in ONE tokenisation:
control strings that are still there are control tokens, and marks are the text that they stand for.
"""

import functools
import json
import re
from collections.abc import Iterable, Set

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from colbench_env.types import BadInput, replace_lone_surrogates

# Unicode keeps these for use inside programs: no character that text is to hold ("noncharacters").
HIDDEN, CONTROL = "\ufdd0", "\ufdd1"
_RESERVED = re.compile(f"[{HIDDEN}{CONTROL}]")
_FIRST = 0xF0000  # the character behind HIDDEN or CONTROL is this plus the number of the control string


class ControlTokens:
    """The control strings of a tokenizer: its special tokens and `more` of its added tokens.

    Where foreign text holds no control string, all ids are those of the tokenizer itself. BadInput where the tokenizer
    cannot be made to take a control string as text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, more: Iterable[str] = ()):
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.values()
        special = {token.content for token in added if token.special} | set(tokenizer.all_special_tokens) | set(more)
        self.strings: tuple[str, ...] = tuple(sorted(filter(None, special), key=lambda text: (-len(text), text)))
        self._number = {text: number for number, text in enumerate(self.strings)}
        any_string = "|".join(map(re.escape, self.strings)) or "(?!)"
        self._in_content = re.compile(any_string)
        self._in_rendering = re.compile(f"{HIDDEN}.|{any_string}", re.DOTALL)
        model = tokenizer.backend_tokenizer.model
        if any(model.token_to_id(text) is not None for text in self.strings):
            self._renamed  # noqa: B018  where the model changes it may fail: now rather than at a message

    def hide(self, content: str) -> str:
        """The content with its control strings hidden; a lone surrogate or a reserved character becomes U+FFFD."""
        content = _RESERVED.sub("\ufffd", replace_lone_surrogates(content))
        return self._in_content.sub(lambda found: HIDDEN + chr(_FIRST + self._number[found[0]]), content)

    def reveal(self, text: str) -> str:
        """The text with all that `hide` has hidden."""
        return re.sub(f"{HIDDEN}(.)", lambda found: self.strings[ord(found[1]) - _FIRST], text, flags=re.DOTALL)

    def encode(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Ids int32 [T] of a text whose contents are hidden, and where each token begins and ends in it, int64 [T, 2].

        No special token is added.
        """
        if HIDDEN in text:
            return self._encode_hidden(text)
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return np.array(encoded["input_ids"], np.int32), np.array(encoded["offset_mapping"], np.int64).reshape(-1, 2)

    def _encode_hidden(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        pieces, places, at = [], [], 0
        for found in self._in_rendering.finditer(text):
            begin, end = found.span()
            is_text = found[0].startswith(HIDDEN)
            piece = self.reveal(found[0]) if is_text else CONTROL + chr(_FIRST + self._number[found[0]])
            pieces += [text[at:begin], piece]
            places += [*range(at, begin), begin, *[end - 1 if is_text else end] * (len(piece) - 1)]
            at = end
        pieces.append(text[at:])
        places = np.array([*places, *range(at, len(text) + 1)], np.int64)
        # In a batch, as `encode` keeps all other threads waiting; a server answers others meanwhile.
        (encoded,) = self._renamed.encode_batch(["".join(pieces)], add_special_tokens=False)
        offsets = np.array(encoded.offsets, np.int64).reshape(-1, 2)
        return np.array(encoded.ids, np.int32), places[offsets]

    @functools.cached_property
    def _renamed(self) -> Tokenizer:
        """The tokenizer, in which no text spells a control token: each is named by CONTROL and its number instead."""
        names = {text: CONTROL + chr(_FIRST + number) for text, number in self._number.items()}
        try:
            renamed = self._with_names(names)
        except Exception as error:  # of tokenizers, a bare one
            raise self._cannot_rename(f"{type(error).__name__}: {error}") from error
        for text, name in names.items():
            if renamed.token_to_id(name) != self._tokenizer.convert_tokens_to_ids(text):
                raise self._cannot_rename(f"the id of {text!r} moves")
        return renamed

    def _cannot_rename(self, reason: str) -> BadInput:
        return BadInput(
            f"{self._tokenizer.name_or_path or 'the tokenizer'}: text that spells a special token cannot be told from "
            f"the token: {reason}"
        )

    def _with_names(self, names: dict[str, str]) -> Tokenizer:
        """The tokenizer with other names for some tokens, and without the merges that would make those of text."""
        data = json.loads(self._tokenizer.backend_tokenizer.to_str())
        data |= {"post_processor": None, "truncation": None, "padding": None}
        for token in data["added_tokens"]:
            token["content"] = names.get(token["content"], token["content"])
        model = data["model"]
        if isinstance(model["vocab"], dict):
            model["vocab"] = {names.get(text, text): number for text, number in model["vocab"].items()}
        else:
            model["vocab"] = [[names.get(text, text), score] for text, score in model["vocab"]]
        if model.get("unk_token") in names:
            model["unk_token"] = names[model["unk_token"]]
        if "merges" in model:
            model["merges"] = _without(model["merges"], names.keys(), len(model.get("continuing_subword_prefix") or ""))
        return Tokenizer.from_str(json.dumps(data))


def _without(merges: list, texts: Set[str], prefix: int) -> list:
    """The merges in which none of the texts takes part. prefix: characters that a right side loses in a merge."""
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in merges)
    return [
        merge
        for merge, (left, right) in zip(merges, pairs, strict=True)
        if texts.isdisjoint((left, right, left + right[prefix:]))
    ]
