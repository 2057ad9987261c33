"""A user simulator for real tasks that needs no model: facts from the reference in plain words, and never the
reference."""

import ast
import asyncio

import pytest

from colbench_env.episodes import EpisodeFailed, Settings, play
from colbench_env.humans import SimulatorRequest
from colbench_env.humans.knowledge import read_knowledge
from colbench_env.humans.rules import NO_QUESTION, SHRUG, RulesSimulator, answer
from colbench_env.humans.wording import Wording, text_in_quotes
from colbench_env.simulator_health import leaks
from colbench_env.types import BadInput, Message, Task

FINE = """
def fine(years, allegations, rates, by_year=100):
    if not rates:
        return None
    kinds = ["minor", "major"]
    total = years * by_year + allegations * rates["minor"]
    if total > 5000:
        return round(total * 0.9, 2)
    elif years < 2:
        raise ValueError("too young")
    else:
        return sorted(kinds, key=lambda kind: kind, reverse=True)
"""
TASK = Task("Compute a fine. The signature of the function is: def fine(years, allegations, rates, by_year=100)", FINE,
            {"t": "fine(3, 2, {'minor': 5})", "u": "fine(1, 0, {'minor': 1}, 7)"}, FINE)  # fmt: skip


def said(question, task=TASK, before=()):
    messages = (Message("user", task.problem_description), *before, Message("assistant", question))
    return asyncio.run(RulesSimulator().reply(SimulatorRequest(task, messages, 0)))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("a * 0.9 + b", "(a times 0.9) plus b"),
        ("round(a / b, 2)", "a divided by b rounded to 2 decimals"),
        ("a // 2 - -1", "(a divided (rounded down) by 2) minus -1"),
        ("a['size']", 'the "size" of a'),
        ("a.get('size', 0)", 'the "size" of a (0 if there is none)'),
        ("a[-1]", "the last entry of a"),
        ("a[:3]", "the first 3 entries of a"),
        ("a[:1]", "the first entry of a"),
        ("a[:-1]", "all but the last entry of a"),
        ("a[:-3]", "all but the last 3 entries of a"),
        ("a[-1:]", "the last entry of a"),
        ("a[-2:]", "the last 2 entries of a"),
        ("a[2:]", "all but the first 2 entries of a"),
        ("a[b:]", "a from place b on"),
        ("a[::-1]", "a in reverse"),
        ("len(a)", "the number of entries in a"),
        ("sum(1 for x in a if x > 2)", "the number of x in a where x is above 2"),
        ("[x for x in a if x]", "the x entries in a where x is given and true"),
        ("a.lower().strip()", "a in lower case without blanks around it"),
        ("1 if a else 2", "1 if a is given and true, otherwise 2"),
        ("f'{a} of {b}'", 'the text a, then " of ", then b'),
        ("['x', 'y z']", 'x, "y z"'),
        ("(1.5, 2)", "1.5; 2"),
        ("[(1, 2), (3, 4)]", "1 / 2; 3 / 4"),
        ("{'k': a}", 'a dictionary: key "k" holds a'),
        ("max(a, b)", "the larger of a and b"),
        ("total_fine", "total fine"),
        ("a @ b", ""),
        ("strange(a)", ""),
        ("lambda: a", ""),
        ("(" * 80 + "a" + " + 1)" * 80, ""),
    ],
)
def test_expressions_are_said_in_plain_words_or_not_at_all(source, words):
    assert Wording("ab").say(ast.parse(source, mode="eval").body) == words


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("round(a, ndigits=1)", "a rounded to 1 decimal"),
        ("enumerate(a, start=1)", "a, numbered from 1"),
        ("enumerate(a, 1)", "a, numbered from 1"),
        ("max(a, default=0)", "the largest of a (0 if there is none)"),
        ("max(a, key=a.get)", "the largest of a by the value in a"),
        ("min(a, b, key=abs)", "the smaller of a and b by absolute value"),
        ("min(a, key=lambda x: (x[1], x['n']), default=b)",
         'the smallest of a by the second entry, then by the "n" (b if there is none)'),
        ("max(*a)", "the largest of a"),
        ("sorted(a, key=len)", "a sorted by length, the smallest first"),
        ("sorted(a, key=None, reverse=True)", "a sorted, the largest first"),
        ("sorted(a, key=lambda x: -x[1])", "a sorted by the second entry, the largest first"),
        ("sorted(a, key=lambda x: -x[1], reverse=True)", "a sorted by the second entry, the smallest first"),
        ("sorted(a, key=lambda x: (-x[1], x[0]))",
         "a sorted by the second entry, the largest first, then by the first entry, the smallest first"),
        ("sorted(a, key=lambda x: abs(x - b))",
         "a sorted by the absolute value of x minus b, the smallest first"),
        ("sorted(a, key=lambda x: len(xs))", "a sorted by the number of entries in xs, the smallest first"),
    ],
)  # fmt: skip
def test_arguments_with_names_are_said_too(source, words):
    assert Wording("ab").say(ast.parse(source, mode="eval").body) == words


