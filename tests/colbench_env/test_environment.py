"""The environment with reset and step, alone and as a gymnasium.Env."""

import math
import random

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

from colbench_env.environment import Environment
from colbench_env.episodes import Settings, play
from colbench_env.grading import Grade, Grader, TestVerdict, Verdict
from colbench_env.gym import AnyText, GymEnvironment
from colbench_env.humans.scripted import ScriptedSimulator
from colbench_env.types import BadInput, Task

CALLS = {"test1": "f(1)", "test2": "f(-1)"}
TASKS = [Task(f"Task {name}.", "def f(x): return abs(x)", CALLS, "sign: No sign.") for name in "abcd"]
HUMAN = ScriptedSimulator({"sign": ("sign",)}, ("I don't know.",))
NOW = Settings(max_turns=3, retry_seconds=0.0)


@pytest.fixture(scope="module")
def grader():
    with Grader(workers=1) as grader:
        yield grader


class Mute:
    name, settings = "mute", {}

    async def reply(self, request):
        raise OSError("busy")


class Spoilt:
    """A grader whose machine fails at one of the tests."""

    mode = "strict"

    def grade_many(self, items):
        verdicts = TestVerdict("test1", Verdict.PASS), TestVerdict("test2", Verdict.INFRASTRUCTURE_ERROR)
        return [Grade(verdicts) for _ in items]


def test_an_episode_from_the_problem_to_the_reward(grader):
    environment = Environment(TASKS, HUMAN, grader, Settings(system=""))
    observation, info = environment.reset(seed=0, options={"task": 2})
    opening = {"role": "user", "content": "Task c."}
    assert (observation, info["messages"], info["turns"]) == ("Task c.", [opening], 0)
    observation, reward, terminated, truncated, info = environment.step("Hm. OUTPUT: What sign?")
    assert (observation, reward, terminated, truncated) == ("No sign.", 0.0, False, False)
    assert info["messages"][1:] == [
        {"role": "assistant", "content": "Hm. OUTPUT: What sign?"},
        {"role": "user", "content": "No sign."},
    ]
    assert info.keys() == {"messages", "task_id", "seed", "turns"}
    observation, reward, terminated, truncated, info = environment.step("I WANT TO ANSWER: def f(x): return x")
    assert (observation, reward, terminated, truncated) == ("", 0.5, True, False)
    assert (info["success"], info["turns"], info["task_id"]) == (False, 2, TASKS[2].task_id)
    assert info["trajectory"].reward == 0.5
    assert info["trajectory"].extra["verdicts"] == {"test1": "pass", "test2": "wrong"}
    assert "error" not in info


def test_the_last_turn_is_an_answer_and_a_right_one_a_success(grader):
    environment = Environment(TASKS, HUMAN, grader, Settings(max_turns=1))
    environment.reset()
    _, reward, terminated, truncated, info = environment.step("def f(x): return abs(x)")
    assert (reward, terminated, truncated, info["success"]) == (1.0, True, False, True)


def test_an_episode_can_be_played_again_from_the_seed_in_its_info(grader):
    environment = Environment(TASKS, HUMAN, grader, NOW)
    _, info = environment.reset(seed=4)
    turns = ["What colour?", "What shape?", "I WANT TO ANSWER: x"]
    for turn in turns:
        *_, last = environment.step(turn)
    (task,) = [task for task in TASKS if task.task_id == info["task_id"]]
    left = iter(turns)
    again = play(task, lambda messages: next(left), HUMAN, Settings(max_turns=3, seed=info["seed"]))
    assert again.dialogue_history == last["trajectory"].dialogue_history
    assert again.extra.items() <= last["trajectory"].extra.items()


def test_a_seed_decides_the_tasks_and_seeds_that_follow():
    def drawn(environment, seed):
        infos = [environment.reset(seed=seed)[1], *(environment.reset()[1] for _ in range(9))]
        return [(info["task_id"], info["seed"]) for info in infos]

    environment = Environment(TASKS, HUMAN, Spoilt(), Settings(seed=7))
    unseeded = drawn(environment, None)
    assert unseeded == drawn(Environment(TASKS, HUMAN, Spoilt(), Settings(seed=7)), None) == drawn(environment, 7)
    assert unseeded != drawn(environment, 8)
    assert {task for task, _ in unseeded} == {task.task_id for task in TASKS}
    assert len({seed for _, seed in unseeded}) == 10


