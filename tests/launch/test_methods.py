"""Every method and switch, end to end on files in the released layout, and what the released reader finds in ours."""

import json

import numpy as np
import pytest
import released

from colbench_env.tasks import read_rows
from colbench_env.types import Candidates, Pair, Ranked, Trajectory
from launch.training.config import Critic, Policy, TrainConfig
from launch.training.stages import plan_stages
from sweet_jax.data.chat import Chat, privileged_prefix
from sweet_jax.data.token_rows import (
    pair_rows,
    row_from_json,
    row_to_json,
    trajectory_row,
)

TOKENS = {
    "chosen": "a",
    "rejected": "b",
    "rejected_tokens": {"ids": [1, 2], "spans": [[1, 1, 2]], "prefix": 0},
}
SMALL = (
    "--rollouts.max-new-tokens=8", "--rollouts.rows=4", "--ranking.candidates=4", "--ranking.data-fraction=1.0",
    *(
        f"--{stage}.training.{flag}"
        for stage in ("critic", "policy")
        for flag in ("batch-size=2", "max-steps=1", "max-length=512")
    ),
)  # fmt: skip


def dialogue(*texts):
    return [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def chat(tiny_model) -> Chat:
    return Chat.load(tiny_model)


@pytest.fixture(scope="module")
def given(chat, tmp_path_factory) -> dict:
    """Flag -> a file in the released layout."""
    folder, rows = tmp_path_factory.mktemp("released"), released.trajectories(chat)
    made = {
        "trajectories": rows,
        "pairs": released.critic_pairs(rows),
        "candidates": released.candidates(rows),
        "turn-pairs": released.turn_pairs(rows, chat.format.end),
    }
    return {name: released.write(folder / f"{name}.jsonl", found) for name, found in made.items()}


@pytest.fixture
def run(start, tiny_model, given, tmp_path):
    """Runs the stages one after another with flags; the names in `files` are given as released files."""

    def stages(wanted, files, *flags):
        before = len(list(tmp_path.iterdir()))
        run_dir = tmp_path / (f"run-{before}" if before else "run")
        files = [f"--{name}={given[name]}" for name in files]
        for stage in wanted:
            ended = start(f"--run-dir={run_dir}", f"--model={tiny_model}", f"--stage={stage}", *SMALL, *files, *flags)
            assert ended.status == 0, ended.stderr
        return run_dir

    return stages


def note(run_dir, stage):
    return json.loads((run_dir / stage / "done.json").read_text())


# --- which stages a method has, and what a given file replaces -------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "stages"),
    [
        ({"algorithm": "zero-shot"}, "tasks evaluation"),
        ({"algorithm": "rft"}, "tasks rollouts grading policy evaluation"),
        ({"algorithm": "mtdpo"}, "tasks rollouts grading pairs policy evaluation"),
        (
            {"algorithm": "sweet"},
            "tasks rollouts grading pairs critic candidates ranking turn-pairs policy evaluation",
        ),
        ({"algorithm": "mtdpo", "pairs": "p"}, "tasks pairs policy evaluation"),
        ({"turn_pairs": "p"}, "tasks turn-pairs policy evaluation"),
        ({"pairs": "p", "candidates": "c"}, "tasks pairs critic candidates ranking turn-pairs policy evaluation"),
        ({"model": "scratch", "algorithm": "zero-shot"}, "tasks start evaluation"),
        (
            {"critic": Critic(parameterisation="pmi")},
            "tasks rollouts grading candidates ranking turn-pairs policy evaluation",
        ),
        (
            {"algorithm": "mtdpo", "policy": Policy(select="auto")},
            "tasks rollouts grading pairs policy selection evaluation",
        ),
        (
            {"algorithm": "mtdpo", "tasks": "t", "policy": Policy(select="auto")},
            "tasks rollouts grading pairs policy evaluation",
        ),
        (
            {"algorithm": "rft", "tasks": "t", "validation_tasks": "v", "policy": Policy(select="validation")},
            "tasks rollouts grading policy selection evaluation",
        ),
    ],
)
def test_a_given_file_replaces_the_stage_that_would_write_it_and_what_only_that_one_reads(settings, stages):
    assert plan_stages(TrainConfig(**settings)) == tuple(stages.split())


