"""Toy frontend ColBench: few pages, a vague wish, dialogues in which listening pays."""

import asyncio
import random
from collections import Counter
from dataclasses import replace

import pytest

from colbench_env.design.cache import CachedRenderer
from colbench_env.design.differences import differences
from colbench_env.design.html import extract_html
from colbench_env.design.mini import SPLITS, Habits, make_page_tasks
from colbench_env.design.mini.behaviour import next_look, page_dialogues, wishes
from colbench_env.design.mini.pages import ATTRIBUTES, SITES, draw_look, draw_of_split
from colbench_env.design.renderer import Renderer
from colbench_env.design.similarity import structural_similarity
from colbench_env.dialogue import ANSWER_MARKER
from colbench_env.humans.design import DesignSimulator
from colbench_env.prompts import load_prompt
from colbench_env.types import BadInput
from tests.colbench_env.chromium import chromium_or_skip

PERFECT = Habits(stop=0, ignore=0, wrong=0, spoil=0)


@pytest.fixture(scope="module")
def renderer():
    with Renderer(executable=chromium_or_skip()) as found:
        yield CachedRenderer(found)


def test_the_same_seed_gives_the_same_tasks_and_splits_share_no_page():
    assert make_page_tasks("train", 30, 7) == make_page_tasks("train", 30, 7) != make_page_tasks("train", 30, 8)
    pages = {split: {task.ground_truth for task in make_page_tasks(split, 80, 3)} for split in SPLITS}
    assert [len(found) for found in pages.values()] == [80, 80, 80]
    assert len(set.union(*pages.values())) == 240


def test_an_unknown_split_and_too_many_tasks_are_refused():
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        make_page_tasks("dev", 1, 0)
    with pytest.raises(BadInput, match="5000 mini pages were asked for, the split 'test' has"):
        make_page_tasks("test", 5000, 0)


def test_the_description_tells_the_site_and_nothing_of_the_look():
    by_site = Counter(task.problem_description for task in make_page_tasks("train", 300, 0))
    assert len(by_site) == 3 * len(SITES)
    task = make_page_tasks("train", 1, 0)[0]
    assert extract_html(task.ground_truth) == task.ground_truth
    assert not any(value in task.problem_description for values in ATTRIBUTES.values() for value in values)


def test_every_page_is_nine_lines_that_come_again():
    rng = random.Random(0)
    pages = [draw_look(rng).html for _ in range(500)]
    assert {page.count("\n") for page in pages} == {8}
    assert len({line for page in pages for line in page.split("\n")}) <= 60


def test_wishes_are_read_from_what_the_human_says():
    look = draw_look(random.Random(0), SITES[0])
    reply = (
        "The page's background should be light blue, yours is white. The button 'Order' should be pink, yours is black."
    )
    assert wishes(reply, look) == {"ground": "light blue", "button": "pink"}
    reply = "The heading 'Sweet Cakes' should be left of the heading 'Fresh Bread', yours is the other way round."
    assert wishes(reply, look) == {"order": "turned round"}
    assert wishes("That is just what I want.", look) == {}


def test_habits_decide_whether_a_wish_is_heard_and_whether_something_else_breaks():
    look = replace(draw_look(random.Random(0)), values=tuple(values[0] for values in ATTRIBUTES.values()))
    reply, rng = "The header should be red, yours is dark blue.", random.Random(0)
    assert next_look(look, reply, rng, PERFECT) == look.with_value("header", "red")
    assert next_look(look, reply, rng, replace(PERFECT, ignore=1)) == look
    spoilt = [next_look(look, reply, rng, replace(PERFECT, ignore=1, spoil=1)).chosen for _ in range(200)]
    changed = {name for chosen in spoilt for name in chosen if chosen[name] != look.chosen[name]}
    assert changed == set(ATTRIBUTES) - {"header"}


def test_the_prompt_tells_the_agent_how_many_turns_it_has():
    assert "You have 4 messages in all." in load_prompt("design_agent", max_turns=4)


@pytest.mark.slow
def test_each_attribute_decided_otherwise_is_named_first_and_lowers_the_similarity(renderer):
    wanted = draw_look(random.Random(1), SITES[1])
    human = DesignSimulator(renderer, most=1, plain=True)

    async def look_at(seen):
        page, reference = await asyncio.gather(renderer.render(seen.html), renderer.render(wanted.html))
        return differences(page, reference), structural_similarity(page, reference).score

    for attribute, values in ATTRIBUTES.items():
        for value in (value for value in values if value != wanted.chosen[attribute]):
            found, score = asyncio.run(look_at(wanted.with_value(attribute, value)))
            assert wishes(human.say(found, 0), wanted) == {attribute: wanted.chosen[attribute]}
            assert 0.4 < score < 0.99


@pytest.mark.slow
def test_who_listens_gets_the_page_and_who_does_not_stays_where_he_was(renderer):
    human = DesignSimulator(renderer, most=2, plain=True)
    rng = random.Random(2)
    looks = [draw_of_split(rng, "train") for _ in range(4)]

    def dialogues(habits):
        return asyncio.run(page_dialogues(looks, human, 0, habits))

    assert all(dialogue.complete for dialogue in dialogues(PERFECT))
    deaf = dialogues(replace(PERFECT, ignore=1))
    assert not any(dialogue.complete for dialogue in deaf)
    assert dialogues(Habits()) == dialogues(Habits())
    for dialogue in deaf:
        turns = [text for role, text in dialogue.messages if role == "assistant"]
        assert set(turns) == {dialogue.answer} and len(turns) == 4 and ANSWER_MARKER not in turns
