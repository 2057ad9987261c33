"""From answer texts to source, and from tests to calls."""

import time

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


@pytest.mark.parametrize("part", [" ", "\n", "`", "``` ", "```\n", "~~~ x\n", "def ", "\t\n", "a"])
def test_hostile_texts_take_linear_time(part):
    start = time.process_time()
    strict_source(part * 300_000 + "x", CASES)
    strict_source("```python" + part * 300_000 + "\x00", CASES)
    official_source(part * 300_000)
    assert time.process_time() - start < 5


def test_no_answer_is_recognised():
    assert is_no_answer("") and is_no_answer(" \n") and is_no_answer("No answer")
    assert not is_no_answer("No answer needed")
