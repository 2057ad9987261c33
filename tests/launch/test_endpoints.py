"""Humans and agents behind an endpoint: `launch.rollout` and `launch.train` against the real `launch.serve`."""

import contextlib
import json
import socket
import threading

import pytest
import uvicorn

from colbench_env.endpoint import Endpoint
from colbench_env.mini import make_tasks
from colbench_env.tasks import read_rows
from colbench_env.types import NoReply, Task, Trajectory
from launch import rollout
from launch.serving.app import make_app
from launch.serving.config import ServeConfig
from launch.serving.loading import load_served
from tests.colbench_env.endpoints import Served, completion

DOWN = "http://127.0.0.1:9/v1"


@pytest.fixture(scope="module")
def url():
    """Where the embedded model is served."""
    served, listener = load_served(ServeConfig(rows=8, max_length=512), None), socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(make_app(served), log_level="warning", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    server.should_exit = True
    thread.join()
    served.engine.close()


@pytest.fixture(scope="module")
def human_at(tmp_path_factory):
    """A function: the flags of the human at an address. Its prompt is short, so that little has to be compiled."""
    prompt = tmp_path_factory.mktemp("prompts") / "human.txt"
    prompt.write_text("{hidden_information}\n{dialogue_history}")
    flags = ("--human=openai", "--human-model=embedded", f"--human-prompt={prompt}", "--human-max-tokens=12")
    return lambda url: (*flags, f"--human-url={url}")


def agent_at(url):
    return (
        f"--agent-url={url}",
        "--agent-model=embedded",
        "--agent-prompt=none",
        "--max-new-tokens=12",
        "--max-turns=2",
    )


@pytest.fixture
def zero_shot(start, tiny_model, tmp_path):
    """Evaluates the tiny model's start policy on four tasks in `tmp_path / "run"`, with further flags."""
    flags = (
        f"--run-dir={tmp_path / 'run'}", f"--model={tiny_model}", "--algorithm=zero-shot", "--num-tasks=1",
        "--evaluation.num-tasks=4",
        "--policy.select=last", "--rollouts.max-turns=2", "--rollouts.max-new-tokens=8", "--rollouts.rows=4",
        "--ranking.candidates=4", "--critic.training.max-length=512", "--policy.training.max-length=512",
    )  # fmt: skip
    return lambda *more: start(*flags, *more)


def played(tmp_path):
    return tmp_path / "run" / "evaluation" / "start_ungraded.jsonl"


def note(tmp_path):
    return json.loads((tmp_path / "run" / "evaluation" / "done.json").read_text())


# --- launch.rollout --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_agent_and_human_of_a_server_play_the_same_dialogues_however_many_are_under_way(
    in_process, url, human_at, tmp_path
):
    written = []
    for in_flight in (1, 6):
        output = tmp_path / f"{in_flight}.jsonl"
        flags = ("--num-tasks=3", "--samples=2", f"--in-flight={in_flight}", f"--output={output}")
        ended = in_process(rollout.main, *agent_at(url), *human_at(url), *flags)
        assert ended.status == 0, ended.stderr
        written.append(output.read_bytes())
    assert written[0] == written[1]
    rows = read_rows(output, Trajectory)
    assert len(rows) == 6
    for row in rows:
        assert row.extra["human"]["name"] == "openai"
        assert row.extra["human"]["settings"]["url"] == row.extra["sampling"]["url"] == url
        assert row.extra["agent"] == "embedded"
        assert all(message.content for message in row.dialogue_history)


