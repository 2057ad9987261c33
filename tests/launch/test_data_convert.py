"""`launch.data convert`: rows to the formats of other tools and back, exactly; what has no place is refused."""

import datetime
import json
import os
import re
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colbench_env.tasks import read_rows
from colbench_env.types import BadInput, Pair, Trajectory
from launch import data
from launch.common import flags
from launch.common.settings import EMBEDDED_DIRECTORY
from launch.data_tools.config import ConvertConfig
from launch.data_tools.convert.formats import FORMATS
from launch.data_tools.convert.parquet import Columns, read_table, write_parquet
from launch.data_tools.convert.place import Place
from sweet_jax.data.chat import Chat
from tests.launch import fuzz_command_lines
from tests.launch.data_rows import CANDIDATES, DIALOGUE, PAGE, TASK
from tests.sweet_jax import chats

REAL = Path(__file__).resolve().parents[2] / "../shared/data/trajectories/qwen3_4b_40.jsonl"
MODEL = f"--model={EMBEDDED_DIRECTORY}"
HERE = Place("rows.jsonl:1")
SAID = [("user", "Round."), ("assistant", "Up?"), ("user", "Down."), ("assistant", "I WANT TO ANSWER: floor")]
PLAIN = {
    "task": {"problem_description": "Round."},
    "dialogue_history": [{"role": role, "content": content} for role, content in SAID],
    "answer": "floor",
}
FULL = {
    "task": TASK | {"problem_description": "Another text.", "train_index": 9},
    "system": "Ask \u201cfirst\u201d.\n",
    "dialogue_history": [
        {"role": "user", "content": "Double a number.", "seconds": 0.5},
        {"role": "assistant", "content": "Why?", "input": "<s>Double", "output": "Hm. OUTPUT: Why?", "ids": [1, 2]},
        {"role": "user", "content": "", "input": None},
        {"role": "assistant", "content": "\U0001f600 'x' \"y\"\u2028\x00</s>", "input": None, "output": None},
    ],
    "answer": "No answer",
    "reward": 0.1,
    "human": {"name": "rules", "settings": {}, "none": None},
    "messages_extra": ["not of a format"],
}
TAKEN = PLAIN | {
    "reward": 1,
    "dialogue_history": [entry | {"messages_extra": {"content": "x"}} for entry in PLAIN["dialogue_history"]],
    "messages_extra": {"messages": []},
    "openenv_extra": {"reward": 0},
}
CHAT_FORMATS = ("messages", "sharegpt", "verifiers", "openenv")
TRAJECTORIES = [
    DIALOGUE,
    FULL,
    TAKEN,
    PLAIN | {"reward": 1, "n": 2**60 + 1},
    PLAIN | {"reward": 1, "n": 0.5},
    DIALOGUE | {"reward": -0.25, "tokens": {"ids": [5, 6]}},
]
UNGRADED = [PLAIN, FULL | {"reward": None}]

PROMPT, HEADER, END = "<|bos|><|user|>", "<|end|><|assistant|>", "<|end|>"
TURN_PAIR = {"chosen": f"{PROMPT}Round.{HEADER}Up?{END}", "rejected": f"{PROMPT}Round.{HEADER}Done.{END}"}
CRITIC_PAIR = {
    "chosen": f"In light that the final answer is: floor.{PROMPT}Round.{HEADER}Up?{END}<|user|>Down.{HEADER}floor",
    "rejected": f"In light that the final answer is: floor.{PROMPT}Round.{HEADER}Done.",
    "task": "0123456789ab",
    "chosen_tokens": {"ids": [1, 2], "spans": [[1, 1, 2]], "prefix": 1},
}
SYSTEM_PAIR = {
    side: f"<|bos|><|system|>Ask.<|end|><|user|>Round.{HEADER}{said}{END}"
    for side, said in (("chosen", "Up?"), ("rejected", "Up?"))
}
DOUBLED = {
    side: f"<|bos|>{PROMPT}Round.{HEADER}Up?{END}{END}<|user|>{reply}{HEADER}{reply}{END}\n"
    for side, reply in (("chosen", "Down."), ("rejected", "Done."))
}
PAIRS = [TURN_PAIR, CRITIC_PAIR, DOUBLED, SYSTEM_PAIR | {"trl_extra": {"score_chosen": 0.5}}]

# As the packages write them: verifiers 0.4.0 and 0.1.14, openenv 0.10.0.
TASK_OF_TRACE = {"type": "ColBenchTask", "data": {"id": "abc", "prompt": "Round.", "skills": []}, "key": "k"}
NODE = {"semantic_parents": [], "token_ids": [], "mask": [], "logprobs": []}
EPISODE = {
    "id": "c43f9d68", "env": {"id": "colbench"}, "task": TASK_OF_TRACE, "ok": True, "errors": [],
    "traces": [
        {
            "version": 1, "id": "45af821e", "task": TASK_OF_TRACE, "agent": {"config": {}, "name": "agent"},
            "nodes": [
                NODE | {"message": {"role": "system", "content": "Ask."}, "sampled": False},
                NODE | {"parent": 0, "message": {"role": "user", "content": "Round."}, "sampled": False},
                NODE
                | {
                    "parent": 1, "sampled": True, "token_ids": [5],
                    "message": {"role": "assistant", "content": "Up?", "reasoning_content": "Or down?"},
                },
                NODE | {"parent": 2, "message": {"role": "user", "content": "Down."}, "sampled": False},
                NODE
                | {
                    "parent": 3, "sampled": True,
                    "message": {"role": "assistant", "content": "I WANT TO ANSWER: floor"},
                },
            ],
            "rewards": {"tests_passed": {"score": 0.5, "weight": 2.0}, "judge": None}, "metrics": {"turns": 2.0},
            "info": {"tests_passed": 0.5}, "is_completed": True, "ok": True, "stop_condition": "answered",
        }
    ],
}  # fmt: skip
ROLLOUT = {
    "example_id": 4,
    "prompt": [{"role": "system", "content": "Ask."}, {"role": "user", "content": "Round."}],
    "completion": [
        {"role": "assistant", "content": "Up?"},
        {"role": "user", "content": "Down."},
        {"role": "assistant", "content": "I WANT TO ANSWER: floor"},
    ],
    "answer": "the reference", "info": {"a": 1}, "reward": 0.5, "error": None, "timing": {"start": 1.0},
    "is_completed": True, "metrics": {"turns": 2.0}, "tool_defs": None, "turns": 2.0,
}  # fmt: skip
RECORD = {
    "episode_id": "ep-000000",
    "messages": [{"role": "system", "content": "Ask."}, *PLAIN["dialogue_history"]],
    "reward": 0.5, "done": True, "tool_trace": [], "metrics": {"turns": 2}, "verify_metrics": {"a": 1},
    "artifacts": {"b": 2}, "task": {"index": 3}, "extra": {"note": "x"},
}  # fmt: skip
MESSAGES = {"messages": PLAIN["dialogue_history"]}
SHAREGPT = {
    "conversations": [{"from": {"user": "human", "assistant": "gpt"}[role], "value": content} for role, content in SAID]
}
PREFERENCE = {
    "prompt": [{"role": "user", "content": "Round."}],
    "chosen": [{"role": "assistant", "content": "Up?"}],
    "rejected": [{"role": "assistant", "content": "Done."}],
}


