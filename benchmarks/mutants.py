"""Answers made from references: right ones, wrong ones, and all the ways in which models dress them up."""

import random
import re
import textwrap
from collections.abc import Callable

FENCE = "`" * 3


def mutants(reference: str, call: str, count: int, seed: str) -> list[tuple[str, str]]:
    """`count` of the kinds, drawn from the seed, each with the text it makes of the reference. The first is `same`."""
    match = re.match(r"\s*([^\W\d]\w*)\s*\(", call)
    name = match[1] if match else "f"
    dice = random.Random(seed)
    kinds = dice.sample(sorted(set(KINDS) - {"same"}), min(count, len(KINDS)) - 1)
    return [(kind, KINDS[kind](reference, name, dice)) for kind in ["same", *kinds]]


def _wrapped(last: str) -> Callable[[str, str, random.Random], str]:
    """The reference inside a function of the same name and arguments, whose last lines are `last`."""

    def make(reference: str, name: str, dice: random.Random) -> str:
        lines = textwrap.indent(last.replace("NAME", name), "    ")
        return f"def {name}(*args, **kwargs):\n{textwrap.indent(reference, '    ')}\n{lines}\n"

    return make


def _plain(template: str) -> Callable[[str, str, random.Random], str]:
    """The template with CODE, NAME and FENCE filled in."""

    def make(reference: str, name: str, dice: random.Random) -> str:
        return template.replace("FENCE", FENCE).replace("NAME", name).replace("CODE", reference)

    return make


def _wrong_number(reference: str, name: str, dice: random.Random) -> str:
    places = list(re.finditer(r"(?<![\w.])\d+(?![\w.])", reference))
    if not places:
        return reference + "\n    return 0"
    place = dice.choice(places)
    return reference[: place.start()] + str(int(place[0]) + dice.choice((1, -1, 10))) + reference[place.end() :]


def _wrong_text(reference: str, name: str, dice: random.Random) -> str:
    return re.sub(r"(['\"])([a-z]\w+)\1", lambda match: f"{match[1]}{match[2]}x{match[1]}", reference, count=1)


def _without_return(reference: str, name: str, dice: random.Random) -> str:
    head, _, tail = reference.rpartition("return ")
    return f"{head}{tail}" if head else reference


def _swapped_operator(reference: str, name: str, dice: random.Random) -> str:
    old, new = dice.choice([(" + ", " - "), (" > ", " >= "), (" and ", " or "), (" * ", " + "), ("True", "False")])
    return reference.replace(old, new)


def _without_colon(reference: str, name: str, dice: random.Random) -> str:
    return reference.replace(":\n", "\n", 1)


