"""Experiment trackers: each holds what the run directory holds, and none of them can stop a run.

The packages are the real ones, in an environment over this one that is made with the extras of setup.py; offline.
"""

import ast
import importlib.machinery
import json
import re
import subprocess
import sys
import sysconfig
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import released
from released import SMALL

from colbench_env.types import BadInput
from launch.common.run_dir import RunDir
from launch.common.tracker_names import tracker_names
from launch.reporting.plots import curve, standalone
from launch.training.config import TrainConfig
from launch.training.curves import lines_after
from launch.training.report import write_report
from launch.training.tracking import opening
from launch.training.tracking.opening import check_trackers, run_name
from launch.training.tracking.report import tracked_report
from launch.training.tracking.stores import Store, store_of
from launch.training.tracking.tracker import flat, result_numbers, without_secrets
from launch.training.tracking.trackers import Trackers
from launch.training.tracking.wandb_login import check_login
from sweet_jax.data.chat import Chat
from tests.launch.report_runs import make_run

STORE = Store("p", "here")
ROOT = Path(__file__).parents[2]
EXTRAS = ("wandb", "mlflow", "trackio")
KILLED = """
import os, signal
from launch import train
from launch.common import cli
from sweet_jax.train.metrics import MetricsLog

write = MetricsLog.write

def write_and_die(self, step, total, values):
    line = write(self, step, total, values)
    if (self.stage, step) == ("policy", 2):
        os.kill(os.getpid(), signal.SIGKILL)
    return line

MetricsLog.write = write_and_die
cli.run(train.main)
"""
REFUSED = """
import os
from types import SimpleNamespace
from colbench_env.types import BadInput
from launch.training.config import TrainConfig
from launch.training.tracking.opening import _open, check_trackers

def mlflow_at(uri):
    os.environ["MLFLOW_TRACKING_URI"] = uri
    _open("mlflow", TrainConfig(), SimpleNamespace(known_id=lambda name, store: None))

os.mkdir("folder")
works = lambda: check_trackers("wandb"), lambda: mlflow_at("http://127.0.0.1:9"), lambda: mlflow_at("sqlite:///folder")
for work in works:
    try:
        work()
    except BadInput as error:
        print(error)
"""


# --- the real packages -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory) -> Path:
    """The interpreter of an environment over this one, with what the extras name."""
    uv, folder = [sys.executable, "-m", "uv"], tmp_path_factory.mktemp("environments") / "trackers"
    subprocess.run([*uv, "venv", "-q", f"--python={sys.executable}", folder], check=True)
    below = folder / "lib" / Path(sysconfig.get_path("purelib")).parent.name / "site-packages" / "below.pth"
    below.write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n")
    keywords = {
        word.arg: word.value
        for word in ast.walk(ast.parse((ROOT / "setup.py").read_text()))
        if isinstance(word, ast.keyword)
    }
    extras = ast.literal_eval(keywords["extras_require"])
    wanted = [requirement for name in EXTRAS for requirement in extras[name]]
    install = [*uv, "pip", "install", "-q", f"--python={folder / 'bin' / 'python'}", *wanted]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "bin" / "python"


@pytest.fixture
def offline(tmp_path, monkeypatch) -> None:
    """Stores in the working directory, and nobody logged in anywhere."""
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_API_KEY", "WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME", "TRACKIO_SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "HOME": str(tmp_path),
        "NETRC": str(tmp_path / "netrc"),
        "WANDB_MODE": "offline",
        "WANDB_ERROR_REPORTING": "false",
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "TRACKIO_DIR": str(tmp_path / "trackio"),
    }.items():
        monkeypatch.setenv(name, value)


