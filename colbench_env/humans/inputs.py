"""What is put into a function, as its author would say it: from the reference and the kinds of values in the tests."""

import ast
from collections.abc import Iterator

from colbench_env.humans.facts import Fact, stems
from colbench_env.humans.wording import Wording, text_in_quotes
from colbench_env.python_source import NotPython, parse
from colbench_env.types import Task


def parameter_facts(task: Task, function: ast.FunctionDef) -> Iterator[Fact]:
    """Describe each parameter: its kind, the keys that are looked up in it, its default."""
    arguments = [*function.args.posonlyargs, *function.args.args]
    defaults = dict(zip(reversed(arguments), reversed(function.args.defaults), strict=False))
    calls = list(_calls(task, function.name))
    for place, argument in enumerate(arguments):
        name, wording = argument.arg, Wording([argument.arg])
        about = f"{name} parameter input type format structure kind"
        shapes = {shape for call in calls if (shape := _shape(_argument(call, place, name)))}
        if len(shapes) == 1:
            yield Fact("parameter", f"{name} is {shapes.pop()}.", stems(about))
        elif len(shapes) == 2:
            yield Fact("parameter", f"{name} is {' or '.join(sorted(shapes))}.", stems(about))
        if keys := _keys(function, name):
            shown = ", ".join(text_in_quotes(key) for key in keys[:10])
            yield Fact("parameter", f"Of {name} these keys matter: {shown}.", stems(f"{about} keys dictionary {shown}"))
        if argument in defaults and (words := wording.say(defaults[argument])):
            yield Fact("parameter", f"Without a value, {name} is {words}.", stems(f"{name} default missing optional"))


def _calls(task: Task, name: str) -> Iterator[ast.Call]:
    for source in task.test_cases.values():
        try:
            tree = parse(source, "eval")
        except NotPython:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
                yield node


def _argument(call: ast.Call, place: int, name: str) -> ast.AST | None:
    if any(isinstance(argument, ast.Starred) for argument in call.args[: place + 1]):
        return None  # nobody knows how many there are
    if place < len(call.args):
        return call.args[place]
    return next((keyword.value for keyword in call.keywords if keyword.arg == name), None)


def _shape(value: ast.AST | None, several: bool = False) -> str:
    """In: the tree of [{"a": 1}]   Out: "a list of dictionaries" """
    match value:
        case ast.Constant(value=bool()):
            return "truth values" if several else "True or False"
        case ast.Constant(value=int() | float()) | ast.UnaryOp(operand=ast.Constant(value=int() | float())):
            return "numbers" if several else "a number"
        case ast.Constant(value=str()):
            return "texts" if several else "a text"
        case ast.List(elts=[first, *_]):
            inner = _shape(first, several=True)
            return ("lists" if several else "a list") + (f" of {inner}" if inner else "")
        case ast.Tuple(elts=entries) if entries:
            return f"tuples of {len(entries)}" if several else f"a tuple of {len(entries)}"
        case ast.Dict():
            return "dictionaries" if several else "a dictionary"
        case ast.Set():
            return "sets" if several else "a set"
    return ""


def _keys(function: ast.FunctionDef, name: str) -> list[str]:
    """List the keys by which the function looks into a parameter, in order."""
    found = []
    for node in ast.walk(function):
        match node:
            case ast.Subscript(value=ast.Name(id=owner), slice=ast.Constant(value=str(key))) if owner == name:
                found.append(key)
            case ast.Call(
                func=ast.Attribute(attr="get", value=ast.Name(id=owner)), args=[ast.Constant(value=str(key)), *_]
            ):
                if owner == name:
                    found.append(key)
    return list(dict.fromkeys(found))
