"""Python expressions in plain English: how somebody says them who wants a function and does not write code."""

import ast
import re
from collections.abc import Mapping, Sequence

from colbench_env.humans.phrases import FUNCTIONS, METHODS, OPERATORS, OPPOSITE, PLACES, RELATIONS, TWO
from colbench_env.humans.syntax import Unsaid, literal_value, mirror, plain_word, split_call, whole_number

MAX_WORDS = 45  # of one expression; what takes more is not said
PIECES = 8  # words of a text that are quoted in one go
MAX_LISTED = 12
_KEYS = {"len": "length", "abs": "absolute value"}  # functions by which something is sorted


def name_in_words(name: str) -> str:
    """In: "total_fine"   Out: "total fine"; a name of one word stays as it is."""
    return name.strip("_").replace("_", " ")


def text_in_quotes(text: str) -> str:
    """Put the text in quotation marks, interrupted where it is long, so that it is never a long piece of the source."""
    words = text.split(" ")
    if text.isspace() or not text:
        return "a blank" if text else "an empty text"
    parts = [" ".join(words[start : start + PIECES]) for start in range(0, len(words), PIECES)]
    shown = (part.replace("\n", " (new line) ").replace("```", "(fence)") for part in parts)
    return " and then ".join(f'"{part}"' for part in shown)


