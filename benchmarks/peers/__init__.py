"""Ours against a peer, alternately, on the same weights and inputs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh

from models.hf_io import LoadedModel, load_llama
from sweet_jax.mesh import MeshShape, make_mesh, start_devices


def load_on_one_device(directory: Path) -> tuple[Mesh, LoadedModel]:
    """Read the weights in float32."""
    shape = MeshShape(1, 1)
    start_devices(shape)
    mesh = make_mesh(shape)
    return mesh, load_llama(directory, mesh, jnp.float32)


class Peer:
    """A script next to this file under a Python of its own, which answers a line of JSON with another."""

    def __init__(self, python: str, script: str, *arguments: object):
        path = Path(__file__).with_name(script)
        self.process = subprocess.Popen(
            [python, str(path), *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def ask(self, do: str, **what: Any) -> dict[str, Any]:
        """Have the work done there."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps({"do": do, **what}), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"error: the peer ended with status {self.process.wait()} while it was asked to {do}")
        return json.loads(answer)
