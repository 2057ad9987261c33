"""Answers as models write them: where their code stands, and what stands around it."""

import sysconfig
import textwrap
from pathlib import Path

import pytest

from colbench_env.grading.answers import Case, strict_source
from colbench_env.grading.fences import without_prose

CASES = (Case("test1", "f(1)"),)
F = "```"
CODE = "def f(x):\n    return x + 1\n"
STANDARD_LIBRARY = Path(sysconfig.get_paths()["stdlib"])


def adds_one(answer: str) -> bool:
    """Whether the source that is taken from the answer runs and defines f(x) = x + 1."""
    names: dict[str, object] = {}
    exec(compile(strict_source(answer, CASES), "answer", "exec"), names)
    return names["f"](1) == 2


def quoted(text: str, mark: str = "> ") -> str:
    return textwrap.indent(text, mark, lambda line: True)


@pytest.mark.parametrize(
    "info",
    [
        'python title="x.py" linenums', 'py linenums="1" hl_lines="2 3"', "python {linenos=true}", "python {1,3-4}",
        "{python}", "{python, echo=FALSE}", "{.python}", "{.python .numberLines}", '{#fun .python startFrom="10"}',
        "python:src/f.py", "12:15:src/f.py", "src/f.py", "python (f.py)", "python # f.py", "python file=f.py",
        "python showLineNumbers", "python,linenos", "python=10", "python=", "{code-cell} ipython3", "Python 3",
        " python", "language-python", "PY3", "text f.txt", "python import=f",
    ],
)  # fmt: skip
@pytest.mark.parametrize("fence", ["```", "~~~~"])
def test_an_info_string_is_no_code(fence, info):
    assert adds_one(f"Here:\n{fence}{info}\n{CODE}{fence}\nDone.")


@pytest.mark.parametrize(
    "answer",
    [
        "```python def f(x): return x + 1```",
        "So ```python def f(x): return x + 1``` does it, like ```g``` does.",
        "```def f(x):\n    return x + 1\n```",
        "```pythondef f(x):\n    return x + 1```",
        "```python @(lambda g: g)\ndef f(x):\n    return x + 1\n```",
        "```f = lambda x: x + 1```",
        "```python from math import pi\ndef f(x):\n    return x + round(pi) - 2\n```",
        '```python """What\nf does."""\ndef f(x):\n    return x + 1\n```',
        "```python def f(x): return x + len('```') - 2```",
    ],
)
def test_code_may_begin_on_the_line_of_its_fence(answer):
    assert adds_one(answer)


@pytest.mark.parametrize(
    "answer",
    [
        f"{F}python\n{CODE.rstrip()}{F}",
        f"{F}python\n{CODE.rstrip()}{F}\nThat is all.",
        f"{F}python\n{CODE.rstrip()}{F} Hope this helps!\nBye.",
        f"{F}python\n{CODE}{F}Hope this helps.\nIt needs no {F}os{F} at all.",
        f"{F}python\ndef f(x):\n    return x + 1  # done{F}\nThat is all.",
        f"~~~python\n{CODE.rstrip()}~~~\nThat is all.",
        f"{F}python\n{CODE}  {F}\nThat is all.",
        f"{F}python\n{CODE}{F}``\nThat is all.",
    ],
)
def test_a_fence_ends_wherever_python_has_no_backticks(answer):
    assert adds_one(answer)


@pytest.mark.parametrize(
    "body",
    [
        f's = "{F}"\nreturn x + len(s) - 2',
        f"s = '''\n{F}python\n'''\nreturn x + 1",
        f'"""Like {F}f(1){F}"""\nreturn x + 1',
        f'"""\n{F}python\nf(1)\n{F}\n"""\nreturn x + 1',
        f"# not {F} and not {F}x{F}\nreturn x + 1",
        "return ~~~x + 2 * x + 2",
    ],
)
def test_a_fence_in_a_string_or_a_comment_ends_nothing(body):
    assert adds_one(f"{F}python\ndef f(x):\n{textwrap.indent(body, '    ')}\n{F}\nDone.")


@pytest.mark.parametrize(
    "answer",
    [
        f"{F}python\n{CODE}{F}{F}python\nprint(f(undefined))\n{F}",
        f"{F}python\n{CODE}{F}python\nprint(undefined)\n{F}",
        f"{F}python\n# first\n\nNo, better:\n{F}python\n{CODE}{F}",
        f"The function {F}f{F} is here:{F}python\n{CODE}{F}",
        f"{F}\n{F}\n{CODE}",
        f"{F}`python\n{F}python\n{CODE}{F}\n{F}`",
        f"{F}`markdown\n# Title\n\n{F}python\n{CODE}{F}\n{F}`",
        f"~~~markdown\n{F}python\n{CODE}{F}\n~~~",
        f'{F}text\nDon\'t use """ here.\n{F}\n{F}python\n{CODE}{F}',
    ],
)
def test_fences_that_are_glued_or_nested_are_told_apart(answer):
    assert adds_one(answer)


@pytest.mark.parametrize(
    "answer",
    [
        f"{F}python\n{CODE}",
        f"{F}python\n{CODE}\nThis function adds one.\n\nFor example:\n- f(1) gives 2.",
        f"{CODE}{F}",
        f"{CODE.rstrip()}{F}",
        f"{CODE}{F}\nThis adds one to it.",
        f"Here it is:\n\n{CODE}{F}\nThis adds one to it.",
        f"{CODE}{F}\nExample:\n{F}python\nprint(f(undefined))\n{F}",
    ],
)
def test_a_lone_fence_still_shows_where_the_code_is(answer):
    assert adds_one(answer)


