import pytest

from colbench_env.types import BadInput, Candidates, Message, Pair, Ranked, Task, Trajectory, Verdict

TASK = {
    "problem_description": "Round a price. The signature of the function is: def f(x)",
    "ground_truth": "def f(x):\n    return int(x)",
    "test_cases": {"test1": "f(1.5)", "test2": "f(2)"},
    "hidden_information": "rounding: Round down.",
}
TRAJECTORY = {
    "task": TASK,
    "dialogue_history": [
        {"role": "user", "content": "Round a price."},
        {"role": "assistant", "content": "Up?", "input": "<s>Round a price.", "output": "Hm. OUTPUT: Up?"},
        {"role": "user", "content": "Down."},
        {"role": "assistant", "content": "int", "input": None, "output": None},
    ],
    "answer": "int",
    "reward": 0.5,
}
CANDIDATES = {
    "input": "<s>user: hi",
    "input_with_ground_truth": "In light that <s>user: hi",
    "older_output": "Up?",
    "reward": 1.0,
    "ground_truth": "def f(x): return x",
    "messages": [{"role": "user", "content": "hi"}],
    "additional_outputs": ["a", "b"],
    "additional_reference_logprobs": [-0.5, -0.25],
    "additional_reference_logprobs_sum": [-5.0, -2.5],
}


def without(row, key):
    return {name: value for name, value in row.items() if name != key}


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        (Task, TASK),
        (Task, {"problem_description": "A page.", "ground_truth": "<html></html>"}),
        (Trajectory, TRAJECTORY),
        (Trajectory, without(TRAJECTORY, "reward")),
        (Trajectory, TRAJECTORY | {"task": {"problem_description": "No reference.", "train_index": 9}}),
        (Pair, {"chosen": "a", "rejected": "b"}),
        (Candidates, CANDIDATES),
        (Ranked, CANDIDATES | {"judge_result": [0.0, -1.5]}),
    ],
)
def test_a_row_survives_a_round_trip_with_the_keys_that_nobody_knows(kind, row):
    strange = row | {"seed": 7, "extra": {"extra": [None, "x"]}}
    parsed = kind.from_json(strange, "rows.jsonl:1")
    assert parsed.to_json() == strange
    assert kind.from_json(parsed.to_json(), "rows.jsonl:1") == parsed


def test_unknown_keys_of_a_message_are_kept():
    row = {"role": "assistant", "content": "Up?", "input": None, "output": "Up?", "token_ids": [3, 4]}
    message = Message.from_json(row, "here")
    assert message.extra == {"token_ids": [3, 4]}
    assert message.to_json() == row


def test_a_human_message_is_written_without_input_and_output():
    assert Message("user", "Down.").to_json() == {"role": "user", "content": "Down."}


def test_the_agent_turns_are_the_assistant_messages_in_order():
    turns = Trajectory.from_json(TRAJECTORY, "here").agent_turns
    assert [turn.content for turn in turns] == ["Up?", "int"]
    assert turns[0].output == "Hm. OUTPUT: Up?"


def test_an_ungraded_trajectory_has_no_reward():
    assert Trajectory.from_json(TRAJECTORY | {"reward": None}, "here").reward is None


