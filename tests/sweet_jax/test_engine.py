"""The engine with a thread and the one in lockstep: against one another, in other company, order and rows."""

import asyncio
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sweet_jax.generation.scheduler
from colbench_env.types import BadInput
from models.config import LlamaConfig
from models.inference import inference_params
from models.llama import Llama
from models.parameters import init_params
from sweet_jax.generation import Engine, EngineClosed, Lockstep, LockstepEngine, Request, Sampling
from sweet_jax.mesh import MeshShape, make_mesh

pytestmark = pytest.mark.slow

VOCAB, NEW, ROOM = 40, 8, 128
ONE, MANY = MeshShape(1, 1), MeshShape(4, 2)
END = (7,)
PLAIN = Sampling(max_new_tokens=NEW)
SETTINGS = [PLAIN, Sampling(0.7, 6, 0.8, NEW), Sampling(0.0, 0, 1.0, NEW), Sampling(1.3, 0, 0.5, 5)]
PROMPTS = [np.random.default_rng(n).integers(8, VOCAB, 1 + 11 * n % 60).tolist() for n in range(30)]


@functools.cache
def setting(shape=ONE):
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=24, num_layers=2, num_heads=4, num_kv_heads=2, head_size=8,
        max_position_embeddings=ROOM, initializer_range=0.3,
    )  # fmt: skip
    mesh = make_mesh(shape)
    params = init_params(config, jax.random.key(0), mesh)
    return Llama(config, mesh, remat="none"), inference_params(params, config, mesh, jnp.float32)