@pytest.mark.parametrize(
    "answer",
    [
        f"{CODE}\nExample:\n{F}python\nprint(f(undefined))\n{F}\nDone!",
        f"{F}bash\npip install x\n{F}\nThen:\n\n{CODE}\nThis is all.",
        f"Here is the function:\n\n{CODE}\nI hope it helps.",
        f"Here it is:\n\n{textwrap.indent(CODE, '    ')}\nIt adds one.",
        f"**Solution**\n\n{CODE}\n---\n**Why it works**: adds one.\n1. Takes `x`\n2. Adds 1.",
        f"Sure.\n\nimport functools\n\n@functools.cache\n{CODE}\nEnjoy it!",
        f"以下是代码：\n{CODE}\n它加一。",
        f"python\n{CODE}",
        f'def f(x):\n    """\n    {F}\n    f(1)\n    {F}\n    """\n    return x + 1\n',
        f'def f(x):\n    s = "{F}"\n    return x + len(s) - 2\n',
    ],
)
def test_code_outside_of_fences_is_taken_without_its_prose(answer):
    assert adds_one(answer)


@pytest.mark.parametrize(
    "answer",
    [
        textwrap.indent(f"{F}python\n{CODE}{F}", "   "),
        "1. First:\n\n" + textwrap.indent(f"{F}python\n{CODE}{F}", "   ") + "\n2. Done",
        f"- {F}python\n{textwrap.indent(CODE, '  ')}  {F}\nDone now.",
        f"12) {F}python\n{textwrap.indent(CODE, '    ')}    {F}\nDone now.",
        "As you said:\n" + quoted(f"{F}python\n{CODE}{F}") + "\nDone now.",
        quoted(f"{F}python\n{CODE}{F}", ">"),
        quoted(quoted(f"{F}python\n{CODE}{F}")),
        f"> - {F}python\n{quoted(textwrap.indent(CODE, '  '))}>   {F}\n",
        f"> {F}python\n{quoted(CODE)}\nThat is it.",
    ],
)
def test_fences_stand_in_lists_and_quotations(answer):
    assert adds_one(answer)


@pytest.mark.parametrize(
    "answer",
    [
        f"{F}pycon\n>>> def f(x):\n...     return x + 1\n...\n>>> f(1)\n2\n{F}",
        f"{F}\n>>> def f(x):\n...     return x + 1\n{F}",
        f"{F}ipython\nIn [1]: def f(x):\n   ...:     return x + 1\n\nIn [2]: f(1)\nOut[2]: 2\n{F}",
        ">>> def f(x):\n...     return x + 1\n>>> f(1)\n2\n",
        f'{F}python\ndef f(x):\n    """\n    >>> f(1)\n    2\n    """\n    return x + 1\n{F}',
        f"{F}python\n...\n{CODE}{F}",
    ],
)
def test_prompts_are_taken_off_a_session_and_of_nothing_else(answer):
    assert adds_one(answer)


@pytest.mark.parametrize(
    "blocks",
    [
        ["def f(x):\n    return 0", CODE],
        ["def g(x):\n    return x", "def f(x):\n    return g(x) + 1"],
        ["def f(x):\n    return g(x) + 1", "def g(x):\n    return x"],
        ["def h(x):\n    return x", "def g(x):\n    return h(x)", "def f(x):\n    return g(x) + 1"],
        ["import math as m", "def f(x):\n    return m.floor(x) + 1"],
        ["from math import (\n    floor,\n)", "def f(x):\n    return floor(x) + 1"],
        ["ONE = 1", "def f(x):\n    return x + ONE"],
        [CODE, "import no_such_module\n\ndef test_f():\n    assert f(1) == 3"],
        ["data = load()\nprint(data)", "def f(data):\n    return data + 1"],
        ["f = lambda x: x + 1", "print(f(undefined))"],
    ],
)
def test_of_several_blocks_the_defining_one_is_run_with_what_it_needs(blocks):
    assert adds_one("\nand\n".join(f"{F}python\n{block}\n{F}" for block in blocks))


def test_no_line_of_the_standard_library_is_prose():
    paths = sorted(STANDARD_LIBRARY.glob("[a-z]*.py"))
    sources = [path.read_text(encoding="utf-8") for path in paths]
    assert len(paths) > 100
    assert [path.name for path, source in zip(paths, sources, strict=True) if without_prose(source) != source] == []


def test_no_string_or_comment_of_the_standard_library_ends_a_fence():
    sources = [path.read_text(encoding="utf-8").strip() for path in sorted(STANDARD_LIBRARY.glob("[a-d]*.py"))]
    assert len(sources) > 20
    for source in sources:
        answer = f"So:\n{F}python\n{source}{F}\nHope it's right!"
        assert strict_source(answer, CASES) == textwrap.dedent(source)


def test_of_endless_fences_the_first_ten_thousand_are_read():
    blocks = f"{F}\nx\n{F}\n"
    assert adds_one(f"{F}python\n{CODE}{F}\n" + blocks * 20_000)
    assert "def f" not in strict_source(blocks * 20_000 + f"{F}python\n{CODE}{F}\n", CASES)
    assert adds_one(quoted(f"{F}python\n\n{CODE}\n# a\n{F}"))