@pytest.fixture
def convert(in_process, tmp_path, monkeypatch):
    """Return a function from flags to how `launch.data convert` ended; the working directory is empty."""
    monkeypatch.chdir(tmp_path)
    return lambda *flags: in_process(data.main, "convert", *map(str, flags))


def write(name, rows):
    Path(name).write_bytes(
        b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows)
    )
    return name


def read(name):
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


def there_and_back(convert, rows, name, middle, *flags):
    """The rows after a conversion to a format and back."""
    write("rows.jsonl", rows)
    there = convert("rows.jsonl", "--from=rows", f"--to={name}", f"--output={middle}", *flags)
    assert there.status == 0, there.stderr
    back = convert(middle, f"--from={name}", "--to=rows", "--output=back.jsonl", *flags)
    assert back.status == 0, back.stderr
    return read("back.jsonl")


def back_and_there(convert, records, name, *flags):
    """(rows of the records, the records after a conversion to rows and back)."""
    write("foreign.jsonl", records)
    there = convert("foreign.jsonl", f"--from={name}", "--to=rows", "--output=rows.jsonl", *flags)
    assert there.status == 0, there.stderr
    back = convert("rows.jsonl", "--from=rows", f"--to={name}", "--output=again.jsonl", *flags)
    assert back.status == 0, back.stderr
    return read("rows.jsonl"), read("again.jsonl")


def defect(convert, record, name, *flags):
    """The sentence about the only record of a file, of which nothing is written."""
    write("foreign.jsonl", [record])
    ended = convert("foreign.jsonl", f"--from={name}", "--to=rows", "--output=rows.jsonl", *flags)
    assert ended.refuses().endswith("foreign.jsonl: all rows are defective, so nothing is written")
    assert not Path("rows.jsonl").exists()
    (sentence,) = [line for line in ended.stderr.splitlines() if line.startswith("foreign.jsonl:1: ")]
    return sentence.removeprefix("foreign.jsonl:1: ")


# --- trajectories ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
@pytest.mark.parametrize("name", CHAT_FORMATS)
def test_trajectories_come_back_as_they_were(convert, name, ending):
    rows = TRAJECTORIES + ([] if name == "openenv" else UNGRADED)
    assert there_and_back(convert, rows, name, f"there{ending}") == rows


def test_a_row_as_messages_has_its_dialogue_there_and_the_rest_beside_it(convert):
    write("rows.jsonl", [DIALOGUE | {"system": "Ask."}])
    ended = convert("rows.jsonl", "--from=rows", "--to=messages", "--output=there.jsonl")
    assert ended.stdout == "there.jsonl: 1 row (trajectories), rows to messages\n"
    (record,) = read("there.jsonl")
    assert re.fullmatch("[0-9a-f]{64}", record["colbench"].pop("messages_sha256"))
    assert record == {
        "messages": [
            {"role": "system", "content": "Ask."},
            {"role": "user", "content": "Double a number."},
            {"role": "assistant", "content": "Why?"},
            {"role": "user", "content": "So."},
            {"role": "assistant", "content": "def f(x): return 2 * x"},
        ],
        "colbench": {
            "reward": 1.0,
            "dialogue_history": [
                {}, {"input": "<s>Double", "output": "Why?"}, {}, {"input": None, "output": None},
            ],
        },
    }  # fmt: skip


def test_what_follows_from_the_messages_is_not_repeated_beside_them():
    assert FORMATS["messages"].write(PLAIN, HERE) == MESSAGES
    assert FORMATS["sharegpt"].write(PLAIN, HERE) == SHAREGPT


def test_a_row_as_an_episode_of_verifiers_has_its_reward_and_the_task_there():
    row = PLAIN | {"reward": 0.5, "system": "Ask.", "sample": 3}
    episode = FORMATS["verifiers"].write(row, HERE)
    (trace,) = episode["traces"]
    assert (episode["ok"], trace["ok"], trace["rewards"]) == (True, True, {"reward": {"score": 0.5, "weight": 1.0}})
    assert episode["task"]["data"] == {"id": "973b1089ac83", "prompt": "Round.", "system_prompt": "Ask."}
    assert [node.get("parent") for node in trace["nodes"]] == [None, 0, 1, 2, 3]
    assert [node["sampled"] for node in trace["nodes"]] == [False, False, True, False, True]
    assert trace["nodes"][2]["message"] == {"role": "assistant", "content": "Up?"}
    assert trace["info"]["colbench"].keys() == {"sample", "messages_sha256"}
    assert FORMATS["verifiers"].write(PLAIN, HERE)["traces"][0]["rewards"] == {}