@pytest.fixture
def engine():
    made = []

    def make(shape=ONE, rows=8, **settings):
        made.append(Engine(*setting(shape), END, 0, rows=rows, max_length=ROOM, chunk=4, block=16, **settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


def request(number, **settings):
    return Request(PROMPTS[number], 100 + number, SETTINGS[number % 4], **settings)


def bits(sample):
    return sample.ids.tolist(), sample.logps.tobytes(), sample.ended


async def together(engine, numbers):
    return [bits(sample) for sample in await asyncio.gather(*(engine.sample(request(n)) for n in numbers))]


async def dialogue(engine, name, turns=3, between=None):
    """The turns of a session whose human says three ids, or seventy in the second turn."""
    ids, found = list(PROMPTS[3])[:20], []
    for turn in range(turns):
        sample = await engine.sample(Request(ids, turn, PLAIN, session=name))
        found.append(bits(sample))
        ids = [*ids, *sample.ids.tolist(), *range(8, 11 if turn else 38), *([9] * (0 if turn else 25))]
        if between is not None:
            await between(turn)
    return found


@pytest.mark.parametrize("shape", [ONE, MANY], ids=str)
def test_both_engines_give_the_same_bits(engine, shape):
    found = asyncio.run(together(engine(shape), range(30)))
    lockstep = LockstepEngine(*setting(shape), END, 0, rows=8, max_length=ROOM, block=16)
    assert [bits(sample) for sample in lockstep.sample_all([request(n) for n in range(30)])] == found
    assert {ended for _, _, ended in found} == {True, False}


def test_tasks_in_lockstep_draw_what_they_draw_alone_and_only_when_all_wait(monkeypatch):
    lockstep = Lockstep()
    first, second = (LockstepEngine(*setting(), END, 0, 8, ROOM, lockstep, block=16) for _ in range(2))
    live, steps = set(), []

    def noting(engine):
        step = engine._scheduler.step
        monkeypatch.setattr(engine._scheduler, "step", lambda: steps.append((engine, len(live))) or step())

    for engine in (first, second):
        noting(engine)

    async def speak(name, delay):
        """A dialogue of three turns, whose replies are drawn by the other engine after a while."""
        with first.asking():
            found, ids = [], list(PROMPTS[name])[:20]
            live.add(name)
            for turn in range(3):
                said = await first.sample(Request(ids, 10 * name + turn, PLAIN, session=name))
                live.discard(name)
                await asyncio.sleep(delay)
                live.add(name)
                reply = await second.sample(Request([*ids, *said.ids.tolist()], turn, PLAIN))
                found += [bits(said), bits(reply)]
                ids = [*ids, *said.ids.tolist(), *reply.ids.tolist()]
            live.discard(name)
            first.forget(name)
        return found

    async def main(names, delays):
        return await asyncio.gather(*map(speak, names, delays))

    alone = [asyncio.run(main([n], [0.0]))[0] for n in range(5, 9)]
    steps.clear()
    assert asyncio.run(main(range(5, 9), [0.02, 0.0, 0.01, 0.0])) == alone
    assert {engine for engine, _ in steps} == {first, second}
    assert steps[0][1] == 4  # all four wait before the first token is drawn


def test_an_error_of_the_devices_reaches_everybody_in_lockstep(monkeypatch):
    made = LockstepEngine(*setting(), END, 0, 4, ROOM)

    def broken(*given):
        raise ValueError("the device is gone")

    monkeypatch.setattr(made._scheduler, "_draw", broken)

    async def ask(number):
        with made.asking():
            await made.sample(request(number))

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: pytest.fail(str(context)))
        found = await asyncio.gather(*(ask(n) for n in range(6)), return_exceptions=True)
        assert [str(error) for error in found] == ["the device is gone"] * 6

    asyncio.run(main())


@pytest.mark.parametrize("shape", [ONE, MANY], ids=str)
def test_a_result_is_the_same_to_the_bit_alone_among_others_and_in_another_order(engine, shape):
    made = engine(shape)

    async def main():
        alone = [(await together(made, [n]))[0] for n in range(30)]
        assert await together(made, range(30)) == alone
        assert await together(made, range(29, -1, -1)) == alone[::-1]

    asyncio.run(main())


@pytest.mark.parametrize("shape", [ONE, MANY], ids=str)
def test_a_session_goes_on_alike_kept_and_dropped(engine, shape):
    staying, dropping = engine(shape), engine(shape)

    async def crowd(turn):
        """Fill all blocks with other dialogues, so that the session's are dropped."""
        long = [np.random.default_rng([turn, n]).integers(8, VOCAB, ROOM - NEW).tolist() for n in range(16)]
        await asyncio.gather(*(dropping.sample(Request(ids, n, PLAIN)) for n, ids in enumerate(long)))
        session = dropping._scheduler._sessions._by_name["x"]
        found = [dropping._scheduler._prefixes.match(d, session.parts) for d in range(shape.data)]
        assert max(map(len, found)) == 1  # the root alone

    expected = asyncio.run(dialogue(staying, "x"))
    assert asyncio.run(dialogue(dropping, "x", between=crowd)) == expected


def noted(made):
    """Names of the programs that read and draw, as they will be called."""
    called = []

    def noting(name):
        program = getattr(made._scheduler._programs, name)
        return lambda *given: called.append(name) or program(*given)

    names = ("read", "copy", "decode")
    made._scheduler._programs = dataclasses.replace(made._scheduler._programs, **{name: noting(name) for name in names})
    return called


def test_equal_prompts_are_read_once_and_change_no_bit(engine):
    made, other = engine(rows=4), engine(rows=4)

    async def main():
        wanted = [Request(PROMPTS[4], 5, PLAIN, sample=n, session=n or None) for n in range(4)]
        alone = [bits(await other.sample(dataclasses.replace(each, session=None))) for each in wanted]
        called = noted(made)
        assert [bits(sample) for sample in await asyncio.gather(*map(made.sample, wanted))] == alone
        assert called[:2] == ["read", "copy"] and set(called[2:]) == {"decode"}
        called.clear()
        assert bits(await made.sample(Request(PROMPTS[4], 5, PLAIN, sample=2))) == alone[2]
        assert "read" not in called
        ids = [*PROMPTS[4], *alone[3][0], 8, 9]
        found = bits(await made.sample(Request(ids, 6, PLAIN, session=3)))
        await made.sample(Request(PROMPTS[4], 5, PLAIN, sample=3, session="x"))
        assert bits(await made.sample(Request(ids, 6, PLAIN, session="x"))) == found

    asyncio.run(main())


def test_prompts_share_the_parts_in_which_they_begin_alike(engine):
    made, other = engine(rows=4), engine(rows=4)
    ids = PROMPTS[5][:50]
    wanted = [Request(ids[:end], 5, PLAIN, cuts=(20, 33)) for end in (21, 34, 40, 50)]

    async def main():
        alone = [bits(await other.sample(each)) for each in wanted[::-1]][::-1]
        called = noted(made)
        found = []
        for each in wanted:
            found.append(bits(await made.sample(each)))
            called.append("|")
        assert found == alone
        reads = [part.count("read") for part in "".join(f"{name} " for name in called).split("|")]
        assert reads[:4] == [1, 1, 1, 1]
        lengths = [prefix.length for prefix in made._scheduler._prefixes._order[0]]
        assert sorted(lengths) == [20, 33, 39, 49]

    asyncio.run(main())


def test_prompts_that_come_while_a_turn_is_drawn_are_read_between_two_tokens_of_it(engine, monkeypatch):
    monkeypatch.setattr(sweet_jax.generation.scheduler, "READ_BETWEEN", 1)
    made, other = engine(rows=8), engine(rows=8)

    async def main():
        alone = [(await together(other, [n]))[0] for n in range(5, 12)]
        endless = aiter(made.bursts(Request([9], 0, Sampling(0.0, max_new_tokens=100))))
        await anext(endless)
        called = noted(made)
        others = asyncio.gather(*(made.sample(Request([*PROMPTS[n]], 100 + n, SETTINGS[n % 4])) for n in range(5, 12)))
        assert [bits(sample) for sample in await others] == alone
        reads = [n for n, name in enumerate(called) if name == "read"]
        assert len(reads) > 1 and all(called[n - 1 : n] != ["read"] for n in reads)
        await endless.aclose()

    asyncio.run(main())


def test_a_session_draws_the_ids_of_whole_prompts_read_at_once(engine):
    made = engine()

    async def main():
        ids = PROMPTS[3][:20]
        for turn in range(3):
            kept = await made.sample(Request(ids, turn, PLAIN, session="x"))
            whole = await made.sample(Request(ids, turn, PLAIN))
            assert kept.ids.tolist() == whole.ids.tolist()
            np.testing.assert_allclose(kept.logps, whole.logps, atol=1e-5)
            ids = [*ids, *kept.ids.tolist(), 8, 9, 10]

    asyncio.run(main())


def test_alternatives_are_told_where_asked_and_change_nothing(engine):
    made = engine()

    async def main():
        plain = [token async for token in made.stream(request(1))]
        told = [token async for token in made.stream(request(1, tops=3))]
        assert [(t.id, t.logp) for t in told] == [(t.id, t.logp) for t in plain]
        assert all(token.top == () for token in plain)
        for token in told:
            assert len(token.top) == 3 and [p for _, p in token.top] == sorted((p for _, p in token.top), reverse=True)
            assert token.logp <= token.top[0][1] and dict(token.top).get(token.id, token.logp) == token.logp

    asyncio.run(main())


def test_leaving_half_way_frees_the_row_and_forgets_the_session(engine):
    made = engine(rows=1)

    async def main():
        expected = await together(made, [4])
        endless = Request([9], 0, Sampling(max_new_tokens=ROOM - 1), session="x")
        async for _ in made.stream(endless):
            break
        tasks = [asyncio.create_task(made.sample(endless)) for _ in range(3)]
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        assert await together(made, [4]) == expected
        assert made._scheduler._sessions._by_name == {}

    asyncio.run(main())


def test_two_loops_in_two_threads_use_one_engine(engine):
    made = engine()
    expected = asyncio.run(together(made, range(6)))

    async def main():
        return await asyncio.gather(*(asyncio.to_thread(asyncio.run, together(made, range(6))) for _ in range(2)))

    assert asyncio.run(main()) == [expected, expected]


def test_an_error_in_the_thread_reaches_everybody_who_waits(engine, monkeypatch):
    made = engine(rows=1)

    def broken(self, steps, stop_at):
        raise ValueError("the device is gone")

    monkeypatch.setattr(sweet_jax.generation.scheduler.Scheduler, "_draw", broken)

    async def main():
        found = await asyncio.gather(*(made.sample(request(n)) for n in range(3)), return_exceptions=True)
        assert [str(e) for e in found] == ["the engine has ended: ValueError: the device is gone"] * 3
        with pytest.raises(EngineClosed, match="the device is gone"):
            await made.sample(request(0))

    asyncio.run(main())


def test_closing_tells_those_who_wait(engine):
    made = engine(rows=1)

    async def main():
        endless = Request([9], 0, Sampling(max_new_tokens=ROOM - 1))
        tasks = [asyncio.create_task(made.sample(endless)) for _ in range(3)]
        await asyncio.sleep(0)
        made.close()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(e) for e in found] == ["the engine was closed"] * 3

    asyncio.run(main())