def test_prompt_files_with_the_released_fields_are_filled_in(in_process, tmp_path, monkeypatch):
    """The files are made up; their fields are those of the released ones."""
    human, agent, told = tmp_path / "human.txt", tmp_path / "agent.txt", []
    human.write_text("P {problem_description} H {hidden_information} D {dialogue_history} {{}}")
    agent.write_text("Ask, then say I WANT TO ANSWER: {} and the code.")

    async def complete(endpoint, messages, seed):
        told.append((endpoint.settings.model, [dict(message) for message in messages]))
        return "Which unit?" if len(told) == 1 else "I WANT TO ANSWER: x" if len(told) == 3 else "Euros."

    async def check(endpoint):
        pass

    monkeypatch.setattr(Endpoint, "complete", complete)
    monkeypatch.setattr(Endpoint, "check", check)
    sides = ("--agent-url=http://a/v1", "--agent-model=a", "--human=openai", "--human-url=http://h/v1")
    ended = in_process(
        rollout.main, *sides, "--human-model=h", f"--human-prompt={human}", f"--agent-prompt={agent}", "--num-tasks=1",
        f"--output={tmp_path / 'rows.jsonl'}",
    )  # fmt: skip
    assert ended.status == 0, ended.stderr
    (task,) = make_tasks("test", 1, 42)
    problem, system = task.problem_description, "Ask, then say I WANT TO ANSWER: {} and the code."
    dialogue = f"You: {problem}\nProgrammer: Which unit?"
    assert told[0] == ("a", [{"role": "system", "content": system}, {"role": "user", "content": problem}])
    (asked,) = told[1][1]
    assert asked["content"] == f"P {problem} H {task.hidden_information} D {dialogue} {{}}"
    (row,) = read_rows(tmp_path / "rows.jsonl", Trajectory)
    assert row.extra["human"]["settings"]["prompt"].startswith("human.txt ")


def test_an_endpoint_that_goes_down_ends_the_rollout_after_twenty_failures_with_what_was_played(
    in_process, tmp_path, monkeypatch
):
    calls = 0

    async def complete(endpoint, messages, seed):
        nonlocal calls
        calls += 1
        if calls > 3:
            raise NoReply("the line is dead")
        return "I WANT TO ANSWER: x"

    async def check(endpoint):
        pass

    monkeypatch.setattr(Endpoint, "complete", complete)
    monkeypatch.setattr(Endpoint, "check", check)
    output = tmp_path / "rows.jsonl"
    flags = ("--agent-url=http://a/v1", "--agent-model=a", f"--output={output}", "--in-flight=1")
    ended = in_process(rollout.main, *flags)
    assert ended.status == 1 and len(ended.errors) == 1 and "Traceback" not in ended.stderr
    assert "20 episodes failed one after the other, the last one: " in ended.errors[0]
    assert "run the same command again to continue" in ended.errors[0]
    assert len(read_rows(output, Trajectory)) == 3


def test_the_agents_endpoint_has_settings_of_its_own(in_process, tmp_path):
    flags = (f"--agent-url={DOWN}", "--agent-model=a", "--human-retries=7", f"--output={tmp_path / 'rows.jsonl'}")
    refused = in_process(rollout.main, *flags, "--agent-timeout=0").refuses()
    assert refused == "error: agent_timeout is 0.0, it must be above 0"


def refusing(*names):
    """A server that refuses these parameters, and whose model answers at once."""

    def decide(body):
        bad = next((name for name in names if name in body), None)
        told = {"detail": [{"loc": ["body", bad], "msg": "Extra inputs are not permitted"}]}
        return completion("I WANT TO ANSWER: x") if bad is None else (422, told)

    return Served(decide)


def both_at(url, output):
    sides = [f"--{side}-{name}" for side in ("human", "agent") for name in (f"url={url}", "model=m")]
    return ("--human=openai", *sides, "--agent-prompt=none", "--num-tasks=2", f"--output={output}")