def test_a_row_as_an_episode_of_openenv_has_the_keys_of_one():
    record = FORMATS["openenv"].write(PLAIN | {"reward": 0.5}, HERE)
    assert len(record.pop("episode_id")) == 32
    assert record == {
        "messages": PLAIN["dialogue_history"], "reward": 0.5, "done": True, "tool_trace": [],
        "metrics": {"turns": 2, "tool_calls": 0}, "verify_metrics": {}, "artifacts": {}, "task": "Round.", "extra": {},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "record", "more"),
    [
        ("messages", MESSAGES, {}),
        (
            "messages",
            {"id": 7, "messages": [*MESSAGES["messages"][:3], MESSAGES["messages"][3] | {"weight": 0}], "tools": []},
            {"messages_extra": {"id": 7, "tools": []}},
        ),
        ("sharegpt", SHAREGPT | {"id": "a", "system": "kept"}, {"sharegpt_extra": {"id": "a", "system": "kept"}}),
        ("openenv", RECORD, {"system": "Ask.", "reward": 0.5}),
        ("verifiers", EPISODE, {"system": "Ask.", "reward": 1.0}),
        ("verifiers", ROLLOUT, {"system": "Ask.", "reward": 0.5}),
    ],
)
def test_files_of_other_tools_become_rows_and_come_back_as_they_were(convert, name, record, more):
    (row,), again = back_and_there(convert, [record], name)
    assert again == [record]
    assert {key: row[key] for key in more} == more
    found = Trajectory.from_json(row, "")
    assert [(message.role, message.content) for message in found.dialogue_history] == SAID
    assert (found.answer, found.task.ground_truth, found.task.test_cases) == ("floor", "", {})
    assert found.reward == more.get("reward")


@pytest.mark.parametrize(("last", "answer"), [("Bye.\n", "Bye."), (" ", "No answer"), ("I WANT TO ANSWER: x", "x")])
def test_the_answer_of_a_foreign_dialogue_is_read_by_the_protocol(last, answer):
    messages = [*MESSAGES["messages"][:3], {"role": "assistant", "content": last}]
    assert FORMATS["messages"].read({"messages": messages}, HERE)["answer"] == answer


def test_keys_beside_messages_may_be_written_by_hand():
    beside = {"reward": 0.5, "task": {"ground_truth": "f = floor", "test_cases": {"a": "f(1.5)"}}}
    row = FORMATS["messages"].read(MESSAGES | {"colbench": beside}, HERE)
    assert row["task"] == {"problem_description": "Round."} | beside["task"]
    assert (row["reward"], row["answer"]) == (0.5, "floor")


def test_a_regraded_row_has_its_new_reward_in_the_episode_it_came_from():
    row = FORMATS["verifiers"].read(EPISODE, HERE) | {"reward": 0.25}
    (trace,) = FORMATS["verifiers"].write(row, HERE)["traces"]
    assert trace["rewards"] == {"reward": {"score": 0.25, "weight": 1.0}}
    assert FORMATS["openenv"].write(FORMATS["openenv"].read(RECORD, HERE) | {"reward": 0.25}, HERE)["reward"] == 0.25


@pytest.mark.parametrize("name", ["messages", "openenv"])
def test_messages_that_were_edited_do_not_get_the_records_of_others(name):
    record = FORMATS[name].write(DIALOGUE, HERE)
    record["messages"][1]["content"] = "Why not?"
    with pytest.raises(BadInput, match="^rows.jsonl:1: the messages are not those that 'colbench' was written with"):
        FORMATS[name].read(record, HERE)
    beside = record.get("colbench") or record["extra"]["colbench"]
    del beside["messages_sha256"]
    assert FORMATS[name].read(record, HERE)["dialogue_history"][1] == {
        "role": "assistant", "content": "Why not?", "input": "<s>Double", "output": "Why?",
    }  # fmt: skip


# --- what is refused -------------------------------------------------------------------------------------------------


def said(*roles, **last):
    messages = [{"role": role, "content": f"text {number}"} for number, role in enumerate(roles)]
    messages[-1] |= last
    return {"messages": messages}


def trace(**changes):
    return EPISODE | {"traces": [EPISODE["traces"][0] | changes]}


