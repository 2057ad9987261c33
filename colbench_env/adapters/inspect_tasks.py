"""ColBench for Inspect: `inspect eval colbench_env/colbench --model=...`; its viewer shows the dialogues.

The user simulator is that of a `Source`, or a model: with `-T human=model` the model role `user`
(`--model-role user=openai/gpt-4o-mini`), which is told the reference as `ChatSimulator` is.
"""

from collections.abc import Mapping
from typing import Any

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser, GenerateConfig, Model, get_model
from inspect_ai.scorer import Score, Scorer, Target, ci, mean, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver

from colbench_env.adapters import Session
from colbench_env.humans import SimulatorRequest, simulator_prompt
from colbench_env.source import Source


class ModelSimulator:
    """A user simulator that a model of Inspect plays."""

    name = "chat"

    def __init__(self, model: Model):
        self._model = model

    @property
    def settings(self) -> Mapping[str, Any]:
        """The prompt and the model."""
        return {"prompt": "backend_human", "model": str(self._model)}

    async def reply(self, request: SimulatorRequest) -> str:
        """Ask the model. Raises what it raises."""
        output = await self._model.generate(simulator_prompt(request), config=GenerateConfig(seed=request.seed))
        return output.completion.strip()


@task
def colbench(split: str = "test", human: str = "", **values: Any) -> Task:
    """Make the task. human: `model` for the model role `user`, else as in a `Source`; values: of a `Source`."""
    source = Source.from_values(values | {"human": "" if human == "model" else human})
    session, samples = Session(source), []
    said = {"system": ChatMessageSystem, "user": ChatMessageUser}
    for index in range(len(source.tasks_of(split))):
        session.begin(split, index, source.seed)
        messages = [said[message["role"]](content=message["content"]) for message in session.messages]
        samples.append(Sample(input=messages, id=f"{split}-{index}-{session.task_id}", metadata={"index": index}))
    dataset = MemoryDataset(samples, name=f"colbench-{split}")
    return Task(dataset, solver=dialogue(source, split, human), scorer=hidden_tests())


@solver
def dialogue(source: Source, split: str, human: str = "") -> Solver:
    """Let the model and the user simulator talk until the model has answered."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        session = Session(source, ModelSimulator(get_model(role="user")) if human == "model" else None)
        session.begin(split, state.metadata["index"], source.seed)
        while not session.done:
            state = await generate(state)
            reply = await session.step_async(state.output.completion)  # Spoilt is an error of the sample, and no score
            if not session.done:
                state.messages.append(ChatMessageUser(content=reply))
        assert session.trajectory is not None
        state.store.set("reward", session.reward)
        state.store.set("answer", session.trajectory.answer)
        state.store.set("verdicts", session.trajectory.extra.get("verdicts", {}))
        return state

    return solve


@scorer(metrics={"tests_passed": [mean(), stderr(), ci()], "success": [mean(), stderr(), ci()]})
def hidden_tests() -> Scorer:
    """Score the share of hidden tests passed, and whether all were."""

    async def score(state: TaskState, target: Target) -> Score:
        reward = state.store.get("reward")
        verdicts = state.store.get("verdicts", {})
        return Score(
            value={"tests_passed": reward, "success": float(reward == 1.0)},
            answer=state.store.get("answer"),
            explanation=", ".join(f"{name}: {verdict}" for name, verdict in verdicts.items()),
            metadata={"turns": sum(isinstance(message, ChatMessageAssistant) for message in state.messages)},
        )

    return score