def ended(*command) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_a_killed_run_goes_on_in_the_same_runs_of_its_trackers_which_hold_what_its_directory_holds(
    interpreter, offline, tiny_model, tmp_path
):
    pairs = released.critic_pairs(released.trajectories(Chat.load(tiny_model)))
    flags = [
        "--preset=embedded", f"--model={tiny_model}", "--run-dir=run", *SMALL, "--algorithm=mtdpo",
        f"--pairs={released.write(tmp_path / 'pairs.jsonl', pairs)}", "--training.log-every=1",
        "--policy.training.save-every=2", "--track=wandb,mlflow,trackio",
    ]  # fmt: skip
    killed = ended(interpreter, "-c", KILLED, *flags)  # update 1 was sent, 2 was not, and neither is saved
    assert killed.returncode == -9, killed.stderr[-3000:]
    run = RunDir(tmp_path / "run")
    run.stage("critic")
    add_lines(run, 1, 2)  # as an untracked start might have left them; their steps are those of the policy
    done = ended(interpreter, "-m", "launch.train", *flags)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "warning: tracker" not in done.stderr
    read = ended(interpreter, Path(__file__).with_name("read_trackers.py"), "run")
    assert read.returncode == 0, read.stderr[-3000:]
    found = json.loads(read.stdout.splitlines()[-1])

    points, results = {}, {}
    for stage in ("critic", "policy"):
        lines = lines_after(run.metrics_file(stage), 0)
        assert [step for step, _ in lines] == [1, 2]
        points |= {f"{stage}/{name}": [[step, values[name]] for step, values in lines] for name in lines[0][1]}
    for path in run.path.glob("*/done.json"):
        numbers = result_numbers(json.loads(path.read_text()))
        results |= {f"result/{path.parent.name}/{name}": value for name, value in numbers.items()}
    assert {"result/evaluation/trained/success", "result/policy/steps"} <= results.keys()
    assert {name: found[name]["points"] for name in EXTRAS} == dict.fromkeys(EXTRAS, points)
    assert found["wandb"]["results"] == found["mlflow"]["results"] == results
    assert found["trackio"]["results"] == {name: [[0, value]] for name, value in results.items()}

    settings = run.read_config()
    assert {name: found["wandb"]["config"][name] for name in settings} == settings
    assert {name: found["trackio"]["config"][name] for name in settings} == settings
    assert found["mlflow"]["config"] == {name: str(value) for name, value in flat(settings, ".")}
    assert all(found["wandb"]["resumed"]) and found["mlflow"]["status"] == "FINISHED"

    files = {name: (run.path / name).read_text() for name in ("report.html", "report.json", "config.json")}
    kept = found["mlflow"]["artifacts"]
    assert {name: kept[name] for name in files} == files
    assert set(found["wandb"]["artifacts"]) == {*files, "log.txt"} and len(found["wandb"]["artifacts"]) == 4
    assert {sha256(text.encode()).hexdigest() for text in files.values()} <= set(found["trackio"]["artifacts"])
    curves = [f"policy-{name}" for name in ("loss", "rewards-accuracies", "rewards-margins")]
    plots = {*curves, "success-by-turns", "dialogues-by-turns", "entropy-by-turn"}
    assert {name for name in kept if name.startswith("plots/")} == {f"plots/{name}.svg" for name in plots}
    assert all(
        ElementTree.fromstring(kept[f"plots/{name}.svg"]).tag == "{http://www.w3.org/2000/svg}svg" for name in plots
    )
    assert sorted(found["trackio"]["shown"]) == sorted(f"plots/{name}" for name in plots)  # once
    assert sorted(found["wandb"]["shown"]) == sorted(["dialogues", "report", *(f"plots/{name}" for name in plots)])

    table = json.loads(kept["dialogues.json"])
    assert table["columns"] == ["task", "policy", "reward", "turns", "dialogue"]
    assert [row[:2] for row in table["data"]] == [[1, "start"], [1, "trained"], [2, "start"], [2, "trained"]]
    assert table["data"][0][4].startswith("user: ") and "\n\nagent: " in table["data"][0][4]
    assert found["wandb"]["dialogues"] == table["data"]
    assert found["trackio"]["dialogues"] == [[dict(zip(table["columns"], row, strict=True)) for row in table["data"]]]


