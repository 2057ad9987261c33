"""SWEET-RL in JAX: losses, critic, sampler, training loop, and the whole algorithm as ten calls (`sweet_jax.sweet`).

Imports `models` and `colbench_env`, never `launch`. Nothing is imported before it is used.
"""

from importlib import import_module

_NAMES = {
    "sweet": (
        "Policy",
        "grade",
        "load_policy",
        "make_trajectory_pairs",
        "make_turn_pairs",
        "play",
        "rank",
        "sample_candidates",
        "train_critic",
        "train_policy",
    ),
    "train.settings": ("Training",),
    "generation.sampling": ("Sampling",),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'sweet_jax' has no attribute {name!r}")
    return getattr(import_module(f"sweet_jax.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
