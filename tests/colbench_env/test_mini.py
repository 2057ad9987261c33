"""Toy ColBench: real task rows, hidden facts that matter, a scripted simulator that knows only those."""

import random
from collections import Counter

import pytest

from colbench_env.dialogue import ANSWER_MARKER
from colbench_env.grading import Grader
from colbench_env.humans.scripted import ScriptedSimulator, first_topic
from colbench_env.mini import UNKNOWN_REPLIES, behaviour_dialogue, behaviour_dialogues, keywords, make_tasks
from colbench_env.mini.behaviour import Habits
from colbench_env.mini.families import FAMILIES
from colbench_env.mini.tasks import SPLITS, draw_draft, make_task
from colbench_env.mini.topics import DISTRACTORS


def test_the_same_seed_gives_the_same_tasks_and_another_seed_others():
    first, again, other = make_tasks("train", 20, 7), make_tasks("train", 20, 7), make_tasks("train", 20, 8)
    assert first == again
    assert [task.task_id for task in first] != [task.task_id for task in other]


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        make_tasks("dev", 1, 0)


def test_splits_share_no_hidden_combination():
    rng = random.Random(0)
    keys = {split: {draw_draft(rng, split).key for _ in range(400)} for split in SPLITS}
    assert (
        not keys["train"] & keys["test"]
        and not keys["train"] & keys["validation"]
        and not keys["validation"] & keys["test"]
    )


@pytest.mark.slow
def test_every_family_is_among_the_tasks_and_hides_two_to_four_facts():
    tasks = make_tasks("test", 150, 3)
    facts = Counter(len(task.hidden_information.splitlines()) for task in tasks)
    purposes = [purpose.sentence for family in FAMILIES for purpose in family.purposes]
    seen = Counter(next(p for p in purposes if f" {p}" in task.problem_description) for task in tasks)
    assert set(facts) == {2, 3, 4}
    assert len(FAMILIES) >= 5 and all(any(seen[p.sentence] for p in family.purposes) for family in FAMILIES)
    assert all(len(task.test_cases) == 10 for task in tasks)


def test_every_question_is_heard_as_its_own_topic_and_no_distractor_as_any():
    heard = keywords()
    for family in FAMILIES:
        for topic in family.topics:
            assert {first_topic(question, heard) for question in topic.questions} == {topic.name}
    assert {first_topic(question, heard) for question in DISTRACTORS} == {None}


@pytest.mark.slow
def test_the_description_does_not_tell_which_topics_are_hidden():
    rng = random.Random(1)
    by_description: dict[str, set[str]] = {}
    for _ in range(6000):
        draft = draw_draft(rng, "train")
        hidden = ",".join(fact.topic.name for fact in draft.facts)
        by_description.setdefault(draft.description, set()).add(hidden)
    assert min(len(hidden) for hidden in by_description.values()) >= 10


@pytest.mark.slow
def test_references_pass_their_tests_and_plain_functions_fail_some():
    rng = random.Random(5)
    drafts = [draw_draft(rng, "train") for _ in range(15)]
    tasks = [(draft, task) for draft in drafts if (task := make_task(draft, rng)) is not None]
    assert len(tasks) >= 10
    with Grader(workers=1) as grader:
        right = grader.grade_many([(task, task.ground_truth) for _, task in tasks])
        unasked = grader.grade_many([(task, draft.code(())) for draft, task in tasks])
    assert all(grade.success for grade in right)
    assert not any(grade.success for grade in unasked)


def test_the_scripted_agent_is_told_what_the_scripted_human_would_say():
    human, rng = ScriptedSimulator(keywords(), UNKNOWN_REPLIES), random.Random(2)
    for task in make_tasks("train", 5, 11):
        assert human.say(task, "Should I add a comment?", seed=rng.randrange(1000)) in UNKNOWN_REPLIES
        for line in task.hidden_information.splitlines():
            topic, sentence = line.split(": ", 1)
            question = next(t.questions[0] for family in FAMILIES for t in family.topics if t.name == topic)
            assert human.say(task, question, seed=0) == sentence


def test_an_agent_that_never_asks_leaves_everything_out_and_one_that_asks_all_is_complete():
    rng = random.Random(4)
    draft = draw_draft(rng, "train")
    silent = behaviour_dialogue(draft, rng, Habits(answer=1.0))
    curious = behaviour_dialogue(draft, rng, Habits(answer=0.0, needless=0.0, repeat=0.0))
    assert not silent.complete and silent.messages[-1][1] == f"{ANSWER_MARKER}\n{draft.code(())}"
    assert curious.complete and curious.answer == draft.reference


def test_scripted_dialogues_succeed_sometimes_and_end_with_an_answer():
    dialogues = list(behaviour_dialogues("train", 600, 9))
    share = sum(dialogue.complete for dialogue in dialogues) / len(dialogues)
    assert 0.25 < share < 0.5
    assert all(dialogue.messages[-1][1].startswith(ANSWER_MARKER) for dialogue in dialogues)
    assert max(len(dialogue.messages) for dialogue in dialogues) <= 20
