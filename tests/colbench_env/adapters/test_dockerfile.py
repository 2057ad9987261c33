"""The Dockerfile's steps, done by hand where there is no engine: what it copies, installs, runs, and as whom."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
NOBODY = 65534
SHIMS = {"pip": '#!/bin/sh\nshift 2\nexec {python} -m uv pip install -q --python={image}/bin/python "$@"\n',
         "useradd": "#!/bin/sh\nexit 0\n"}  # fmt: skip
PLAYS = """
import json, sys
from colbench_env.adapters.openenv import ColBenchAction, ColBenchClient

with ColBenchClient(base_url=sys.argv[1]).sync() as client:
    row = json.loads(sys.argv[2])
    result = client.reset(seed=row["seed"], split=row["split"], index=row["index"])
    for turn in row["turns"]:
        result = client.step(ColBenchAction(text=turn))
    print(json.dumps([result.done, result.reward]))
"""


def instructions(path: Path) -> dict[str, str]:
    """The instructions of a Dockerfile by name; it has each once."""
    lines = path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    found = [line.split(maxsplit=1) for line in lines if line.strip() and not line.startswith("#")]
    assert len({name for name, _ in found}) == len(found)
    return {name: rest for name, rest in found}


def someone() -> tuple[Path, dict[str, Any]]:
    """A Python, and the arguments of Popen that make a process an unprivileged user's; none where that cannot be."""
    if os.getuid() == 0:
        user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        for python in (sys.executable, "/usr/bin/python3"):  # one of them may lie in root's home
            try:
                version = subprocess.run([python, "-V"], check=True, capture_output=True, text=True, **user).stdout
            except (OSError, subprocess.CalledProcessError):
                continue
            if re.match(r"Python 3\.1[123]\.", version):
                return Path(python), user
    return Path(sys.executable), {}


def test_the_steps_of_the_dockerfile_end_in_a_server_that_plays_an_episode(tmp_path):
    told = instructions(ROOT / "colbench_env" / "Dockerfile")
    assert list(told) == ["FROM", "COPY", "RUN", "USER", "WORKDIR", "EXPOSE", "HEALTHCHECK", "CMD"]
    minor = int(re.fullmatch(r"python:3\.(\d+)-slim", told["FROM"])[1])
    assert minor in (11, 12, 13)  # the versions that the package is for; here: the one that runs the tests
    image, shims, home = tmp_path / "image", tmp_path / "shims", tmp_path / "home"
    python, user = someone()
    subprocess.run([sys.executable, "-m", "uv", "venv", "-q", f"--python={python}", image], check=True)
    for folder in (shims, home):
        folder.mkdir()
    for name, text in SHIMS.items():
        (shims / name).write_text(text.format(python=sys.executable, image=image))
        (shims / name).chmod(0o755)

    source, target = told["COPY"].split()
    assert source == "."
    shutil.copytree(ROOT / "colbench_env", tmp_path / "copied", ignore=shutil.ignore_patterns("__pycache__"))
    step = told["RUN"].replace(target, str(tmp_path / "copied"))
    path = {"PATH": f"{shims}:{image / 'bin'}:{os.environ['PATH']}"}
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(["sh", "-ec", step], env=own | path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not (tmp_path / "copied").exists()

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    exposed = told["EXPOSE"]
    command = [word.replace(exposed, port) if word == exposed else word for word in json.loads(told["CMD"])]
    assert port in command
    if user:
        os.chown(home, NOBODY, NOBODY)
        for folder in list(home.parents)[:4]:
            folder.chmod(0o755)
    plain = own | path | {"HOME": str(home)}
    server = subprocess.Popen(
        [image / "bin" / command[0], *command[1:]], cwd=home, env=plain, stderr=subprocess.PIPE, text=True, **user
    )
    try:
        check = shlex.split(told["HEALTHCHECK"].removeprefix("CMD ").replace(exposed, port))
        for _ in range(150):
            healthy = subprocess.run([image / "bin" / check[0], *check[1:]], capture_output=True, check=False)
            if healthy.returncode == 0 or server.poll() is not None:
                break
            time.sleep(0.2)
        assert server.poll() is None, server.stderr.read()[-2000:]
        assert healthy.returncode == 0, healthy.stderr.decode()[-2000:]
        row = json.loads(Path(__file__).with_name("dialogues.jsonl").read_text("utf-8").splitlines()[0])
        client = [image / "bin" / "python", "-c", PLAYS, f"http://127.0.0.1:{port}", json.dumps(row)]
        played = subprocess.run(client, cwd=home, env=plain, capture_output=True, text=True, timeout=120, check=False)
        assert played.returncode == 0, played.stderr[-2000:]
        assert json.loads(played.stdout) == [True, row["reward"]] == [True, 1.0]
    finally:
        server.terminate()
        server.communicate(timeout=30)
