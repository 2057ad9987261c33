"""Eight emulated CPU devices for every test, and compiled programs shared by all its processes; before jax starts."""

import os
import shutil
import sys
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # tests compile much and run little
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):  # workers and the commands they start would all compile everything
    sys.dont_write_bytecode = False
_COMPILED = None  # of the process that the user has started; its workers and the commands they start inherit it
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _COMPILED = os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="sweet-jax-compiled-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

# As many threads in processes that tests start, whatever their devices, as in the tests' own with its eight: long sums
# are split among threads, and tests compare bits.
os.environ.setdefault("NPROC", "8")

import jax  # noqa: E402
import pytest  # noqa: E402

if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    jax.config.update("jax_num_cpu_devices", 8)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts files with slow tests first, so that no worker ends long after the others (with --no-loadscope-reorder)."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_unconfigure() -> None:
    if _COMPILED is not None:
        shutil.rmtree(_COMPILED, ignore_errors=True)


@pytest.fixture(scope="module")
def optimised():
    """XLA's optimisations, which other tests do without: where more is computed than compiled."""
    name = "JAX_DISABLE_MOST_OPTIMIZATIONS"
    before = jax.config.read(name.lower())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name, "0")
        jax.config.update(name.lower(), False)
        yield
    jax.config.update(name.lower(), before)
