"""Damaged checkpoints: noticed by one flipped bit, passed over, and deleted only beside a whole one."""

import gc
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from colbench_env.types import BadInput
from sweet_jax.train.checkpoint import Checkpoints, SavedParams

# A read that fails leaves coroutines of orbax unfinished; Python tells when it collects them.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:coroutine")

SHAPES = {"params": {"w": (64, 64), "b": (3,)}, "moments": {"w": (64, 64)}}


@pytest.fixture(autouse=True)
def collect_unfinished_coroutines():
    yield
    gc.collect()


def values(step):
    draw = np.random.default_rng(step)
    return jax.tree.map(lambda shape: draw.normal(size=shape).astype(np.float32), SHAPES, is_leaf=is_shape)


def is_shape(x):
    return isinstance(x, tuple)


def abstract(scale=1):
    """What is asked for. scale: of the first axis of each array."""
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def shape(sizes):
        return jax.ShapeDtypeStruct((scale * sizes[0], *sizes[1:]), jnp.float32, sharding=device)

    return jax.tree.map(shape, SHAPES, is_leaf=is_shape)


def assert_holds(state, step, part=None):
    expected = values(step) if part is None else values(step)[part]
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), expected)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A directory with the checkpoints 1 and 2."""
    directory = tmp_path_factory.mktemp("whole") / "checkpoints"
    with Checkpoints(directory) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, jax.tree.map(jnp.asarray, values(step)), {"next_index": 7 * step})
    return directory


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copy")


def files(directory):
    return sorted(path for path in directory.rglob("*") if path.is_file())


def arrays(step):
    """The files that hold the numbers: one, or one for each of the two trees where the machine was busy."""
    return [path for path in files(step / "state") if path.stat().st_size > 4 * 64 * 64 // 2]


def steps(directory):
    return sorted(child.name for child in directory.iterdir())


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zero(path):
    path.write_bytes(bytes(path.stat().st_size))


def flip_one_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def garble(path):
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


def empty(path):
    path.write_bytes(b"")


def delete(path):
    path.unlink()


DAMAGES = (halve, zero, flip_one_bit, garble, empty, delete)


@pytest.mark.slow
@pytest.mark.parametrize("kind", DAMAGES)
def test_whatever_happens_to_a_file_of_the_newest_checkpoint_the_one_before_it_is_taken(whole, tmp_path, caplog, kind):
    for number, path in enumerate(files(whole / "2")):
        name = path.relative_to(whole / "2").as_posix()
        if (kind, name) == (delete, "checksums.json"):
            continue  # then nothing is known of the files, as of those of an older version
        copy = shutil.copytree(whole, tmp_path / str(number))
        kind(copy / "2" / name)
        caplog.clear()
        with Checkpoints(copy) as checkpoints:
            found = checkpoints.restore(abstract())
        assert (found.step, found.iterator) == (1, {"next_index": 7}), name
        assert_holds(found.state, 1)
        assert f"{copy}: step 2 cannot be read and is deleted: " in caplog.text, name
        assert steps(copy) == ["1"], name


@pytest.mark.slow
def test_a_folder_that_is_gone_and_metadata_of_another_kind_are_found_before_the_library_looks(copy):
    shutil.rmtree(copy / "2" / "state")
    (copy / "1" / "_CHECKPOINT_METADATA").write_text("[]")
    sentence = (
        r"no checkpoint can be read \(steps \[1, 2\]\): state/_METADATA is not as it was written \(\d+ of \d+ files"
    )
    with Checkpoints(copy) as checkpoints, pytest.raises(BadInput, match=sentence):
        checkpoints.restore(abstract())


@pytest.mark.slow
@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_to_every_checkpoint_is_one_sentence_with_the_folder_and_they_stay(copy, kind):
    for step in ("1", "2"):
        kind(copy / step / "state" / "manifest.ocdbt")
    reason = r"state/manifest.ocdbt is not as it was written \(1 of \d+ files\)"
    none = rf"^{copy}: no checkpoint can be read \(steps \[1, 2\]\): {reason}. Delete that directory to begin"
    with Checkpoints(copy) as checkpoints, pytest.raises(BadInput, match=none):
        checkpoints.restore(abstract())
    with pytest.raises(
        BadInput, match=rf"^{copy}: the checkpoint of step 2 cannot be read, nor can steps \[1\]: {reason}"
    ):
        SavedParams(copy)
    assert steps(copy) == ["1", "2"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [halve, zero, empty, delete])
def test_without_checksums_what_the_library_cannot_read_is_damaged(copy, caplog, kind):
    for step in ("1", "2"):
        (copy / step / "checksums.json").unlink()
    with Checkpoints(copy) as checkpoints:
        assert_holds(checkpoints.restore(abstract()).state, 2)
    for path in arrays(copy / "2"):
        kind(path)
    saved = SavedParams(copy)
    with pytest.raises(BadInput, match=rf"step 2 cannot be read: .* Delete {copy}/2 to take the one before it$"):
        saved.read(abstract()["params"])
    with Checkpoints(copy) as checkpoints:
        found = checkpoints.restore(abstract())
    assert found.step == 1
    assert_holds(found.state, 1)
    assert "step 2 cannot be read and is deleted: Encountered error while reading" in caplog.text
    assert steps(copy) == ["1"]


@pytest.mark.slow
def test_parameters_are_those_of_the_newest_whole_checkpoint_and_nothing_is_deleted(copy, caplog):
    flip_one_bit(arrays(copy / "2")[0])
    saved = SavedParams(copy)
    assert saved.step == 1
    assert f"{copy}: step 2 cannot be read and is passed over: state/ocdbt.process_0/d/" in caplog.text
    assert_holds(saved.read(abstract()["params"]), 1, "params")
    assert steps(copy) == ["1", "2"]


def on_first_look(monkeypatch, step, happens):
    """Calls `happens` when the checksums of the step are looked at for the first time, before they are."""
    from sweet_jax.train import checkpoint

    looked, find = [], checkpoint.find_damage

    def look(folder):
        if folder.name == step and not looked:
            looked.append(folder)
            happens(folder.parent)
        return find(folder)

    monkeypatch.setattr(checkpoint, "find_damage", look)


@pytest.mark.slow
def test_checkpoints_that_a_training_rotates_while_they_are_looked_at_are_not_damaged(
    copy, tmp_path, monkeypatch, caplog
):
    newer = shutil.move(copy / "2", tmp_path / "3")

    def rotate(directory):
        shutil.copytree(newer, directory / "3")
        shutil.rmtree(directory / "1")

    on_first_look(monkeypatch, "1", rotate)
    saved = SavedParams(copy)
    assert saved.step == 3 and caplog.text == ""
    assert_holds(saved.read(abstract()["params"]), 2, "params")


@pytest.mark.slow
def test_a_checkpoint_that_is_half_deleted_when_it_is_looked_at_is_passed_over_for_the_newer_one(
    copy, tmp_path, monkeypatch, caplog
):
    newer = shutil.move(copy / "2", tmp_path / "3")

    def rotate(directory):
        shutil.copytree(newer, directory / "3")
        shutil.rmtree(directory / "1" / "state")

    on_first_look(monkeypatch, "1", rotate)
    assert SavedParams(copy).step == 3 and caplog.text == ""


@pytest.mark.slow
def test_where_every_checkpoint_goes_while_it_is_looked_at_there_is_none(copy, monkeypatch):
    on_first_look(monkeypatch, "2", lambda directory: [shutil.rmtree(directory / step) for step in ("1", "2")])
    with pytest.raises(BadInput, match=f"^{copy}: there is no checkpoint$"):
        SavedParams(copy)


@pytest.mark.slow
def test_checksums_that_are_gone_when_they_are_read_are_damaged(copy, monkeypatch):
    from sweet_jax.train import checksums

    monkeypatch.setattr(checksums, "has_checksums", lambda folder: True)
    (copy / "2" / "checksums.json").unlink()
    assert checksums.find_damage(copy / "2") == "checksums.json is damaged"


@pytest.mark.slow
def test_a_checkpoint_that_is_deleted_while_it_is_read_is_told_so(copy):
    saved = SavedParams(copy)
    shutil.rmtree(copy / "2")
    with pytest.raises(BadInput, match=f"^{copy}/2 was deleted while it was read.*: run this command again$"):
        saved.read(abstract()["params"])


WANT_OF_MEMORY = RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes")


def wrapped(cause):
    error = Exception("Encountered error while reading array index")
    error.__cause__ = cause
    return error


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [MemoryError("no room"), WANT_OF_MEMORY, wrapped(MemoryError()), wrapped(WANT_OF_MEMORY), KeyboardInterrupt()],
)
@pytest.mark.parametrize("known", [True, False])
def test_want_of_memory_and_an_interrupt_are_no_damage(copy, monkeypatch, error, known):
    if not known:
        (copy / "2" / "checksums.json").unlink()

    def fail(*_):
        raise error

    with Checkpoints(copy) as checkpoints:
        monkeypatch.setattr(checkpoints, "_read", fail)
        with pytest.raises(type(error)) as caught:
            checkpoints.restore(abstract())
    assert caught.value is error
    assert steps(copy) == ["1", "2"]


@pytest.mark.slow
def test_a_whole_checkpoint_that_cannot_be_read_or_is_of_other_shapes_stays(copy, monkeypatch):
    with Checkpoints(copy) as checkpoints:
        with pytest.raises(BadInput, match=r"no checkpoint can be read \(steps \[1, 2\]\): (?!.*Delete)"):
            checkpoints.restore(abstract(scale=2))

        def fail(*_):
            raise ValueError("PERMISSION_DENIED: state")

        monkeypatch.setattr(checkpoints, "_read", fail)
        with pytest.raises(BadInput, match=r"no checkpoint can be read \(steps \[1, 2\]\): PERMISSION_DENIED: state$"):
            checkpoints.restore(abstract())
    assert steps(copy) == ["1", "2"]


@pytest.mark.slow
def test_a_file_that_the_system_refuses_to_open_is_not_damaged(copy, monkeypatch):
    from sweet_jax.train import checksums

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(checksums, "_checksum", refuse)
    with Checkpoints(copy) as checkpoints, pytest.raises(PermissionError):
        checkpoints.restore(abstract())
    assert steps(copy) == ["1", "2"]
