"""Dialogues: each as if it were alone, made of the very ids that were sampled."""

import asyncio
import contextlib
import dataclasses
from collections import Counter

import jax.numpy as jnp
import numpy as np
import pytest

from colbench_env.episodes import EpisodeFailed, Settings, seed_of
from colbench_env.humans.scripted import ScriptedSimulator
from colbench_env.mini import keywords, make_tasks
from colbench_env.prompts import BACKEND_HUMAN
from colbench_env.types import NO_ANSWER, BadInput
from models.hf_io import load_llama
from models.inference import inference_params
from models.llama import Llama
from sweet_jax.data.chat import Chat
from sweet_jax.data.token_rows import row_from_json
from sweet_jax.generation import Lockstep, LockstepEngine, Sample, Sampling
from sweet_jax.mesh import MeshShape, make_mesh
from sweet_jax.rollout.agent import EngineGenerator, EpisodeRunner, ModelSimulator
from sweet_jax.rollout.candidates import Position
from sweet_jax.rollout.continuations import play_on

pytestmark = pytest.mark.slow

SHRUG = "No idea."


class Scripted:
    """A generator that gives what it was told to, turn after turn of each session, and keeps the prompts."""

    sampling = Sampling(max_new_tokens=64)

    def __init__(self, *turns):
        self.turns, self.prompts, self.given = turns, [], Counter()

    def asking(self):
        return contextlib.nullcontext()

    def forget(self, session):
        pass

    async def generate(self, ids, seed, session):
        self.prompts.append(list(ids))
        ids, ended = self.turns[self.given[session]]
        self.given[session] += 1
        return Sample(np.array(ids, np.int32), np.full(len(ids), -0.5, np.float32), ended)


@pytest.fixture(scope="module")
def chat(tiny_model):
    return Chat.load(tiny_model)


@pytest.fixture(scope="module")
def tasks():
    return make_tasks("train", 4, 0)


def played(chat, generator, episodes, max_turns=3, max_prompt=400, seed=5):
    """What these episodes come to, played side by side."""
    human = ScriptedSimulator(keywords(), (SHRUG,))
    runner = EpisodeRunner(chat, generator, human, Settings(max_turns, system="", seed=seed), max_prompt)
    return side_by_side(runner, episodes)


def side_by_side(runner, episodes):
    async def main():
        return await asyncio.gather(*(runner.play(*episode) for episode in episodes), return_exceptions=True)

    found = asyncio.run(main())
    for error in found:
        if isinstance(error, Exception) and not isinstance(error, EpisodeFailed):
            raise error
    return found


def spelled(chat, text):
    """The text as one id a byte: ids that no tokenizer would give."""
    return [chat.tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in text]


def test_a_dialogue_holds_the_sampled_ids_and_not_those_of_its_text(chat, tasks):
    ask, answer = spelled(chat, "Who will use it?"), spelled(chat, "I WANT TO ANSWER:code")
    assert ask != chat.tokenizer("Who will use it?", add_special_tokens=False)["input_ids"]
    end = chat.turn_end_id
    sampler = Scripted((ask + [end], True), (answer + [end], True))
    (row,) = played(chat, sampler, [(tasks[0], 0)])
    opening = chat.prompt_ids([{"role": "user", "content": tasks[0].problem_description}])
    between = chat.continue_ids([end], SHRUG)
    ids = [*opening, *ask, end, *between, *answer, end]
    first, second = len(opening), len(opening) + len(ask) + 1 + len(between)
    assert row.extra["tokens"] == {
        "ids": ids,
        "spans": [[1, first, first + len(ask) + 1], [2, second, len(ids)]],
        "prefix": 1,
    }
    assert sampler.prompts == [opening, ids[:second]]
    assert [message.content for message in row.dialogue_history[1:]] == [
        "Who will use it?",
        SHRUG,
        "I WANT TO ANSWER:code",
    ]
    assert row.agent_turns[1].input == chat.decode(ids[:second])
    assert (row.answer, row.reward, row.extra["turns_cut"]) == ("code", None, 0)


def test_a_turn_cut_for_length_is_ended_by_a_token_that_does_not_count(chat, tasks):
    cut = spelled(chat, "Hel")
    answer = spelled(chat, "I WANT TO ANSWER:x") + [chat.turn_end_id]
    (row,) = played(chat, Scripted((cut, False), (answer, True)), [(tasks[0], 0)])
    (_, begin, stop), _ = row.extra["tokens"]["spans"]
    assert stop - begin == len(cut)
    assert row.extra["tokens"]["ids"][stop] == chat.turn_end_id
    assert row.extra["turns_cut"] == 1


