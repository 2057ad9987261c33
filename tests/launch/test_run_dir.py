"""A run directory: one configuration, one process, finished stages, and rows that an interrupted stage has left."""

import dataclasses
import json
import os

import pytest

from colbench_env.tasks import read_rows, write_rows
from colbench_env.types import BadInput, Task
from launch.common.files import write_json
from launch.common.run_dir import RunDir, resume_rows
from launch.training.config import TrainConfig, settings_of
from launch.training.presets import PRESETS

SETTINGS = {"seed": 1, "critic": {"beta": 0.1, "training": {"batch_size": 16}}}
TASKS = [Task(f"task {number}", "def f(): pass") for number in range(7)]


def opened_once(path, settings=SETTINGS, stage="tasks"):
    directory = RunDir(path)
    with directory.open(settings):
        if stage:
            directory.stage(stage)
            directory.finish(stage, {"rows": 3})
    return directory


def test_a_new_directory_is_made_with_its_configuration_in_it(tmp_path):
    opened_once(tmp_path / "a" / "b", stage=None)
    assert json.loads((tmp_path / "a" / "b" / "config.json").read_text()) == SETTINGS


def test_the_same_settings_open_it_again_and_find_the_notes_of_finished_stages(tmp_path):
    opened_once(tmp_path)
    with RunDir(tmp_path).open(SETTINGS):
        assert RunDir(tmp_path).note("tasks") == {"rows": 3}
        assert RunDir(tmp_path).note("rollouts") is None


def test_settings_that_differ_are_named_with_both_values(tmp_path):
    opened_once(tmp_path)
    other = {"seed": 2, "critic": {"beta": 0.1, "training": {"batch_size": 8}}}
    with pytest.raises(BadInput) as error, RunDir(tmp_path).open(other):
        pass
    assert str(error.value) == (
        f"{tmp_path} is the run directory of another configuration: critic.training.batch_size is 16 there and 8 here; "
        "seed is 1 there and 2 here. Use another --run-dir"
    )
    assert json.loads((tmp_path / "config.json").read_text()) == SETTINGS


def test_a_setting_that_only_one_side_has_differs_too(tmp_path):
    opened_once(tmp_path, {"seed": 1})
    with pytest.raises(BadInput, match="grader is None there and 'strict' here"):
        with RunDir(tmp_path).open({"seed": 1, "grader": "strict"}):
            pass


def test_many_differences_are_counted_after_the_fourth(tmp_path):
    opened_once(tmp_path, dict.fromkeys("abcdef", 0))
    with pytest.raises(BadInput, match=r"a is 0 .*; b is 0 .*; c is 0 .*; d is 0 there and 1 here; and 2 more\. Use"):
        with RunDir(tmp_path).open(dict.fromkeys("abcdef", 1)):
            pass


def test_until_a_stage_has_left_something_other_settings_may_take_the_directory(tmp_path):
    opened_once(tmp_path, {"model": "a typing error"}, stage=None)
    (tmp_path / "tasks").mkdir()  # a stage that failed before it wrote anything
    opened_once(tmp_path, {"model": "right"}, stage=None)
    assert json.loads((tmp_path / "config.json").read_text()) == {"model": "right"}


def test_a_configuration_that_cannot_be_read_is_named(tmp_path):
    opened_once(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BadInput, match=r"config\.json: the run's configuration cannot be read: "):
        with RunDir(tmp_path).open(SETTINGS):
            pass


def test_a_second_process_is_refused_until_the_first_has_ended(tmp_path):
    with RunDir(tmp_path).open(SETTINGS):
        with pytest.raises(BadInput, match="another process is working in this run directory"):
            with RunDir(tmp_path).open(SETTINGS):
                pass
    with RunDir(tmp_path).open(SETTINGS):
        pass


def test_a_place_where_no_directory_can_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"file/run: the run directory cannot be written: Not a directory"):
        with RunDir(tmp_path / "file" / "run").open(SETTINGS):
            pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_directory_is_named(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(BadInput, match="the run directory cannot be written: Permission denied"):
            with RunDir(tmp_path / "run").open(SETTINGS):
                pass
    finally:
        tmp_path.chmod(0o700)


def test_a_note_that_cannot_be_read_is_named(tmp_path):
    directory = opened_once(tmp_path)
    (tmp_path / "tasks" / "done.json").write_text('{"rows": ')
    with pytest.raises(BadInput, match=r"tasks/done\.json: the note of a finished stage cannot be read"):
        directory.note("tasks")


def test_json_is_written_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}
    (tmp_path / "b.json").mkdir()
    with pytest.raises(BadInput, match=r"b\.json: cannot be written: Is a directory"):
        write_json(tmp_path / "b.json", {"x": 1})


def test_an_interrupted_stage_keeps_its_rows_but_for_a_line_that_was_cut_off(tmp_path):
    path = tmp_path / "rows.jsonl"
    assert resume_rows(path, Task) == 0
    write_rows(path, TASKS[:6])
    assert resume_rows(path, Task) == 6
    path.write_bytes(path.read_bytes()[:-9])
    assert resume_rows(path, Task) == 5
    assert read_rows(path, Task) == TASKS[:5]


def test_settings_leave_out_what_may_differ_between_two_starts_of_a_run():
    config = PRESETS["embedded"]()
    moved = dataclasses.replace(
        config,
        stage="critic",
        grader_workers=7,
        iterations=1,
        run_dir=config.run_dir / "elsewhere",
        track="wandb",
        track_project="mine",
    )
    assert settings_of(moved) == settings_of(config)
    assert settings_of(dataclasses.replace(config, seed=43)) != settings_of(config)
    assert {"run_dir", "stage", "iterations", "grader_workers", "hosts", "truth", "track", "track_project"} == {
        field.name for field in dataclasses.fields(TrainConfig) if field.name not in settings_of(config)
    }
    assert json.loads(json.dumps(settings_of(config))) == settings_of(config)