@pytest.mark.parametrize(
    ("flag", "algorithm"), [("pairs", "rft"), ("candidates", "mtdpo"), ("turn-pairs", "zero-shot")]
)
def test_a_file_that_the_method_does_not_read_is_refused(start, given, tmp_path, flag, algorithm):
    ended = start(f"--run-dir={tmp_path}", f"--algorithm={algorithm}", f"--{flag}={given[flag]}")
    assert ended.status == 2
    assert f"which --algorithm={algorithm} does not read" in " ".join(ended.stderr.split())


# --- methods and switches --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_imitation_trains_on_the_successes_alone_and_with_its_own_batch(run):
    run_dir = run(
        ("rollouts", "grading", "policy"), ["trajectories"], "--algorithm=rft", "--policy.training.batch-size=4",
        "--policy.nll-mask=all",
    )  # fmt: skip
    assert note(run_dir, "policy") | {"seconds": 0} == {
        "rows": 4, "steps": 1, "seconds": 0, "action_tokens": note(run_dir, "policy")["action_tokens"],
        "action_tokens_without_loss": 0,
    }  # fmt: skip


@pytest.mark.slow
def test_trajectory_dpo_sees_no_reference_solution(run, given, chat):
    run_dir = run(("pairs", "policy"), ["pairs"], "--algorithm=mtdpo", "--policy.nll-mask=all")
    assert note(run_dir, "policy")["rows"] == 4
    shown = read_rows(given["pairs"], Pair)
    for pair, before in zip(read_rows(run_dir / "pairs" / "trajectory_pairs.jsonl", Pair), shown, strict=True):
        row = row_from_json(pair.extra["chosen_tokens"], "row")
        assert "In light that" not in pair.chosen + pair.rejected + chat.decode(row.ids)
        assert before.chosen.endswith(pair.chosen) and row.num_turns == 2


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["critic", "policy"])
def test_a_turn_beyond_max_turns_counts_in_the_loss(start, tiny_model, chat, tmp_path, stage):
    """Twelve turns, equal but for the last one: the margin can only come from it."""
    said = dialogue(*["what else ?", "say more"] * 11, "what else ?")
    prompt = chat.decode(chat.prompt_ids(said))
    pair = {"chosen": prompt + "return 1", "rejected": prompt + "return 2"}
    given = tmp_path / "pairs.jsonl"
    given.write_text("\n" + json.dumps(pair) + "\n")
    method = ("--algorithm=mtdpo",) if stage == "policy" else ("--critic.no-privileged", "--critic.aggregation=sum")
    flags = (f"--run-dir={tmp_path / 'run'}", f"--model={tiny_model}", f"--pairs={given}", *SMALL, *method)
    steps = (
        f"--{stage}.training.max-steps=2",
        f"--{stage}.training.epochs=2",
        f"--{stage}.learning-rate=1e-2",
    )
    for name in ("pairs", stage):
        ended = start(*flags, *steps, "--rollouts.max-turns=3", f"--stage={name}")
        assert ended.status == 0, ended.stderr
    rows = [json.loads(line) for line in (tmp_path / "run" / stage / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["rewards/margins"] != 0
    counts = note(tmp_path / "run", stage)
    assert counts["action_tokens"] > 24 and counts["action_tokens_without_loss"] == 0


@pytest.mark.parametrize(
    ("flag", "rows", "sentence"),
    [
        ("turn-pairs", [{"prompt": "hi", "chosen": "ho", "rejected": "no"}], ":3: 'chosen': no agent turn in the text"),
        ("pairs", [{"chosen": "a<|bos|>b", "rejected": "c"}], ":3: 'chosen': no agent turn in the text"),
        (
            "pairs",
            [TOKENS | {"chosen_tokens": {"ids": [1, 9999], "spans": [], "prefix": 0}}],
            ":3: 'chosen': token id 9999 is none",
        ),
    ],
)
def test_a_given_row_that_cannot_be_trained_on_is_named_by_its_line(start, tiny_model, tmp_path, flag, rows, sentence):
    given = tmp_path / "given.jsonl"
    given.write_text("\n\n" + "".join(json.dumps(row) + "\n" for row in rows))
    method = ("--algorithm=mtdpo",) if flag == "pairs" else ()
    stage = "pairs" if flag == "pairs" else flag
    ended = start(
        f"--run-dir={tmp_path / 'run'}", f"--model={tiny_model}", f"--{flag}={given}", f"--stage={stage}", *method
    )
    assert f"{given}{sentence}" in ended.refuses()


@pytest.mark.slow
def test_long_pairs_are_refused_cut_or_dropped(run, start, tiny_model, given, tmp_path):
    flags = ("--policy.training.truncation=drop-pair", "--policy.training.max-length=16")
    run(("turn-pairs",), ["turn-pairs"], *flags)
    shared = (f"--run-dir={tmp_path / 'run'}", f"--model={tiny_model}", "--stage=policy", *SMALL, *flags)
    sentence = start(*shared, f"--turn-pairs={given['turn-pairs']}").refuses()
    assert sentence == "error: stage policy: there are no rows to train on"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "sum_of_mean"),
    [
        (("--critic.aggregation=token-mean",), "mean"),
        (("--critic.aggregation=sum",), "sum"),
        (("--critic.no-privileged",), "mean"),
    ],
)
def test_a_turn_is_ranked_by_what_the_critic_was_trained_on(run, flags, sum_of_mean):
    run_dir = run(("pairs", "critic", "candidates", "ranking", "turn-pairs"), ["pairs", "candidates"], *flags)
    assert note(run_dir, "critic")["pairs"] == 4
    for row in read_rows(run_dir / "ranking" / "ranked.jsonl", Ranked):
        extra = row.candidates.extra
        ratios, older = extra["token_log_ratios"], extra["older"]
        assert [len(one) for one in ratios] == [len(ids) for ids in extra["output_ids"]]
        combine = {"sum": np.sum, "mean": np.mean}[sum_of_mean]
        np.testing.assert_allclose([combine(one) for one in ratios], row.judge_result, atol=1e-3)
        np.testing.assert_allclose(combine(older["token_log_ratios"]), older["judge_result"], atol=1e-3)
        shown = row.candidates.input_with_ground_truth.startswith("In light that")
        assert shown == ("--critic.no-privileged" not in flags)


