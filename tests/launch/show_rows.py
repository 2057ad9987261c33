"""Made-up rows for the tests of `launch.show`: two trajectories, a ranking of the first one's turns, a failure."""

import json
from pathlib import Path

HOSTILE = "</script><script>window.hit = 1</script><img src=x onerror='window.hit = 1'>\u2028\u2029 end"
TASK = {
    "problem_description": "Add a fee to a price.",
    "ground_truth": "def f(x):\n    return x + 2",
    "test_cases": {"test1": "f(1)", "test2": "f(2)"},
    "hidden_information": "fee: two",
}
SOLVED = {
    "task": TASK,
    "dialogue_history": [
        {"role": "user", "content": "Add a fee to a price."},
        {"role": "assistant", "content": "Which fee?", "input": "p", "output": "They hide it. OUTPUT: Which fee?"},
        {"role": "user", "content": "Two.", "reasked": 2},
        {"role": "assistant", "content": "I WANT TO ANSWER: def f(x):\n    return x + 2", "input": "p",
         "output": "I WANT TO ANSWER: def f(x):\n    return x + 2"},
    ],
    "answer": "def f(x):\n    return x + 2",
    "reward": 1.0,
    "sample": 0,
    "seed": 42,
    "human": {"name": "scripted", "settings": {}},
    "turns_cut": 1,
    "leaks": 0,
    "reasked": 2,
    "tokens": {"ids": [0, 10, 11, 5, 12, 20, 5], "spans": [[1, 2, 4], [2, 5, 7]], "prefix": 1},
    "verdicts": {"test1": "pass", "test2": "pass"},
    "tests": [{"name": "test1", "expected": "3", "got": "3"}, {"name": "test2", "expected": "4", "got": "4"}],
}  # fmt: skip
FAILED = {
    "task": {**TASK, "problem_description": f"Other task {HOSTILE}"},
    "dialogue_history": [
        {"role": "user", "content": f"Other task {HOSTILE}"},
        {"role": "assistant", "content": HOSTILE, "input": None, "output": HOSTILE},
    ],
    "answer": HOSTILE,
    "reward": 0.0,
    "human": {"name": HOSTILE, "settings": {}},
    "verdicts": {"test1": "wrong", "test2": "error"},
    "tests": [{"name": "test1", "expected": "3", "got": HOSTILE}, {"name": "test2", "detail": HOSTILE}],
}
UNGRADED = {key: SOLVED[key] for key in ("task", "dialogue_history", "answer")}
FAILURE = {
    "verdict": "infrastructure-error", "by": "human", "error": "503 from the endpoint", "task_id": "abc", "sample": 1,
    "turns": 2, "messages": [
        *SOLVED["dialogue_history"][:2],
        {"role": "user", "content": "Then def f(x): it is.", "leaks": ["definition"], "reasked": 1},
        {"role": "assistant", "content": "So?", "input": "p", "output": "So?"},
    ],
}  # fmt: skip
RANKED = {
    "input": "p", "input_with_ground_truth": "cp", "older_output": "Which fee?", "reward": 1.0, "ground_truth": "g",
    "messages": SOLVED["dialogue_history"][:1], "additional_outputs": ["worst", "best", "middle"],
    "additional_reference_logprobs": [-1.0, -1.0, -1.0], "additional_reference_logprobs_sum": [-2.0, -2.0, -2.0],
    "trajectory": 0, "turn": 1, "prompt_ids": [0, 10], "output_ids": [[30, 5], [31, 5], [32, 5]], "prefix_length": 1,
    "token_log_ratios": [[-0.9, 0.1], [0.6, 0.0], [0.0, 0.0]],
    "older": {"judge_result": 0.25, "output_ids": [11, 5], "token_log_ratios": [0.4, 0.1]},
    "judge_result": [-0.4, 0.3, 0.0],
}  # fmt: skip
TURN_PAIR = {
    "chosen": "p best", "rejected": "p worst", "position": 0, "advantages": [0.3, -0.4], "picked": [1, 0],
    "chosen_tokens": {"ids": [0, 10, 31, 5], "spans": [[1, 2, 4]], "prefix": 1},
    "rejected_tokens": {"ids": [0, 10, 30, 5], "spans": [[1, 2, 4]], "prefix": 1},
}  # fmt: skip
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGM4UaEBAAN0AWnL+tDXAAAAAElFTkSuQmCC"
)
DRAWN = {
    **UNGRADED,
    "reward": 0.83,
    "images": {"answer": PIXEL, "reference": PIXEL, "similarity": 0.83, "turns": [PIXEL]},
}


def write(path: Path, *rows: dict) -> Path:
    """A file of these rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def everything(folder: Path) -> list[str]:
    """The flags of a view of all of the above, in files of that folder."""
    write(folder / "rows.failures.jsonl", FAILURE)
    files = {
        "trajectories": write(folder / "rows.jsonl", SOLVED, FAILED, UNGRADED),
        "ranked": write(folder / "ranked.jsonl", RANKED),
        "turn-pairs": write(folder / "turn_pairs.jsonl", TURN_PAIR, TURN_PAIR),
        "baseline": write(folder / "other.jsonl", {**SOLVED, "reward": 0.5, "verdicts": {}, "tests": []}),
    }
    return [f"--{name}={path}" for name, path in files.items()]
