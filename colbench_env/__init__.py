"""ColBench, the benchmark: a user simulator with hidden wishes, an agent that may ask ten times, and a grader.

Text in, text out: nothing here knows of tokens, arrays or devices, and importing it never imports jax.

    types        the rows: Task, Message, Trajectory, Pair, Candidates, Ranked; BadInput
    tasks        reads and writes files of rows (JSON Lines)
    row_file     the same files by row number, without reading them whole
    tfds         the files as the dataset `colbench` (needs tensorflow_datasets)
    dialogue     the protocol of an episode as a state machine
    humans       user simulators, which answer the agent
    prompts      what the agent and a user simulator are told
    grading      what an answer is worth
    episodes     plays episodes with any callable as agent, one or many, and grades them
    environment  an episode with reset and step
    gym          the same as a gymnasium.Env (needs gymnasium)
    source       what is played, from plain values: tasks by split, user simulator, grader
    adapters     the same for OpenEnv, verifiers, Inspect, TRL, Tinker, Tunix and SkyRL (each needs its package)
    flags        what makes a task doubtful for measuring
    samples      the layout of a file with several samples of each task
    statistics   figures and intervals of graded trajectories (needs numpy)
    mini         tasks made by a procedure, for tests and demonstrations

What most users need can be imported from here: `from colbench_env import Task, read_rows, play, Grader`. A name's
module is imported when the name is first used, so who reads rows pays for nothing else. docs/colbench.md has examples.
"""

from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec

_NAMES: dict[str, tuple[str, ...]] = {
    "types": ("NO_ANSWER", "BadInput", "Message", "Task", "Trajectory", "Verdict"),
    "tasks": ("append_rows", "read_complete", "read_rows", "scan_rows", "write_rows"),
    "dialogue": ("ANSWER_MARKER", "MAX_TURNS", "OUTPUT_MARKER", "Episode", "chat_messages"),
    "humans": ("SimulatorRequest", "UserSimulator", "simulator_prompt"),
    "humans.chat": ("ChatSimulator",),
    "humans.rules": ("RulesSimulator",),
    "humans.scripted": ("ScriptedSimulator",),
    "prompts": ("load_prompt",),
    "grading": ("Grade", "Grader", "Limits"),
    "episodes": ("Agent", "EpisodeFailed", "Settings", "grade_trajectories", "play", "play_many", "with_grade"),
    "environment": ("Environment",),
}
with suppress(ModuleNotFoundError):  # verifiers takes taskset and environment from the package that an id names
    if find_spec("verifiers"):
        _NAMES["adapters.verifiers"] = ("ColBenchEnv", "ColBenchTaskset")
_MODULES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'colbench_env' has no attribute {name!r}")
    return getattr(import_module(f"colbench_env.{_MODULES[name]}"), name)
