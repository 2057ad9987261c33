"""Model directories that `launch.train` cannot use: one sentence before anything is computed."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

FILE = "model.safetensors"


@pytest.fixture
def model(tiny_model, tmp_path):
    """A copy of the random model, to be damaged."""
    shutil.copytree(tiny_model, tmp_path / "model")
    return tmp_path / "model"


def settings(model, name, **changes):
    found = json.loads((model / name).read_text())
    (model / name).write_text(json.dumps(found | changes))


def smaller_embedding(model):
    settings(model, "config.json", vocab_size=510)
    tensors = load_file(model / FILE)
    tensors["model.embed_tokens.weight"] = np.ascontiguousarray(tensors["model.embed_tokens.weight"][:510])
    save_file(tensors, model / FILE)


def no_system_prompt(model):
    path = model / "chat_template.jinja"
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    path.write_text(refusing + path.read_text())


CASES = {
    "vocabulary": (smaller_embedding, "the tokenizer has ids up to 511, the model's embedding has 510 rows"),
    "truncated": (lambda m: (m / FILE).write_bytes((m / FILE).read_bytes()[:-9]), "not a whole safetensors file ("),
    "missing": (lambda m: (m / FILE).unlink(), f"holds neither {FILE} nor {FILE}.index.json"),
    "shape": (
        lambda m: settings(m, "config.json", intermediate_size=48),
        "has shape [64, 32], the network needs [48, 32]",
    ),
    "rope": (lambda m: settings(m, "config.json", rope_scaling={"rope_type": "yarn"}), "rope_type is 'yarn'; only"),
    "template": (lambda m: (m / "chat_template.jinja").unlink(), "the tokenizer has no chat template"),
    "system": (no_system_prompt, "refuses a dialogue of roles system, user: System role not supported"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_model_that_cannot_be_used_is_refused_before_any_work(start, tmp_path, model, case):
    damage, sentence = CASES[case]
    damage(model)
    prompt = "--agent-prompt=backend_agent" if case == "system" else "--agent-prompt=none"
    ended = start(f"--run-dir={tmp_path / 'run'}", f"--model={model}", "--num-tasks=4", prompt)
    assert sentence in ended.refuses() and str(model) in ended.refuses()
    assert not list((tmp_path / "run").rglob("*.jsonl"))


def test_a_mesh_that_does_not_divide_the_heads_is_refused_before_any_work(start, tmp_path, model):
    flags = ("--sampler-mesh=same", "--mesh=1x3", f"--run-dir={tmp_path / 'run'}", f"--model={model}")
    assert "does not divide over mesh axis 'tensor' of 3" in start(*flags).refuses()


def test_a_kernel_that_the_devices_lack_is_refused_before_any_work(start, tmp_path):
    ended = start("--attention=cudnn", f"--run-dir={tmp_path / 'run'}")
    assert "'cudnn' needs NVIDIA GPUs, and the devices of this mesh are cpu: use 'xla'" in ended.refuses()
    assert not list((tmp_path / "run").rglob("*.jsonl"))
