"""Compiled programs are kept in the user's cache directory, so that a command compiles a program only once.

jax's own persistent cache, with these defaults: JAX_COMPILATION_CACHE_DIR names another directory,
JAX_COMPILATION_CACHE_MAX_SIZE other bytes, JAX_ENABLE_COMPILATION_CACHE=false keeps nothing.
"""

import hashlib
import os
import platform
from pathlib import Path

import filelock
import jax
from platformdirs import user_cache_path

MAX_BYTES = 2**31  # of a machine; what was used least recently goes first
WORTH_KEEPING = 0.1  # seconds of compiling


def keep_compiled_programs() -> None:
    """Turn the cache on, before anything compiles; what the user has set with jax's environment variables holds."""
    known = jax.config.values
    if known["jax_compilation_cache_dir"] is not None or not known["jax_enable_compilation_cache"]:
        return
    directory = user_cache_path("sweet-jax") / "compiled" / _processor()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _drop_halves(directory)
    except (OSError, filelock.Timeout):  # a home that cannot be written: every program is compiled, as without
        return
    jax.config.update("jax_compilation_cache_dir", str(directory))
    for name, value in (
        ("jax_compilation_cache_max_size", MAX_BYTES),
        ("jax_persistent_cache_min_compile_time_secs", WORTH_KEEPING),
        ("jax_persistent_cache_min_entry_size_bytes", -1),
    ):
        if name.upper() not in os.environ:
            jax.config.update(name, value)


def _processor() -> str:
    """Name the kind of processor: programs compiled for one may not run on another that shares the home directory."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    kind = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return hashlib.sha256(f"{platform.machine()} {kind}".encode()).hexdigest()[:12]


def _drop_halves(directory: Path) -> None:
    """Drop entries without their time, left by a process that was killed: jax could not make room with them there."""
    with filelock.FileLock(directory / ".lockfile", timeout=10):
        for path in directory.glob("*-cache"):
            if not path.with_name(f"{path.name.removesuffix('-cache')}-atime").exists():
                path.unlink()