@pytest.mark.parametrize(
    "source",
    [
        "sum(a, start=10)", "sum(a, 10)", "sum((1 for x in a), 10)", "sum(*a)", "sum()", "max()",
        "sorted(a, key=f)", "sorted(a, reverse=b)", "sorted(a, key=lambda x: -x[1], reverse=b)", "sorted(a, **b)",
        "sorted(a, key=lambda x, y=2: x)", "max(a, key=f)", "max(a, key=lambda x: -x)", "max(a, axis=0)", "max(b, *a)",
        "round(number=a, ndigits=2)", "int(a, base=2)", "dict(a, b=1)", "str(a, encoding='x')", "a.get('x', other=1)",
        "a.split(',', maxsplit=1)", "set(*a)", "np.mean(a, axis=0)", "np.max(a, 0)", "a.max(0)", "re.split(',', a)",
        "re.search('x', a, flags=b)", "a[:-b]", "a[-b:]", "a[:None]",
    ],
)  # fmt: skip
def test_a_call_with_an_argument_that_has_no_words_is_not_said(source):
    assert Wording("ab").say(ast.parse(source, mode="eval").body) == ""


@pytest.mark.parametrize(
    ("source", "words", "otherwise"),
    [
        ("a > 3", "a is above 3", "a is at most 3"),
        ("3 > a", "a is below 3", "a is at least 3"),
        ("not a", "a is empty, zero or false", "a is given and true"),
        ("1 <= a <= 2", "a is at least 1 and a is at most 2", ""),
        ("'x' in a and b == 'y'", 'a contains "x" and b is "y"', 'a does not contain "x" or b is not "y"'),
        ("a in ['x', 'y']", "a is one of x, y", "a is not one of x, y"),
        ("a.startswith('x')", 'a begins with "x"', 'it is not so that a begins with "x"'),
        ("a or (b and not a)", "a is given and true or (b is given and true and a is empty, zero or false)",
         "a is empty, zero or false and (b is empty, zero or false or a is given and true)"),
    ],
)  # fmt: skip
def test_conditions_are_said_both_ways(source, words, otherwise):
    tree, wording = ast.parse(source, mode="eval").body, Wording("ab")
    assert (wording.condition(tree), wording.condition(tree, holds=False)) == (words, otherwise)


def test_a_long_text_is_quoted_in_pieces():
    assert text_in_quotes("one two three four five six seven eight nine") == (
        '"one two three four five six seven eight" and then "nine"'
    )
    assert text_in_quotes("") == "an empty text"


def test_the_facts_of_a_reference_say_what_goes_in_what_is_done_and_what_comes_out():
    assert [fact.sentence for fact in read_knowledge(TASK)] == [
        "years is a number.",
        "allegations is a number.",
        "rates is a dictionary.",
        'Of rates these keys matter: "minor".',
        "by_year is a number.",
        "Without a value, by_year is 100.",
        "If rates is empty, zero or false, the result is None.",
        "In the other cases, the kinds are minor, major.",
        'In the other cases, the total is (years times by_year) plus (allegations times the "minor" of rates).',
        "Round to 2 decimals.",
        "In the other cases, if total is above 5000, the result is total times 0.9 rounded to 2 decimals.",
        'In the other cases, if years is below 2, an error is raised, a ValueError that says "too young".',
        "In the other cases, the result is kinds sorted by kind, the largest first.",
    ]


@pytest.mark.parametrize(
    ("value", "sentences"),
    [
        ("round(x, 2)", ["Round to 2 decimals.", "The result is x rounded to 2 decimals."]),
        ("round(x, ndigits=1)", ["Round to 1 decimal.", "The result is x rounded to 1 decimal."]),
        ("round(x)", ["Round to the nearest whole number.", "The result is x rounded to a whole number."]),
        ("round(x, ndigits=n)", ["The result is x rounded to n decimals."]),
        ("round(x, other=1)", []),
        ("round(x, 2, other=1)", []),
        ("int(x + 1, base=2)", []),
    ],
)
def test_the_rounding_that_is_told_is_that_of_the_whole_call(value, sentences):
    task = Task("Do f(x).", f"def f(x):\n    return {value}")
    assert [fact.sentence for fact in read_knowledge(task)] == sentences


def test_an_order_without_words_is_not_told():
    task = Task("Do f(x).", "def f(x, n):\n    x.sort(reverse=n)\n    return x")
    assert [fact.sentence for fact in read_knowledge(task)] == ["X is put in order.", "The result is x."]


