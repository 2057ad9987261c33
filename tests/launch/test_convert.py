"""`launch.convert`: checkpoints of a run as Hugging Face directories, and back."""

import errno
import json
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from launch import convert
from launch.common import cli
from models import weight_files
from models.config import from_hf
from models.hf_io import load_llama
from models.llama import Llama, logits, variables
from models.lora import LoraConfig, lora_shapes, lora_shardings, merge_adapters
from models.parameters import flatten, init_params, param_shardings
from models.peft_io import load_adapter
from sweet_jax.critic import add_value_head
from sweet_jax.data.chat import Chat
from sweet_jax.mesh import MeshShape, make_mesh
from sweet_jax.train.checkpoint import Checkpoints
from sweet_jax.train.optim import make_optimizer
from sweet_jax.train.settings import Training
from sweet_jax.train.step import init_state, state_shardings

TOKENS_BT = np.arange(40).reshape(2, 20)


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshShape(4, 2))


@pytest.fixture(scope="module")
def trained(tiny_model, mesh):
    """Parameters that differ from those of the start model."""
    return init_params(from_hf(tiny_model), jax.random.key(7), mesh)


@pytest.fixture
def run_dir(tmp_path, tiny_model, mesh, trained):
    """A run directory whose policy was trained on eight devices for three steps."""
    config = from_hf(tiny_model)
    path, optimizer = tmp_path / "run", make_optimizer(Training(), 3)
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model": str(tiny_model), "algorithm": "sweet"}))
    state = init_state(optimizer, trained, state_shardings(optimizer, trained, param_shardings(config, mesh)))
    with Checkpoints(path / "policy" / "checkpoints") as checkpoints:
        checkpoints.save(3, state, {})
    return path


@pytest.fixture
def converts(monkeypatch, capsys):
    """Starts `launch.convert` in this process with flags; its exit status and what it wrote."""

    def run(*flags):
        monkeypatch.setattr(sys, "argv", ["launch.convert", *map(str, flags)])
        hook = sys.unraisablehook
        try:
            status = cli.exit_status(convert.main)
        finally:
            sys.unraisablehook = hook
        return status, *capsys.readouterr()

    return run


def refusal(ended):
    """The one sentence of a command that ended for bad input."""
    status, stdout, stderr = ended
    assert (status, stdout, stderr.count("\n")) == (2, "", 1), stderr
    return stderr.removeprefix("error: ").rstrip()


def assert_same(before, after):
    before, after = flatten(before), flatten(after)
    assert before.keys() == after.keys()
    for path in before:
        assert before[path].dtype == after[path].dtype
        np.testing.assert_array_equal(np.asarray(before[path]), np.asarray(after[path]), err_msg=path)


@pytest.mark.slow
@pytest.mark.parametrize("named", ["", "policy"])
def test_a_trained_policy_comes_back_bit_equal(converts, run_dir, tmp_path, trained, mesh, tiny_model, named):
    status, stdout, stderr = converts(f"--from={run_dir / named}", f"--to={tmp_path / 'out'}")
    assert (status, stderr) == (0, "")
    assert stdout.rstrip().endswith(f"parameters of 2 layers in float32, from step 3 of {run_dir / 'policy'}")
    loaded = load_llama(tmp_path / "out", mesh)
    assert loaded.config == from_hf(tiny_model)
    assert_same(loaded.params, trained)


@pytest.mark.slow
def test_weights_can_be_written_as_bfloat16_and_come_back_bit_equal(converts, run_dir, tmp_path, trained, mesh):
    assert converts(f"--from={run_dir}", f"--to={tmp_path / 'out'}", "--dtype=bfloat16", "--mesh=2x2")[0] == 0
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16), trained)
    assert_same(load_llama(tmp_path / "out", mesh, jnp.bfloat16).params, rounded)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.slow
