"""`python replay.py NAME [--count=N] [--logs=DIR]`: says recorded dialogues through an adapter, with its package.

Runs where that package is installed, beside `colbench_env` and not much else. Prints a line for each dialogue: what the
user said, and the reward.
"""

import argparse
import asyncio
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from colbench_env.source import Source

FLAGS = argparse.ArgumentParser()
FLAGS.add_argument("name")
FLAGS.add_argument("--count", type=int, default=50)
FLAGS.add_argument("--logs", default="logs")
DIALOGUES = [json.loads(line) for line in Path(__file__).with_name("dialogues.jsonl").read_text("utf-8").splitlines()]
MARK = "I WANT TO ANSWER:"


def main():
    DIALOGUES[:] = DIALOGUES[: TOLD.count]
    for replies, reward in ADAPTERS[TOLD.name](Source()):
        print(json.dumps({"replies": replies, "reward": reward}), flush=True)


def core(source):
    from colbench_env.adapters import Session

    session = Session(source)
    for row in DIALOGUES:
        replies = [session.begin(row["split"], row["index"], row["seed"])]
        replies += [session.step(turn) for turn in row["turns"]]
        yield replies[:-1], session.reward


def openenv(source):
    import uvicorn

    from colbench_env.adapters.openenv import ColBenchAction, ColBenchClient
    from colbench_env.adapters.openenv.server import make_app

    server = uvicorn.Server(uvicorn.Config(make_app(source), port=0, log_level="warning"))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    with ColBenchClient(base_url=f"http://127.0.0.1:{port}").sync() as client:
        for row in DIALOGUES:
            result = client.reset(seed=row["seed"], split=row["split"], index=row["index"])
            replies = [result.observation.text]
            for turn in row["turns"]:
                assert not result.done
                result = client.step(ColBenchAction(text=turn))
                replies.append(result.observation.text)
            assert result.done and result.observation.success == (result.reward == 1.0)
            yield replies[:-1], result.reward


def trl(source):
    from colbench_env.adapters.trl import ColBench, rows

    made, environment = rows(source, "test"), ColBench(source)
    for row in DIALOGUES:
        replies = [environment.reset(**made[row["index"]], seed=row["seed"])]
        *questions, last = row["turns"]
        replies += [environment.ask_user(question) for question in questions]
        if last.startswith(MARK):
            environment.submit(last.removeprefix(MARK).removeprefix("\n"))
        else:
            environment.ask_user(last)
        yield replies, environment.get_reward()


def tinker(source):
    from tinker_cookbook.renderers.base import Message

    from colbench_env.adapters.tinker import ColBenchEnv

    async def play(row):
        environment = ColBenchEnv(source, row["split"], row["index"], row["seed"])
        messages = await environment.initial_observation()
        for turn in row["turns"]:
            result = await environment.step(Message(role="assistant", content=turn))
            messages = result.next_messages
        assert result.episode_done
        return [message["content"] for message in messages if message["role"] == "user"], result.reward

    for row in DIALOGUES:
        yield asyncio.run(play(row))


def tunix(source):
    from tunix.rl.agentic.agents.agent_types import Action

    from colbench_env.adapters.tunix import ColBenchEnv

    for row in DIALOGUES:
        environment = ColBenchEnv.from_dict({name: row[name] for name in ("split", "index", "seed")} | {"source": {}})
        replies = [environment.reset()[0]]
        for turn in row["turns"]:
            text, reward, done, _ = environment.step(Action(action=turn))
            replies.append(text)
        assert done
        yield replies[:-1], reward


def skyrl(source):
    import skyrl_gym

    from colbench_env.adapters.skyrl import rows

    made = rows(source, "test")
    for row in DIALOGUES:
        environment = skyrl_gym.make("colbench", env_config={}, extras=made[row["index"]] | {"seed": row["seed"]})
        messages, _ = environment.init(made[row["index"]]["prompt"])
        assert messages == made[row["index"]]["prompt"]
        for turn in row["turns"]:
            result = environment.step(turn)
            messages = [*messages, *result["observations"]]
        assert result["done"]
        yield [message["content"] for message in messages if message["role"] == "user"], result["reward"]


