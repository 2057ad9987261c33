"""What the author of a function knows about it: plain sentences, read from the reference without running it."""

import ast
import re
from collections.abc import Iterator, Sequence

from colbench_env.humans.facts import Fact, stems
from colbench_env.humans.inputs import parameter_facts
from colbench_env.humans.wording import Wording, name_in_words, text_in_quotes
from colbench_env.python_source import NotPython, parse
from colbench_env.types import Task

OTHERWISE = "in the other cases"
MAX_FACT = 60  # words; longer facts are not told


def read_knowledge(task: Task) -> list[Fact]:
    """Every fact about a task with a Python reference, in the order of its source. Raises NotPython."""
    tree = parse(task.ground_truth, "exec")
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    if not functions:
        raise NotPython("there is no function in it")
    function = _asked_for(task, functions)
    found = [*parameter_facts(task, function), *_Reader(function).facts()]
    kept = (fact for fact in found if fact.sentence and len(fact.sentence.split()) <= MAX_FACT)
    return list({fact.sentence: fact for fact in kept}.values())


def _asked_for(task: Task, functions: Sequence[ast.FunctionDef | ast.AsyncFunctionDef]) -> ast.FunctionDef:
    named = [node for node in functions if re.search(rf"\b{re.escape(node.name)}\b", task.problem_description)]
    return (named or list(functions))[0]  # type: ignore[return-value]


class _Reader:
    """Walks through a function and says what happens, and under which conditions."""

    def __init__(self, function: ast.FunctionDef):
        arguments = function.args
        names = [one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        self.function, self.wording = function, Wording(names)

    def facts(self) -> Iterator[Fact]:
        yield from self._block(self.function.body, ())

    def _fact(self, kind: str, under: tuple[str, ...], words: str, *about: str) -> Iterator[Fact]:
        if words:
            sentence = (f"{_joined(under)}, {words}" if under else words) + "."
            sentence = sentence[0].upper() + sentence[1:]
            yield Fact(kind, sentence, stems(" ".join([sentence, *about])))

    def _block(self, statements: Sequence[ast.stmt], under: tuple[str, ...]) -> Iterator[Fact]:
        rest = ""
        for statement in statements:
            here = (*under, rest) if rest else under
            yield from self._statement(statement, here)
            if _ends([statement]):
                return  # what comes after it is never reached
            if isinstance(statement, ast.If) and _ends(statement.body):
                rest = OTHERWISE

    def _statement(self, node: ast.stmt, under: tuple[str, ...]) -> Iterator[Fact]:
        say = self.wording.say
        match node:
            case ast.If():
                yield from self._choice(node, under)
            case ast.Return(value=ast.IfExp() as choice):
                condition, value, other = self.wording.condition(choice.test), say(choice.body), say(choice.orelse)
                if condition and value:
                    yield from self._fact("outcome", (*under, f"if {condition}"), f"the result is {value}")
                if other:
                    yield from self._fact("outcome", (*under, OTHERWISE), f"the result is {other}")
            case ast.Return(value=ast.AST() as value):
                yield from self._outcome(value, under)
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                yield from self._named(name, value, under)
            case ast.Assign(targets=[ast.Subscript() as place], value=value) if (words := say(value)) and (
                there := say(place)
            ):
                yield from self._fact("step", under, f"{there} becomes {words}")
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.AST() as value):
                yield from self._named(name, value, under)
            case ast.AugAssign(target=target, op=op, value=value) if (words := say(value)) and (there := say(target)):
                verb = {
                    ast.Add: "grows by",
                    ast.Sub: "is lowered by",
                    ast.Mult: "is multiplied by",
                    ast.Div: "is divided by",
                }
                if type(op) in verb:
                    yield from self._fact("step", under, f"{_the(there)} {verb[type(op)]} {words}")
            case ast.Expr(value=ast.Call(func=ast.Attribute(attr="sort", value=thing)) as call) if words := say(thing):
                yield from self._fact(
                    "order", under, f"{words} is put in order{self.wording.order(call)}", "sort order"
                )
            case ast.Expr(
                value=ast.Call(func=ast.Attribute(attr="append" | "add", value=thing), args=[entry], keywords=[])
            ):
                if (there := say(thing)) and (words := say(entry)):
                    yield from self._fact("step", under, f"{words} goes into {_the(there)}")
            case ast.For():
                source, each = say(node.iter), say(node.target)
                inside = (*under, f"for each {each} in {source}") if source and each else under
                yield from self._block(node.body, inside)
                yield from self._block(node.orelse, under)
            case ast.While():
                condition = self.wording.condition(node.test)
                yield from self._block(node.body, (*under, f"as long as {condition}") if condition else under)
            case ast.With():
                yield from self._block(node.body, under)
            case ast.Try():
                yield from self._block(node.body, under)
                for handler in node.handlers:
                    yield from self._block(handler.body, (*under, "if that fails"))
            case ast.Raise():
                yield from self._fact(
                    "outcome", under, f"an error is raised{self._error(node)}", "error invalid raise exception"
                )

    def _choice(self, node: ast.If, under: tuple[str, ...]) -> Iterator[Fact]:
        condition = self.wording.condition(node.test)
        if condition:
            yield from self._block(node.body, (*under, f"if {condition}"))
        other = (*under, OTHERWISE) if condition or under else (OTHERWISE,)
        if len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If):
            yield from self._choice(node.orelse[0], under)
        else:
            yield from self._block(node.orelse, other)

    def _outcome(self, value: ast.AST, under: tuple[str, ...]) -> Iterator[Fact]:
        if isinstance(value, ast.BoolOp | ast.Compare) or (
            isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.Not)
        ):
            if condition := self.wording.condition(value):
                yield from self._fact(
                    "outcome", under, f"the result is True exactly if {condition}", "true false boolean"
                )
            elif isinstance(value, ast.BoolOp):
                for part in value.values:
                    yield from self._fact("outcome", under, _needs(self.wording.condition(part)), "true false boolean")
            return
        if isinstance(value, ast.Tuple | ast.Dict) and not self.wording.say(value):
            yield from self._parts(value, under)
        yield from self._rounding(value, under)
        words = self.wording.say(value)
        yield from self._fact("outcome", under, f"the result is {words}" if words else "", _kinds(value))

    def _parts(self, value: ast.Tuple | ast.Dict, under: tuple[str, ...]) -> Iterator[Fact]:
        if isinstance(value, ast.Dict):
            for key, entry in zip(value.keys, value.values, strict=True):
                if key is not None and (name := self.wording.say(key)) and (words := self.wording.say(entry)):
                    yield from self._fact("outcome", under, f"the result holds {words} under {name}", "dictionary key")

    def _named(self, name: str, value: ast.AST, under: tuple[str, ...]) -> Iterator[Fact]:
        called = name if name in self.wording.parameters else name_in_words(name)
        if isinstance(value, ast.Dict) and len(value.keys) > 1:
            for key, entry in zip(value.keys, value.values, strict=True):
                if key is not None and (word := self.wording.say(key)) and (words := self.wording.say(entry)):
                    yield from self._fact("values", under, f"in the {called}, {word} stands for {words}", "list values")
            return
        yield from self._rounding(value, under)
        words = self.wording.say(value)
        if not words or words in ("0", "0.0", "an empty list", "an empty text", "an empty dictionary", "None"):
            return  # where something begins is the programmer's concern
        several = isinstance(value, ast.List | ast.Tuple | ast.Set)
        kind = "values" if several else "order" if "sorted" in words else "step"
        yield from self._fact(kind, under, f"the {called} {'are' if several else 'is'} {words}", _kinds(value))

    def _rounding(self, value: ast.AST, under: tuple[str, ...]) -> Iterator[Fact]:
        for node in ast.walk(value):
            match node:
                case (
                    ast.Call(func=ast.Name(id="round"), args=[_, ast.Constant(value=int(digits))], keywords=[])
                    | ast.Call(
                        func=ast.Name(id="round"),
                        args=[_],
                        keywords=[ast.keyword(arg="ndigits", value=ast.Constant(value=int(digits)))],
                    )
                ):
                    yield from self._fact(
                        "rounding", (), f"round to {digits} decimal{'s' * (digits != 1)}", "round decimal precision"
                    )
                case ast.Call(func=ast.Name(id="round"), args=[_], keywords=[]):
                    yield from self._fact(
                        "rounding", (), "round to the nearest whole number", "round decimal integer precision"
                    )
                case ast.BinOp(op=ast.FloorDiv()) | ast.Call(func=ast.Name(id="int"), args=[ast.BinOp()], keywords=[]):
                    yield from self._fact(
                        "rounding", (), "decimals are cut off, not rounded", "round decimal integer precision"
                    )
                case ast.FormattedValue(format_spec=ast.JoinedStr(values=[ast.Constant(value=str(spec))])):
                    if shown := re.search(r"\.(\d)f", spec):
                        yield from self._fact("rounding", (), f"show {shown[1]} decimals", "round decimal format")

    def _error(self, node: ast.Raise) -> str:
        match node.exc:
            case ast.Call(func=ast.Name(id=name), args=[ast.Constant(value=str(text)), *_]):
                return f", a {name} that says {text_in_quotes(text)}"
            case ast.Call(func=ast.Name(id=name)) | ast.Name(id=name):
                return f", a {name}"
        return ""


