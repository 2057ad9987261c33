"""`launch.plan`: bad input before any compile, and a small network compiled for a TPU slice that is not there."""

import importlib.util
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from launch import plan
from launch.common import cli
from launch.planning import compiling, gpu_compiler
from launch.planning.chips import parse_topology
from launch.planning.compiling import slice_devices
from launch.planning.config import PlanConfig
from launch.planning.planning import make_plan
from launch.planning.search import candidates, search
from launch.planning.shapes import SHAPES
from models.config import LlamaConfig
from sweet_jax.mesh import MeshShape, make_mesh

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: pip install -e '.[dev]' (Linux x86-64)"
)
SMALL = LlamaConfig(
    vocab_size=1280, hidden_size=256, intermediate_size=512, num_layers=3, num_heads=4, num_kv_heads=2, head_size=64,
    max_position_embeddings=4096,
)  # fmt: skip


@pytest.fixture
def small(tmp_path):
    """The path of a small network's config.json."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(SMALL.to_hf()))
    return str(path)


@pytest.fixture
def run(monkeypatch, capsys):
    """Starts `launch.plan` in this process with flags: exit status, standard output, standard error."""

    def start(*flags):
        monkeypatch.setattr(sys, "argv", ["launch.plan", *flags])
        try:
            status = cli.exit_status(plan.main)
        except SystemExit as stop:  # flags that the parser does not know
            status = int(stop.code or 0)
        return status, *capsys.readouterr()

    return start


@pytest.fixture
def no_compiler(monkeypatch):
    """Makes asking for the compiler an error."""
    monkeypatch.setattr(compiling, "slice_devices", lambda topology: pytest.fail(f"asked to compile for {topology}"))
    monkeypatch.setattr("launch.planning.planning.slice_devices", compiling.slice_devices)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--mesh=4x2", "mesh 4x2 has 8 devices, the slice v5e:4x4 has 16"),
        (
            "--mesh=16x1",
            "a batch of 8 pairs cannot be divided into 1 micro-batches over a data axis of 16: "
            "it must be a multiple of 16",
        ),
        (
            "--mesh=8x2 --micro-batches=2",
            "a batch of 8 pairs cannot be divided into 2 micro-batches over a data axis of 8: "
            "it must be a multiple of 16",
        ),
        (
            "--stage=score --batch-size=4 --mesh=16x1",
            "a batch of 8 rows cannot be divided into a data axis of 16: it must be a multiple of 16",
        ),
        (
            "--max-length=8200 --mesh=data:8,sequence:2,tensor:1",
            "mesh data:8,sequence:2,tensor:1: rows of 8200 tokens do not divide over a sequence axis of 2: "
            "they must be a multiple of 256",
        ),
        ("--mesh=1x16 --model=llama-3.2-3b", "mesh 1x16: a tensor axis of 16 does not divide 24 query heads"),
        ("--max-length=200000", "rows of 200000 tokens are longer than the network's 131072"),
        (
            "--stage=sample --mesh=data:8,sequence:2,tensor:1",
            "mesh data:8,sequence:2,tensor:1: sampling has no sequence axis, its rows grow token by token; use 16x1",
        ),
        ("--stage=sample --rows=24 --samples=16", "16 samples of a prompt do not fill a batch of 24 rows evenly"),
        (
            "--stage=sample --rows=64 --samples=16",
            "a batch of 4 prompts (64 rows / 16 samples) cannot be divided over a data axis of 8",
        ),
        ("--utilisation=1.5", "utilisation is 1.5, it must be above 0 and at most 1"),
        ("--chip-hour-price=3", "--chip-hour-price needs --steps: there is no cost of a single step"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_one_sentence_before_any_compile(run, no_compiler, flags, sentence):
    assert run(*flags.split()) == (2, "", f"error: {sentence}\n")


def test_a_flag_out_of_range_has_status_2(run):
    status, _, errors = run("--batch-size=0")
    assert status == 2
    assert "batch_size is 0, it must be at least 1" in errors


def test_help_does_without_jax(python):
    code = (
        "import sys; from launch import plan; sys.argv = ['launch.plan', '--help']\n"
        "try: plan.main()\n"
        "finally: print(sorted({'jax', 'torch', 'libtpu'} & set(sys.modules)))"
    )
    done = python("-c", code)
    assert done.status == 0, done.stderr
    assert "--micro-batches" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_without_libtpu_one_sentence_says_what_to_install(run, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    status, out, errors = run()
    assert (status, out) == (2, "")
    assert errors.startswith(
        "error: --topology=v5e:4x4: compiling for a TPU needs libtpu, which is not installed: pip "
    )
    assert len(errors.splitlines()) == 1


@pytest.mark.slow
@needs_libtpu
def test_a_slice_that_libtpu_does_not_know_is_one_sentence(run):
    status, out, errors = run("--topology=v6e:1x2", "--mesh=2x1", "--model=llama-3.2-1b")
    assert (status, out) == (2, "")
    assert errors.startswith("error: --topology=v6e:1x2: libtpu knows no such slice: ")
    assert len(errors.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.skipif(not gpu_compiler.is_installed(), reason="needs jax's plugin for CUDA: pip install '.[cuda]'")
@pytest.mark.parametrize("stage", ["critic", "score", "sample"])
def test_a_stage_is_compiled_for_gpus_that_are_not_there(run, small, stage):
    flags = (f"--model={small}", "--topology=h100:4", "--mesh=2x2", "--max-length=128", f"--stage={stage}")
    status, out, errors = run(*flags, "--new-tokens=8", "--json")
    assert status == 0, errors
    told = json.loads(out)
    assert told["fits"] and not told["estimate"]
    assert told["temporary_bytes"] > 0
    assert told["collectives"]["all-gather" if stage == "critic" else "all-reduce"]["sent_bytes"] > 0


@pytest.mark.slow
@needs_libtpu
def test_a_training_step_is_compiled_for_a_slice_that_is_not_there(run, small):
    flags = (f"--model={small}", "--topology=v5e:2x2", "--mesh=2x2", "--batch-size=2", "--max-length=256")
    status, out, errors = run(*flags, "--json", "--steps=900", "--utilisation=0.5", "--chip-hour-price=2")
    assert status == 0
    assert re.sub(r"\d+ s$", "N s", errors, flags=re.MULTILINE).splitlines() == [
        "1/3 the slice v5e:2x2 described: N s",
        f"2/3 stage critic of {small} on mesh 2x2 traced: N s",
        "3/3 compiling, which takes from seconds to minutes",
        "3/3 compiled: N s",
    ]
    told = json.loads(out)
    weights = 4 * (2 * 1280 * 256 + 3 * (2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 512)) // 4  # a quarter each
    norms = 4 * 256 * 7
    assert told["params_bytes"] == weights + norms
    assert told["optimizer_bytes"] == 2 * (weights + norms) + 8  # two moments, two counters
    assert told["batch_bytes"] == 2 * (256 * (4 + 4 + 1 + 4) + 4)  # a pair's rows, with the reference's log-probs
    assert told["replicated_share"] == norms / (4 * weights + norms)
    assert told["peak_bytes"] == sum(told[f"{part}_bytes"] for part in ("params", "optimizer", "batch", "temporary"))
    assert told["hours"] == pytest.approx(900 * told["floor_seconds"] / 0.5 / 3600)
    assert told["cost"] == pytest.approx(2 * told["chip_hours"]) and told["chip_hours"] == 4 * told["hours"]
    assert told["memory_seconds"] == 0  # which only sampling has
    assert told["temporary_bytes"] > 0
    assert told["fits"] and not told["estimate"]
    assert told["gathered_logits"] == 0
    assert told["collectives"]["all-gather"]["sent_bytes"] > 0
    assert told["flops"]["backward"] == 2 * told["flops"]["forward"]
    assert told["floor_seconds"] == pytest.approx(3 * told["flops"]["forward"] / (4 * 197e12))


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize("topology", ["v5e:4x4", "v6e:4x4", "v5p:2x2x4"])
def test_a_mesh_may_split_an_axis_of_the_torus_and_keeps_neighbours_together(topology):
    mesh = make_mesh(MeshShape(8, 2), slice_devices(parse_topology(topology)))
    assert dict(mesh.shape) == {"data": 8, "tensor": 2}
    places = np.array([[device.coords for device in pair] for pair in mesh.devices])
    assert np.abs(places[:, 0] - places[:, 1]).sum(axis=-1).tolist() == [1] * 8  # links from one to the other


@pytest.mark.slow
@needs_libtpu
def test_libtpu_on_a_machine_without_a_tpu_disturbs_no_other_command():
    code = "from sweet_jax.mesh import MeshShape, start_devices; print(start_devices(MeshShape(2, 1)))"
    environment = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    if "tpu" in done.stdout or "gpu" in done.stdout:
        pytest.skip("this machine has an accelerator")
    assert (done.stdout, done.stderr) == ("2 emulated devices on one CPU (no accelerator found)\n", "")


@pytest.mark.slow
@needs_libtpu
def test_a_search_names_the_fastest_of_what_it_compiled(small, capsys):
    sizes = dict(batch_size=2, max_length=256)
    config = PlanConfig(model=small, stage="score", topology="v5e:2x2", search=True, tries=2, **sizes)
    best = search(config)
    lines = capsys.readouterr().err.splitlines()
    assert [line[:4] for line in lines] == ["1/2 ", "2/2 "]
    assert best.what["mesh"] in lines[0] + lines[1]
    assert best.fits
    assert best.notes[0].startswith("best of 2 plans compiled, of ")


@pytest.mark.slow
@needs_libtpu
def test_what_is_too_large_is_said_not_to_fit(small):
    sizes = dict(rows=65_536, max_length=2048)
    plan = make_plan(PlanConfig(model=small, stage="sample", topology="v5e:2x2", mesh="2x2", **sizes))
    assert not plan.fits
    assert plan.notes[0].startswith("the compiler refused the program: ")
    assert "does not fit into 15.75 GiB" in plan.to_text()


def test_a_search_knows_every_mesh_that_divides_heads_batch_and_length():
    config, topology = PlanConfig(model="llama-3.1-8b", search=True), parse_topology("v5e:4x4")
    found = candidates(config, topology, SHAPES["llama-3.1-8b"])
    names = {(str(candidate.shape), candidate.micro_batches) for candidate in found}
    assert ("8x2", 1) in names and ("4x4", 2) in names and ("data:8,sequence:2,tensor:1", 1) in names
    assert ("16x1", 1) not in names and ("8x2", 2) not in names
    assert [candidate.traffic_bytes for candidate in found] == sorted(c.traffic_bytes for c in found)


def test_a_network_that_cannot_fit_is_refused_without_compiling(run, no_compiler):
    status, _, errors = run("--search", "--model=llama-3.1-70b")
    assert status == 2
    assert errors.startswith("error: llama-3.1-70b needs ")
    assert errors.endswith("a device on v5e:4x4 whatever the mesh, which has 15.75: take a larger slice\n")


def test_cudnn_with_a_rematerialisation_that_saves_nothing_is_refused_without_compiling(run, no_compiler, monkeypatch):
    monkeypatch.setattr("launch.planning.gpu_compiler.is_installed", lambda: True)
    status, _, errors = run("--topology=h100:8", "--mesh=8x1", "--batch-size=8", "--remat=attention")
    assert status == 2
    assert errors == "error: remat 'attention' saves nothing with attention 'cudnn': use remat 'full' or 'dots'\n"