@pytest.mark.slow
def test_a_public_reference_is_the_samplers_own_log_prob_without_the_reference_solution(run):
    flags = ("--ranking.reference-context=public", "--critic.aggregation=token-mean", "--policy.nll-mask=all")
    run_dir = run(
        ("pairs", "critic", "candidates", "ranking", "turn-pairs", "policy"), ["pairs", "candidates"], *flags
    )  # fmt: skip
    for row in read_rows(run_dir / "ranking" / "ranked.jsonl", Ranked):
        shifted = np.array(row.judge_result) + row.candidates.additional_reference_logprobs  # the critic's own mean
        assert (shifted < 0).all() and len(set(shifted)) == 4
    for pair in read_rows(run_dir / "turn-pairs" / "pairs.jsonl", Pair):
        better, worse = pair.extra["picked"]
        ranked = read_rows(run_dir / "ranking" / "ranked.jsonl", Ranked)[pair.extra["position"]]
        assert pair.extra["advantages"] == [ranked.judge_result[better], ranked.judge_result[worse]]
        assert ranked.candidates.additional_outputs[better] in pair.chosen
    assert note(run_dir, "policy")["steps"] == 1


@pytest.mark.slow
def test_a_critic_with_a_value_head_ranks_but_has_no_log_ratios(run):
    flags = ("--critic.parameterisation=value-head", "--critic.nll-coef=0")
    run_dir = run(("pairs", "critic", "candidates", "ranking", "turn-pairs"), ["pairs", "candidates"], *flags)
    for row in read_rows(run_dir / "ranking" / "ranked.jsonl", Ranked):
        assert len(set(row.judge_result)) > 1
        assert {"token_log_ratios", "older"}.isdisjoint(row.candidates.extra)