class Wording:
    """Says the expressions of one function, whose parameters keep their names."""

    def __init__(self, parameters: Sequence[str] = ()):
        self.parameters = frozenset(parameters)

    def say(self, node: ast.AST) -> str:
        """Put the expression into words, "" for what cannot be said, or not in MAX_WORDS."""
        try:
            words = self._say(node)
        except (Unsaid, RecursionError):
            return ""
        return words if len(words.split()) <= MAX_WORDS else ""

    def condition(self, node: ast.AST, holds: bool = True) -> str:
        """Say what has to be so for the expression to be true, or with `holds` False for it to be false; or ""."""
        try:
            words = self._say_condition(node, holds)
        except (Unsaid, RecursionError):
            return ""
        return words if len(words.split()) <= MAX_WORDS else ""

    def _say_condition(self, node: ast.AST, holds: bool) -> str:
        match node:
            case ast.UnaryOp(op=ast.Not()):
                return self._say_condition(node.operand, not holds)
            case ast.BoolOp():
                together = isinstance(node.op, ast.And) == holds
                parts = [self._say_condition(value, holds) for value in node.values]
                nested = [isinstance(value, ast.BoolOp) for value in node.values]
                shown = [f"({part})" if inner else part for part, inner in zip(parts, nested, strict=True)]
                return (" and " if together else " or ").join(shown)
            case ast.Compare(ops=[op], left=left, comparators=[right]):
                return self._say_relation(left, op, right, holds)
            case ast.Compare(ops=[first, second], left=low, comparators=[middle, high]) if holds:
                above = self._say_relation(middle, mirror(first), low, True)
                below = self._say_relation(middle, second, high, True)
                return f"{above} and {below}"
            case ast.Name() | ast.Attribute() | ast.Subscript():
                thing = self._say(node)
                return f"{thing} is {'given and true' if holds else 'empty, zero or false'}"
            case ast.Constant() | ast.Compare() | ast.UnaryOp():
                raise Unsaid
        words = self._say(node)
        return words if holds else f"it is not so that {words}"

    def _say_relation(self, left: ast.AST, op: ast.AST, right: ast.AST, holds: bool) -> str:
        if isinstance(op, ast.In | ast.NotIn):
            inside = isinstance(op, ast.In) == holds
            if isinstance(right, ast.List | ast.Tuple | ast.Set):
                return f"{self._say(left)} is {'' if inside else 'not '}one of {self._say(right)}"
            return f"{self._say(right)} {'contains' if inside else 'does not contain'} {self._say(left)}"
        word = (RELATIONS if holds else OPPOSITE)[type(op)]
        if isinstance(left, ast.Constant) and not isinstance(right, ast.Constant):
            word = RELATIONS[type(mirror(op))] if holds else OPPOSITE[type(mirror(op))]
            left, right = right, left
        return f"{self._say(left)} {word} {self._say(right)}"

    def _say(self, node: ast.AST) -> str:
        match node:
            case ast.Constant(value=str(text)):
                return text_in_quotes(text)
            case ast.Constant(value=bool() | int() | float() | None):
                return repr(node.value)
            case ast.Name(id=name):
                return name if name in self.parameters else name_in_words(name)
            case ast.Attribute(attr=name, value=thing):
                return f"the {name_in_words(name)} of {self._say(thing)}"
            case ast.Subscript():
                return self._say_entry(node)
            case ast.UnaryOp(op=ast.USub(), operand=thing):
                return f"-{thing.value!r}" if isinstance(thing, ast.Constant) else f"minus {self._say_part(thing)}"
            case ast.UnaryOp(op=ast.UAdd(), operand=thing):
                return self._say(thing)
            case ast.BinOp(op=op) if type(op) in OPERATORS:
                return f"{self._say_part(node.left)} {OPERATORS[type(op)]} {self._say_part(node.right)}"
            case ast.UnaryOp() | ast.BoolOp() | ast.Compare():
                return f"whether {self._say_condition(node, True)}"
            case ast.IfExp():
                chosen = f"{self._say(node.body)} if {self._say_condition(node.test, True)}"
                return f"{chosen}, otherwise {self._say(node.orelse)}"
            case ast.JoinedStr():
                parts = [
                    self._say(part.value if isinstance(part, ast.FormattedValue) else part) for part in node.values
                ]
                return "the text " + ", then ".join(parts) if parts else "an empty text"
            case ast.List() | ast.Tuple() | ast.Set():
                return self._say_list(node.elts)
            case ast.Dict():
                return self._say_dictionary(node)
            case ast.GeneratorExp() | ast.ListComp() | ast.SetComp():
                return self._say_loop(node)
            case ast.Call():
                return self._say_call(node)
            case ast.Starred(value=thing):
                return self._say(thing)
        raise Unsaid

    def _say_part(self, node: ast.AST) -> str:
        words = self._say(node)
        return f"({words})" if isinstance(node, ast.BinOp | ast.IfExp | ast.BoolOp | ast.Compare) else words

    def _say_entry(self, node: ast.Subscript) -> str:
        thing, place = self._say(node.value), node.slice
        if isinstance(place, ast.Slice):
            if place.step is not None or (place.lower and place.upper):
                if place.lower is None and place.upper is None and literal_value(place.step) == -1:
                    return f"{thing} in reverse"
                raise Unsaid
            if place.upper is not None:
                return self._say_beginning(thing, place.upper)
            return self._say_ending(thing, place.lower) if place.lower else thing
        number = literal_value(place)
        if isinstance(number, int) and not isinstance(number, bool):
            return f"the {PLACES[number]} entry of {thing}" if number in PLACES else f"entry {number} of {thing}"
        if isinstance(number, str):
            return f"the {text_in_quotes(number)} of {thing}"
        return f"the entry of {thing} for {self._say(place)}"

    def _say_beginning(self, thing: str, end: ast.AST) -> str:
        """Say a text or list up to a place: in "a[:3]" and "a[:-1]", what is cut off is counted from the end."""
        count = whole_number(end)
        if count is None:
            return f"the first {self._say(end)} entries of {thing}"
        return f"{'all but the last' if count < 0 else 'the first'} {_entries(abs(count))} of {thing}"

    def _say_ending(self, thing: str, begin: ast.AST) -> str:
        """Say a text or list from a place on, as in "a[2:]" and "a[-1:]"."""
        count = whole_number(begin)
        if count is None:
            return f"{thing} from place {self._say(begin)} on"
        if count == 0:
            return thing
        return f"{'the last' if count < 0 else 'all but the first'} {_entries(abs(count))} of {thing}"

    def _say_list(self, entries: Sequence[ast.AST]) -> str:
        if not entries:
            return "an empty list"
        words = [plain_word(entry) or self._say(entry) for entry in entries[:MAX_LISTED]]
        inner = any(isinstance(entry, ast.List | ast.Tuple | ast.Set) for entry in entries)
        words = [word.replace("; ", " / ") for word in words] if inner else words
        numbers = inner or all(isinstance(literal_value(entry), int | float) for entry in entries)
        return ("; " if numbers else ", ").join(words) + (" and more" if len(entries) > MAX_LISTED else "")

    def _say_dictionary(self, node: ast.Dict) -> str:
        if not node.keys:
            return "an empty dictionary"
        if len(node.keys) > MAX_LISTED or None in node.keys:
            raise Unsaid
        entries = ((key, value) for key, value in zip(node.keys, node.values, strict=True) if key is not None)
        pairs = (f"{self._say(key)} for {self._say(value)}" for key, value in entries)
        return "a dictionary: " + "; ".join(f"key {pair}".replace(" for ", " holds ", 1) for pair in pairs)

    def _say_loop(self, node: ast.GeneratorExp | ast.ListComp | ast.SetComp) -> str:
        if len(node.generators) != 1:
            raise Unsaid
        loop = node.generators[0]
        source, where = self._say(loop.iter), ""
        if loop.ifs:
            where = " where " + " and ".join(self._say_condition(test, True) for test in loop.ifs)
        if isinstance(node.elt, ast.Compare | ast.BoolOp) or (
            isinstance(node.elt, ast.UnaryOp) and isinstance(node.elt.op, ast.Not)
        ):
            return f"{self._say_condition(node.elt, True)}, for the {self._say(loop.target)} in {source}{where}"
        if literal_value(node.elt) == 1:
            return f"1 for each {self._say(loop.target)} in {source}{where}"
        if ast.dump(node.elt) == ast.dump(loop.target).replace("Store", "Load"):
            return f"the {self._say(loop.target)} entries in {source}{where}"
        return f"{self._say(node.elt)}, for each {self._say(loop.target)} in {source}{where}"

    def _say_call(self, node: ast.Call) -> str:
        """Say a call of which every argument is said; for one that has others there are no words."""
        name, arguments, options = split_call(node)
        if name == "sorted" and len(arguments) == 1:
            return f"{self._say(arguments[0])} sorted{self._order(node)}"
        if name in ("max", "min"):
            return self._say_extreme(name, arguments, options)
        if name == "enumerate" and len(arguments) == 1 and set(options) == {"start"}:
            arguments.append(options.pop("start"))
        if name == "round" and len(arguments) == 1 and set(options) == {"ndigits"}:
            arguments.append(options.pop("ndigits"))
        if options:
            raise Unsaid
        if name == "get" and len(arguments) in (2, 3):
            fallback = f" ({self._say(arguments[2])} if there is none)" if len(arguments) == 3 else ""
            return f"the {self._say(arguments[1])} of {self._say(arguments[0])}{fallback}"
        if name == "replace" and len(arguments) == 3:
            thing, old, new = map(self._say, arguments)
            return f"{thing} with {new} in place of {old}"
        if len(arguments) == 1:
            (only,) = arguments
            if name == "sum" and isinstance(only, ast.GeneratorExp) and literal_value(only.elt) == 1:
                return "the number of " + self._say_loop(only).removeprefix("1 for each ")
            if name == "range":
                return f"the whole numbers below {self._say(only)}, from 0"
        words = [self._say(argument) for argument in arguments]
        if len(words) == 1 and (pattern := FUNCTIONS.get(name) or METHODS.get(name)):
            return pattern.format(words[0])
        if len(words) == 2 and (pattern := TWO.get(name)):
            return pattern.format(*words).replace("to 1 decimals", "to 1 decimal")
        raise Unsaid

    def _say_extreme(self, name: str, arguments: Sequence[ast.AST], options: Mapping[str, ast.AST]) -> str:
        """Say a call of max or min, with its key and default."""
        if not arguments or not options.keys() <= {"key", "default"}:
            raise Unsaid
        words = [self._say(argument) for argument in arguments]
        said = TWO[name].format(*words) if len(words) == 2 else FUNCTIONS[name].format(", ".join(words))
        if keys := self._keys(options.get("key")):
            if any(negated for _, negated in keys):
                raise Unsaid
            said += _by([words for words, _ in keys])
        return said + (f" ({self._say(options['default'])} if there is none)" if "default" in options else "")

    def order(self, call: ast.Call) -> str:
        """How a call of sort or sorted orders, e.g. " by the second entry, the largest first"; or ""."""
        try:
            return self._order(call)
        except (Unsaid, RecursionError):
            return ""

    def _order(self, call: ast.Call) -> str:
        options = {option.arg: option.value for option in call.keywords}
        reverse = options.get("reverse", ast.Constant(False))
        if not options.keys() <= {"key", "reverse"} or not isinstance(reverse, ast.Constant):
            raise Unsaid
        backwards = bool(reverse.value)
        keys = [(words, negated != backwards) for words, negated in self._keys(options.get("key"))]
        ways = {True: ", the largest first", False: ", the smallest first"}
        if len({falling for _, falling in keys}) > 1:
            return _by([words + ways[falling] for words, falling in keys])
        return _by([words for words, _ in keys]) + ways[keys[0][1] if keys else backwards]

    def _keys(self, key: ast.AST | None) -> list[tuple[str, bool]]:
        """By what a `key` compares, and whether its negative is meant: [("the second entry", True)] for -x[1]."""
        match key:
            case None | ast.Constant(value=None):
                return []
            case ast.Name(id=name) if name in _KEYS:
                return [(_KEYS[name], False)]
            case ast.Attribute(attr="get", value=table):
                return [(f"the value in {self._say(table)}", False)]
            case ast.Lambda(args=ast.arguments(posonlyargs=[], args=[owner], kwonlyargs=[], vararg=None, kwarg=None)):
                parts = key.body.elts if isinstance(key.body, ast.Tuple) else [key.body]
                return [self._key(part, name_in_words(owner.arg)) for part in parts]
        raise Unsaid

    def _key(self, part: ast.AST, owner: str) -> tuple[str, bool]:
        compared = part.operand if isinstance(part, ast.UnaryOp) and isinstance(part.op, ast.USub) else part
        words = self._say(compared)
        # "the absolute value of x minus 3" without its x would be another thing
        whole = any(isinstance(inner, ast.BinOp) for inner in ast.walk(compared))
        return (words if whole else _without_owner(words, owner)), compared is not part


def _entries(count: int) -> str:
    """In: 1, 3   Out: "entry", "3 entries" """
    return "entry" if count == 1 else f"{count} entries"


def _by(keys: Sequence[str]) -> str:
    return " by " + ", then by ".join(keys) if keys else ""


def _without_owner(words: str, owner: str) -> str:
    return re.sub(rf" (?:of|in) {re.escape(owner)}(?!\w)", "", words) if owner else words