def test_a_turn_is_played_on_from_after_the_same_dialogue(chat, tasks):
    ask, other, answer = (spelled(chat, text) for text in ("Who will use it?", "Is it fast?", "I WANT TO ANSWER:code"))
    end = chat.turn_end_id
    (row,) = played(chat, Scripted((ask + [end], True), (answer + [end], True)), [(tasks[0], 0)])
    tokens = row_from_json(row.extra["tokens"], "row")
    second = Position(row, 0, tokens, 2)
    sampler = Scripted((answer + [end], True))
    runner = EpisodeRunner(chat, sampler, ScriptedSimulator(keywords(), (SHRUG,)), Settings(4, system="", seed=5), 400)
    on, again, done = (
        asyncio.run(play_on(dataclasses.replace(runner, generator=generator), second, ids, 0))
        for generator, ids in (
            (sampler, [*other, end]),
            (Scripted((answer + [end], True)), [*other, end]),
            (Scripted(), [*answer, end]),
        )
    )
    said = [message.content for message in on.dialogue_history]
    assert said[:3] == [message.content for message in row.dialogue_history[:3]]
    assert said[3:] == ["Is it fast?", SHRUG, "I WANT TO ANSWER:code"] and on.answer == "code"
    assert sampler.prompts == [[*second.prompt, *other, end, *chat.continue_ids([end], SHRUG)]]
    assert again.dialogue_history == on.dialogue_history
    assert [message.content for message in done.dialogue_history] == said[:3] + ["I WANT TO ANSWER:code"]


def test_the_last_turn_is_the_answer_as_it_is(chat, tasks):
    turn = (spelled(chat, "Hm?") + [chat.turn_end_id], True)
    (row,) = played(chat, Scripted(turn, turn), [(tasks[0], 0)], max_turns=2)
    assert (row.answer, len(row.agent_turns)) == ("Hm?", 2)


def test_a_dialogue_that_outgrows_the_prompt_ends_without_an_answer_after_the_agents_turn(chat, tasks):
    opening = chat.prompt_ids([{"role": "user", "content": tasks[0].problem_description}])
    turn = (spelled(chat, "Who will use it?") + [chat.turn_end_id], True)
    (row,) = played(chat, Scripted(turn), [(tasks[0], 0)], max_prompt=len(opening))
    assert (row.answer, len(row.agent_turns)) == (NO_ANSWER, 1)
    assert row.extra["tokens"]["spans"][-1][2] == len(row.extra["tokens"]["ids"])


def test_a_task_too_long_for_the_first_prompt_is_named(chat, tasks):
    opening = chat.prompt_ids([{"role": "user", "content": tasks[0].problem_description}])
    with pytest.raises(BadInput, match=rf"^task {tasks[0].task_id} .* has {len(opening)} tokens, more than the 5 that"):
        played(chat, Scripted(), [(tasks[0], 0)], max_prompt=5)


@pytest.fixture(scope="module")
def sampler(tiny_model, chat):
    mesh = make_mesh(MeshShape(1, 1))
    loaded = load_llama(tiny_model, mesh, jnp.float32)
    params = inference_params(loaded.params, loaded.config, mesh, jnp.float32)
    model = Llama(loaded.config, mesh, remat="none")
    engine = LockstepEngine(model, params, chat.end_ids, chat.pad_id, 4, 512)
    return EngineGenerator(engine, Sampling(max_new_tokens=6))


def test_a_dialogue_does_not_depend_on_what_is_played_beside_it(chat, tasks, sampler):
    wanted = [(task, sample) for sample in range(2) for task in tasks]
    together = played(chat, sampler, wanted)
    assert played(chat, sampler, wanted[::-1])[::-1] == together
    assert played(chat, sampler, wanted[2:3]) == together[2:3]
    assert together[0].dialogue_history != together[4].dialogue_history  # two samples of one task


def test_another_seed_plays_another_dialogue(chat, tasks, sampler):
    here, there = (played(chat, sampler, [(tasks[0], 0)], seed=seed)[0] for seed in (5, 6))
    assert here.dialogue_history != there.dialogue_history


def test_seeds_fit_32_bits_and_depend_on_every_part():
    seeds = {seed_of(1, "agent", "t", 0, 1), seed_of(1, "agent", "t", 1, 0), seed_of(1, "human", "t", 0, 1), seed_of(2)}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert seed_of("a", 1) == 1532239161


def test_users_who_answer_late_or_early_change_nothing(chat, tasks, sampler):
    class Hesitant:
        """Answers the first task last."""

        name, settings = "hesitant", {}

        async def reply(self, request):
            await asyncio.sleep(self.late if request.task == tasks[0] else 0.0)
            return "Yes."

    found = []
    for late in (0.0, 0.2):
        human = Hesitant()
        human.late = late
        runner = EpisodeRunner(chat, sampler, human, Settings(3, system="", seed=5), 400)
        found.append(side_by_side(runner, [(task, 0) for task in tasks[:3]]))
    assert found[0] == found[1]


