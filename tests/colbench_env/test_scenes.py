"""The toy benchmark: more topics than turns, scenes that tell which matter, users who are vague, agents who read."""

import random

import pytest

from colbench_env.dialogue import ANSWER_MARKER
from colbench_env.grading import Grader
from colbench_env.humans.scripted import ScriptedSimulator, first_topic
from colbench_env.mini.tasks import SPLITS, make_task
from colbench_env.scenes import SCENE_TURNS, UNKNOWN_REPLIES, behaviour_dialogues, keywords, make_tasks
from colbench_env.scenes.behaviour import Habits, behaviour_dialogue
from colbench_env.scenes.families import SETTINGS
from colbench_env.scenes.tasks import draw_draft
from colbench_env.scenes.topics import FRAMES, HINTS, NEEDLESS, OPENINGS, REMARKS


def drafts(count, seed=0, split="train"):
    rng = random.Random(seed)
    return [draw_draft(rng, split) for _ in range(count)]


def complete(habits, count=1500):
    return sum(dialogue.complete for dialogue in behaviour_dialogues("train", count, 0, habits)) / count


def test_the_same_seed_gives_the_same_tasks_and_splits_share_no_hidden_combination():
    assert make_tasks("train", 10, 7) == make_tasks("train", 10, 7) != make_tasks("train", 10, 8)
    keys = [{draft.key for draft in drafts(400, split=split)} for split in SPLITS]
    assert not keys[0] & keys[1] and not keys[0] & keys[2] and not keys[1] & keys[2]


def test_every_question_is_heard_as_its_own_topic_and_nothing_else_as_any():
    heard = keywords()
    assert len(heard) == sum(len(setting.family.topics) for setting in SETTINGS) == 42
    for setting in SETTINGS:
        for topic in setting.family.topics:
            asked = [opening + question for question in topic.questions for opening in OPENINGS[-2:]]
            assert {first_topic(question, heard) for question in asked} == {topic.name}
    others = [frame.format(noun=noun) for noun in NEEDLESS for frame in FRAMES] + list(REMARKS)
    assert {first_topic(text, heard) for text in others} == {None}


def test_asking_everything_does_not_fit():
    assert all(len(setting.family.topics) > 2 * SCENE_TURNS for setting in SETTINGS)


def test_the_scene_in_the_open_description_makes_topics_likely_and_no_more():
    found = drafts(3000)
    likely = [fact.topic in draft.scene.likely for draft in found for fact in draft.facts]
    assert 0.8 < sum(likely) / len(likely) < 0.95
    assert all(draft.scene.phrase in draft.description for draft in found)
    by_scene = {}
    for draft in found:
        by_scene.setdefault(draft.scene.phrase, set()).add(frozenset(fact.topic.name for fact in draft.facts))
    assert len(by_scene) == 30 and min(map(len, by_scene.values())) >= 10


@pytest.mark.slow
def test_a_user_is_vague_once_and_an_answer_may_point_at_another_hidden_topic():
    human, vague, hinted, facts = ScriptedSimulator(keywords(), UNKNOWN_REPLIES), 0, 0, 0
    for draft in drafts(120):
        task = make_task(draft, random.Random(0))
        if task is None:
            continue
        for fact in draft.facts:
            question, name, facts = fact.topic.questions[0], fact.topic.name, facts + 1
            assert human.say(task, question, 0, [question]) == draft.reply(fact)
            if name in dict(draft.vague):
                vague += 1
                assert human.say(task, question, 0) == dict(draft.vague)[name]
            hints = [other for other in draft.facts if other.topic.keywords[0] in dict(draft.hints).get(name, "")]
            hinted += len(hints) == 1 and hints[0].topic != fact.topic
    assert 0.1 < vague / facts < 0.3 and 0.2 < hinted / facts < 0.4
    assert all("{noun}" in hint for hint in HINTS)


def test_who_knows_the_scenes_does_far_better_than_one_rule_for_all_tasks():
    tidy = {"answer": 0.0, "needless": 0.0, "repeat": 0.0, "again": 1.0, "hint": 1.0}
    assert complete(Habits(scene=1.0, **tidy)) > 0.65
    assert complete(Habits(scene=4 / 14, **tidy)) < 0.35


def test_an_agent_that_sees_the_reference_acts_on_it():
    blind, sees = (list(behaviour_dialogues("train", 600, 1, privileged=share)) for share in (0.0, 1.0))
    assert 0.1 < sum(dialogue.complete for dialogue in blind) / 600 < 0.3
    assert sum(dialogue.complete for dialogue in sees) / 600 > 0.8
    assert all(dialogue.answer == dialogue.reference for dialogue in sees)
    for dialogue in blind + sees:
        assert ANSWER_MARKER in dialogue.messages[-1][1] and len(dialogue.messages) <= 2 * SCENE_TURNS


@pytest.mark.slow
def test_references_pass_their_tests_and_an_answer_without_a_fact_fails():
    rng = random.Random(5)
    found = [(draft, task) for draft in drafts(30, 5) if (task := make_task(draft, rng)) is not None]
    assert len(found) >= 20
    with Grader(workers=1) as grader:
        right = grader.grade_many([(task, task.ground_truth) for _, task in found])
        wrong = grader.grade_many([(task, draft.code(draft.facts[1:])) for draft, task in found])
    assert all(grade.success for grade in right) and not any(grade.success for grade in wrong)


def test_a_dialogue_is_what_the_scripted_user_would_have_said():
    human = ScriptedSimulator(keywords(), UNKNOWN_REPLIES)
    for draft in drafts(60, 3):
        task = make_task(draft, random.Random(0))
        if task is None:
            continue
        dialogue, asked = behaviour_dialogue(draft, random.Random(1)), []
        for (_, question), (_, reply) in zip(dialogue.messages[1:-1:2], dialogue.messages[2::2], strict=True):
            said = human.say(task, question, 0, asked)
            assert reply == said or (reply in UNKNOWN_REPLIES and said in UNKNOWN_REPLIES)
            asked.append(question)