def test_each_program_is_compiled_once(engine):
    model, params = setting()
    fresh = Llama(model.config, model.mesh, jnp.float32, remat="full")  # no other test has its programs
    made = Engine(fresh, params, END, 0, rows=4, max_length=ROOM, chunk=4)

    async def main():
        for _ in range(2):
            long = [Request([7] * 70, n, Sampling(max_new_tokens=4), session=n) for n in range(8, 12)]
            await asyncio.gather(*map(made.sample, [*(request(n, session=n) for n in range(8)), *long]))
            await asyncio.gather(*(made.sample(request(n)) for n in range(4)))  # which need the rows of the long ones
            for n in range(12):
                made.forget(n)
            await dialogue(made, "x")
            made.forget("x")

    asyncio.run(main())
    made.close()
    programs = made._scheduler._programs
    compiled = {name: getattr(programs, name)._cache_size() for name in vars(programs)}
    assert compiled == {"init": 1, "read": 1, "decode": 1, "copy": 1}


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        (lambda: Request([], 0, PLAIN), "the prompt is empty"),
        (lambda: Request([1], -1, PLAIN), "seed is -1 and sample 0"),
        (lambda: Request([1], 0, PLAIN, tops=21), "tops is 21"),
        (lambda: Request([1] * 121, 0, PLAIN), "121 tokens and a turn of up to 8 are 129 tokens, more than the 128"),
    ],
)
def test_requests_that_cannot_be_served_are_bad_input(engine, wanted, complaint):
    with pytest.raises(BadInput, match=complaint):
        asyncio.run(engine().sample(wanted()))


def test_a_prompt_that_does_not_go_on_from_its_session_is_bad_input_and_leaves_it_alone(engine):
    made = engine()

    async def main():
        sample = await made.sample(Request([9, 10], 0, PLAIN, session="x"))
        known = [9, 10, *sample.ids.tolist()]
        with pytest.raises(BadInput, match="token 1 of the prompt is 11, and the session holds 10 there"):
            await made.sample(Request([9, 11, *known], 0, PLAIN, session="x"))
        with pytest.raises(BadInput, match=f"holds {len(known)} tokens, and the prompt of {len(known)} adds none"):
            await made.sample(Request(known, 0, PLAIN, session="x"))
        assert len((await made.sample(Request([*known, 8], 0, PLAIN, session="x"))).ids)

    asyncio.run(main())


def test_engines_that_cannot_be_built_are_bad_input():
    with pytest.raises(BadInput, match="max_length is 129"):
        Engine(*setting(), END, 0, max_length=129)
    with pytest.raises(BadInput, match="a batch of 6 cannot be divided .* over a data axis of 4"):
        Engine(*setting(MANY), END, 0, rows=6, max_length=ROOM)