def with_model(chat, agent, speaker, episodes):
    """What episodes come to whose user is played by `speaker`."""
    human = ModelSimulator(chat, speaker, "a model", BACKEND_HUMAN, Scripted.sampling, 4000)
    settings = Settings(3, system="", seed=5, retry_seconds=0.0)
    return side_by_side(EpisodeRunner(chat, agent, human, settings, 400), episodes)


def test_a_human_played_by_a_model_draws_again_after_a_blank_reply(chat, tasks):
    blank, said = ([chat.turn_end_id], True), (spelled(chat, "Yes.") + [chat.turn_end_id], True)
    ask = spelled(chat, "Who will use it?") + [chat.turn_end_id]
    answer = spelled(chat, "I WANT TO ANSWER:x") + [chat.turn_end_id]
    (row,) = with_model(chat, Scripted((ask, True), (answer, True)), Scripted(blank, said), [(tasks[0], 0)])
    assert row.dialogue_history[2].content == "Yes."
    assert row.extra["human"]["settings"]["model"] == "a model"


def test_a_human_played_by_a_model_that_thinks_aloud_is_heard_without_its_thoughts(chat, tasks):
    ask = spelled(chat, "Who?") + [chat.turn_end_id]
    answer = spelled(chat, "I WANT TO ANSWER:x") + [chat.turn_end_id]
    cut, said = "<think>int(x)", "<think>int(x)</think> Yes."
    turns = [(spelled(chat, text) + [chat.turn_end_id], True) for text in (cut, said)]
    (row,) = with_model(chat, Scripted((ask, True), (answer, True)), Scripted(*turns), [(tasks[0], 0)])
    reply = row.dialogue_history[2]
    assert (reply.content, reply.extra) == ("Yes.", {"thoughts": 1, "unfinished_thoughts": 1})


def test_a_thought_that_the_template_opens_is_no_reply_before_it_ends(chat, tasks, monkeypatch):
    prompt_ids = type(chat).prompt_ids

    def opening(self, messages):
        ids = prompt_ids(self, messages)
        return [*ids, *spelled(chat, "<think>\n")] if "Programmer:" in messages[0]["content"] else ids

    monkeypatch.setattr(type(chat), "prompt_ids", opening)
    ask = spelled(chat, "Who?") + [chat.turn_end_id]
    answer = spelled(chat, "I WANT TO ANSWER:x") + [chat.turn_end_id]
    turns = [(spelled(chat, text) + [chat.turn_end_id], True) for text in ("They ask", "So.</think>Yes.")]
    (row,) = with_model(chat, Scripted((ask, True), (answer, True)), Scripted(*turns), [(tasks[0], 0)])
    reply = row.dialogue_history[2]
    assert (reply.content, reply.extra) == ("Yes.", {"thoughts": 1, "unfinished_thoughts": 1})


def test_a_human_that_stays_blank_is_a_failure_that_names_the_task_and_the_others_play_on(chat, tasks):
    agent = Scripted(*[(spelled(chat, text) + [chat.turn_end_id], True) for text in ("Who?", "I WANT TO ANSWER:x")])
    speaker = Speaker(chat, blank=tasks[0])
    failed, row = with_model(chat, agent, speaker, [(tasks[0], 0), (tasks[1], 0)])
    assert isinstance(failed, EpisodeFailed)
    assert f"no reply about task {tasks[0].task_id} (attempts: 3)" in str(failed)
    assert row.answer == "x"


class Speaker(Scripted):
    """A generator that says nothing about the task `blank`, and "Yes." of any other."""

    def __init__(self, chat, blank):
        self.chat, self.blank = chat, blank

    async def generate(self, ids, seed, session):
        silent = self.blank.hidden_information.split("\n")[0] in self.chat.decode(ids)
        said = [] if silent else spelled(self.chat, "Yes.")
        return Sample(
            np.array([*said, self.chat.turn_end_id], np.int32), np.full(len(said) + 1, -0.5, np.float32), True
        )


def test_a_user_played_by_a_model_in_lockstep_with_the_agent(chat, tasks, tiny_model):
    """Agent and user have engines of their own, which wait for one another's episodes."""
    mesh, lockstep = make_mesh(MeshShape(1, 1)), Lockstep()
    loaded = load_llama(tiny_model, mesh, jnp.float32)
    params = inference_params(loaded.params, loaded.config, mesh, jnp.float32)
    config = dataclasses.replace(loaded.config, max_position_embeddings=1024)  # the user's prompt is long
    model, sampling = Llama(config, mesh, remat="none"), Sampling(max_new_tokens=6)
    agent, speaker = (
        EngineGenerator(LockstepEngine(model, params, chat.end_ids, chat.pad_id, 4, 1024, lockstep), sampling)
        for _ in range(2)
    )
    together = with_model(chat, agent, speaker, [(task, 0) for task in tasks])
    assert together[1:2] == with_model(chat, agent, speaker, [(tasks[1], 0)])
    assert all(len(row.agent_turns) == 3 for row in together)
