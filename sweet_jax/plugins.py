"""What a module of your own adds to the commands: `python -m launch.train --plugin=my_module.py`; see docs/plugins.md.

A plugin is a Python file, a module that can be imported, or an entry point of the group `sweet_jax.plugins`. It has a
`Plugin` under the name `plugin` (an entry point names it itself) which says what it brings.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from colbench_env.humans import UserSimulator
from colbench_env.import_function import import_file
from colbench_env.types import BadInput, Candidates, Task
from models.families import Family, add_family

GROUP = "sweet_jax.plugins"
"""The entry points that name plugins."""


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """What is played, learned from and trained in place of our own; None: ours.

    Each function is given plain values and may be called from several processes, which have to get the same answers.
    """

    make_tasks: Callable[[str, int, int], Iterable[Task]] | None = None
    """(split, count, seed) -> tasks of "train", "validation" or "test", where no file of tasks is given."""
    user_simulator: Callable[[], UserSimulator] | None = None
    """() -> who answers the agent."""
    reward: Callable[[Task, str], float] | None = None
    """(task, answer) -> reward from 0 to 1, which is success; the answer is "" where the agent gave none."""
    critic: Callable[[Candidates, Sequence[str]], Sequence[float]] | None = None
    """(position, turns) -> a score of each turn that might be said there; higher is better, no unit."""
    families: Mapping[str, Family] = field(default_factory=dict)
    """`model_type` of a config.json -> how the network differs from Llama."""
    name: str = ""
    """What rows, reports and errors call it; empty: as its module."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """Of several plugins as one: field -> name of the plugin that brings it."""

    @property
    def brings(self) -> tuple[str, ...]:
        """The names of the fields that are not ours."""
        return tuple(f.name for f in fields(self) if f.name not in ("name", "origins") and getattr(self, f.name))

    def name_of(self, brought: str) -> str:
        """Return the name of the plugin that brings a field."""
        return self.origins.get(brought, self.name)

    def tasks(self, split: str, count: int, seed: int) -> list[Task]:
        """Make tasks and check them. Raises BadInput."""
        assert self.make_tasks is not None
        make = self.make_tasks
        made = self._call("make_tasks", lambda: list(make(split, count, seed)))
        wrong = next((f"{type(task).__name__} {task!r:.60}" for task in made if not isinstance(task, Task)), None)
        if wrong or not made:
            called = f"make_tasks({split!r}, {count}, {seed})"
            raise self._refusal("make_tasks", f"{called} gives {wrong or 'nothing'}, expected Task objects")
        return made[:count]

    def human(self) -> UserSimulator:
        """Make the user simulator and check it. Raises BadInput."""
        assert self.user_simulator is not None
        made = self._call("user_simulator", self.user_simulator)
        if not isinstance(made, UserSimulator):
            wanted = "an object with name, settings and an asynchronous reply(request)"
            raise self._refusal("user_simulator", f"user_simulator() gives {type(made).__name__}, expected {wanted}")
        return made

    def grade(self, task: Task, answer: str) -> float:
        """Return the reward of an answer. Raises BadInput where it is no number from 0 to 1."""
        assert self.reward is not None
        reward = self.reward
        found = self._call("reward", lambda: reward(task, answer))
        if not _is_number(found) or not 0 <= found <= 1:
            raise self._refusal("reward", f"the reward of task {task.task_id} is {found!r:.60}, expected 0 to 1")
        return float(found)

    def scores(self, position: Candidates, turns: Sequence[str]) -> list[float]:
        """Return the critic's score of each turn. Raises BadInput where they are not as many numbers."""
        assert self.critic is not None
        critic = self.critic
        found = self._call("critic", lambda: list(critic(position, turns)))
        if len(found) != len(turns) or not all(_is_number(score) for score in found):
            raise self._refusal("critic", f"critic gives {found!r:.80}, expected {len(turns)} numbers, one a turn")
        return [float(score) for score in found]

    def _call(self, what: str, function: Callable[[], Any]) -> Any:
        try:
            return function()
        except BadInput as problem:
            raise self._refusal(what, f"{what}: {problem}") from problem
        except Exception as problem:
            raise self._refusal(what, f"{what} ends in {type(problem).__name__}: {problem}") from problem

    def _refusal(self, what: str, sentence: str) -> BadInput:
        return BadInput(f"plugin {self.name_of(what)}: {sentence}")


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, str) and math.isfinite(value)  # also numpy's
    except (TypeError, ValueError, OverflowError):
        return False


@functools.cache
def load_plugins(names: str) -> Plugin:
    """Load the plugins of a flag, FILE.py, module or entry point, separated by commas, as one; "": brings nothing.

    Their families are known to this process afterwards. Raises BadInput for one that cannot be loaded, and where two
    bring the same.
    """
    plugin, loaded = Plugin(), [_load(name.strip()) for name in names.split(",") if name.strip()]
    for found in loaded:
        if twice := [name for name in found.brings if name != "families" and name in plugin.brings]:
            raise BadInput(
                f"--plugin={names}: {plugin.name_of(twice[0])} and {found.name} both bring {twice[0]}, expected one"
            )
        own: dict[str, Any] = {name: getattr(found, name) for name in found.brings}
        own["families"] = {**plugin.families, **found.families}
        own["origins"] = {**plugin.origins, **dict.fromkeys(found.brings, found.name)}
        plugin = replace(plugin, **own, name=f"{plugin.name},{found.name}".lstrip(","))
        for model_type, family in found.families.items():
            add_family(model_type, family)
    return plugin


def _load(name: str) -> Plugin:
    points = {point.name: point for point in entry_points(group=GROUP)}
    try:
        if name in points:
            found = points[name].load()
        elif name.endswith(".py"):
            found = import_file(name)
        else:
            found = importlib.import_module(name)
    except BadInput:
        raise
    except ModuleNotFoundError as missing:
        if not f"{name}.".startswith(f"{missing.name}."):  # one that the plugin imports
            raise BadInput(f"--plugin={name}: cannot be imported: {missing}") from missing
        known = f" ({', '.join(points)})" if points else ""
        raise BadInput(
            f"--plugin={name}: there is no such module, expected FILE.py, a module or an entry point of {GROUP}{known}"
        ) from missing
    except Exception as problem:
        raise BadInput(f"--plugin={name}: cannot be imported: {type(problem).__name__}: {problem}") from problem
    plugin = getattr(found, "plugin", None) if isinstance(found, ModuleType) else found
    if not isinstance(plugin, Plugin):
        raise BadInput(f"--plugin={name}: has no `plugin`, expected plugin = sweet_jax.plugins.Plugin(...)")
    if not plugin.brings:
        raise BadInput(f"--plugin={name}: its Plugin() brings nothing")
    return replace(plugin, name=plugin.name or (Path(name).stem if name.endswith(".py") else name))
