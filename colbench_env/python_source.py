"""Untrusted Python source as a syntax tree, without running it and without its warnings."""

import ast
import warnings
from typing import Literal


class NotPython(ValueError):
    """The source does not parse: why, in a few words."""


def parse(source: str, mode: Literal["exec", "eval"]) -> ast.AST:
    """Parse a module ("exec") or one expression ("eval") to its syntax tree. Raises NotPython."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes like "\d", which say nothing of whether it runs
            return ast.parse(source.strip() if mode == "eval" else source, mode=mode)
    except SyntaxError as error:
        place = f" in line {error.lineno}" if error.lineno else ""
        raise NotPython(f"{error.msg}{place}") from None
    except (RecursionError, MemoryError):
        raise NotPython("nested too deeply") from None
    except ValueError as error:  # zero bytes, lone surrogates, numbers of thousands of digits
        raise NotPython(str(error)[:200]) from None