REFUSED = [
    ("messages", {"conversations": []}, "'messages' is missing, the row has 'conversations'"),
    ("messages", {"messages": "hi"}, "'messages' is a string, expected a list"),
    ("messages", {"messages": []}, "'messages' has no message of 'user', expected a dialogue whose last message is"),
    ("messages", {"messages": ["hi"]}, "messages[0]: found a string, expected a JSON object"),
    ("messages", {"messages": [{"content": "x"}]}, "messages[0] has no 'role', expected 'role' and 'content'"),
    ("messages", said("user", "system"), "messages[1] is a system message, expected it first or not at all"),
    ("messages", said("system", "system"), "messages[1] is a system message, expected it first or not at all"),
    ("messages", said("system", name="a"), "messages[0] is a system message with 'name', which a row has no place for"),
    ("messages", said("developer", "user"), "messages[0]: 'role' is 'developer', expected 'system', 'user', 'assist"),
    ("messages", said("user", "tool"), "messages[1]: 'role' is 'tool', expected 'system', 'user', 'assistant'"),
    ("messages", {"messages": [{"role": None, "content": ""}]}, "messages[0]: 'role' is null, expected 'system'"),
    ("messages", said("assistant"), "messages[0] is of 'assistant', expected 'user': user opens, then the two"),
    ("messages", said("user", "user"), "messages[1] is of 'user', expected 'assistant': user opens, then the two"),
    ("messages", said("user", "assistant", "assistant"), "messages[2] is of 'assistant', expected 'user'"),
    ("messages", said("user", "assistant", "user"), "'messages' ends with 'user', expected a dialogue whose last"),
    ("messages", said("system"), "'messages' has no message of 'user', expected a dialogue whose last message is of"),
    (
        "messages",
        {"messages": [{"role": "user", "content": " \n"}, {"role": "assistant", "content": "Hi."}]},
        "the first message of the user is blank, expected the problem",
    ),
    ("messages", said("user", "assistant", content=None), "messages[1]: 'content' is null, expected a string"),
    (
        "messages",
        said("user", content=[{"type": "image_url"}]),
        "messages[0]: 'content' is a list of parts, expected a string",
    ),
    ("messages", said("user", "assistant", tool_calls=[{}]), "messages[1] has 'tool_calls', expected text alone: rows"),
    ("messages", said("user", "assistant", function_call={"a": 1}), "messages[1] has 'function_call', expected text"),
    ("messages", MESSAGES | {"colbench": [1]}, "'colbench' is a list, expected an object with keys of a row"),
    ("messages", MESSAGES | {"colbench": {"task": 1}}, "colbench: 'task' is a number, expected an object"),
    ("messages", MESSAGES | {"colbench": {"reward": "high"}}, "'reward' is a string, expected a number"),
    ("messages", MESSAGES | {"colbench": {"answer": None}}, "'answer' is null, expected a string"),
    (
        "messages",
        MESSAGES | {"colbench": {"dialogue_history": [{}]}},
        "colbench: 'dialogue_history' has 1 objects for 4 messages, expected one for each",
    ),
    ("messages", MESSAGES | {"colbench": {"dialogue_history": 4}}, "colbench: 'dialogue_history' is not a list of obj"),
    (
        "messages",
        MESSAGES | {"colbench": {"dialogue_history": [{"role": "user"}] * 4}},
        "colbench: 'dialogue_history' repeats a message, expected what the messages do not say",
    ),
    (
        "messages",
        {"messages": [{"role": "system", "content": ""}, *MESSAGES["messages"]], "colbench": {"system": "Ask."}},
        "colbench: 'system' stands beside a system message, expected one of the two",
    ),
    (
        "messages",
        MESSAGES | {"id": 1, "colbench": {"messages_extra": {"id": 2}}},
        "colbench: 'messages_extra' is said here and by the record itself, expected once",
    ),
    ("sharegpt", MESSAGES, "'conversations' is missing, the row has 'messages'"),
    (
        "sharegpt",
        {"conversations": [{"from": "user", "value": "x"}]},
        "conversations[0]: 'from' is 'user', expected 'system', 'human', 'gpt'",
    ),
    (
        "sharegpt",
        {"conversations": [{"from": "human", "value": "x"}, {"from": "human", "value": "y"}]},
        "conversations[1] is of 'human', expected 'gpt': human opens, then the two alternate",
    ),
    ("openenv", {**RECORD, "episode_id": None}, "'episode_id' is null, expected a string"),
    ("openenv", {key: RECORD[key] for key in RECORD if key != "reward"}, "'reward' is missing, the row has"),
    ("openenv", RECORD | {"reward": None}, "'reward' is null, expected a number"),
    ("openenv", RECORD | {"tool_trace": [{"tool_name": "a"}]}, "'tool_trace' has calls of tools, expected none"),
    ("openenv", RECORD | {"extra": {"colbench": {"reward": 1}}}, "colbench: 'reward' is said here and by the record"),
    ("verifiers", MESSAGES, "'traces' is missing, the row has 'messages'"),
    ("verifiers", EPISODE | {"traces": []}, "the episode has 0 traces, expected the one of the agent"),
    ("verifiers", EPISODE | {"traces": EPISODE["traces"] * 2}, "the episode has 2 traces, expected the one of the"),
    (
        "verifiers",
        trace(ok=False, errors=[{"type": "Timeout", "message": "too slow"}]),
        "the trace failed ('too slow'), expected 'ok' true: rows are of whole dialogues",
    ),
    ("verifiers", EPISODE | {"ok": False}, "the episode failed, expected 'ok' true"),
    (
        "verifiers",
        trace(nodes=[*EPISODE["traces"][0]["nodes"], EPISODE["traces"][0]["nodes"][4]]),
        "nodes[5] does not follow the node before it, expected one branch of messages",
    ),
    ("verifiers", trace(rewards={"a": {"weight": 1.0}}), "reward 'a': 'score' is missing, the row has 'weight'"),
    ("verifiers", trace(rewards={"a": 0.5}), "reward 'a' is a number, expected an object with 'score' and 'weight'"),
    ("verifiers", ROLLOUT | {"error": {"error": "X"}}, "the rollout failed (\"{'error': 'X'}\"), expected no 'error'"),
    ("verifiers", ROLLOUT | {"prompt": "Round."}, "'prompt' is a string, expected a list"),
    ("verifiers", ROLLOUT | {"completion": []}, "'prompt + completion' ends with 'user', expected a dialogue whose"),
]


@pytest.mark.parametrize(("name", "record", "sentence"), REFUSED)
def test_what_rows_have_no_place_for_is_refused_in_a_sentence(convert, name, record, sentence):
    assert defect(convert, record, name).startswith(sentence)


def test_every_defective_line_is_named_and_nothing_is_written(convert):
    write("foreign.jsonl", [MESSAGES, b"{\n", b"\n", [1], said("tool"), MESSAGES])
    Path("rows.jsonl").write_text("old")
    ended = convert("foreign.jsonl", "--from=messages", "--to=rows", "--output=rows.jsonl")
    lines = [line for line in ended.stderr.splitlines() if line.startswith("foreign.jsonl:")]
    assert [line[:16] for line in lines] == ["foreign.jsonl:2:", "foreign.jsonl:4:", "foreign.jsonl:5:"]
    assert lines[1] == "foreign.jsonl:4: found a list, expected a JSON object"
    count = "foreign.jsonl: 3 of 5 rows are defective, so nothing is written; --skip-defective leaves them out"
    assert ended.refuses() == f"error: {count}"
    assert Path("rows.jsonl").read_text() == "old"
    assert sorted(os.listdir()) == ["foreign.jsonl", "rows.jsonl"]