@pytest.mark.slow
def test_a_critic_with_a_value_of_every_prefix_ranks_too(run):
    flags = ("--critic.parameterisation=prefix-value", "--critic.nll-coef=0")
    run_dir = run(("pairs", "critic", "candidates", "ranking", "turn-pairs"), ["pairs", "candidates"], *flags)
    for row in read_rows(run_dir / "ranking" / "ranked.jsonl", Ranked):
        assert len(set(row.judge_result)) > 1
        assert {"token_log_ratios", "older", "learned", "pmi"}.isdisjoint(row.candidates.extra)


@pytest.mark.slow
def test_pmi_needs_no_training_and_is_a_part_of_the_released_score(run):
    ranked = {}
    for name, flags in (
        ("pmi", ("--critic.parameterisation=pmi",)),
        ("public", ("--ranking.reference-context=public",)),
        ("privileged", ()),
    ):
        stages = ("candidates", "ranking") if name == "pmi" else ("pairs", "critic", "candidates", "ranking")
        run_dir = run(stages, ["candidates"] if name == "pmi" else ["pairs", "candidates"], *flags)
        ranked[name] = read_rows(run_dir / "ranking" / "ranked.jsonl", Ranked)
    for pmi, public, privileged in zip(*ranked.values(), strict=True):
        part, both, learned = (row.candidates.extra for row in (pmi, public, privileged))
        assert list(pmi.judge_result) == part["pmi"] == both["pmi"] == learned["pmi"] and "learned" not in part
        np.testing.assert_allclose(public.judge_result, np.array(both["learned"]) + both["pmi"], rtol=1e-6)
        assert list(privileged.judge_result) == learned["learned"] == both["learned"]


