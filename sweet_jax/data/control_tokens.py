"""Keep special tokens apart from text that spells them: the content of a message is always text.

A chat template mixes its own strings, whose special tokens are control tokens, with the contents of messages, in which
"<s>" or "<|im_end|>" is text (HTML has an `<s>` tag). So `hide` replaces each control string of a content by a mark of
two characters before the template is rendered. `encode` then makes ids of the rendered text in one tokenisation:
remaining control strings become control tokens, and marks become the text that they stand for.
"""

import functools
import json
import re
from collections.abc import Iterable, Set
from typing import cast

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from colbench_env.types import BadInput, replace_lone_surrogates

# Unicode reserves these "noncharacters" for use inside programs; no text should contain them.
HIDDEN, CONTROL = "\ufdd0", "\ufdd1"
_RESERVED = re.compile(f"[{HIDDEN}{CONTROL}]")
_FIRST = 0xF0000  # the character behind HIDDEN or CONTROL is this plus the number of the control string


class ControlTokens:
    """The control strings of a tokenizer: its special tokens and `more` of its added tokens.

    For contents without a control string all ids are the tokenizer's own. BadInput where the tokenizer cannot be made
    to take a control string as text.
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

    def id_of(self, token: str) -> int:
        """Return the id of a token of the tokenizer."""
        return cast(int, self._tokenizer.convert_tokens_to_ids(token))

    def hide(self, content: str) -> str:
        """Replace the control strings of a content by marks; lone surrogates and reserved characters become U+FFFD."""
        content = _RESERVED.sub("\ufffd", replace_lone_surrogates(content))
        return self._in_content.sub(lambda found: HIDDEN + chr(_FIRST + self._number[found[0]]), content)

    def reveal(self, text: str) -> str:
        """Replace the marks of `hide` by the control strings again."""
        return re.sub(f"{HIDDEN}(.)", lambda found: self.strings[ord(found[1]) - _FIRST], text, flags=re.DOTALL)

    def encode(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Encode a text whose contents went through `hide`; no special token is added.

        Returns ids int32 [T], and the first and past-the-last character of each token, int64 [T, 2].
        """
        if HIDDEN in text:
            return self._encode_hidden(text)
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return np.array(encoded["input_ids"], np.int32), np.array(encoded["offset_mapping"], np.int64).reshape(-1, 2)

    def _encode_hidden(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        pieces: list[str] = []
        positions: list[int] = []  # in the text, of every character of the pieces
        at = 0
        for found in self._in_rendering.finditer(text):
            begin, end = found.span()
            is_text = found[0].startswith(HIDDEN)
            piece = self.reveal(found[0]) if is_text else CONTROL + chr(_FIRST + self._number[found[0]])
            pieces += [text[at:begin], piece]
            positions += [*range(at, begin), begin, *[end - 1 if is_text else end] * (len(piece) - 1)]
            at = end
        pieces.append(text[at:])
        positions += range(at, len(text) + 1)
        # As a batch, because `encode` blocks all other threads, and a server answers others meanwhile.
        (encoded,) = self._renamed.encode_batch(["".join(pieces)], add_special_tokens=False)
        offsets = np.array(encoded.offsets, np.int64).reshape(-1, 2)
        return np.array(encoded.ids, np.int32), np.array(positions, np.int64)[offsets]

    @functools.cached_property
    def _renamed(self) -> Tokenizer:
        """The tokenizer with control tokens that no text spells: each is named CONTROL and its number instead."""
        names = {text: CONTROL + chr(_FIRST + number) for text, number in self._number.items()}
        try:
            renamed = self._with_names(names)
        except Exception as error:  # of tokenizers, a bare one
            raise self._cannot_rename(f"{type(error).__name__}: {error}") from error
        for text, name in names.items():
            if renamed.token_to_id(name) != self.id_of(text):
                raise self._cannot_rename(f"the id of {text!r} moves")
        return renamed

    def _cannot_rename(self, reason: str) -> BadInput:
        return BadInput(
            f"{self._tokenizer.name_or_path or 'the tokenizer'}: text that spells a special token cannot be told from "
            f"the token: {reason}"
        )

    def _with_names(self, names: dict[str, str]) -> Tokenizer:
        """Copy the tokenizer with other names for some tokens, and without the merges that would make them of text."""
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
    """Drop the merges that involve any of the texts. prefix: characters that the right side loses in a merge."""
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in merges)
    return [
        merge
        for merge, (left, right) in zip(merges, pairs, strict=True)
        if texts.isdisjoint((left, right, left + right[prefix:]))
    ]