def test_defective_lines_are_left_out_where_that_is_asked_for_and_counted(convert):
    write("foreign.jsonl", [MESSAGES, said("tool"), MESSAGES])
    flags = ("--from=messages", "--to=rows", "--output=rows.jsonl", "--skip-defective")
    ended = convert("foreign.jsonl", *flags)
    left_out = "1 defective, named above and left out"
    assert (ended.status, ended.stdout) == (0, f"rows.jsonl: 2 rows (trajectories), messages to rows; {left_out}\n")
    assert "foreign.jsonl:2: messages[0]: 'role' is 'tool'" in ended.stderr
    assert read("rows.jsonl") == [PLAIN, PLAIN]
    write("foreign.jsonl", [said("tool")])
    assert convert("foreign.jsonl", *flags).refuses().endswith("all rows are defective, so nothing is written")


@pytest.mark.parametrize(
    ("row", "name", "holds"),
    [
        (TASK, "messages", "trajectories, and these rows are of the kind backend"),
        (PAGE, "openenv", "trajectories, and these rows are of the kind frontend"),
        (TURN_PAIR, "sharegpt", "trajectories, and these rows are of the kind turn-pairs"),
        (CANDIDATES, "verifiers", "trajectories, and these rows are of the kind candidates"),
        (DIALOGUE, "trl", "critic-pairs and turn-pairs, and these rows are of the kind trajectories"),
    ],
)
def test_a_kind_that_a_format_does_not_hold_is_refused_in_one_sentence(convert, row, name, holds):
    write("rows.jsonl", [row] * 3)
    model = [MODEL] if name == "trl" else []
    ended = convert("rows.jsonl", "--from=rows", f"--to={name}", "--output=there.jsonl", *model)
    assert ended.refuses() == f"error: rows.jsonl: {name} holds {holds}"
    assert ended.stderr.count("rows.jsonl") == 1
    assert os.listdir() == ["rows.jsonl"]


def test_rows_of_the_wrong_side_are_refused(convert):
    write("rows.jsonl", [PLAIN])
    ended = convert("rows.jsonl", "--from=rows", "--to=openenv", "--output=there.jsonl")
    assert "rows.jsonl:1: the row has no reward, which an episode of OpenEnv must have" in ended.stderr
    write("rows.jsonl", [PLAIN | {"messages_sha256": "0"}])
    ended = convert("rows.jsonl", "--from=rows", "--to=messages", "--output=there.jsonl")
    assert "the row has a key 'messages_sha256', which converted records have for themselves" in ended.stderr
    write("rows.jsonl", [PLAIN | {"verifiers_extra": {"traces": []}}])
    ended = convert("rows.jsonl", "--from=rows", "--to=verifiers", "--output=there.jsonl")
    assert "rows.jsonl:1: 'verifiers_extra' is not of an episode with one trace" in ended.stderr
    write("rows.jsonl", [{"a": 1}])
    ended = convert("rows.jsonl", "--from=rows", "--to=messages", "--output=there.jsonl")
    assert "rows.jsonl:1: the keys are those of no known row, expected one of backend" in ended.stderr


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--from=messages", "--to=sharegpt"), "--from=messages and --to=sharegpt: one of the two must be rows"),
        (("--from=rows", "--to=trl"), "--model is needed for trl: the texts of pairs are written in the chat template"),
        (("--from=rows", "--to=messages", "--model=DIR"), "--model=DIR: is for trl alone"),
        (("--from=rows", "--to=trl", "--model=DIR"), "DIR: no such model directory"),
        (("--from=rows", "--to=messages", "--split=../x"), "--split=../x: expected the name of a split"),
        (
            ("--from=rows", "--to=messages", "--split=test"),
            "--split=test: neither rows.jsonl nor there.jsonl is a dire",
        ),
        (("--from=rows", "--to=messages", "--output=rows.jsonl"), "--output=rows.jsonl: is the file that is read"),
        (("--from=rows", "--to=messages", "--output=no/x.jsonl"), "no/x.jsonl: cannot be written: No such file"),
        (("--from=messages", "--to=rows", "--kind=turn-pairs"), "rows.jsonl: messages holds trajectories, and these"),
    ],
)
def test_flags_that_make_no_sense_are_refused_before_anything_is_written(convert, flags, sentence):
    write("rows.jsonl", [DIALOGUE])
    assert convert("rows.jsonl", "--output=there.jsonl", *flags).refuses().startswith(f"error: {sentence}")
    assert os.listdir() == ["rows.jsonl"]


def test_a_file_that_is_a_json_list_is_refused_with_what_makes_lines_of_it(convert):
    Path("foreign.json").write_text(json.dumps([SHAREGPT, SHAREGPT], indent=1))
    ended = convert("foreign.json", "--from=sharegpt", "--to=rows", "--output=rows.jsonl")
    hint = "expected JSON Lines: jq -c '.[]' makes a line of each entry"
    assert ended.refuses() == f"error: foreign.json: the file is a JSON list, {hint}"


@pytest.mark.parametrize("name", ["missing.jsonl", "missing.parquet", "empty.jsonl", "broken.parquet", "nothing"])
def test_files_that_hold_no_rows_are_refused(convert, name):
    Path("empty.jsonl").write_text("\n")
    Path("broken.parquet").write_text("PAR1")
    Path("nothing").mkdir()
    assert name in convert(name, "--from=messages", "--to=rows", "--output=rows.jsonl").refuses()
    assert not Path("rows.jsonl").exists()


# --- lines -----------------------------------------------------------------------------------------------------------


def test_byte_order_marks_line_ends_and_half_characters_are_read_as_everywhere(convert):
    half = json.dumps(said("user", "assistant", content="\ud83d"))
    lines = b"\xef\xbb\xbf" + json.dumps(MESSAGES).encode() + b"\r\n\r\n" + half.encode()
    Path("foreign.jsonl").write_bytes(lines)
    assert convert("foreign.jsonl", "--from=messages", "--to=rows", "--output=rows.jsonl").status == 0
    assert [row.answer for row in read_rows("rows.jsonl", Trajectory)] == ["floor", "\ufffd"]


