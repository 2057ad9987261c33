"""The bytes of single tokens, which joined are those of the text.

`decode([token])` cannot be used: it loses blanks and parts of characters.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerBase

_FALLBACK = re.compile("<0x([0-9A-F]{2})>")  # the piece of a single byte in sentencepiece
_BROKEN = "\ufffd"  # the text of bytes that are not a complete character


def _byte_of() -> dict[str, int]:
    """Map each character of a byte-level piece to its byte: printable ones to themselves, others to the rest."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    itself = [ord(character) for character in alphabet if ord(character) < 256]
    return dict(zip(alphabet, itself + [byte for byte in range(256) if byte not in itself], strict=True))


_BYTE_OF = _byte_of()


class TokenBytes:
    """The UTF-8 bytes that each id adds to `tokenizer.decode(ids, skip_special_tokens=True)`.

    A special token adds nothing, nor does an id that the tokenizer does not have. Decoders treat the first token of a
    text differently (sentencepiece drops its blank) and otherwise do not depend on the tokens before.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self._tokenizer = tokenizer
        self._anchor: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"][-1:]
        self.of = functools.cache(self._of)

    def _of(self, token: int, first: bool) -> bytes:
        """Find the bytes that the token adds, as the first of a text or after others."""
        before = [] if first else self._anchor
        text = self._decode([*before, token])[len(self._decode(before)) :]
        return self._raw(token) if _BROKEN in text else text.encode()

    def convert(self, ids: Sequence[int], begun: bool = False) -> tuple[list[bytes], bool]:
        """Convert ids to the bytes of each, and say whether the text has begun now. begun: whether it had before."""
        found = []
        for token in ids:
            found.append(self.of(token, not begun))
            # Not "whether bytes were added": a first token that is only a blank adds none, and still is the first.
            begun = begun or bool(self.of(token, False))
        return found, begun

    def name(self, token: int) -> str:
        """Decode the token alone, a special one as its name."""
        return str(self._tokenizer.decode([token], clean_up_tokenization_spaces=False))

    def _raw(self, token: int) -> bytes:
        piece = str(self._tokenizer.convert_ids_to_tokens(token))
        if fallback := _FALLBACK.fullmatch(piece):
            return bytes([int(fallback[1], 16)])
        if all(character in _BYTE_OF for character in piece):
            return bytes(_BYTE_OF[character] for character in piece)
        return piece.encode()

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))