def _joined(under: tuple[str, ...]) -> str:
    """In: ("for each x in xs", "if x is above 3")   Out: "for each x in xs, if x is above 3" """
    kept = [part for place, part in enumerate(under) if part != OTHERWISE or under[place - 1 : place] != (OTHERWISE,)]
    return ", and ".join(kept) if all(part.startswith("if ") for part in kept) else ", ".join(kept)


def _the(thing: str) -> str:
    return thing if thing.startswith("the ") else f"the {thing}"


def _needs(condition: str) -> str:
    return f"for the result to be True it takes that {condition}" if condition else ""


def _ends(statements: Sequence[ast.stmt]) -> bool:
    last = statements[-1] if statements else None
    if isinstance(last, ast.If):
        return _ends(last.body) and _ends(last.orelse)
    return isinstance(last, ast.Return | ast.Raise | ast.Continue | ast.Break)


def _kinds(value: ast.AST) -> str:
    """Words by which a question may mean this value."""
    match value:
        case ast.Constant(value=None):
            return "none empty invalid edge case"
        case ast.Constant(value=bool()):
            return "true false boolean"
        case ast.Dict() | ast.DictComp():
            return "dictionary keys"
        case ast.List() | ast.ListComp() | ast.Set():
            return "list values"
        case ast.Tuple():
            return "tuple pair"
        case ast.JoinedStr():
            return "text string format message"
        case ast.BinOp():
            return "formula calculated computed"
    return ""