def test_the_file_may_be_a_pipe_and_the_output_is_replaced(convert):
    os.mkfifo("pipe")
    Path("there.parquet").write_text("old")
    text = json.dumps(DIALOGUE) + "\n"
    writer = threading.Thread(target=lambda: Path("pipe").write_text(text * 3))
    writer.start()
    ended = convert("pipe", "--from=rows", "--to=messages", "--output=there.parquet")
    writer.join()
    assert (ended.status, pq.read_metadata("there.parquet").num_rows) == (0, 3)


# --- pairs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_pairs_come_back_as_they_were(convert, ending):
    assert there_and_back(convert, PAIRS, "trl", f"there{ending}", MODEL) == PAIRS


def test_pairs_as_preferences_have_one_prompt_and_the_messages_that_differ(convert):
    write("rows.jsonl", [TURN_PAIR, CRITIC_PAIR, SYSTEM_PAIR, DOUBLED])
    assert convert("rows.jsonl", "--from=rows", "--to=trl", "--output=there.jsonl", MODEL).status == 0
    turn, critic, system, doubled = read("there.jsonl")
    frames = [PROMPT, HEADER, END]
    assert re.fullmatch("[0-9a-f]{64}", turn["colbench"].pop("messages_sha256"))
    assert turn == PREFERENCE | {"colbench": {"chosen_frames": frames, "rejected_frames": frames}}
    assert [message["content"] for message in critic["chosen"]] == ["Up?", "Down.", "floor"]
    assert critic["rejected"] == [{"role": "assistant", "content": "Done."}]
    assert critic["colbench"]["chosen_frames"][0] == f"In light that the final answer is: floor.{PROMPT}"
    assert system["prompt"] == [{"role": "system", "content": "Ask."}, {"role": "user", "content": "Round."}]
    assert system["chosen"] == system["rejected"] == PREFERENCE["chosen"]
    assert (doubled["prompt"], doubled["chosen"][0]) == (PREFERENCE["prompt"], PREFERENCE["chosen"][0])
    assert [[message["content"] for message in doubled[side]] for side in ("chosen", "rejected")] == [
        ["Up?", "Down.", "Down."], ["Up?", "Done.", "Done."],
    ]  # fmt: skip


def test_preferences_of_other_tools_become_texts_of_the_chat_template_and_come_back(convert):
    told = [{"role": "assistant", "content": "Up?"}, {"role": "user", "content": "Down."}]
    longer = {
        "prompt": PREFERENCE["prompt"],
        "chosen": [*told, {"role": "assistant", "content": "floor"}],
        "rejected": [*told, {"role": "assistant", "content": "ceil"}],
        "score_chosen": 8.5,
    }
    rows, again = back_and_there(convert, [PREFERENCE, longer], "trl", MODEL)
    assert rows[0] == TURN_PAIR
    assert rows[1] == {
        "chosen": f"{PROMPT}Round.{HEADER}Up?{END}<|user|>Down.{HEADER}floor{END}",
        "rejected": f"{PROMPT}Round.{HEADER}Up?{END}<|user|>Down.{HEADER}ceil{END}",
        "trl_extra": {"score_chosen": 8.5, "prompt": 1},
    }
    for record in again:
        del record["colbench"]
    assert again == [PREFERENCE, longer]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"prompt": "Round."}, "'prompt' is a string, expected a list"),
        ({"chosen": []}, "'chosen' is empty, expected the agent's message"),
        ({"chosen": PREFERENCE["prompt"]}, "prompt + chosen[1] is of 'user', expected 'assistant'"),
        ({"rejected": [*PREFERENCE["rejected"], *PREFERENCE["prompt"]]}, "'prompt + rejected' ends with 'user'"),
        (
            {"prompt": [PREFERENCE["prompt"][0] | {"name": "a"}]},
            "prompt + chosen[0] has 'name', which the text of a pair has no place for",
        ),
        (
            {"chosen": [{"role": "assistant", "content": f"a{HEADER}b"}]},
            f"'chosen': {EMBEDDED_DIRECTORY}: the text of these messages cannot be split again: agent turn 1 does not",
        ),
        ({"colbench": {"chosen_frames": ["a"]}}, "'chosen': colbench: 'chosen_frames' has 1 texts for 2 messages"),
        ({"colbench": {"messages_sha256": ""}}, "the messages are not those that 'colbench' was written with"),
    ],
)
def test_preferences_that_are_no_pairs_are_refused(convert, changes, sentence):
    assert defect(convert, PREFERENCE | changes, "trl", MODEL).startswith(sentence)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"chosen": "Up?"}, "'chosen': no agent turn in the text, which holds no header '<|end|><|assistant|>'"),
        ({"chosen": f"{PROMPT}Other.{HEADER}Up?{END}"}, "the two texts differ at once, expected answers to one prompt"),
        ({"chosen_frames": []}, "the row has a key 'chosen_frames', which converted records have for themselves"),
        ({"chosen": f"{PROMPT}R{HEADER}a{END}<|user|>b{END}"}, "'chosen': user and agent do not alternate in the text"),
        ({"trl_extra": {"prompt": 2}}, "the two texts begin with the same 1 messages, and the prompt has 2"),
    ],
)
def test_pairs_that_are_no_preferences_are_refused(convert, changes, sentence):
    write("rows.jsonl", [TURN_PAIR | changes])
    ended = convert("rows.jsonl", "--from=rows", "--to=trl", "--output=there.jsonl", MODEL)
    assert f"rows.jsonl:1: {sentence}" in ended.stderr
    assert ended.refuses() and not Path("there.jsonl").exists()


# --- parquet ---------------------------------------------------------------------------------------------------------

RANKED = CANDIDATES | {"judge_result": [0.5, -0.5]}


@pytest.mark.parametrize(
    "rows", [[TASK, TASK | {"x": None}], [PAGE], TRAJECTORIES + UNGRADED, PAIRS, [CANDIDATES], [RANKED]]
)
def test_rows_of_every_kind_come_back_from_parquet_as_they_were(convert, rows):
    assert there_and_back(convert, rows, "rows", "there.parquet") == rows


