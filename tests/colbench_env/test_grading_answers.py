"""From answer texts to source, and from tests to calls."""

import pytest

from colbench_env.grading.answers import Case, blocked_word, is_no_answer, official_source, parse_case, strict_source

CASES = (Case("test1", "f(1)"),)
CODE = "def f(x):\n    return x\n"


@pytest.mark.parametrize(
    "text",
    [
        CODE,
        f"```python\n{CODE}```",
        f"```\n{CODE}```",
        f"```py\n{CODE}```\n",
        f"```Python3\n{CODE}```",
        f"~~~\n{CODE}~~~",
        f"````python\n{CODE}````",
        f"Here it is:\n```python\n{CODE}```\nHope this helps!",
        f"Sure: ```python\n{CODE}```",
        f"```python\n{CODE}",
        "```def f(x):\n    return x\n```",
        "```python def f(x):\n    return x\n```",
        "\ufeff" + f"```python\r\n{CODE}```".replace("\n", "\r\n").replace("\r\r", "\r"),
        "1. So:\n   ```python\n   def f(x):\n       return x\n   ```\n",
        f"```python\n{CODE}```\nFor example:\n```python\nprint(f(1))\nprint(undefined)\n```",
        f"```python\ndef f(x):\n    return 0\n```\nNo, better:\n```python\n{CODE}```",
        f"```bash\npip install this\n```\n```python\n{CODE}```",
        f"Run it:\n```text\nf(1) -> 1\n```\nThe code:\n```\n{CODE}```",
    ],
)
def test_the_code_is_found_in_any_fence_and_any_prose(text):
    assert strict_source(text, CASES).strip() == CODE.strip()


def test_blocks_that_only_together_define_the_function_are_joined():
    text = "```python\nimport math\n```\nthen\n```python\nf = math.floor\n```"
    assert strict_source(text, CASES) == "import math\nf = math.floor"


def test_a_fence_deeper_inside_a_docstring_does_not_end_the_block():
    code = 'def f(x):\n    """\n    ```\n    f(1)\n    ```\n    """\n    return x\n'
    assert strict_source(f"```python\n{code}```", CASES) == code.strip()


@pytest.mark.parametrize(
    ("text", "source"),
    [
        (CODE, CODE),
        (f"a\n```python\n{CODE}```\nb", f"\n{CODE}"),
        (f"```py\n{CODE}```", f"py\n{CODE}"),
        (f"```\n{CODE}```", f"\n{CODE}"),
        ("```python\na\n```\n```python\nb\n```", "\na\n"),
    ],
)
def test_the_released_fence_rule_takes_the_first_fence_as_it_is(text, source):
    assert official_source(text) == source


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ('```python title="x.py" linenums\ndef f(x): return 1\n```', ' title="x.py" linenums\ndef f(x): return 1\n'),
        ("```{.python}\nf = 1\n```", "{.python}\nf = 1\n"),
        ("```python:src/f.py\nf = 1\n```", ":src/f.py\nf = 1\n"),
        ("~~~python\nf = 1\n~~~", "~~~python\nf = 1\n~~~"),
        ("```python\nf = 1```", "\nf = 1"),
        ("```python\nf = 1``````python\ng = 2\n```", "\nf = 1"),
        ("```python\nf = 1", "\nf = 1"),
        ("f = 1\n```\n", "\n"),
        ("f = 1\n```\nThat is all.\n```python\nf(1)\n```", "\nf(1)\n"),
        ("```py\nf = 1\n```\n```python\nf = 2\n```", "\nf = 2\n"),
        ("```python f = 1```", " f = 1"),
        ("  ```python\n  f = 1\n  ```", "\n  f = 1\n  "),
        ("> ```python\n> f = 1\n> ```", "\n> f = 1\n> "),
        ("```pycon\n>>> f = 1\n```", "pycon\n>>> f = 1\n"),
        (">>> f = 1", ">>> f = 1"),
        ("````python\nf = 1\n````", "\nf = 1\n"),
        ("```\r\nf = 1\r\n```", "\r\nf = 1\r\n"),
        ("\ufefff = 1", "\ufefff = 1"),
        ("Use ```f``` as\n```python\nf = 1\n```", "\nf = 1\n"),
        ("```", ""),
        ("``````", ""),
        ("```python", ""),
        ('f = "```"', '"'),
        ("Here:\n\nf = 1\n\nDone.", "Here:\n\nf = 1\n\nDone."),
        ("```Python\nf = 1\n```", "Python\nf = 1\n"),
        ("", ""),
    ],
)
def test_the_released_fence_rule_knows_nothing_else(text, source):
    assert official_source(text) == source


@pytest.mark.parametrize(
    ("text", "word"),
    [("import os", "import os"), ("def on_exit(): 0", "exit("), ("# sudo", "sudo"), ("def f(x): return x", None)],
)
def test_the_released_block_list_matches_inside_words(text, word):
    assert blocked_word(text) == word


@pytest.mark.parametrize(
    ("expression", "case"),
    [
        ("f(1, 2)", Case("t", "f(1, 2)")),
        (" f([1, 2]) == -45.0", Case("t", "f([1, 2])", "-45.0")),
        ("f(1) == {'a': [1]}", Case("t", "f(1)", "{'a': [1]}")),
        ("f(1) == g(2)", Case("t", "f(1) == g(2)")),
        ("f(1) == 1 == 2", Case("t", "f(1) == 1 == 2")),
        ("f(1) > 3", Case("t", "f(1) > 3")),
        ("f(", Case("t", "f(")),
    ],
)
def test_a_compared_literal_is_taken_off_the_call(expression, case):
    assert parse_case("t", expression) == case


def test_no_answer_is_recognised():
    assert is_no_answer("") and is_no_answer(" \n") and is_no_answer("No answer")
    assert not is_no_answer("No answer needed")
