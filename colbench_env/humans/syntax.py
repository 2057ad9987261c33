"""What can be read from a piece of Python's syntax tree without running it."""

import ast
from collections.abc import Callable

_MODULES = ("math", "np", "numpy", "statistics", "re", "collections", "datetime", "os", "json", "random")
_NO_METHODS = ("isinstance", "log", "max", "min", "range", "zip")  # of the names in phrases.TWO


class Unsaid(Exception):
    """Something for which there are no words."""


def mirror(op: ast.AST) -> ast.AST:
    """Turn a comparison around, for sides that change places: < becomes >."""
    turned: dict[type[ast.AST], Callable[[], ast.AST]] = {
        ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE,
    }  # fmt: skip
    return turned.get(type(op), type(op))()


def literal_value(node: ast.AST | None) -> object:
    """Read the value of a literal; None for everything else."""
    try:
        return ast.literal_eval(node) if node is not None else None
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def whole_number(node: ast.AST) -> int | None:
    """Read the number where it stands there; None for an expression. Raises Unsaid for one that is negative, as
    "-n"."""
    number = literal_value(node)
    if isinstance(number, int) and not isinstance(number, bool):
        return number
    if isinstance(node, ast.UnaryOp) or isinstance(node, ast.Constant):
        raise Unsaid
    return None


def plain_word(node: ast.AST) -> str:
    """Read a text that is one word; "" for everything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.replace("_", "").isalnum():
        return node.value
    return ""


def split_call(node: ast.Call) -> tuple[str, list[ast.AST], dict[str, ast.AST]]:
    """Split a call into the name of what is called, its arguments in order, of a method its object first, and those
    with names.

    Raises Unsaid where it is not known which argument is which, as in `f(*xs)`, or where the same name stands for
    something else in a module: `np.max(x, 0)` is no larger one of two, and `re.split` has its text second.
    """
    arguments: list[ast.AST] = list(node.args)
    function = node.func
    options: dict[str, ast.AST] = {option.arg: option.value for option in node.keywords if option.arg is not None}
    starred = any(isinstance(argument, ast.Starred) for argument in arguments)
    if len(options) < len(node.keywords) or (starred and len(arguments) > 1):
        raise Unsaid
    if isinstance(function, ast.Name):
        if starred and function.id not in ("max", "min"):
            raise Unsaid
        return function.id, arguments, options
    if not isinstance(function, ast.Attribute) or starred:
        raise Unsaid
    module = function.value.id if isinstance(function.value, ast.Name) else None
    if module not in _MODULES:
        if arguments and function.attr in _NO_METHODS:
            raise Unsaid
        return function.attr, [function.value, *arguments], options
    if (module == "re" and function.attr != "search") or (
        module in ("np", "numpy") and len(arguments) > 1 and function.attr != "round"
    ):
        raise Unsaid
    return function.attr, arguments, options
