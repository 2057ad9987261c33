"""Several processes: two of four emulated devices each train as one of eight does, and nobody waits for the dead."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from colbench_env.types import BadInput
from launch.common import distributed as launch_hosts
from launch.common import stopping
from launch.common.distributed import _how, _LastWords, _Watch
from launch.common.settings import Hosts
from launch.training.command_line import command_line
from launch.training.config import TrainConfig, settings_of
from sweet_jax import processes as processes_module

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SECONDS = 400  # after which a test gives up on a process; a slow machine compiles for two minutes
HEARTBEAT = 10
FLAGS = (
    "--preset=embedded",
    "--mesh=4x2",
    "--num-tasks=12",
    "--rollouts.samples=4",
    "--rollouts.rows=16",
    "--ranking.candidates=2",
    "--ranking.data-fraction=0.05",
    *(f"--{stage}.training.batch-size=8" for stage in ("critic", "policy")),
    *(f"--{stage}.training.max-steps=3" for stage in ("critic", "policy")),
    *(f"--{stage}.training.save-every=1" for stage in ("critic", "policy")),
    *(f"--{stage}.training.log-every=1" for stage in ("critic", "policy")),
    "--critic.training.epochs=3",
    "--evaluation.num-tasks=4",
    "--policy.select=last",
)


class Processes:
    """`python -m launch.train` started as several processes on one run directory; all of them are killed at the end."""

    def __init__(self, environment: dict[str, str]):
        self._environment, self._started = environment, []

    def start(self, run_dir: Path, count: int, *flags: str, devices: tuple[int, ...] = ()) -> list[subprocess.Popen]:
        """One process after the other; `devices`: how many each has, where that is not for the mesh to say."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        processes = []
        for process in range(count):
            several = (
                f"--hosts.coordinator=127.0.0.1:{port}", f"--hosts.processes={count}", f"--hosts.process={process}",
                f"--hosts.heartbeat-seconds={HEARTBEAT}", "--hosts.connect-seconds=60",
            )  # fmt: skip
            asked = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices[process]}"} if devices else {}
            processes.append(self.one(run_dir, *several, *flags, **asked))
        return processes

    def one(self, run_dir: Path, *flags: str, **environment: str) -> subprocess.Popen:
        """A process with these flags alone."""
        process = subprocess.Popen(
            [sys.executable, "-m", "launch.train", f"--run-dir={run_dir}", *FLAGS, *flags],
            cwd=ROOT, env=os.environ | self._environment | environment, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._started.append(process)
        return process

    def kill_all(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate()


def ended(process: subprocess.Popen) -> tuple[int, list[str]]:
    """The exit status and the sentences that begin with "error: "."""
    _, text = process.communicate(timeout=SECONDS)
    return process.returncode, [line for line in text.splitlines() if line.startswith("error: ")]


@pytest.fixture(scope="module")
def processes(optimised):
    """Starts them, and kills at the end what still goes on."""
    started = Processes({"XLA_FLAGS": "", "NPROC": ""})
    yield started
    started.kill_all()


@pytest.fixture(scope="module")
def two(processes, tmp_path_factory) -> Path:
    """The directory of a run of two processes, and what each of them printed."""
    run_dir = tmp_path_factory.mktemp("runs") / "two"
    pair = processes.start(run_dir, 2)
    texts = [process.communicate(timeout=SECONDS)[1] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], texts
    (run_dir / "printed-by-1.txt").write_text(texts[1])
    return run_dir


def differing(one: Path, other: Path) -> list[str]:
    """The files of rows and weights that are not the same bytes in both directories."""
    names = {path.relative_to(one) for path in one.rglob("*") if path.suffix in (".jsonl", ".safetensors")}
    assert names == {path.relative_to(other) for path in other.rglob("*") if path.suffix in (".jsonl", ".safetensors")}
    assert len(names) > 12
    return [str(name) for name in sorted(names) if (one / name).read_bytes() != (other / name).read_bytes()]


def wait_until(sign: Callable[[], bool], *alive: subprocess.Popen) -> None:
    stop = time.monotonic() + SECONDS
    while not sign():
        assert all(process.poll() is None for process in alive), "ended too early"
        assert time.monotonic() < stop, "never came"
        time.sleep(0.01)


# --- the same results ------------------------------------------------------------------------------------------------


def test_two_processes_write_the_same_rows_and_weights_as_one_to_the_last_bit(two, processes, tmp_path):
    (one,) = processes.start(tmp_path / "one", 1)  # eight devices in one process, which add up in gloo's order, too
    assert ended(one) == (0, [])
    assert differing(two, tmp_path / "one") == []


def test_only_the_first_process_prints(two):
    assert (two / "printed-by-1.txt").read_text() == ""
    assert " evaluation: done" in (two / "log.txt").read_text()


# --- killed ----------------------------------------------------------------------------------------------------------


def test_one_process_killed_ends_the_other_and_both_go_on_to_the_same_results(two, processes, tmp_path):
    run_dir = tmp_path / "killed"
    first, second = processes.start(run_dir, 2)
    wait_until((run_dir / "rollouts" / "trajectories.jsonl").exists, first, second)
    first.send_signal(signal.SIGKILL)  # with it the coordinator
    status, sentences = ended(second)
    assert status not in (0, 2) and len(sentences) == 1, sentences
    assert "process 0, the coordinator at 127.0.0.1:" in sentences[0] and "run the same command" in sentences[0]

    first, second = processes.start(run_dir, 2)
    wait_until((run_dir / "critic" / "checkpoints" / "1").exists, first, second)
    second.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    status, sentences = ended(first)
    assert time.monotonic() - killed < 3 * HEARTBEAT + 5
    assert status == 1 and len(sentences) == 1, sentences
    assert "process 1 (" in sentences[0] and f"has not answered for {HEARTBEAT} s" in sentences[0]

    assert [ended(process) for process in processes.start(run_dir, 2)] == [(0, []), (0, [])]
    assert "stage=critic continues after step " in (run_dir / "log.txt").read_text()
    assert differing(two, run_dir) == []


# --- stopped ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def watch(monkeypatch):
    """Makes the watch of one of two processes, without the other; `told`: what that one would hear."""
    monkeypatch.setattr(_LastWords, "__init__", lambda *_: None)
    monkeypatch.setattr(_LastWords, "forget", lambda *_: None)
    for name in ("_listen", "_look"):
        monkeypatch.setattr(_Watch, name, lambda _: None)
    monkeypatch.setattr(stopping, "on_silence", stopping.end_at_once)
    monkeypatch.setattr(launch_hosts, "LEAVE_SECONDS", 0.0)
    monkeypatch.setattr(os, "_exit", lambda status: sys.exit(status))

    def make(process):
        made = _Watch("a:1", HEARTBEAT)
        made.told = []
        made._processes = SimpleNamespace(
            is_process_0=lambda: process == 0, index=lambda: process, count=lambda: 2, gather=lambda _: None,
            put=lambda key, value: made.told.append(key), client=lambda: SimpleNamespace(get_live_nodes=list),
        )  # fmt: skip
        return made

    return make


@pytest.mark.parametrize(("process", "said"), [(0, "error: {}\n"), (1, "{}\n")])
def test_a_process_that_does_not_answer_to_sigterm_tells_the_other_and_says_it_once(watch, capsys, process, said):
    made, terminated = watch(process), stopping.Terminated()
    with pytest.raises(SystemExit) as ended:
        stopping.on_silence(terminated)
    assert (ended.value.code, made.told, capsys.readouterr().err) == (143, ["failed"], said.format(terminated))


def test_sigterm_is_said_once_where_the_main_thread_has_said_it_and_cannot_end(watch, capsys):
    made = watch(0)
    made._report(143, str(stopping.Terminated("after step 3")))
    with pytest.raises(SystemExit):
        stopping.on_silence(stopping.Terminated())
    assert capsys.readouterr().err == f"error: {stopping.Terminated('after step 3')}\n"


def test_who_has_left_the_others_ends_alone(watch, monkeypatch):
    made = watch(0)
    assert stopping.on_silence == made._terminated
    monkeypatch.setattr(jax.distributed, "shutdown", lambda: None)
    made.leave()
    assert stopping.on_silence is stopping.end_at_once


# --- what cannot work ------------------------------------------------------------------------------------------------


def test_hosts_with_different_numbers_of_devices_are_refused_by_the_first_process(processes, tmp_path):
    first, second = processes.start(tmp_path / "run", 2, devices=(4, 3))
    (status, sentences), other = ended(first), ended(second)
    assert (status, len(sentences), other) == (2, 1, (2, [])), sentences
    assert "the 2 processes have different numbers of cpu devices: 4, 3" in sentences[0]


def test_processes_with_different_flags_are_refused(processes, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = (f"--hosts.coordinator=127.0.0.1:{port}", "--hosts.processes=2", "--hosts.heartbeat-seconds=10")
    pair = [processes.one(tmp_path / "run", *both, f"--hosts.process={i}", f"--seed={7 + i}") for i in range(2)]
    (status, sentences), other = ended(pair[0]), ended(pair[1])
    assert (status, len(sentences), other) == (2, 1, (2, []))
    assert "were started with different flags: seed is 7 there and 8 here" in sentences[0]


def test_a_coordinator_that_is_not_there_is_one_sentence_with_its_address_and_the_seconds(processes, tmp_path):
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        flags = (f"--hosts.coordinator={address}", "--hosts.processes=2", "--hosts.connect-seconds=2")
        alone = processes.one(tmp_path / "run", *flags, "--hosts.process=1")
        assert ended(alone) == (
            2, [f"error: process 1 could not reach the coordinator, process 0 at {address}, within 2 s"],
        )  # fmt: skip
    first = processes.one(tmp_path / "run", *flags, "--hosts.process=0")
    status, sentences = ended(first)
    assert status == 2 and "waited 2 s" in sentences[0] and "not all of the processes have come" in sentences[0]


def test_a_run_directory_that_a_host_does_not_share_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(processes_module, "count", lambda: 2)
    monkeypatch.setattr(processes_module, "name", lambda process=1: f"process {process} (host-{process})")
    monkeypatch.setattr(processes_module, "broadcast_from_process_0", lambda work: "what the first process has written")
    monkeypatch.setattr(processes_module, "VISIBLE_SECONDS", 0.1)
    with pytest.raises(BadInput, match=r"process 1 \(host-1\) does not see what process 0 \(host-0\) has written"):
        processes_module.publish(tmp_path / ".hosts", lambda: None)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"coordinator": "a:1"}, "the three are given together"),
        ({"coordinator": "a:1", "processes": 2, "process": 2}, "hosts.process is 2 of hosts.processes 2"),
        ({"coordinator": "a", "processes": 2, "process": 0}, "hosts.coordinator is 'a', expected HOST:PORT"),
        ({"mode": "single", "coordinator": "a:1", "processes": 2, "process": 0}, "one process has no others"),
        ({"heartbeat_seconds": 1}, "hosts.heartbeat_seconds 1, they must be at least 1 and 5"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(flags, sentence):
    with pytest.raises(BadInput, match=sentence):
        Hosts(**flags)


def test_there_are_several_processes_only_where_flags_or_environment_clearly_say_so():
    step = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}
    assert _how(Hosts(), {}) is None
    assert _how(Hosts(), step) is None  # the batch script itself, one process of a job of two tasks
    assert _how(Hosts(), step | {"SLURM_STEP_NUM_TASKS": "1"}) is None
    assert _how(Hosts(), step | {"SLURM_STEP_NUM_TASKS": "2"}) == {"cluster_detection_method": "slurm"}
    assert _how(Hosts(mode="single"), step | {"SLURM_STEP_NUM_TASKS": "2"}) is None
    flags = Hosts(coordinator="a:1", processes=2, process=1)
    assert _how(flags, step | {"SLURM_STEP_NUM_TASKS": "2"})["process_id"] == 1


def test_a_run_may_go_on_with_another_number_of_processes():
    several = dataclasses.replace(TrainConfig(), hosts=Hosts(coordinator="a:1", processes=2, process=1))
    assert settings_of(several) == settings_of(TrainConfig())
    assert "hosts" not in command_line(several)
