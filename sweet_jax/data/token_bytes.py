"""The bytes of single tokens: joined, those of the text. `decode([token])` loses blanks and parts of characters."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerBase

_FALLBACK = re.compile("<0x([0-9A-F]{2})>")  # a byte among the pieces of sentencepiece
_BROKEN = "\ufffd"  # what bytes are decoded to that are no whole character


def _byte_of() -> dict[str, int]:
    """The byte for which each character of a byte-level piece stands: printable ones for themselves, others beyond."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    itself = [ord(character) for character in alphabet if ord(character) < 256]
    return dict(zip(alphabet, itself + [byte for byte in range(256) if byte not in itself], strict=True))


_BYTE_OF = _byte_of()


class TokenBytes:
    """What each id adds to `tokenizer.decode(ids, skip_special_tokens=True)`, as bytes in UTF-8.

    A special token, and an id that the tokenizer does not have, adds nothing. Decoders treat the first token of a text
    in a way of its own (sentencepiece takes its blank away) and depend on nothing else that stands before a token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self._tokenizer = tokenizer
        self._anchor: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"][-1:]
        self.of = functools.cache(self._of)

    def _of(self, token: int, first: bool) -> bytes:
        """The bytes that the token adds, as the first of a text or behind others."""
        before = [] if first else self._anchor
        text = self._decode([*before, token])[len(self._decode(before)) :]
        return self._raw(token) if _BROKEN in text else text.encode()

    def joined(self, ids: Sequence[int], begun: bool = False) -> tuple[list[bytes], bool]:
        """The bytes of each id, and whether the text has begun with them. begun: whether it had before."""
        found = []
        for token in ids:
            found.append(self.of(token, not begun))
            # Not whether bytes were added: a first token that is a blank alone adds none, and is the first.
            begun = begun or bool(self.of(token, False))
        return found, begun

    def name(self, token: int) -> str:
        """The token alone as text, a special one by its name."""
        return self._tokenizer.decode([token], clean_up_tokenization_spaces=False)

    def _raw(self, token: int) -> bytes:
        piece = self._tokenizer.convert_ids_to_tokens(token)
        if fallback := _FALLBACK.fullmatch(piece):
            return bytes([int(fallback[1], 16)])
        if all(character in _BYTE_OF for character in piece):
            return bytes(_BYTE_OF[character] for character in piece)
        return piece.encode()

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
