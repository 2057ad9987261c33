"""What a run did, in a paragraph: how many dialogues, pairs, steps and minutes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from launch.reporting.metric_names import duration, percent
from launch.training.config import TrainConfig

Note = Mapping[str, Any]
GIVEN = ("rollouts", "pairs", "candidates", "turn-pairs")  # stages in whose place a file stands for tasks to train on


def deeds(notes: Mapping[str, Note], config: TrainConfig, seconds: float) -> str:
    """Summarise a run in one paragraph from the notes of its finished stages (`done.json` of each), in order."""
    sentences = [sentence for stage, note in notes.items() if (sentence := _sentence(stage, note, config))]
    return " ".join([*sentences, f"All stages together took {duration(seconds)}."])


def _chosen(note: Note) -> str:
    return f"the checkpoint of step {note['step']:,}" if note["step"] else "the start policy"


def _best(note: Note) -> str:
    return percent(note["success"][str(note["step"])])


def _sentence(stage: str, note: Note, config: TrainConfig) -> str:
    n = {name: f"{value:,}" for name, value in note.items() if isinstance(value, int)}
    source = f", given as {note['from']}" if "from" in note else ""
    match stage:
        case "tasks" if "train" in n and config.tasks is None and any(map(config.given, GIVEN)):
            return f"There were {n['eval']} held-out tasks."
        case "tasks" if "train" in n:
            return f"There were {n['train']} tasks to train on and {n['eval']} held-out ones."
        case "start" if "dialogues" in n:
            return f"The start policy was trained on {n['dialogues']} scripted dialogues."
        case "rollouts" if "trajectories" in n:
            return f"{n['trajectories']} dialogues were {'taken' if source else 'played by the start policy'}{source}."
        case "grading" if "success" in note:
            passed = "passed all tests" if config.benchmark == "backend" else "looked exactly like the reference"
            passed = "have a reward of 1" if config.grader == "plugin" else passed
            return f"{percent(note['success'])} of their answers {passed}."
        case "pairs" if "pairs" in n:
            return f"They gave {n['pairs']} pairs of a better and a worse dialogue{source}."
        case "critic" if note.get("steps"):
            return f"The critic was trained on {n['pairs']} such pairs in {n['steps']} steps."
        case "candidates" if "positions" in n:
            return f"At {n['positions']} turns, {n['candidates']} candidate turns in all were sampled{source}."
        case "ranking" if "positions" in n:
            return f"The candidates at {n['positions']} turns were ranked."
        case "turn-pairs" if "pairs" in n:
            ties = f", and {n['ties']} turns without one are kept for the NLL" if n.get("ties") else ""
            return f"The ranking gave {n['pairs']} pairs of a better and a worse turn{source}{ties}."
        case "policy" if "steps" in n:
            what = "dialogues" if config.algorithm == "rft" else "pairs"
            return f"The policy was trained on {n['rows']} {what} in {n['steps']} steps."
        case "selection" if "step" in n:
            return f"On {n['tasks']} validation tasks {_chosen(note)} was the best, with {_best(note)} success."
    return ""