def test_flags_leave_out_what_an_endpoint_refuses_and_rows_have_what_was_sent(in_process, tmp_path):
    output = tmp_path / "rows.jsonl"
    with contextlib.closing(refusing("max_tokens", "seed")) as server:
        refused = in_process(rollout.main, *both_at(server.url, output)).refuses()
        assert "refuses the parameter seed (status 422)" in refused and refused.endswith("with --agent-omit=seed")
        assert not output.exists()
        more = ("--agent-omit=seed,top_p", '--agent-body={"reasoning_effort": "low"}', "--max-new-tokens=9")
        ended = in_process(rollout.main, *both_at(server.url, output), *more)
        assert ended.status == 0, ended.stderr
        for row in read_rows(output, Trajectory):
            sent = {"temperature": 1.0, "max_completion_tokens": 9, "reasoning_effort": "low"}
            assert row.agent_turns[0].extra["sent"] == sent
            assert row.extra["sampling"]["omit"] == ["seed", "top_p"]
        again = in_process(rollout.main, *both_at(server.url, output), "--agent-omit=seed").refuses()
        assert "use another output file" in again


def test_an_address_without_v1_and_an_account_without_credit_end_the_rollout_at_once(in_process, tmp_path):
    output = tmp_path / "rows.jsonl"
    with contextlib.closing(Served(lambda body: (402, {"error": {"message": "Insufficient Balance"}}))) as server:
        assert "; is /v1 missing from the URL? It says: Not Found" in (
            in_process(rollout.main, *both_at(server.base, output)).refuses()
        )
        assert "the account has no credit left (status 402): Insufficient Balance" in (
            in_process(rollout.main, *both_at(server.url, output), "--samples=25").refuses()
        )


# --- launch.train ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_stage_plays_with_a_human_of_a_server_and_goes_on_after_a_kill(zero_shot, url, human_at, tmp_path):
    ended = zero_shot(*human_at(url))
    assert ended.status == 0, ended.stderr
    whole = played(tmp_path).read_bytes()
    rows = read_rows(played(tmp_path), Trajectory)
    assert len(rows) == 4
    assert {row.extra["human"]["name"] for row in rows} == {"openai"}
    assert {row.extra["human"]["settings"]["url"] for row in rows} == {url}
    assert any(len(row.agent_turns) == 2 for row in rows)
    assert "failed" not in note(tmp_path)
    played(tmp_path).write_bytes(whole[: len(whole) // 2])  # as a killed process leaves it
    (tmp_path / "run" / "evaluation" / "done.json").unlink()
    (tmp_path / "run" / "evaluation" / "start.jsonl").unlink()
    ended = zero_shot(*human_at(url), "--human-timeout=60")  # a time-out changes no dialogue
    assert ended.status == 0, ended.stderr
    assert played(tmp_path).read_bytes() == whole


@pytest.mark.slow
def test_a_failed_episode_is_left_out_of_the_score_and_counted(zero_shot, url, human_at, tmp_path, monkeypatch):
    assert zero_shot(*human_at(url), "--stage=tasks").status == 0
    ask, (task, *others) = Endpoint.complete, read_rows(tmp_path / "run" / "tasks" / "eval.jsonl", Task)

    async def complete(endpoint, messages, seed):
        if task.problem_description in messages[0]["content"]:
            raise NoReply("the line is dead")
        return await ask(endpoint, messages, seed)

    monkeypatch.setattr(Endpoint, "complete", complete)
    ended = zero_shot(*human_at(url))
    assert ended.status == 0, ended.stderr
    assert [row.task for row in read_rows(played(tmp_path), Trajectory)] == others
    assert note(tmp_path)["start"]["failed"] == 1
    (record,) = played(tmp_path).with_name("start_ungraded.failures.jsonl").read_text().splitlines()
    assert json.loads(record)["error"] == "NoReply: the line is dead (attempts: 1)"
    assert "1 of 4 episodes failed" in ended.stdout + ended.stderr


def test_an_endpoint_that_is_down_is_one_sentence_before_anything_is_played(zero_shot, human_at, tmp_path):
    refused = zero_shot(*human_at(DOWN), "--human-retries=0").refuses()
    assert refused.startswith(f"error: {DOWN}: the endpoint cannot be reached")
    assert not played(tmp_path).exists()
