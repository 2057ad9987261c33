"""Opens a finished run in its trackers once more, as a third start would, then prints as JSON what their stores hold.

Run in an environment that has the trackers: `python read_trackers.py RUN_DIR`, in the folder of the stores.
"""

import hashlib
import json
import sqlite3
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from launch.common import cli
from launch.common.console import Console
from launch.common.run_dir import RunDir
from launch.training.config import TrainConfig
from launch.training.presets import DEFAULT_PRESET, PRESETS
from launch.training.tracking.opening import open_trackers


def read_wandb(run_id: str) -> dict:
    """What all starts have left on the disk, in their order."""
    found: dict = {
        "points": defaultdict(list),
        "results": {},
        "artifacts": [],
        "shown": [],
        "resumed": [],
        "config": {},
    }
    for folder in sorted(Path("wandb").glob("offline-run-*")):
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
        for row in map(json.loads, subprocess.run(command, capture_output=True, text=True).stdout.splitlines()):
            kind = row["type"]
            if kind == "run":
                assert row["run"]["run_id"] == run_id
                found["resumed"].append(row["run"]["resume"])
                found["config"] = row["run"]["config"]["update"]
            elif kind == "history":
                item = {name: value for name, value in row["history"]["item"].items() if name[0] != "_"}
                stage = next((name.partition("/")[0] for name in item if name.endswith("/step")), "")
                for name in item if stage else ():
                    found["points"][name].append([item[f"{stage}/step"], item[name]])
                found["shown"] += [name.partition("._type")[0] for name in item if name.endswith("._type")]
            elif kind == "summary":
                update = row["summary"].get("update", {})
                found["results"] |= {name: value for name, value in update.items() if name.startswith("result/")}
            elif kind == "artifact" and row["artifact"]["type"] == "report":
                found["artifacts"] += [one["path"] for one in row["artifact"]["manifest"]["contents"]]
    found["points"] = {name: points for name, points in found["points"].items() if not name.endswith("/step")}
    (table,) = Path("wandb").glob("offline-run-*/files/media/table/dialogues*.json")
    return found | {"dialogues": json.loads(table.read_text())["data"]}


def read_mlflow(run_id: str) -> dict:
    """The run in the store of MLFLOW_TRACKING_URI, which must be the only one."""
    import mlflow

    client = mlflow.MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name = 'sweet-jax'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == run_id
    histories = {name: client.get_metric_history(run_id, name) for name in run.data.metrics}
    folder = Path(client.download_artifacts(run_id, ""))
    return {
        "points": {
            name: [[point.step, point.value] for point in points]
            for name, points in histories.items()
            if not name.startswith("result/")
        },
        "results": {name: point.value for name, (point, *_) in histories.items() if name.startswith("result/")},
        "status": run.info.status,
        "config": run.data.params,
        "artifacts": {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()},
    }


def read_trackio(run_id: str) -> dict:
    """The run in the database, which must be the only one."""
    found: dict = {"points": defaultdict(list), "results": defaultdict(list), "shown": [], "dialogues": []}
    database = sqlite3.connect("trackio/sweet-jax.db")
    for name, step, metrics in database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id"):
        assert name == run_id
        for metric, value in json.loads(metrics).items():
            if metric == "dialogues":
                found["dialogues"].append(value["_value"])
            elif isinstance(value, dict):
                found["shown"].append(metric)
            else:
                found["results" if metric.startswith("result/") else "points"][metric].append([step, value])
    blobs = [path.read_bytes() for path in Path("trackio/artifacts").rglob("*") if path.is_file()]
    (config,) = database.execute("SELECT config FROM configs").fetchone()
    return found | {"config": json.loads(config), "artifacts": [hashlib.sha256(blob).hexdigest() for blob in blobs]}


def main() -> None:
    """Print what the stores hold."""
    directory = RunDir(Path(sys.argv[1]))
    flags = [f"--config={directory.config_file}", f"--run-dir={directory.path}", "--track=wandb,mlflow,trackio"]
    config = cli.parse(TrainConfig, flags, PRESETS, DEFAULT_PRESET)
    with open_trackers(config, directory, Console()) as trackers:
        trackers.send_report()
    ids = {name: known["id"] for name, known in json.loads((directory.path / "trackers.json").read_text()).items()}
    readers = {"wandb": read_wandb, "mlflow": read_mlflow, "trackio": read_trackio}
    print(json.dumps({name: read(ids[name]) for name, read in readers.items()}))


if __name__ == "__main__":
    main()