def inspect(source, **roles):
    from inspect_ai import eval as evaluate
    from inspect_ai.model import get_model
    from inspect_ai.solver._task_state import sample_state

    from colbench_env.adapters.inspect_tasks import colbench

    def say(messages, *_):
        """Say the next turn of the dialogue about this sample's task."""
        turns = DIALOGUES[sample_state().metadata["index"]]["turns"]
        return inspect_output(turns[sum(one.role == "assistant" for one in messages)])

    (log,) = evaluate(
        colbench(human="model" if roles else ""), model=get_model("mockllm/model", custom_outputs=say),
        model_roles=roles or None, limit=len(DIALOGUES), display="none", log_dir=TOLD.logs, fail_on_error=True,
    )  # fmt: skip
    assert log.status == "success", log.error and log.error.message
    print(json.dumps({"metrics": {score.name: sorted(score.metrics) for score in log.results.scores}}), file=sys.stderr)
    for sample in sorted(log.samples, key=lambda sample: sample.metadata["index"]):
        replies = [message.text for message in sample.messages if message.role == "user"]
        (score,) = sample.scores.values()
        yield replies, score.value["tests_passed"]


def inspect_output(text):
    from inspect_ai.model import ModelOutput, ModelUsage

    output = ModelOutput.from_content("mockllm/model", text)
    output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)  # else it is counted, online
    return output


def inspect_model(source):
    """Have a model play the user, which is shown the task's reference and says what the recorded user said."""
    from inspect_ai.model import get_model
    from inspect_ai.solver._task_state import sample_state

    def reply(messages, *_):
        state = sample_state()
        row = DIALOGUES[state.metadata["index"]]
        assert source.task(row["split"], row["index"]).hidden_information in messages[0].text
        return inspect_output(row["replies"][sum(one.role == "assistant" for one in state.messages)])

    yield from inspect(source, user=get_model("mockllm/model", custom_outputs=reply))


def verifiers(source):
    import verifiers.v1 as vf

    class Replay(BaseHTTPRequestHandler):
        """A chat endpoint that says the turns of one dialogue after the other."""

        turns = iter([turn for row in DIALOGUES for turn in row["turns"]])
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            message, usage = {"role": "assistant", "content": next(self.turns)}, {"prompt_tokens": 1}
            usage |= {"completion_tokens": 1, "total_tokens": 2}
            row = {"id": "1", "created": 1, "model": "m", "usage": usage}
            if asked.get("stream"):
                choice = {"index": 0, "delta": message, "finish_reason": "stop"}
                row |= {"object": "chat.completion.chunk", "choices": [choice]}
                data, kind = f"data: {json.dumps(row)}\n\ndata: [DONE]\n\n".encode(), "text/event-stream"
            else:
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                data, kind = (
                    json.dumps(row | {"object": "chat.completion", "choices": [choice]}).encode(),
                    "application/json",
                )
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Replay)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield from asyncio.run(play_verifiers(vf, f"http://127.0.0.1:{server.server_port}/v1"))


async def play_verifiers(vf, url):
    from colbench_env.adapters.verifiers import ColBenchEnv, ColBenchEnvConfig

    config = ColBenchEnvConfig.model_validate({"taskset": {"id": "colbench-env", "split": "test"}})
    environment = ColBenchEnv(config)
    tasks, played = list(environment.taskset)[: len(DIALOGUES)], []
    async with environment.serving():
        for task in tasks:
            context = vf.ModelContext(model="m", client=vf.EvalClientConfig(base_url=url))
            played.append(await environment.run_episode(task, context))
    assert not any(episode.errors or any(trace.errors for trace in episode.traces) for episode in played), [
        (episode.errors, [trace.errors for trace in episode.traces]) for episode in played
    ][:1]
    return [
        (
            [node.message.content for node in trace.nodes if node.message.role == "user"],
            trace.rewards["tests_passed"].value,
        )
        for (trace,) in (episode.traces for episode in played)
    ]


ADAPTERS = {f.__name__: f for f in (core, openenv, trl, tinker, tunix, skyrl, inspect, inspect_model, verifiers)}

if __name__ == "__main__":
    TOLD = FLAGS.parse_args()
    main()
