"""Functions that users name as FILE.py:NAME."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from colbench_env.types import BadInput


def import_function(place: str) -> Callable[..., Any]:
    """Import the function that FILE.py:NAME names. Raises BadInput."""
    path, colon, name = place.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise BadInput(f"{place!r} names no function, expected FILE.py:NAME, as in my_agent.py:agent")
    found = getattr(import_file(path, f"the Python file in which {name} is defined"), name, None)
    if not callable(found):
        raise BadInput(f"{path}: defines no function {name!r}")
    return found


def import_file(file: str, expected: str = "a Python file") -> ModuleType:
    """Import a file as a module, which finds its neighbours as it would if it were run. Raises BadInput."""
    path = Path(file)
    if not path.is_file():
        raise BadInput(f"{path}: no such file, expected {expected}")
    name = path.stem
    while name in sys.modules:
        name += "_"
    if (folder := str(path.resolve().parent)) not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # of every name that ends with .py
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SystemExit as end:
        raise BadInput(f"{path}: cannot be imported: it ends the program (sys.exit) as it is imported") from end
    except Exception as problem:
        raise BadInput(f"{path}: cannot be imported: {type(problem).__name__}: {problem}") from problem
    return module