def test_columns_of_one_plain_type_have_it_in_parquet_and_others_are_json(convert):
    write("rows.jsonl", [PLAIN | {"reward": 1, "n": 1, "b": True}, PLAIN | {"reward": 0.5, "n": "x"}])
    assert convert("rows.jsonl", "--from=rows", "--to=rows", "--output=there.parquet").status == 0
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    assert pq.read_schema("there.parquet").equals(
        pa.schema(
            [
                ("task", pa.json_()), ("dialogue_history", pa.list_(message)), ("answer", pa.string()),
                ("reward", pa.float64()), ("n", pa.json_()), ("b", pa.bool_()),
            ]
        )
    )  # fmt: skip


def test_a_parquet_file_of_others_has_nulls_for_what_is_missing(convert):
    tests = pa.struct([("a", pa.string()), ("b", pa.large_string())])
    schema = pa.schema(
        [("problem_description", pa.string()), ("ground_truth", pa.dictionary(pa.int32(), pa.string()))]
        + [("test_cases", tests), ("tags", pa.map_(pa.string(), pa.int32())), ("ids", pa.list_(pa.float32()))]
    )
    rows = [
        TASK | {"test_cases": {"a": "f(1)", "b": None}, "hidden_information": None},
        TASK | {"test_cases": {"a": None, "b": "f(2)"}, "tags": [("x", 1)], "ids": [0.5, None]},
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema), "tasks.parquet")
    assert convert("tasks.parquet", "--from=rows", "--to=rows", "--output=rows.jsonl").status == 0
    plain = {key: TASK[key] for key in ("problem_description", "ground_truth")}
    assert read("rows.jsonl") == [
        plain | {"test_cases": {"a": "f(1)"}},
        plain | {"test_cases": {"b": "f(2)"}, "tags": {"x": 1}, "ids": [0.5, None]},
    ]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (datetime.date(2026, 1, 1), "is of type date32[day], expected text, numbers, truth values, lists or objects"),
        (b"x", "is of type binary, expected text, numbers, truth values, lists or objects"),
        (float("nan"), "holds nan, which is no JSON number"),
    ],
)
def test_columns_that_json_does_not_have_are_refused(convert, value, reason):
    pq.write_table(pa.table({"messages": [MESSAGES["messages"]] * 2, "x": [None, value]}), "foreign.parquet")
    ended = convert("foreign.parquet", "--from=messages", "--to=rows", "--output=rows.jsonl")
    assert f"foreign.parquet:2: column 'x' {reason}" in ended.stderr
    assert ended.refuses().startswith("error: foreign.parquet: 1 of 2 rows are defective")


def test_a_directory_is_written_and_read_by_split(convert):
    write("a.jsonl", [DIALOGUE])
    write("b.jsonl", [PLAIN, PLAIN])
    to = ("--from=rows", "--to=messages", "--output=dataset")
    assert convert("a.jsonl", *to).stdout.startswith("dataset/data/train-00000-of-00001.parquet: 1 row")
    assert convert("b.jsonl", *to, "--split=mine").status == 0
    held = "error: --output=dataset: has a split 'train' already; nothing is overwritten"
    assert convert("a.jsonl", *to).refuses() == held
    back = ("--from=messages", "--to=rows", "--output=back.jsonl")
    several = "error: dataset: the directory has several splits, expected --split to be one of mine, train"
    assert convert("dataset", *back).refuses() == several
    assert convert("dataset", *back, "--split=dev").refuses().startswith("error: dataset: the directory has no split")
    assert convert("dataset", *back, "--split=mine").status == 0
    assert read("back.jsonl") == [PLAIN, PLAIN]


def test_the_shards_of_a_split_are_read_in_order_wherever_they_lie(convert):
    for name, answer in (("b", "2"), ("a", "1")):
        Path(name).mkdir()
        pq.write_table(pa.Table.from_pylist([MESSAGES | {"n": answer}]), f"{name}/part.parquet")
    Path("c/validation").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([MESSAGES]), "c/validation/0000.parquet")
    back = ("--from=messages", "--to=rows", "--output=back.jsonl")
    assert convert(".", *back, "--split=train").status == 0
    assert [row["messages_extra"]["n"] for row in read("back.jsonl")] == ["1", "2"]
    assert convert(".", *back, "--split=validation").stdout.startswith("back.jsonl: 1 row")