def test_asking_for_a_task_does_not_change_what_is_drawn_later():
    environment = Environment(TASKS, HUMAN, Spoilt())
    environment.reset(seed=1)
    plain = environment.reset()[1]
    environment.reset(seed=1, options={"task": 3})
    assert environment.reset()[1] == plain


def test_a_human_that_cannot_reply_truncates_with_nan_and_the_reason():
    environment = Environment(TASKS, Mute(), Spoilt(), NOW)
    environment.reset()
    observation, reward, terminated, truncated, info = environment.step("What sign?")
    assert (observation, math.isnan(reward), terminated, truncated) == ("", True, False, True)
    assert (info["error"]["by"], info["error"]["error"]) == ("human", "OSError: busy (attempts: 3)")
    assert info["messages"][-1] == {"role": "assistant", "content": "What sign?"}
    with pytest.raises(ValueError, match="call reset"):
        environment.step("Hello?")


def test_a_grader_that_could_not_run_a_test_gives_nan_and_the_reason():
    environment = Environment(TASKS, HUMAN, Spoilt(), NOW)
    environment.reset()
    _, reward, terminated, truncated, info = environment.step("I WANT TO ANSWER: x")
    assert (math.isnan(reward), terminated, truncated) == (True, True, False)
    assert (info["error"]["by"], info["error"]["verdict"]) == ("grader", "infrastructure-error")
    assert (info["trajectory"].reward, info["success"]) == (None, False)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(BadInput, match="without tasks"):
        Environment([], HUMAN, Spoilt())
    environment = Environment(TASKS, HUMAN, Spoilt())
    with pytest.raises(ValueError, match=r"call reset\(\)"):
        environment.step("Hello?")
    with pytest.raises(BadInput, match=r"unknown options \['tsk'\]"):
        environment.reset(options={"tsk": 1})
    for number in (4, -1):
        with pytest.raises(BadInput, match=f"task {number} is asked for, there are tasks 0 to 3"):
            environment.reset(options={"task": number})
    environment.reset()
    with pytest.raises(ValueError, match="the agent's turn is int, expected a string"):
        environment.step(3)
    assert environment.step("What sign?")[0] == "No sign."


def test_gymnasiums_checker_passes_episodes_that_go_on_and_episodes_that_end(grader):
    for max_turns in (3, 1):
        name = f"ColBench{max_turns}-v0"  # the checker looks at all it can only where the environment was registered
        gymnasium.register(
            name, lambda turns=max_turns: GymEnvironment(TASKS, HUMAN, grader, Settings(max_turns=turns))
        )
        check_env(gymnasium.make(name).unwrapped)


def test_several_environments_share_a_grader_and_step_together(grader):
    with_tasks = [lambda: GymEnvironment(TASKS, HUMAN, grader, Settings(max_turns=2))] * 2
    both = gymnasium.vector.SyncVectorEnv(with_tasks)
    observations, infos = both.reset(seed=[1, 2])
    assert set(observations) <= {task.problem_description for task in TASKS}
    observations, rewards, terminated, truncated, _ = both.step(("What sign?", "I WANT TO ANSWER: def f(x): return x"))
    assert (observations, list(rewards), list(terminated)) == (("No sign.", ""), [0.0, 0.5], [False, True])
    both.close()


def test_the_gymnasium_environment_plays_what_the_plain_one_plays(grader):
    def played(kind):
        environment = kind(TASKS, HUMAN, grader, Settings(max_turns=2))
        return [environment.reset(seed=3), environment.step("What colour?"), environment.step("def f(x): return x")]

    assert played(GymEnvironment) == played(Environment)


def test_a_space_of_any_text_holds_strings_only_and_draws_by_its_seed():
    space = AnyText(seed=1)
    assert "Größe ≥ 3?\n" in space and "" in space and 3 not in space and None not in space
    words = [space.sample() for _ in range(3)]
    space.seed(1)
    assert [space.sample() for _ in range(3)] == words
    assert len(set(words)) == 3 and all(word in space for word in words)
    assert space == AnyText() and space != 3
    with pytest.raises(ValueError, match="no masks"):
        space.sample(mask=random)