_CALL = "value = NAME(*args, **kwargs)\n"
KINDS: dict[str, Callable[[str, str, random.Random], str]] = {
    "same": lambda reference, name, dice: reference,
    "wrong number": _wrong_number,
    "wrong text": _wrong_text,
    "wrong operator": _swapped_operator,
    "no return": _without_return,
    "syntax error": _without_colon,
    "returns None": _wrapped(_CALL + "return None"),
    "raises on some calls": _wrapped(_CALL + "if len(str(value)) % 2: raise KeyError(value)\nreturn value"),
    "python fence": _plain("FENCEpython\nCODE\nFENCE"),
    "bare fence": _plain("FENCE\nCODE\nFENCE"),
    "py fence": _plain("FENCEpy\nCODE\nFENCE"),
    "Python fence": _plain("FENCEPython\nCODE\nFENCE\n"),
    "fence in prose": _plain("Here it is:\n\nFENCEpython\nCODE\nFENCE\n\nIt does all that you asked for."),
    "two fences, wrong first": _plain("FENCEpython\ndef NAME(*a): return 0\nFENCE\nBetter:\nFENCEpython\nCODE\nFENCE"),
    "two fences, right first": _plain("FENCEpython\nCODE\nFENCE\nTo run it:\nFENCE\nprint(NAME)\nFENCE"),
    "fence in a fence": _plain("FENCEpython\nFENCE\nCODE\nFENCE\nFENCE"),
    "bare fence, then python": _plain("FENCE\npip install it\nFENCE\nFENCEpython\nCODE\nFENCE"),
    "open fence": _plain("FENCEpython\nCODE\n"),
    "tilde fence": _plain("~~~python\nCODE\n~~~"),
    "prose before": _plain("Here is the function.\nCODE"),
    "prose after": _plain("CODE\nI hope that this helps!"),
    "CRLF": lambda reference, name, dice: reference.replace("\n", "\r\n"),
    "CR": lambda reference, name, dice: reference.replace("\n", "\r"),
    "byte-order mark": _plain("\ufeffCODE"),
    "NUL": _plain("CODE\n# \x00"),
    "form feed and tabs": _plain("\f\nCODE\n\t\n"),
    "import on top": lambda reference, name, dice: (
        "import math\n" + _wrapped("return NAME(*args, **kwargs) if math.floor(1.5) else None")(reference, name, dice)
    ),
    "import on top, made global": lambda reference, name, dice: (
        "global math\nimport math\n"
        + _wrapped("return NAME(*args, **kwargs) if math.floor(1.5) else None")(reference, name, dice)
    ),
    "import inside": _wrapped("import math\nreturn NAME(*args, **kwargs) if math.floor(1.5) else None"),
    "helper beside": _plain("CODE\nhelper = NAME\ndef NAME(*args, **kwargs):\n    return helper(*args, **kwargs)\n"),
    "helper inside": _wrapped("return NAME(*args, **kwargs)"),
    "helper in a default": _plain("CODE\ndef NAME(*args, helper=NAME, **kw):\n    return helper(*args, **kw)\n"),
    "recursion": _plain(
        "CODE\ndef NAME(*args, once=True, inner=NAME, **kw):\n"
        "    return NAME(*args, once=False, **kw) if once else inner(*args, **kw)\n"
    ),
    "endless recursion": _plain("def NAME(*args):\n    def again(): return again()\n    return again()\n"),
    "class on top": _plain("CODE\nclass Box: value = NAME\ndef NAME(*args, box=Box): return box.value(*args)\n"),
    "decorator": _plain("def same(f): return f\nCODE\nNAME = same(NAME)\n"),
    "lambda": _plain("CODE\nNAME = (lambda inner: lambda *args: inner(*args))(NAME)\n"),
    "annotation without import": _plain("CODE\ninner = NAME\ndef NAME(x: List[int] = None): return inner(x)\n"),
    "future import": _plain("from __future__ import annotations\nCODE"),
    "main block": _plain("CODE\nif __name__ == '__main__':\n    print(undefined)\n"),
    "names of the released module": _wrapped("return NAME(*args, **kwargs) if signal.SIGINT and Empty else None"),
    "its multiprocessing": _wrapped("multiprocessing.current_process()\nreturn NAME(*args, **kwargs)"),
    "its local names": _plain("CODE\nif test_case not in function_definition: pass\n"),
    "blocked word in a comment": _plain("CODE\n# no need for sudo"),
    "blocked word in prose": _plain("You can import os for paths.\nFENCEpython\nCODE\nFENCE"),
    "blocked word in a name": _plain("CODE\ndef on_exit(): pass\n"),
    "blocked import": _plain("import sys\nCODE"),
    "near a blocked word": _plain("CODE\n# exit, import  os, from  sys, transformer\n"),
    "prints": _wrapped("print('checking', args)\nreturn NAME(*args, **kwargs)"),
    "prints on top": _plain("print('hello')\nCODE"),
    "reads a missing file": _wrapped("open('missing')\nreturn NAME(*args, **kwargs)"),
    "float for int": _wrapped(_CALL + "return float(value) if type(value) is int else value"),
    "int for bool": _wrapped(_CALL + "return int(value) if type(value) is bool else value"),
    "tuple for list": _wrapped(_CALL + "return tuple(value) if type(value) is list else value"),
    "list for tuple": _wrapped(_CALL + "return list(value) if type(value) is tuple else value"),
    "text for number": _wrapped(_CALL + "return str(value) if type(value) in (int, float) else value"),
    "rounded": _wrapped(_CALL + "return round(value, 2) if type(value) is float else value"),
    "dict in another order": _wrapped(
        _CALL + "return dict(reversed(list(value.items()))) if type(value) is dict else value"
    ),
    "ordered dict": _wrapped(
        "from collections import OrderedDict\n" + _CALL + "return OrderedDict(value) if type(value) is dict else value"
    ),
    "through a set": _wrapped(
        _CALL + "try: return list(set(value)) if type(value) is list else value\nexcept TypeError: return value"
    ),
    "constant": _plain("def NAME(*args, **kwargs): return 0"),
    "empty": _plain(""),
    "only a comment": _plain("# nothing"),
    "No answer": _plain("No answer"),
}

# Dear ones, or what the released grader itself does not outlive: made for a few references only.
RARE = {
    "endless": _plain("def NAME(*args):\n    while True: pass\n"),
    "too slow": _wrapped("import time\ntime.sleep(1.3)\nreturn NAME(*args, **kwargs)"),
    "too slow, alarm caught": _wrapped(
        "import time\ntry:\n    time.sleep(1.3)\nexcept Exception:\n    pass\nreturn NAME(*args, **kwargs)"
    ),
    "slow enough": _wrapped("import time\ntime.sleep(0.3)\nreturn NAME(*args, **kwargs)"),
    "raises SystemExit": _wrapped("raise SystemExit"),
}

# Where Python versions differ, or a written rule of the sandbox does: counted apart.
APART = {
    "comprehension on top (inlined since 3.12)": _plain(
        "CODE\ninner = NAME\nfound = [inner for _ in range(1)]\ndef NAME(*args, f=found[0]): return f(*args)\n"
    ),
    "f-string of 3.12": _plain("CODE\nlabel = f'{'a'}'\n"),
    "sum of floats (exact since 3.12)": _wrapped(_CALL + "return value if sum([0.1] * 10) == 1.0 else None"),
    "named tuple for tuple (unsupported)": _wrapped(
        "from collections import namedtuple\n"
        + _CALL
        + "return namedtuple('P', [f'x{i}' for i in range(len(value))])(*value) if type(value) is tuple else value"
    ),
}