def test_a_directory_that_save_to_disk_made_is_read(convert):
    for split in ("train", "test"):
        folder = Path("saved") / split
        folder.mkdir(parents=True)
        table = pa.Table.from_pylist([MESSAGES | {"split": split}])
        with pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as file:
            with pa.ipc.new_stream(file, table.schema) as stream:
                stream.write_table(table)
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    Path("saved/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    back = ("--from=messages", "--to=rows", "--output=back.jsonl")
    for folder, split in (("saved", "--split=test"), ("saved/test", "--split=")):
        assert convert(folder, *back, *([split] if split != "--split=" else [])).status == 0
        assert read("back.jsonl")[0]["messages_extra"] == {"split": "test"}
    Path("saved/test/state.json").write_text("{}")
    assert "saved/test/state.json: cannot be read" in convert("saved/test", *back).refuses()


def test_nothing_is_left_of_a_directory_that_could_not_be_filled(convert):
    write("rows.jsonl", [TASK])
    assert convert("rows.jsonl", "--from=rows", "--to=messages", "--output=dataset").refuses()
    assert os.listdir() == ["rows.jsonl"]
    Path("plain").write_text("old")
    ended = convert("rows.jsonl", "--from=rows", "--to=rows", "--output=plain")
    assert ended.refuses() == "error: --output=plain: is no directory, which a name without an ending means"


# --- any rows --------------------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["", "I WANT TO ANSWER: x", "\"\\'", "</s>", "{}"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
EXTRA = st.dictionaries(st.sampled_from(["system", "seed", "tokens", "x", "messages_extra"]), JSON, max_size=3)


@st.composite
def trajectories(draw):
    texts = draw(st.lists(TEXTS, min_size=2, max_size=8).filter(lambda texts: len(texts) % 2 == 0))
    history = [
        draw(EXTRA) | {"role": "assistant" if position % 2 else "user", "content": text}
        for position, text in enumerate(texts)
    ]
    for message in history[1::2]:
        message |= draw(st.sampled_from([{}, {"input": None, "output": "a<eot>"}]))
    problem = st.sampled_from([text for text in (texts[0], "Other.") if text.strip()])
    task = draw(EXTRA) | {"problem_description": draw(problem)}
    rewards = st.floats(-1, 1) | st.integers(0, 1)
    return draw(EXTRA) | {
        "task": task, "dialogue_history": history, "answer": draw(TEXTS), "reward": draw(rewards),
    }  # fmt: skip


@pytest.mark.slow
@settings(deadline=None, max_examples=80)
@given(trajectories(), st.sampled_from(CHAT_FORMATS))
def test_any_trajectory_comes_back_as_it_was(row, name):
    record = json.loads(json.dumps(FORMATS[name].write(row, HERE)))
    assert FORMATS[name].read(record, HERE) == row


@pytest.fixture(scope="module")
def place():
    return Place("rows.jsonl:1", Chat.load(EMBEDDED_DIRECTORY))


PARTS = st.lists(
    st.sampled_from(
        [
            "<|bos|>",
            "<|user|>",
            "<|system|>",
            "<|end|>",
            "<|assistant|>",
            "<|end|><|user|>",
            HEADER,
            "a",
            " ",
            "b\n",
            "",
        ]
    ),
    max_size=8,
).map("".join)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.dictionaries(TEXTS, JSON, min_size=1, max_size=4), min_size=1, max_size=4))
def test_any_json_objects_come_back_from_parquet_as_they_were(tmp_path_factory, rows):
    path, columns = tmp_path_factory.getbasetemp() / "any.parquet", Columns()
    for row in rows:
        columns.see(row)
    with open(path, "wb") as file:
        write_parquet([json.dumps(row).encode() for row in rows], columns.schema, file)
    assert list(read_table(path)) == [(number, len(rows), row) for number, row in enumerate(rows, 1)]


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(PARTS, PARTS, PARTS)
def test_any_pair_is_refused_or_comes_back_as_it_was(place, prompt, chosen, rejected):
    row = {side: f"{PROMPT}{prompt}{HEADER}{said}" for side, said in (("chosen", chosen), ("rejected", rejected))}
    try:
        record = FORMATS["trl"].write(row, place)
    except BadInput:
        return
    assert FORMATS["trl"].read(record, place) == row
    del record["colbench"]
    try:
        texts = FORMATS["trl"].read(record, place)
    except BadInput:
        return
    again = FORMATS["trl"].write(texts, place)
    assert {key: again[key] for key in PREFERENCE} == {key: record[key] for key in PREFERENCE}


@pytest.mark.parametrize("kind", chats.KINDS)
def test_preferences_in_the_templates_of_llama_chatml_and_mistral_come_back_as_they_were(kind):
    @settings(deadline=None, max_examples=25)
    @given(chats.dialogues, chats.contents, chats.contents)
    def comes_back(messages, chosen, rejected):
        place = Place("foreign.jsonl:1", chats.chat(kind))
        prompt = messages[:-1]
        answers = {side: chats.dialogue("", text)[1:] for side, text in (("chosen", chosen), ("rejected", rejected))}
        row = FORMATS["trl"].read({"prompt": prompt} | answers, place)
        assert Pair.from_json(row, "").chosen == row["chosen"]
        record = FORMATS["trl"].write(row, place)
        assert FORMATS["trl"].read(record, place) == row
        del record["colbench"]
        assert record == {"prompt": prompt} | answers

    comes_back()


def test_a_message_that_the_template_trims_is_refused():
    blanks = PREFERENCE | {"chosen": [{"role": "assistant", "content": " Up?"}]}
    with pytest.raises(BadInput, match="^f:1: 'chosen': the tokenizer: the chat template does not show the messages"):
        FORMATS["trl"].read(blanks, Place("f:1", chats.chat("llama3")))


@pytest.mark.parametrize("name", CHAT_FORMATS)
def test_real_dialogues_come_back_as_they_were(convert, name):
    if not REAL.exists():
        pytest.skip(f"no real dialogues: {REAL} is missing")
    rows = read(REAL)
    assert there_and_back(convert, rows, name, "there.parquet") == rows


# --- the command -----------------------------------------------------------------------------------------------------


def test_every_setting_of_the_command_is_explained_in_one_line():
    helps = {setting.name: setting.help for setting in flags.settings(ConvertConfig)}
    assert helps.keys() == {"file", "from", "to", "output", "kind", "model", "split", "skip_defective"}
    assert [name for name, text in helps.items() if not re.fullmatch(r"\S.{10,118}", text)] == []


def test_the_command_is_named_in_its_usage(convert):
    helped = convert("--help")
    assert (helped.status, helped.stderr) == (0, "")
    assert helped.stdout.startswith("usage: python -m launch.data convert [-h] ")
    assert "--[no-]skip-defective" in helped.stdout


@pytest.mark.slow
def test_no_command_line_ends_in_a_traceback(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(fuzz_command_lines.CONFIGS, "data convert", ConvertConfig)
    places = fuzz_command_lines.places
    monkeypatch.setattr(fuzz_command_lines, "places", lambda folder: [name for name in places(folder) if name != "/"])
    for found in fuzz_command_lines.fuzz("data convert", 6, seed=1):
        assert not found.wrong, found


@pytest.mark.parametrize("page", ["docs/conversion.md"])
def test_the_page_has_every_format(page):
    text = (Path(__file__).parents[2] / page).read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in FORMATS)


def test_pairs_read_from_a_converted_file_are_pairs(convert):
    write("foreign.jsonl", [PREFERENCE])
    assert convert("foreign.jsonl", "--from=trl", "--to=rows", "--output=rows.jsonl", MODEL).status == 0
    assert read_rows("rows.jsonl", Pair) == [Pair(**TURN_PAIR)]
