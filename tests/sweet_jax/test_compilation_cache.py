"""Compiled programs are kept in the user's cache directory, unless the user says otherwise."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

CODE = """
import jax, jax.numpy as jnp
from sweet_jax.mesh import MeshShape, start_devices
start_devices(MeshShape(1, 1))
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name) if name.endswith("cache_hits") else None)
jax.jit(lambda x: jax.lax.fori_loop(0, 9, lambda _, y: jnp.linalg.qr(y)[0] @ y, x))(jnp.ones((9, 9)))
print(len(hits))
"""


def entries(cache):
    return sorted(path.name for path in cache.rglob("*-cache"))


@pytest.fixture
def compile_with(tmp_path):
    """Run the code with these variables; returns the number of programs that were found in the cache."""

    def run(**environment):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
        kept |= {"JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(tmp_path / "cache")}
        done = subprocess.run(
            [sys.executable, "-c", CODE], env=kept | environment, capture_output=True, text=True, timeout=300
        )
        assert (done.returncode, done.stderr) == (0, "")
        return int(done.stdout)

    return run


def test_a_program_is_compiled_once_and_halves_of_entries_go(compile_with, tmp_path):
    assert compile_with(JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0") == 0
    kept = entries(tmp_path / "cache" / "sweet-jax")
    assert kept
    (folder,) = (tmp_path / "cache" / "sweet-jax" / "compiled").iterdir()
    (folder / "half-cache").write_bytes(b"a process was killed here")
    assert compile_with(JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0") > 0
    assert entries(tmp_path / "cache" / "sweet-jax") == kept


def test_the_user_may_turn_it_off_and_put_it_elsewhere(compile_with, tmp_path):
    compile_with(JAX_ENABLE_COMPILATION_CACHE="false", JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0")
    assert entries(tmp_path) == []
    compile_with(
        JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine"),
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
        JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES="-1",
    )
    assert entries(tmp_path / "mine") and not (tmp_path / "cache").exists()


def test_a_home_that_cannot_be_written_does_no_harm(compile_with, tmp_path):
    (tmp_path / "file").write_text("not a directory")
    assert compile_with(XDG_CACHE_HOME=str(tmp_path / "file")) == 0