@pytest.mark.slow
def test_turns_are_paired_by_a_least_gap_and_cut_scores(run, start, given, tiny_model):
    flags = ("--critic.parameterisation=pmi",)
    stages = ("candidates", "ranking", "turn-pairs")
    pairs = read_rows(run(stages, ["candidates"], *flags) / "turn-pairs" / "pairs.jsonl", Pair)
    gaps = sorted(pair.extra["advantages"][0] - pair.extra["advantages"][1] for pair in pairs)
    middle = gaps[len(gaps) // 2]
    run_dir = run(stages, ["candidates"], *flags, f"--ranking.min-gap={middle}")
    wide = read_rows(run_dir / "turn-pairs" / "pairs.jsonl", Pair)
    assert all(pair.extra["advantages"][0] - pair.extra["advantages"][1] >= middle for pair in wide)
    cut = (f"--run-dir={run_dir.parent / 'cut'}", f"--model={tiny_model}", *SMALL, *flags, "--ranking.clip-scores=0.1")
    for stage in stages:
        ended = start(*cut, f"--candidates={given['candidates']}", "--ranking.min-gap=0.3", f"--stage={stage}")
    assert ended.refuses().endswith(
        "no turn has two different candidates whose scores differ by 0.3 (ranking.min_gap) to compare"
    )


@pytest.mark.slow
def test_the_critics_beta_is_chosen_by_held_out_pairs(run, start):
    run_dir = run(("pairs", "critic"), ["pairs"], "--critic.beta=0")
    found = note(run_dir, "critic")
    assert set(found["held_out_loss"]) == {"0.1", "0.3", "1", "3"}
    assert found["held_out_loss"][f"{found['beta']:g}"] == min(found["held_out_loss"].values())
    again = run_dir.parent / "again"
    run_dir.rename(again)
    plain = run(("pairs", "critic"), ["pairs"], f"--critic.beta={found['beta']}")
    one, other = ((folder / "critic" / "metrics.jsonl").read_text().splitlines()[-1] for folder in (again, plain))
    assert json.loads(one)["loss"] == json.loads(other)["loss"]
    refused = start("--critic.beta=0", "--critic.parameterisation=value-head", "--critic.nll-coef=0").refuses()
    assert refused.endswith("critic.beta is 0, to be chosen, which only log-ratio has and not value-head")


@pytest.mark.slow
def test_a_position_of_equally_good_turns_is_kept_for_the_nll(run):
    flags = ("--critic.parameterisation=pmi", "--ranking.min-gap=100")
    run_dir = run(("candidates", "ranking", "turn-pairs", "policy"), ["candidates"], *flags, "--ranking.keep-ties")
    ranked = read_rows(run_dir / "ranking" / "ranked.jsonl", Ranked)
    pairs = read_rows(run_dir / "turn-pairs" / "pairs.jsonl", Pair)
    assert all(pair.chosen == pair.rejected for pair in pairs)
    assert note(run_dir, "turn-pairs")["pairs"] == 0 and note(run_dir, "turn-pairs")["ties"] == len(pairs)
    assert "the policy only imitates the best" in (run_dir / "log.txt").read_text()
    best = {
        place: row.candidates.additional_outputs[int(np.argmax(row.judge_result))] for place, row in enumerate(ranked)
    }
    for place, text in best.items():
        assert next(pair for pair in pairs if pair.extra["position"] == place).chosen.endswith(f"{text}<|end|>")
    assert note(run_dir, "policy")["steps"] == 1


@pytest.mark.slow
def test_the_first_rows_can_be_held_out_as_the_released_trainer_does(run):
    run_dir = run(("turn-pairs", "policy"), ["turn-pairs"], "--policy.training.held-out-share=0.3")
    assert note(run_dir, "policy")["rows"] == 6  # of 8


# --- text or token columns -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_critic_refuses_pairs_without_the_reference_solution(run, start, tiny_model, chat, tmp_path):
    rows = released.trajectories(chat)
    path = released.write(tmp_path / "pairs.jsonl", released.turn_pairs(rows, chat.format.end))
    flags = (f"--run-dir={tmp_path / 'other'}", f"--model={tiny_model}", f"--pairs={path}", "--stage=pairs")
    assert start(*flags).refuses() == (
        f"error: {path}:1: the dialogue does not begin with the reference solution, which the critic is to see: "
        "--critic.no-privileged trains one that does not"
    )
    assert start(*flags, "--critic.no-privileged").status == 0


def test_rows_made_of_text_are_the_rows_of_the_token_columns(chat, given):
    rows = released.trajectories(chat)
    for pair, text in zip(released.critic_pairs(rows), read_rows(given["pairs"], Pair), strict=True):
        assert pair == text
    for index, pair in enumerate(released.critic_pairs(rows)):
        trajectory = rows[index]
        plain = trajectory_row(trajectory, chat, "", "row")
        tokens = chat.add_prefix(plain, privileged_prefix(trajectory.task.ground_truth))
        assert row_to_json(pair_rows(pair, chat, False, "row").chosen) == row_to_json(tokens)
    for pair in released.turn_pairs(rows, chat.format.end):
        made = pair_rows(pair, chat, True, "row").chosen
        prompt = chat.text_prompt_ids(rows[0].agent_turns[0].input)
        assert made.ids[made.turns > 0].tolist() == chat.text_turn_ids("which unit ?")
        assert len(made) == len(chat.tokenizer(pair.chosen, add_special_tokens=False)["input_ids"]) and len(prompt) > 0


@pytest.mark.slow
def test_a_policy_trained_on_our_turn_pairs_is_the_one_trained_on_their_text(run, start, tiny_model, tmp_path):
    steps = ("pairs", "critic", "candidates", "ranking", "turn-pairs", "policy")
    ours = run(steps, ["pairs", "candidates"])
    stripped = [Pair(pair.chosen, pair.rejected) for pair in read_rows(ours / "turn-pairs" / "pairs.jsonl", Pair)]
    path = released.write(tmp_path / "text.jsonl", stripped)
    for stage in ("turn-pairs", "policy"):
        ended = start(
            f"--run-dir={tmp_path / 'text'}", f"--model={tiny_model}", f"--stage={stage}", *SMALL,
            f"--turn-pairs={path}",
        )  # fmt: skip
        assert ended.status == 0, ended.stderr
    mine, theirs = (
        read_rows(folder / "turn-pairs" / "pairs.jsonl", Pair) for folder in (ours, tmp_path / "text")
    )  # fmt: skip
    for one, other in zip(mine, theirs, strict=True):
        assert one.extra["chosen_tokens"] == other.extra["chosen_tokens"]
        assert one.extra["rejected_tokens"] == other.extra["rejected_tokens"]
    weights = [(folder / "policy" / "model" / "model.safetensors").read_bytes() for folder in (ours, tmp_path / "text")]
    assert weights[0] == weights[1]


# --- our files, as the released scripts read them --------------------------------------------------------------------


@pytest.mark.slow
def test_our_files_hold_what_the_released_scripts_read(run, chat):
    steps = ("rollouts", "grading", "pairs", "critic", "candidates", "ranking", "turn-pairs")
    run_dir = run(steps, ["trajectories"])

    def objects(name):
        return [json.loads(line) for line in (run_dir / name).read_text().splitlines()]

    dialogues = objects("grading/trajectories.jsonl")
    assert len(dialogues) == 8  # sample-major: rows i and i + 4 are of one task
    for number, row in enumerate(dialogues):
        assert row["task"]["problem_description"] == dialogues[number % 4]["task"]["problem_description"]
        assert isinstance(row["task"]["ground_truth"], str) and isinstance(row["answer"], str)
        assert isinstance(row["reward"], float)
        assert [message["role"] for message in row["dialogue_history"]][::2] == ["user"] * (
            len(row["dialogue_history"]) // 2
        )
        assert all({"role", "content", "input", "output"} <= set(m) for m in row["dialogue_history"][1::2])
    for row in objects("pairs/trajectory_pairs.jsonl"):
        for side in (row["chosen"], row["rejected"]):
            prefix, opening, _ = side.partition(chat.format.opening)
            assert prefix.startswith("In light that the final answer is: def ") and opening == chat.format.opening
            assert not side.endswith(chat.format.end)
    lists = ("additional_outputs", "additional_reference_logprobs", "additional_reference_logprobs_sum", "judge_result")
    for row in objects("ranking/ranked.jsonl"):
        assert [len(row[name]) for name in lists] == [4, 4, 4, 4]
        assert all(isinstance(value, float) for name in lists[1:] for value in row[name])
        assert (
            row["input_with_ground_truth"]
            == f"In light that the final answer is: {row['ground_truth']}." + row["input"]
        )
        assert row["messages"][-1]["role"] == "user" and isinstance(row["older_output"], str)
        assert row["older"]["output_ids"] == row["older_ids"]
    for row in objects("turn-pairs/pairs.jsonl"):
        assert row["chosen"].startswith(chat.format.opening) and row["rejected"].startswith(chat.format.opening)


def test_the_readers_give_back_a_released_row_as_it_was(given):
    kinds = {"trajectories": Trajectory, "pairs": Pair, "candidates": Candidates, "turn-pairs": Pair}
    for name, kind in kinds.items():
        lines = [json.loads(line) for line in given[name].read_text().splitlines()]
        assert [row.to_json() for row in read_rows(given[name], kind)] == lines
    pairs = [json.loads(line) for line in given["pairs"].read_text().splitlines()]
    assert {tuple(row) for row in pairs} == {("chosen", "rejected")}
