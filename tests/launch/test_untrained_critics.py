"""Critics that need no training, as stages of a run: belief and judge (pmi: tests/launch/test_methods.py)."""

import pytest

from colbench_env.dialogue import ANSWER_MARKER
from colbench_env.tasks import read_rows
from colbench_env.types import Ranked
from launch import rollout
from models.hf_io import load_llama
from models.llama import Llama
from sweet_jax.data.batch import TokenRow, default_buckets
from sweet_jax.data.chat import Chat
from sweet_jax.data.token_rows import candidate_row
from sweet_jax.mesh import MeshShape, make_mesh
from sweet_jax.reference import reference_logps
from sweet_jax.untrained_critics import JUDGE_PROMPT, NO, YES

pytestmark = pytest.mark.slow
STAGES = ("tasks", "rollouts", "grading", "candidates", "ranking")
SMALL = (
    "--num-tasks=3", "--evaluation.num-tasks=2", "--rollouts.samples=1", "--rollouts.max-turns=3",
    "--rollouts.max-new-tokens=8", "--rollouts.rows=4", "--ranking.candidates=4", "--ranking.data-fraction=1.0",
    "--critic.training.batch-size=4", "--critic.training.max-length=512",
)  # fmt: skip


@pytest.fixture
def ranked(start, tiny_model, tmp_path):
    """Runs the stages with a critic; gives what it ranked."""

    def rank(kind):
        for stage in STAGES:
            ended = start(
                f"--run-dir={tmp_path / kind}", f"--model={tiny_model}", f"--critic.parameterisation={kind}", *SMALL,
                f"--stage={stage}",
            )  # fmt: skip
            assert ended.status == 0, ended.stderr
        return read_rows(tmp_path / kind / "ranking" / "ranked.jsonl", Ranked)

    return rank


@pytest.fixture
def logps_of(tiny_model):
    """Sums the log-probs of the action tokens of rows under the base policy."""
    mesh = make_mesh(MeshShape(1, 1))
    loaded = load_llama(tiny_model, mesh)
    model = Llama(loaded.config, mesh)

    def sums(rows: list[TokenRow]) -> list[float]:
        told = {"batch_size": 1, "buckets": default_buckets(512), "pad_id": 0}
        return [float(reference_logps(model, loaded.params, [row], **told)[0].sum()) for row in rows]

    return sums


def test_belief_is_what_turn_and_reply_add_to_the_log_prob_of_the_reference(ranked, logps_of, tiny_model, tmp_path):
    rows, chat = ranked("belief"), Chat.load(tiny_model)
    by_turn = {row.candidates.extra["turn"] for row in rows}
    assert by_turn == {1, 2, 3}
    for row in rows:
        extra = row.candidates.extra
        if extra["turn"] == 3:  # the last: nobody replies
            assert set(row.judge_result) == {0.0}
    row = next(row for row in rows if row.candidates.extra["turn"] == 2)
    extra, messages = row.candidates.extra, row.candidates.messages
    assert len(set(row.judge_result)) > 1 and {"learned", "pmi", "token_log_ratios"}.isdisjoint(extra)
    replies = ["No preference.", "Up to you.", "I don't mind.", "No idea."]
    answer = chat.text_turn_ids(f"{ANSWER_MARKER}\n{row.candidates.ground_truth}")
    before = candidate_row(extra["prompt_ids"], answer, extra["prefix_length"])
    gains = set()
    for ids, score in zip(extra["output_ids"], row.judge_result, strict=True):
        after = [
            candidate_row([*extra["prompt_ids"], *ids, *chat.continue_ids(ids, reply)], answer, extra["prefix_length"])
            for reply in replies
        ]
        base, *sums = logps_of([before, *after])
        gains.add(min(abs(score - (total - base)) for total in sums) < 1e-3)
    assert messages[-1].role == "user" and True in gains


def test_the_judge_is_asked_with_the_reference_whether_a_turn_helps(ranked, logps_of, tiny_model):
    rows, chat = ranked("judge"), Chat.load(tiny_model)
    row = rows[0]
    extra = row.candidates.extra
    for output, score in zip(row.candidates.additional_outputs, row.judge_result, strict=True):
        dialogue = "\n".join(f"{message.role}: {message.content}" for message in row.candidates.messages)
        text = JUDGE_PROMPT.format(reference=row.candidates.ground_truth, dialogue=dialogue, turn=output)
        prompt = chat.prompt_ids([{"role": "user", "content": text}])
        yes, no = logps_of(
            [candidate_row(prompt, chat.text_turn_ids(word), extra["prefix_length"]) for word in (YES, NO)]
        )
        assert score == pytest.approx(yes - no, abs=1e-3)


def test_critics_that_cannot_be_asked_are_refused(start, in_process, ranked, tmp_path):
    found = start("--critic.parameterisation=judge", "--critic.no-privileged")
    assert found.refuses().endswith("'judge', which reads the reference solution: privileged is needed")
    found = start("--critic.parameterisation=belief", "--human=model")
    assert found.refuses().endswith("only scripted and rules answer without a model (--human=model)")
    ranked("belief")
    ended = in_process(
        rollout.main, "--best-of=2", f"--critic={tmp_path / 'belief'}", f"--output={tmp_path / 'best.jsonl'}"
    )
    assert ended.status == 2
    assert "belief asks the user simulator after every turn, which only launch.train does" in ended.stderr
