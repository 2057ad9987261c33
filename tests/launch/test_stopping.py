"""SIGTERM: one sentence, status 143, nothing lost; the same command goes on to the same results."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from colbench_env.mini import make_tasks
from colbench_env.tasks import write_rows
from colbench_env.types import Message, Trajectory
from launch import evaluate, rollout
from tests.launch.evaluate_rows import dialogue, task

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SENTENCE = "stopped by SIGTERM; run the same command again to continue"
BEGIN = """
import hashlib, os, signal, sys, threading, time
from launch.common import cli, stopping

def sigterm(after=0.0):
    if after:
        threading.Timer(after, os.kill, [os.getpid(), signal.SIGTERM]).start()
    else:
        os.kill(os.getpid(), signal.SIGTERM)

def compile_for_minutes():  # the main thread is away from Python
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)

def main():
"""


def run(body: str) -> tuple[int, list[str], list[str]]:
    """Runs a command whose `main` has this body; its status and the lines that it printed on both streams."""
    indented = "".join(f"    {line}\n" for line in body.strip().splitlines())
    code = f"{BEGIN}{indented}\ncli.run(main)\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


# --- the mechanism ---------------------------------------------------------------------------------------------------


def test_sigterm_ends_a_command_with_one_sentence_and_cleans_up():
    assert run("try:\n    sigterm()\n    time.sleep(30)\nfinally:\n    print('cleaned up')") == (
        143, ["cleaned up"], [SENTENCE],
    )  # fmt: skip


@pytest.mark.parametrize("after", [0.0, 0.1])
def test_a_callback_that_python_drops_it_from_does_not_keep_it(after):
    """As jax's of the garbage collector. after: seconds to the signal, of which the main thread hears seconds later."""
    body = f"""
class Dropped:
    def __del__(self):
        sigterm({after})
        hashlib.pbkdf2_hmac("sha256", b"", b"", 4 * 10**6)
try:
    dropped = Dropped()
    del dropped
    time.sleep(8)
    print("kept")
finally:
    print("cleaned up")
"""
    assert run(body) == (143, ["cleaned up"], [SENTENCE])


def test_no_handler_of_errors_keeps_it():
    assert run("try:\n    sigterm()\nexcept Exception:\n    print('kept')\ntime.sleep(30)") == (143, [], [SENTENCE])


def test_what_is_being_finished_is_finished_first():
    body = """
with stopping.defer_termination() as asked:
    print(asked())
    sigterm()
    time.sleep(0.2)
    print(asked(), "finished")
print("goes on")
"""
    assert run(body) == (143, ["False", "True finished"], [SENTENCE])


def test_after_what_was_finished_it_ends_a_command_at_once_again():
    assert run("with stopping.defer_termination():\n    pass\nsigterm()\ntime.sleep(30)") == (143, [], [SENTENCE])


def test_an_error_while_something_is_finished_stays_that_error():
    body = "with stopping.defer_termination():\n    sigterm()\n    raise cli.Stopped('the disk is gone')"
    assert run(body) == (1, [], ["error: the disk is gone"])


def test_several_signals_within_a_second_are_one():
    body = """
with stopping.defer_termination():
    sigterm()
    sigterm()
    time.sleep(0.5)
    sigterm()
    print("finished")
"""
    assert run(body) == (143, ["finished"], [SENTENCE])


def test_a_second_sigterm_ends_at_once_also_while_something_is_finished_or_compiled():
    begun = time.monotonic()
    body = "with stopping.defer_termination():\n    sigterm()\n    sigterm(after=1.2)\n    compile_for_minutes()"
    assert run(body) == (143, [], [])
    assert time.monotonic() - begun < 20


def test_a_command_that_is_long_away_from_python_is_ended_after_the_grace():
    body = "stopping.GRACE_SECONDS = 0.5\nsigterm(after=0.2)\ncompile_for_minutes()"
    assert run(body) == (143, [], [SENTENCE])


def test_what_is_being_finished_has_no_grace():
    body = """
stopping.GRACE_SECONDS = 0.2
with stopping.defer_termination():
    sigterm()
    time.sleep(1)
    print("finished")
"""
    assert run(body) == (143, ["finished"], [SENTENCE])


def test_an_event_loop_lets_it_through_and_its_tasks_clean_up():
    body = """
import asyncio
async def work(number):
    try:
        await asyncio.sleep(0.05 * number)
        sigterm() if number == 1 else await asyncio.sleep(30)
        await asyncio.sleep(30)
    finally:
        print("cleaned up", number)
async def both():
    await asyncio.gather(work(1), work(2))
asyncio.run(both())
"""
    status, said, errors = run(body)
    assert (status, sorted(said), errors) == (143, ["cleaned up 1", "cleaned up 2"], [SENTENCE])