def test_transformers_loads_the_export_and_computes_the_same(converts, run_dir, tmp_path, trained, mesh):
    torch = pytest.importorskip("torch")
    import transformers

    assert converts(f"--from={run_dir}", f"--to={tmp_path / 'out'}")[0] == 0
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    config = from_hf(tmp_path / "out")
    tokens_bt = jnp.asarray(np.repeat(TOKENS_BT, 2, axis=0))
    hidden_btd = Llama(config, mesh).apply({"params": trained}, tokens_bt, jnp.tile(jnp.arange(20), (4, 1))).hidden_btd
    with torch.no_grad():
        expected = theirs(torch.tensor(np.asarray(tokens_bt), dtype=torch.long)).logits.numpy()
    np.testing.assert_allclose(np.asarray(logits(hidden_btd, trained, config, mesh)), expected, rtol=0, atol=1e-4)
    tokenizer, chat = transformers.AutoTokenizer.from_pretrained(tmp_path / "out"), Chat.load(tmp_path / "out")
    asked = [{"role": "user", "content": "Which unit?"}]
    said = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    assert said == chat.prompt_ids(asked)
    assert set(chat.end_ids) <= set(np.atleast_1d(theirs.generation_config.eos_token_id).tolist())


@pytest.mark.slow
def test_the_tokenizer_is_taken_over_and_its_class_is_one_that_vllm_knows(converts, run_dir, tmp_path, tiny_model):
    assert converts(f"--from={run_dir}", f"--to={tmp_path / 'out'}")[0] == 0
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (tmp_path / "out" / name).read_bytes() == (tiny_model / name).read_bytes()
    settings = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"


@pytest.mark.slow
def test_generation_settings_are_carried_with_every_end_id(converts, run_dir, tmp_path, tiny_model):
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    (model / "generation_config.json").write_text(json.dumps({"temperature": 0.6, "eos_token_id": [9, 7]}))
    (run_dir / "config.json").write_text(json.dumps({"model": str(model)}))
    assert converts(f"--from={run_dir}", f"--to={tmp_path / 'out'}")[0] == 0
    end = Chat.load(tiny_model).turn_end_id
    written = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert written == {"temperature": 0.6, "eos_token_id": [9, 7, end]}
    assert Chat.load(tmp_path / "out").end_ids == tuple(sorted((9, 7, end)))


@pytest.mark.slow
def test_a_large_model_is_written_in_several_files_with_an_index(tiny_model, tmp_path, trained, mesh):
    from models.hf_io import save_llama

    save_llama(tmp_path, from_hf(tiny_model), trained, max_file_bytes=50_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert len(files) == 3 and files[0] == "model-00001-of-00003.safetensors"
    held = {file: load_file(tmp_path / file) for file in files}
    assert {name: file for file in files for name in held[file]} == index["weight_map"]
    assert index["metadata"]["total_size"] == sum(x.nbytes for tensors in held.values() for x in tensors.values())
    assert_same(load_llama(tmp_path, mesh).params, trained)


@pytest.mark.slow
def test_a_hugging_face_directory_becomes_a_checkpoint_that_is_read_back_bit_equal(
    converts, tmp_path, tiny_model, mesh
):
    status, stdout, _ = converts(f"--from={tiny_model}", f"--to={tmp_path / 'stage'}", "--mesh=2x1")
    assert status == 0 and "a checkpoint of" in stdout
    assert converts(f"--from={tmp_path / 'stage'}", f"--to={tmp_path / 'out'}")[0] == 0
    assert_same(load_llama(tmp_path / "out", mesh).params, load_llama(tiny_model, mesh).params)
    assert Chat.load(tmp_path / "out").format == Chat.load(tiny_model).format


# --- adapters --------------------------------------------------------------------------------------------------------

LORA_CONFIG = LoraConfig(rank=3, alpha=6.0, targets=("q", "o", "up"))


@pytest.fixture(scope="module")
def adapters(tiny_model, mesh):
    """Random adapters, of which no product is zero."""
    config = from_hf(tiny_model)
    noise = np.random.default_rng(3)
    return jax.tree.map(
        lambda x: jax.device_put(noise.normal(0.0, 0.1, x.shape).astype(np.float32), x.sharding),
        lora_shapes(config, LORA_CONFIG, mesh),
    )


@pytest.fixture
def lora_run(tmp_path, tiny_model, mesh, adapters):
    """A run directory whose policy trained adapters."""
    path, optimizer = tmp_path / "run", make_optimizer(Training(), 3)
    path.mkdir()
    settings = {"rank": 3, "alpha": 6.0, "targets": ["q", "o", "up"]}
    (path / "config.json").write_text(json.dumps({"model": str(tiny_model), "lora": settings}))
    layout = state_shardings(optimizer, adapters, lora_shardings(from_hf(tiny_model), LORA_CONFIG, mesh))
    with Checkpoints(path / "policy" / "checkpoints") as checkpoints:
        checkpoints.save(3, init_state(optimizer, adapters, layout), {})
    return path


@pytest.mark.slow
def test_adapters_are_written_for_peft_and_come_back_bit_equal(
    converts, lora_run, tmp_path, tiny_model, adapters, mesh
):
    status, stdout, _ = converts(f"--from={lora_run}", f"--to={tmp_path / 'out'}", "--lora=adapter")
    assert status == 0 and "adapters of rank 3 on q, o, up in float32, from step 3 of" in stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["base_model_name_or_path"]) == (3, 6, str(tiny_model))
    assert settings["target_modules"] == ["q_proj", "o_proj", "up_proj"]
    loaded = load_adapter(tmp_path / "out", from_hf(tiny_model), mesh)
    assert loaded.lora == LORA_CONFIG
    assert_same(loaded.params, adapters)