@pytest.mark.slow
def test_nobody_logged_in_and_a_server_that_is_not_there_are_a_sentence_each(interpreter, offline, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    done = ended(interpreter, "-c", REFUSED)
    assert done.returncode == 0, done.stderr[-3000:]
    wandb, mlflow, sqlite = done.stdout.splitlines()
    assert wandb == "--track=wandb: nobody is logged in: wandb login, WANDB_API_KEY or WANDB_MODE=offline helps"
    assert mlflow.startswith("--track=mlflow: the run cannot be opened there: ") and "127.0.0.1" in mlflow
    assert sqlite.startswith("--track=mlflow: the run cannot be opened there: folder: cannot be written")


# --- without them ----------------------------------------------------------------------------------------------------


class Recorder:
    """A tracker that keeps what it is sent and fails while `broken`."""

    def __init__(self, id="r1"):
        self.id, self.place, self.broken = id, "here", False
        self.lines, self.results, self.reports, self.closed = [], {}, 0, []

    def _work(self):
        if self.broken:
            raise ConnectionError("the network is gone\nand more")

    def last_step(self, stage):
        self._work()
        return max((step for name, step, _ in self.lines if name == stage), default=0)

    def log(self, stage, step, values):
        self._work()
        self.lines.append((stage, step, values))

    def log_result(self, stage, numbers):
        self._work()
        self.results[stage] = numbers

    def log_report(self, report):
        self._work()
        self.reports += 1

    def close(self, failed):
        self._work()
        self.closed.append(failed)


@pytest.fixture
def opened(tmp_path):
    """A run directory with two lines of the critic, its trackers, the one that is open, and their warnings."""
    directory, tracker = RunDir(tmp_path), Recorder()
    directory.stage("critic")
    add_lines(directory, 1, 2)
    warnings = []
    trackers = Trackers(directory, silent(warnings))
    trackers.add("wandb", STORE, tracker)
    return directory, trackers, tracker, warnings


def silent(warnings):
    """A console that only keeps the warnings."""
    return SimpleNamespace(say=lambda text: None, warn=warnings.append)


def add_lines(directory, *steps):
    with directory.metrics_file("critic").open("a") as file:
        for step in steps:
            file.write(json.dumps({"stage": "critic", "step": step, "total": 9, "loss": step / 2, "lr": 0.5}) + "\n")


def steps(tracker):
    return [step for _, step, _ in tracker.lines]


def test_a_tracker_gets_the_lines_that_it_has_not_got_and_those_of_repeated_updates_once(opened):
    directory, trackers, tracker, _ = opened
    assert tracker.lines == [("critic", 1, {"loss": 0.5, "lr": 0.5}), ("critic", 2, {"loss": 1.0, "lr": 0.5})]
    directory.metrics_file("critic").unlink()  # a later start makes step 2 again
    add_lines(directory, 1, 2)
    trackers.send_metrics("critic")
    add_lines(directory, 3)
    trackers.send_metrics("critic")
    assert steps(tracker) == [1, 2, 3]


def test_a_tracker_that_fails_warns_once_and_gets_what_it_misses_when_a_stage_ends(opened):
    directory, trackers, tracker, warnings = opened
    tracker.broken = True
    for step in (3, 4):
        add_lines(directory, step)
        trackers.send_metrics("critic")
    trackers.send_result("critic")
    assert warnings == [
        "tracker wandb: the network is gone; the run goes on, and what is missing there is sent when the stage ends or "
        "when the command is given again"
    ]
    assert steps(tracker) == [1, 2]
    tracker.broken = False
    (directory.path / "critic" / "done.json").write_text('{"steps": 4}')
    trackers.send_result("critic")
    assert (steps(tracker), tracker.results) == ([1, 2, 3, 4], {"critic": {"steps": 4.0}})
    tracker.broken = True
    trackers.close(failed=False)


def test_a_report_counts_as_sent_when_the_tracker_has_been_closed(opened, monkeypatch):
    directory, trackers, tracker, _ = opened
    monkeypatch.setattr("launch.training.tracking.report.tracked_report", lambda directory: None)
    (directory.path / "report.json").write_text("{}")

    def known():
        return json.loads((directory.path / "trackers.json").read_text())["wandb"]

    trackers.send_report()
    assert (tracker.reports, known()) == (1, {"project": "p", "place": "here", "id": "r1", "report": ""})
    trackers.close(failed=False)
    assert (known()["report"], tracker.closed) == (sha256(b"{}").hexdigest(), [False])
    again = Trackers(directory, silent([]))
    elsewhere = Store("other", "here"), Store("p", "there")
    assert again.known_id("wandb", STORE) == "r1"
    assert [again.known_id("wandb", store) for store in elsewhere] == [None, None]
    assert again.known_id("mlflow", STORE) is None
    again.add("wandb", STORE, tracker)
    again.send_report()
    assert tracker.reports == 1
    (directory.path / "report.json").write_text('{"newer": 1}')
    again.send_report()
    assert tracker.reports == 2


def test_a_line_that_a_kill_has_cut_off_is_no_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert lines_after(path, 0) == []
    path.write_text('{"stage": "a", "step": 1, "total": 2, "x": 1.5}\n{"stage": "a", "st')
    assert lines_after(path, 0) == [(1, {"x": 1.5})]
    assert lines_after(path, 1) == []


def test_names_of_trackers_are_parted_by_commas():
    assert tracker_names("none") == ()
    assert tracker_names("mlflow, wandb,mlflow") == ("mlflow", "wandb")


@pytest.mark.parametrize("track", ["neptune", "wandb,", "none,wandb", ""])
def test_an_unknown_tracker_is_named_beside_the_known_ones(start, track):
    name = next(name for name in track.split(",") if name not in EXTRAS)
    sentence = (
        f"error: --track={track}: {name!r} is no tracker, expected none or some of wandb, mlflow, trackio with commas "
        "between"
    )
    assert start(f"--track={track}").refuses() == sentence


@pytest.mark.parametrize("name", EXTRAS)
def test_a_missing_package_is_told_with_the_extra_that_has_it_before_anything_is_written(
    start, name, tmp_path, monkeypatch
):
    folder = importlib.machinery.ModuleSpec(name, None, is_package=True)  # ./wandb, in which runs are kept
    for found in (None, folder):
        monkeypatch.setattr(opening.importlib.util, "find_spec", lambda name, found=found: found)
        sentence = f"error: --track={name} needs the package {name}: pip install -e '.[{name}]'"
        assert start(f"--track={name}", f"--run-dir={tmp_path / 'run'}").refuses() == sentence
        assert not (tmp_path / "run").exists()


def test_an_error_of_a_tracker_that_cannot_be_opened_is_one_sentence(tmp_path, monkeypatch):
    def make(name, wanted):
        raise PermissionError("no\nmore")

    monkeypatch.setattr(opening, "_make", make)
    with pytest.raises(BadInput, match=r"^--track=trackio: the run cannot be opened there: no$"):
        with opening.open_trackers(TrainConfig(track="trackio"), RunDir(tmp_path), silent([])):
            pass
    check_trackers("none")
    warnings = []
    monkeypatch.setattr(opening, "check_tracker", lambda name: None)
    with opening.open_trackers(TrainConfig(track="trackio"), RunDir(tmp_path), silent(warnings), may_miss=True):
        pass  # a later iteration
    assert [text.partition(";")[0] for text in warnings] == ["--track=trackio: the run cannot be opened there: no"]


def test_settings_that_wandb_refuses_are_one_sentence(monkeypatch):
    def setup():
        raise ValueError("1 validation error for Settings\nmode\n  Input should be 'online'")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(setup=setup))
    with pytest.raises(BadInput, match=r"failed: 1 validation error for Settings mode Input should be 'online'; wandb"):
        check_login()