# --- commands --------------------------------------------------------------------------------------------------------


def started(module: str, *flags: str) -> subprocess.Popen:
    command = [sys.executable, "-m", module, *flags]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def terminated(process: subprocess.Popen) -> tuple[int, str]:
    """The status of a process that is sent SIGTERM, and the last line it wrote; it writes no stack."""
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert "Traceback" not in said and "***" not in said, said
    return process.returncode, said.splitlines()[-1]


def test_a_training_run_saves_the_update_under_way_and_goes_on_to_the_same_bits(start, tmp_path, tiny_model):
    rows = []
    for one in make_tasks("train", 4, 0):
        said = f"I WANT TO ANSWER:\n{one.ground_truth}"
        history = (Message("user", one.problem_description), Message("assistant", said, output=said))
        rows.append(Trajectory(one, history, said.partition(":")[2], 1.0))
    write_rows(tmp_path / "graded.jsonl", rows)
    flags = (
        "--preset=embedded", f"--model={tiny_model}", f"--trajectories={tmp_path / 'graded.jsonl'}", "--algorithm=rft",
        "--num-tasks=4",
        "--rollouts.rows=16", "--rollouts.max-turns=2", "--rollouts.max-new-tokens=8", "--evaluation.num-tasks=2",
        "--policy.select=last",
        "--policy.training.batch-size=4", "--policy.training.epochs=80",
        "--policy.training.log-every=1", "--policy.training.save-every=70",
    )  # fmt: skip
    process = started("launch.train", f"--run-dir={tmp_path / 'stopped'}", *flags)
    while not (line := process.stderr.readline()).startswith("stage=policy step=3/"):
        assert line, "ended too early"
    status, sentence = terminated(process)
    kept = [int(path.name) for path in (tmp_path / "stopped" / "policy" / "checkpoints").iterdir()]
    assert status == 143 and len(kept) == 1 and 3 <= kept[0] < 70
    assert sentence == (
        f"stopped by SIGTERM after step {kept[0]} of stage policy; run the same command again to continue"
    )
    ended = start(f"--run-dir={tmp_path / 'stopped'}", *flags)
    assert ended.status == 0 and f"stage=policy continues after step {kept[0]}/80" in ended.stderr
    assert start(f"--run-dir={tmp_path / 'straight'}", *flags).status == 0
    for name in ("policy/model/model.safetensors", "policy/metrics.jsonl", "evaluation/trained.jsonl"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name


def test_a_rollout_keeps_its_rows_and_goes_on_with_what_is_missing(in_process, tmp_path, tiny_model):
    flags = (
        f"--model={tiny_model}", "--agent-prompt=none", "--num-tasks=20", "--samples=2", "--max-turns=2",
        "--max-new-tokens=8", "--rows=2", "--max-length=400",
    )  # fmt: skip
    stopped, straight = tmp_path / "stopped.jsonl", tmp_path / "straight.jsonl"
    process = started("launch.rollout", *flags, "--in-flight=1", f"--output={stopped}")
    while not (stopped.exists() and stopped.stat().st_size):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
    assert terminated(process) == (143, SENTENCE)
    kept = stopped.read_bytes()
    assert 0 < kept.count(b"\n") < 40
    for output in (stopped, straight):
        assert in_process(rollout.main, *flags, f"--output={output}").status == 0
    assert stopped.read_bytes() == straight.read_bytes()
    assert stopped.read_bytes().startswith(kept)


def test_an_evaluation_keeps_what_is_graded_and_goes_on(in_process, tmp_path):
    slow = "import time\ndef f(x):\n    time.sleep(0.2)\n    return x + "
    different = [f"{slow}{number}" for number in range(12)]  # equal answers would be graded once
    write_rows(tmp_path / "rows.jsonl", [dialogue(task(n, one, tests=1), one) for n, one in enumerate(different)])
    flags = (f"--trajectories={tmp_path / 'rows.jsonl'}", "--no-references", "--workers=1")
    stopped, straight = tmp_path / "stopped.jsonl", tmp_path / "straight.jsonl"
    process = started("launch.evaluate", *flags, f"--output={stopped}")
    while not (stopped.exists() and stopped.stat().st_size):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
    assert terminated(process) == (143, SENTENCE)
    kept = stopped.read_bytes()
    assert 0 < kept.count(b"\n") < 12
    grade = functools.partial(in_process, evaluate.main, *flags)
    assert [grade(f"--output={output}").status for output in (stopped, straight)] == [0, 0]
    assert stopped.read_bytes() == straight.read_bytes()
    assert json.loads(kept.splitlines()[0])["reward"] == 1.0
