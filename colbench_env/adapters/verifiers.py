"""ColBench for verifiers (`verifiers.v1`): `vf-eval colbench-env`, the name of the installed package.

The row has the public problem alone: the reference is known to the user simulator and to the grader, in this process.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import fields

import verifiers.v1 as vf

from colbench_env.adapters import Session
from colbench_env.source import Source


class ColBenchConfig(vf.TasksetConfig):
    """split: that is played. All else: the values of a `Source`."""

    split: str = "test"
    benchmark: str = "backend"
    tasks: str = "mini"
    human: str = ""
    model: str = "gpt-4o-mini"
    url: str = "https://api.openai.com/v1"
    leaks: str = "natural"
    max_turns: int = 0
    system: str | None = None
    count: int = 100
    seed: int = 0
    workers: int = 2

    @property
    def source(self) -> Source:
        """What is played. Raises BadInput."""
        names = {field.name for field in fields(Source)}
        return Source.from_values({name: value for name, value in dict(self).items() if name in names})


class ColBenchData(vf.TaskData):
    """A row: which task of the split it is."""

    split: str
    index: int


class ColBenchTask(vf.Task[ColBenchData, vf.State, vf.TaskConfig]):
    """What a finished dialogue is worth, as the environment has found it."""

    @vf.reward
    async def tests_passed(self, trace: vf.Trace) -> float:
        """Give the share of hidden tests passed; 0 where the agent was stopped before it had answered."""
        return float(trace.info.get("tests_passed", 0.0))

    @vf.metric
    async def success(self, trace: vf.Trace) -> float:
        """Say whether all tests passed."""
        return float(trace.info.get("tests_passed") == 1.0)

    @vf.metric
    async def turns(self, trace: vf.Trace) -> float:
        """Count the agent's turns."""
        return float(trace.num_turns)

    @vf.stop
    async def answered(self, trace: vf.Trace) -> bool:
        """Stop once the answer was graded."""
        return "tests_passed" in trace.info


class ColBenchTaskset(vf.Taskset[ColBenchTask, ColBenchConfig]):
    """The tasks of a split."""

    def load(self) -> Iterator[ColBenchTask]:
        """Make a row of each task."""
        source = self.config.source
        for index, task in enumerate(source.tasks_of(self.config.split)):
            data = ColBenchData(
                id=task.task_id,
                prompt=task.problem_description,
                system_prompt=source.settings.system_prompt or None,
                split=self.config.split,
                index=index,
            )
            yield ColBenchTask(data, self.config.task)


class ColBenchEnvConfig(vf.EnvConfig):
    """The agent that is evaluated or trained; the user simulator is part of the environment."""

    agent: vf.AgentConfig = vf.AgentConfig(harness={"id": "null"}, runtime=vf.SubprocessConfig())


class ColBenchEnv(vf.Env[ColBenchEnvConfig]):
    """Relays turns between the agent and the user simulator. An episode that the machine spoilt fails and may be
    retried: it has no reward."""

    async def run(self, task: ColBenchTask, agents: vf.Agents) -> None:
        """Play one episode."""
        session = Session(self.taskset.config.source)
        await asyncio.to_thread(session.begin, task.data.split, task.data.index)
        async with agents.agent.interaction(task) as interaction:
            segment = await interaction.turn()
            while not segment.terminated:
                reply = await asyncio.to_thread(session.step, segment.last_reply)
                if session.done:
                    interaction.trace.info["tests_passed"] = session.reward
                    break
                segment = await interaction.turn(reply)