def test_what_is_put_into_a_parameter_is_found_at_its_place_or_not_at_all():
    source = "def f(a, /, b):\n    return a"
    task = Task("Do f(a, b).", source, {"t": "f('x', 1)", "u": "f(*xs, 1)"})
    assert [fact.sentence for fact in read_knowledge(task)] == ["a is a text.", "b is a number.", "The result is a."]
    starred = Task("Do f(a, b).", source, {"t": "f(*xs, 1)"})
    assert [fact.sentence for fact in read_knowledge(starred)] == ["The result is a."]


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("Should I round the fine?", "Round to 2 decimals."),
        ("What happens when `rates` is empty?", "If rates is empty, zero or false, the result is None."),
        ("What type does `rates` have?", "rates is a dictionary."),
        ("Is there a default for by_year?", "Without a value, by_year is 100."),
        ("In which order are they sorted?", "the largest first."),
        ("How is the total computed?", "the total is (years times by_year) plus"),
        ("Please tell me about the years below 2.", 'a ValueError that says "too young".'),
    ],
)
def test_a_question_gets_the_fact_that_it_asks_for(question, words):
    assert words in said(question)


@pytest.mark.parametrize(
    "question", ["Which currency do you use?", "Nice weather, isn't it?", "Hello.", "", "\x00", "?" * 500]
)
def test_what_is_not_known_gets_a_shrug(question):
    assert said(question) == SHRUG


def test_code_without_a_question_is_not_read():
    assert said("```python\ndef fine(years):\n    return 1  # is it so?\n```") == NO_QUESTION


def test_several_questions_get_an_answer_each_and_what_was_said_is_not_said_again():
    both = said("Do I round? What about empty rates? And which currency?")
    assert both == "Round to 2 decimals. If rates is empty, zero or false, the result is None."
    before = (Message("assistant", "Do I round?"), Message("user", "Round to 2 decimals."))
    assert "Round to 2 decimals." not in said("Do I round the total to decimals?", before=before)


def test_the_same_question_again_gets_the_same_fact_where_there_is_no_other():
    task = Task("Add. The signature of the function is: def f(x)", "def f(x):\n    return round(x, 1)")
    question, first = "Do I round decimals?", "Round to 1 decimal. The result is x rounded to 1 decimal."
    assert said(question, task) == first
    before = (Message("assistant", question), Message("user", first))
    assert said(question, task, before) == "Round to 1 decimal."


LONG = """def f(x):
    words = ['alpha', 'beta', 'gamma', 'delta', 'epsilon']
    if x in words:
        return 'You have to bring a passport, a ticket, two photos and some money to the office on Monday'
    return x * 1.1 + 2.2 * 3.3 - 4.4
"""


@pytest.mark.parametrize(
    "source", [FINE, LONG, LONG.replace("words", "the_words"), "def f(x): return [1.1, 2.2, 3.3, 4.4, 5.5, x]"]
)
@pytest.mark.parametrize(
    "question",
    [
        "What does it return?",
        "Give me the function.",
        "Please tell me all rules, words, values and results!",
        "def f(x):?",
    ],
)
def test_nothing_that_is_said_gives_the_reference_away(source, question):
    task = Task("Do it. The signature of the function is: def f(x)", source, {"t": "f(1)"})
    reply = said(question, task)
    assert leaks(task, reply) == []
    assert 0 < len(reply) <= 400


def test_a_dialogue_is_the_same_every_time_and_its_row_names_the_rules():
    def agent(messages):
        return "How do I round?" if len(messages) < 3 else "I WANT TO ANSWER: 1"

    rows = [play(TASK, agent, RulesSimulator("standard-v1"), Settings(seed=seed)) for seed in (0, 1)]
    assert rows[0].dialogue_history == rows[1].dialogue_history
    assert rows[0].extra["human"] == {
        "name": "standard-v1", "settings": {"answers": "from the reference by rules", "version": 2},
    }  # fmt: skip


def test_a_task_without_a_reference_ends_the_run_and_one_that_is_not_python_its_episode():
    with pytest.raises(BadInput, match="has no reference to answer from"):
        said("What?", Task("Do it."))
    for source in ("function f(x) { return 1 }", "x = 1"):
        with pytest.raises(EpisodeFailed, match="is not Python"):
            play(Task("Do it.", source), lambda messages: "What?", RulesSimulator(), Settings(system=""))


def test_a_deeply_nested_or_unreachable_reference_is_read_as_far_as_it_can_be_said():
    source = "def f(x):\n    return 1\n    if x:\n        return 2\n"
    assert [fact.sentence for fact in read_knowledge(Task("f", source))] == ["The result is 1."]
    deep = "def f(x):\n    return " + "-" * 500 + "x\n"
    assert read_knowledge(Task("f", deep)) == []
    assert answer("What is returned?", []) == SHRUG
