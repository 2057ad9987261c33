"""Dialogues: each as if it were alone, made of the very ids that were sampled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from colbench_env.episodes import EpisodeFailed
from colbench_env.humans.scripted import ScriptedHuman
from colbench_env.mini import keywords, make_tasks
from colbench_env.types import NO_ANSWER, BadInput
from launch.dialogues import Assignment, ModelHuman, Table, seed_of
from models.hf_io import load_llama
from models.llama import Llama
from models.parameters import inference_shardings
from sweet_jax.chat import Chat
from sweet_jax.mesh import MeshShape, make_mesh
from sweet_jax.sampler import Sample, Sampler, Sampling

SHRUG = "No idea."


class Scripted:
    """A sampler that gives what it was told to, turn after turn, to every prompt, and keeps the prompts."""

    sampling = Sampling(max_new_tokens=64)

    def __init__(self, *turns):
        self.turns, self.prompts = list(turns), []

    def sample(self, prompts, seeds, samples=1):
        self.prompts.append([list(prompt) for prompt in prompts])
        ids, ended = self.turns.pop(0)
        ids = np.array(ids, np.int32)
        return [[Sample(ids, np.full(len(ids), -0.5, np.float32), ended)] for _ in prompts]


@pytest.fixture(scope="module")
def chat(tiny_model):
    return Chat.load(tiny_model)


@pytest.fixture(scope="module")
def tasks():
    return make_tasks("train", 4, 0)


def table(chat, sampler, max_turns=3, max_prompt=400):
    return Table(chat, sampler, ScriptedHuman(keywords(), (SHRUG,)), "", max_turns, max_prompt, seed=5)


def spelled(chat, text):
    """The text as one id a byte: ids that no tokenizer would give."""
    return [chat.tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in text]


def test_a_dialogue_holds_the_sampled_ids_and_not_those_of_its_text(chat, tasks):
    ask, answer = spelled(chat, "Who will use it?"), spelled(chat, "I WANT TO ANSWER:code")
    assert ask != chat.tokenizer("Who will use it?", add_special_tokens=False)["input_ids"]
    end = chat.turn_end_id
    sampler = Scripted((ask + [end], True), (answer + [end], True))
    (played,) = table(chat, sampler).play([Assignment(tasks[0], 0)])
    opening = chat.prompt_ids([{"role": "user", "content": tasks[0].problem_description}])
    between = chat.continue_ids([end], SHRUG)
    ids = [*opening, *ask, end, *between, *answer, end]
    first, second = len(opening), len(opening) + len(ask) + 1 + len(between)
    assert played.extra["tokens"] == {
        "ids": ids,
        "spans": [[1, first, first + len(ask) + 1], [2, second, len(ids)]],
        "prefix": 1,
    }
    assert sampler.prompts == [[opening], [ids[:second]]]
    assert [message.content for message in played.dialogue_history[1:]] == [
        "Who will use it?",
        SHRUG,
        "I WANT TO ANSWER:code",
    ]
    assert played.agent_turns[1].input == chat.decode(ids[:second])
    assert (played.answer, played.reward, played.extra["turns_cut"]) == ("code", None, 0)


def test_a_turn_cut_for_length_is_ended_by_a_token_that_does_not_count(chat, tasks):
    cut = spelled(chat, "Hel")
    answer = spelled(chat, "I WANT TO ANSWER:x") + [chat.turn_end_id]
    (played,) = table(chat, Scripted((cut, False), (answer, True))).play([Assignment(tasks[0], 0)])
    (_, begin, stop), _ = played.extra["tokens"]["spans"]
    assert stop - begin == len(cut)
    assert played.extra["tokens"]["ids"][stop] == chat.turn_end_id
    assert played.extra["turns_cut"] == 1


def test_the_last_turn_is_the_answer_as_it_is(chat, tasks):
    turn = (spelled(chat, "Hm?") + [chat.turn_end_id], True)
    (played,) = table(chat, Scripted(turn, turn), max_turns=2).play([Assignment(tasks[0], 0)])
    assert (played.answer, len(played.agent_turns)) == ("Hm?", 2)


def test_a_dialogue_that_outgrows_the_prompt_ends_without_an_answer_after_the_agents_turn(chat, tasks):
    opening = chat.prompt_ids([{"role": "user", "content": tasks[0].problem_description}])
    turn = (spelled(chat, "Who will use it?") + [chat.turn_end_id], True)
    (played,) = table(chat, Scripted(turn), max_prompt=len(opening)).play([Assignment(tasks[0], 0)])
    assert (played.answer, len(played.agent_turns)) == (NO_ANSWER, 1)
    assert played.extra["tokens"]["spans"][-1][2] == len(played.extra["tokens"]["ids"])


def test_a_task_too_long_for_the_first_prompt_is_named(chat, tasks):
    opening = chat.prompt_ids([{"role": "user", "content": tasks[0].problem_description}])
    with pytest.raises(BadInput, match=rf"^task {tasks[0].task_id} .* has {len(opening)} tokens, more than the 5 that"):
        table(chat, Scripted(), max_prompt=5).play([Assignment(tasks[0], 0)])


@pytest.fixture(scope="module")
def sampler(tiny_model, chat):
    mesh = make_mesh(MeshShape(1, 1))
    loaded = load_llama(tiny_model, mesh, jnp.float32)
    params = jax.device_put(loaded.params, inference_shardings(loaded.config, mesh))
    model = Llama(loaded.config, mesh, remat="none")
    return Sampler(model, params, chat.end_ids, chat.pad_id, Sampling(max_new_tokens=6), 4, (64, 128, 256, 512))


def test_a_dialogue_does_not_depend_on_what_is_played_beside_it(chat, tasks, sampler):
    wanted = [Assignment(task, sample) for sample in range(2) for task in tasks]
    played = table(chat, sampler)
    together = played.play(wanted)
    assert played.play(wanted[::-1])[::-1] == together
    assert played.play(wanted[2:3]) == together[2:3]
    assert together[0].dialogue_history != together[4].dialogue_history  # two samples of one task


def test_another_seed_plays_another_dialogue(chat, tasks, sampler):
    here = table(chat, sampler)
    there = Table(chat, sampler, here.human, "", 3, 400, seed=6)
    wanted = [Assignment(tasks[0], 0)]
    assert here.play(wanted)[0].dialogue_history != there.play(wanted)[0].dialogue_history


def test_seeds_fit_32_bits_and_depend_on_every_part():
    seeds = {seed_of(1, "agent", "t", 0, 1), seed_of(1, "agent", "t", 1, 0), seed_of(1, "human", "t", 0, 1), seed_of(2)}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert seed_of("a", 1) == 1532239161


def test_a_human_played_by_a_model_draws_again_after_a_blank_reply(chat, tasks):
    blank, said = ([chat.turn_end_id], True), (spelled(chat, "Yes.") + [chat.turn_end_id], True)
    ask = spelled(chat, "Who will use it?") + [chat.turn_end_id]
    answer = spelled(chat, "I WANT TO ANSWER:x") + [chat.turn_end_id]
    human = ModelHuman(chat, Scripted(blank, said), "a model")
    played = Table(chat, Scripted((ask, True), (answer, True)), human, "", 3, 400, 5).play([Assignment(tasks[0], 0)])
    assert played[0].dialogue_history[2].content == "Yes."
    assert played[0].extra["human"]["settings"]["model"] == "a model"


def test_a_human_that_stays_blank_is_an_error_that_names_the_task(chat, tasks):
    human = ModelHuman(chat, Scripted(*[([chat.turn_end_id], True)] * 4), "a model")
    agent = Scripted((spelled(chat, "Who will use it?") + [chat.turn_end_id], True))
    with pytest.raises(EpisodeFailed, match=rf"no reply about task {tasks[0].task_id} \(attempts: 4\)"):
        Table(chat, agent, human, "", 3, 400, 5).play([Assignment(tasks[0], 0)])