@pytest.mark.parametrize(
    ("kind", "row", "message"),
    [
        (Task, [], "f:3: found a list, expected a JSON object"),
        (Task, without(TASK, "ground_truth"), "f:3: 'ground_truth' is missing, expected the reference solution"),
        (Task, TASK | {"ground_truth": " "}, "f:3: 'ground_truth' is empty, expected the reference solution"),
        (
            Task,
            without(TASK, "problem_description"),
            "f:3: 'problem_description' is missing, the row has 'ground_truth',",
        ),
        (Task, TASK | {"problem_description": 3}, "f:3: 'problem_description' is a number, expected a string"),
        (Task, TASK | {"test_cases": ["f(1)"]}, "f:3: 'test_cases' is a list, expected an object"),
        (Task, TASK | {"test_cases": {"test1": 4}}, "f:3: test_cases: 'test1' is a number, expected a string"),
        (Task, TASK | {"hidden_information": {}}, "f:3: 'hidden_information' is an object, expected a string"),
        (Trajectory, without(TRAJECTORY, "task"), "f:3: 'task' is missing"),
        (Trajectory, TRAJECTORY | {"task": "t"}, "f:3: task: found a string, expected a JSON object"),
        (Trajectory, TRAJECTORY | {"answer": None}, "f:3: 'answer' is null, expected a string"),
        (Trajectory, TRAJECTORY | {"reward": "1"}, "f:3: 'reward' is a string, expected a number"),
        (Trajectory, TRAJECTORY | {"reward": True}, "f:3: 'reward' is a boolean, expected a number"),
        (Trajectory, TRAJECTORY | {"reward": float("nan")}, "f:3: 'reward' is not a finite number"),
        (Trajectory, TRAJECTORY | {"reward": 10**400}, "f:3: 'reward' is not a finite number"),
        (Pair, {"chosen": "a"}, "f:3: 'rejected' is missing, the row has 'chosen'"),
        (Pair, {"chosen": "a", "rejected": ""}, "f:3: 'rejected' is empty"),
        (
            Candidates,
            CANDIDATES | {"additional_reference_logprobs": [-1]},
            "f:3: 'additional_reference_logprobs' has 1 numbers for 2 candidates",
        ),
        (Candidates, CANDIDATES | {"additional_outputs": ["a", 2]}, "'additional_outputs'[1] is a number"),
        (Ranked, CANDIDATES, "f:3: 'judge_result' is missing"),
        (Ranked, CANDIDATES | {"judge_result": [1, None]}, "f:3: 'judge_result'[1] is null, expected a number"),
    ],
)
def test_a_defective_row_is_named_with_what_was_expected(kind, row, message):
    with pytest.raises(BadInput) as caught:
        kind.from_json(row, "f:3")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ([], "'dialogue_history' is empty"),
        (["assistant"], "dialogue_history[0] has role 'assistant', expected 'user'"),
        (["user", "user"], "dialogue_history[1] has role 'user', expected 'assistant'"),
        (["system", "assistant"], "dialogue_history[0] has role 'system', expected 'user'"),
        (["user", "assistant", "user"], "ends with the user, expected the agent's turn last"),
        (["user", "robot"], "dialogue_history[1]: 'role' is 'robot'"),
    ],
)
def test_a_dialogue_alternates_from_the_user_to_the_agent(roles, message):
    history = [{"role": role, "content": "x"} for role in roles]
    with pytest.raises(BadInput) as caught:
        Trajectory.from_json(TRAJECTORY | {"dialogue_history": history}, "f:3")
    assert message in str(caught.value)


def test_the_task_id_is_a_stable_hash_of_the_content():
    task = Task.from_json(TASK, "here")
    assert task.task_id == "be7446492d6c"
    reordered = TASK | {"test_cases": {"test2": "f(2)", "test1": "f(1.5)"}, "note": "not content"}
    assert Task.from_json(reordered, "there").task_id == task.task_id
    assert Task.from_json(TASK | {"hidden_information": "rounding: Up."}, "here").task_id != task.task_id


def test_tasks_and_trajectories_can_be_members_of_a_set():
    tasks = {Task.from_json(TASK, "here"), Task.from_json(dict(TASK), "there")}
    assert len(tasks) == 1
    assert len({Trajectory.from_json(TRAJECTORY, "here"), Trajectory.from_json(TRAJECTORY, "there")}) == 1


def test_a_lone_surrogate_in_a_problem_still_has_a_task_id():
    assert len(Task("bad \ud800 text").task_id) == 12


def test_the_verdicts_are_those_of_the_grader_contract():
    assert [str(verdict) for verdict in Verdict] == [
        "pass",
        "wrong",
        "error",
        "timeout",
        "memory",
        "crash",
        "unsupported",
        "no-answer",
        "syntax-error",
        "reference-error",
        "infrastructure-error",
    ]