@pytest.mark.slow
def test_merged_adapters_are_the_network_that_was_trained(converts, lora_run, tmp_path, tiny_model, adapters, mesh):
    assert converts(f"--from={lora_run}", f"--to={tmp_path / 'out'}", "--mesh=2x2")[0] == 0
    expected = merge_adapters(load_llama(tiny_model, mesh).params | adapters, LORA_CONFIG)
    found = load_llama(tmp_path / "out", mesh)
    for path, value in flatten(expected).items():
        np.testing.assert_allclose(flatten(found.params)[path], value, rtol=0, atol=1e-6, err_msg=path)
    config = from_hf(tiny_model)
    tokens_bt, positions_bt = jnp.asarray(np.repeat(TOKENS_BT, 2, axis=0)), jnp.tile(jnp.arange(20), (4, 1))

    def logits_of(params, **options):
        hidden_btd = Llama(config, mesh, **options).apply(variables(params), tokens_bt, positions_bt).hidden_btd
        return np.asarray(logits(hidden_btd, params, config, mesh))

    with_adapters = logits_of(load_llama(tiny_model, mesh).params | adapters, lora=LORA_CONFIG)
    np.testing.assert_allclose(logits_of(found.params), with_adapters, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_adapters_of_a_stage_that_trained_all_weights_are_refused(converts, run_dir, tmp_path):
    out = f"--to={tmp_path / 'out'}"
    sentence = refusal(converts(f"--from={run_dir}", out, "--lora=adapter"))
    assert sentence == f"--lora=adapter: {run_dir / 'policy'} trained all weights, it has no adapters"


@pytest.mark.slow
def test_adapters_whose_settings_are_lost_are_refused(converts, lora_run, tmp_path, tiny_model):
    (lora_run / "config.json").write_text(json.dumps({"model": str(tiny_model)}))
    sentence = refusal(converts(f"--from={lora_run}", f"--to={tmp_path / 'out'}"))
    assert "holds LoRA adapters, but the settings 'lora' of its run are None" in sentence


# --- bad input -------------------------------------------------------------------------------------------------------


def test_nothing_is_overwritten(converts, run_dir, tmp_path):
    (tmp_path / "out").mkdir()
    sentence = refusal(converts(f"--from={run_dir}", f"--to={tmp_path / 'out'}"))
    assert sentence == f"--to={tmp_path / 'out'}: is there already; nothing is overwritten"


def test_what_holds_no_parameters_is_refused(converts, run_dir, tmp_path):
    out = f"--to={tmp_path / 'out'}"
    assert refusal(converts(f"--from={tmp_path / 'no'}", out)) == f"--from={tmp_path / 'no'}: no such directory"
    assert "neither a run directory with a trained policy" in refusal(converts(f"--from={tmp_path}", out))
    shutil.rmtree(run_dir / "policy" / "checkpoints" / "3")
    assert refusal(converts(f"--from={run_dir}", out)) == f"{run_dir}/policy/checkpoints: there is no checkpoint"
    (run_dir / "config.json").write_text("{")
    assert f"{run_dir}/config.json: not JSON" in refusal(converts(f"--from={run_dir}", out))


@pytest.mark.slow
def test_a_critic_is_converted_like_a_policy_but_not_with_a_regression_head(converts, run_dir, tmp_path, trained, mesh):
    (run_dir / "policy").rename(run_dir / "critic")
    assert converts(f"--from={run_dir / 'critic'}", f"--to={tmp_path / 'out'}")[0] == 0
    assert_same(load_llama(tmp_path / "out", mesh).params, trained)
    with Checkpoints(run_dir / "critic" / "checkpoints") as checkpoints:
        checkpoints.save(4, {"params": add_value_head(trained, 32, jax.random.key(0), mesh)}, {})
    sentence = refusal(converts(f"--from={run_dir / 'critic'}", f"--to={tmp_path / 'head'}"))
    assert f"--from={run_dir / 'critic'}: a critic with a regression head" in sentence


def test_a_damaged_checkpoint_is_refused_and_nothing_is_written(converts, run_dir, tmp_path):
    (run_dir / "policy" / "checkpoints" / "3" / "state" / "_METADATA").write_text("{")
    assert "the checkpoint of step 3 cannot be read" in refusal(
        converts(f"--from={run_dir}", f"--to={tmp_path / 'out'}")
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.slow
def test_the_newest_whole_checkpoint_is_converted_where_the_newest_is_damaged(
    converts, run_dir, tmp_path, trained, mesh, caplog
):
    folder = run_dir / "policy" / "checkpoints"
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(4, {"params": jax.tree.map(jnp.zeros_like, trained)}, {})
    arrays = max((folder / "4" / "state").rglob("*"), key=lambda path: path.stat().st_size)
    arrays.write_bytes(arrays.read_bytes()[:-1])
    status, stdout = converts(f"--from={run_dir}", f"--to={tmp_path / 'out'}")[:2]
    assert status == 0 and f"from step 3 of {run_dir / 'policy'}" in stdout
    assert f"{folder}: step 4 cannot be read and is passed over: state/" in caplog.text
    assert_same(load_llama(tmp_path / "out", mesh).params, trained)
    assert (folder / "4").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("named", [{}, {"eos_token_id": []}])
def test_generation_settings_without_end_ids_get_those_of_the_network_and_the_template(
    converts, run_dir, tmp_path, tiny_model, named
):
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    (model / "generation_config.json").write_text(json.dumps({"top_p": 0.9, **named}))
    settings = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(settings | {"eos_token_id": [5, 6]}))
    (run_dir / "config.json").write_text(json.dumps({"model": str(model)}))
    assert converts(f"--from={run_dir}", f"--to={tmp_path / 'out'}")[0] == 0
    written = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert written == {"top_p": 0.9, "eos_token_id": sorted({5, 6, Chat.load(tiny_model).turn_end_id})}


def test_a_checkpoint_of_another_network_and_a_model_that_is_gone_are_refused(converts, run_dir, tmp_path, tiny_model):
    out, model = f"--to={tmp_path / 'out'}", tmp_path / "model"
    (run_dir / "config.json").write_text(json.dumps({"model": str(model)}))
    assert f"looked for {model}/config.json and {run_dir}/policy/model/config.json" in refusal(
        converts(f"--from={run_dir}", out)
    )
    shutil.copytree(tiny_model, model)
    settings = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(settings | {"intermediate_size": 48}))
    sentence = refusal(converts(f"--from={run_dir}", out))
    assert f"network in {model}: layers/mlp/down is (2, 64, 32) there and (2, 48, 32) here" in sentence


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_leaves_nothing(converts, run_dir, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weight_files, "_write_file", full)
    sentence = refusal(converts(f"--from={run_dir}", f"--to={tmp_path / 'out'}"))
    assert sentence == f"{tmp_path / 'out'}: the model cannot be written: No space left on device"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.slow
def test_a_place_where_nothing_can_be_made_is_one_sentence(converts, run_dir, tmp_path):
    (tmp_path / "file").write_text("")
    sentence = refusal(converts(f"--from={run_dir}", f"--to={tmp_path / 'file' / 'out'}"))
    assert sentence == f"{tmp_path / 'file' / 'out'}: the model cannot be written: Not a directory"


def test_a_mesh_that_does_not_divide_the_network_is_refused(converts, run_dir, tmp_path):
    ended = converts(f"--from={run_dir}", f"--to={tmp_path / 'out'}", "--mesh=1x3")
    assert "does not divide over mesh axis 'tensor' of 3" in refusal(ended)