def test_a_run_is_kept_by_project_and_place_without_secrets(monkeypatch):
    for name in ("TRACKIO_SPACE_ID", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRACKIO_SERVER_URL", "https://me:secret@host:7/a?write_token=SECRET")
    assert store_of("trackio", "p") == Store("p", "https://host:7/a")
    settings = SimpleNamespace(mode="online", base_url="https://me:secret@host", entity=None, wandb_dir="/w")
    wandb = SimpleNamespace(setup=lambda: SimpleNamespace(settings=settings))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    found = {}
    for settings.mode in ("online", "offline", "disabled"):
        found[settings.mode] = store_of("wandb", "p").place
    assert found == {"online": "https://host/", "offline": "/w", "disabled": "kept nowhere"}
    monkeypatch.setenv("WANDB_PROJECT", "own")
    assert [store_of("wandb", project).project for project in ("sweet-jax", "p")] == ["own", "p"]
    assert without_secrets("sqlite:////a/b.db") == "sqlite:////a/b.db"
    assert without_secrets("Is it issue #3? url: /api?token=x (gone)") == "Is it issue #3? url: /api (gone)"


@pytest.mark.parametrize(("known", "kind"), [(None, "NoneType"), ("r1", "str")])
def test_a_record_that_is_no_object_is_bad_input(tmp_path, known, kind):
    (tmp_path / "trackers.json").write_text(json.dumps({"wandb": known}))
    with pytest.raises(BadInput, match=rf"trackers\.json: 'wandb': expected an object, found {kind}$"):
        Trackers(RunDir(tmp_path), silent([])).known_id("wandb", STORE)


def test_a_run_that_cannot_be_written_down_is_closed(opened, monkeypatch):
    _, trackers, _, _ = opened
    tracker = Recorder("r2")
    monkeypatch.setattr(trackers, "_write", lambda name, known: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trackers.add("wandb", STORE, tracker)
    trackers.close(failed=True)
    assert tracker.closed == [True]


def test_dialogues_are_paired_by_task_where_an_episode_has_failed(tmp_path):
    run = make_run(tmp_path / "run")
    path = run.directory.evaluation_file("start")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))  # task 1 has no row
    write_report(run, 1.0)
    rows = tracked_report(run.directory).dialogues
    tasks = {}
    for number, _, _, _, dialogue in rows:
        tasks.setdefault(number, set()).add(dialogue.partition(":")[2].split(":")[0])
    assert (len(rows), len(tasks)) == (39, 20) and all(len(found) == 1 for found in tasks.values())


def test_a_plot_is_a_picture_of_its_own():
    svg = standalone(curve("loss", [(1, 0.5), (2, 0.25)]))
    assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert set(re.findall(r"var\((--\w+)\)", svg)) <= set(re.findall(r"(--\w+):#", svg))


def test_what_is_nested_has_its_whole_name():
    assert dict(flat({"critic": {"beta": 0.1}, "seed": 42}, ".")) == {"critic.beta": 0.1, "seed": 42}
    note = {"step": 20, "success": {"0": 0.25}, "from": "a.jsonl", "kept": True}
    assert result_numbers(note) == {"step": 20.0, "success/0": 0.25}
    assert [run_name(Path(name)) for name in ("runs/default", "runs/default/iteration-2")] == [
        "default",
        "default-iteration-2",
    ]
