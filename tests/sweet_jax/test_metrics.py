"""What a stage writes about itself, and the warnings of a collapse."""

import json
import math

import jax.numpy as jnp
import pytest

from sweet_jax.losses import MeanMetric
from sweet_jax.train.metrics import CollapseWatch, Diverged, MetricsLog, format_line, mostly_perfect, to_floats


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_network_that_leaves_its_reference_is_warned_of_once():
    watch = CollapseWatch(total=100)
    assert watch.step(20, {"log_ratios/abs": 3.0}) == []
    assert watch.step(21, {"log_ratios/abs": 3.1}) == [
        "log-ratios are 3.1 nats a token at step 21 of 100: the network has left its reference; a higher beta, a lower "
        "learning rate or fewer steps hold it"
    ]
    assert watch.step(22, {"log_ratios/abs": 40.0}) == []


def test_chosen_rows_that_become_unlikely_are_warned_of_once():
    watch = CollapseWatch(total=100)
    for step, chosen in ((20, -20.0), (21, -30.0), (22, -12.0)):
        assert watch.step(step, {"logps/chosen": chosen}) == []
    assert watch.step(23, {"logps/chosen": -30.1}) == [
        "the log-prob of the chosen rows fell from -20.0 to -30.1 at step 23 of 100: the loss makes both sides "
        "unlikely; a higher nll_coef holds them"
    ]
    assert watch.step(24, {"logps/chosen": -99.0}) == []
    short = CollapseWatch(total=100)
    assert short.step(20, {"logps/chosen": -1.0}) == short.step(21, {"logps/chosen": -5.9}) == []  # noise of short rows


def test_metrics_are_divided_once_with_the_loss_first():
    metrics = {
        "grad_norm": MeanMetric(jnp.float32(2), jnp.float32(1)),
        "loss": MeanMetric(jnp.float32(3), jnp.float32(4)),
    }
    assert list(to_floats(metrics).items()) == [("loss", 0.75), ("grad_norm", 2.0)]


def test_a_step_is_one_line_that_a_script_can_read():
    line = format_line("critic", 12, 300, {"loss": 0.693147, "rewards/accuracies": 0.54, "lr": 2e-7})
    assert line == "stage=critic step=12/300 loss=0.6931 rewards/accuracies=0.54 lr=2e-07"
    assert dict(word.split("=") for word in line.split())["loss"] == "0.6931"


def test_every_step_is_a_row_of_json(tmp_path):
    with MetricsLog(tmp_path, "critic") as log:
        assert log.write(1, 2, {"loss": 0.5}) == "stage=critic step=1/2 loss=0.5"
        log.write(2, 2, {"loss": 0.25})
    assert rows_of(tmp_path / "metrics.jsonl") == [
        {"stage": "critic", "step": 1, "total": 2, "loss": 0.5},
        {"stage": "critic", "step": 2, "total": 2, "loss": 0.25},
    ]


def test_a_resumed_stage_has_no_step_twice_even_if_a_kill_cut_the_last_line(tmp_path):
    with MetricsLog(tmp_path, "critic") as log:
        for step in (1, 2, 3, 4):
            log.write(step, 4, {"loss": float(step)})
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-9])
    with MetricsLog(tmp_path, "critic", resume_step=3) as log:
        log.write(3, 4, {"loss": 30.0})
        log.write(4, 4, {"loss": 40.0})
    assert [(row["step"], row["loss"]) for row in rows_of(path)] == [(1, 1.0), (2, 2.0), (3, 30.0), (4, 40.0)]


def test_a_stage_begun_anew_drops_the_rows_of_the_one_before(tmp_path):
    for loss in (1.0, 2.0):
        with MetricsLog(tmp_path, "critic") as log:
            log.write(1, 1, {"loss": loss})
    assert [row["loss"] for row in rows_of(tmp_path / "metrics.jsonl")] == [2.0]


def test_tensorboard_gets_the_same_numbers(tmp_path):
    with MetricsLog(tmp_path, "critic") as log:
        log.write(7, 9, {"loss": 0.5})
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"critic/loss" in events.read_bytes()


def test_a_value_that_is_not_finite_stops_the_stage():
    for value in (math.nan, math.inf):
        with pytest.raises(Diverged, match="grad_norm is (nan|inf) at step 3 of 100"):
            CollapseWatch(total=100).step(3, {"loss": 0.5, "grad_norm": value})


def test_accuracy_1_early_is_warned_of_once_and_late_not_at_all():
    perfect, good = {"rewards/accuracies": 1.0}, {"rewards/accuracies": 0.9}
    watch = CollapseWatch(total=100)
    found = [watch.step(step, values) for step, values in enumerate([perfect, perfect, good] + [perfect] * 6, start=1)]
    assert [step for step, warnings in enumerate(found, start=1) if warnings] == [6]
    assert found[5] == ["preference accuracy is 1.0 at step 6 of 100, over-fitting: use less data"]
    late = CollapseWatch(total=100)
    assert not [warning for step in range(11, 101) for warning in late.step(step, perfect)]


@pytest.mark.parametrize(
    ("accuracies", "share"),
    [
        ([1.0] * 9 + [0.9] * 4, "9 of 13"),
        ([0.9, 1.0, 0.8, 1.0, 1.0], "3 of 5"),
        ([1.0, 1.0, 1.0], "3 of 3"),
        ([0.9375] * 31 + [1.0] * 17, ""),  # the critic of the default run
        ([1.0, 0.9, 1.0, 0.9], ""),
        ([1.0, 1.0], ""),
        ([0.99999] * 9, ""),
        ([], ""),
    ],
)
def test_a_stage_with_accuracy_1_at_most_of_its_logged_steps_is_warned_of(accuracies, share):
    warning = mostly_perfect(accuracies)
    assert bool(warning) == bool(share)
    assert warning.startswith(f"preference accuracy was 1.0 at {share} logged steps: " if share else "")


def test_replies_that_shrink_below_half_are_warned_of_once():
    watch = CollapseWatch(total=100)
    found = [watch.replies(length) for length in (40.0, 60.0, 20.0, 19.9, 5.0)]
    assert found[:3] == [[], [], []]
    assert found[3] == ["replies shrank from 40.0 to 19.9 tokens: the policy collapses"]
    assert found[4] == []


def test_dialogues_that_shrink_below_half_of_the_start_policys_turns_are_warned_of():
    watch = CollapseWatch(total=2)
    assert watch.turns(5.2) == watch.turns(2.7) == []
    assert watch.turns(2.0) == ["dialogues shrank from 5.2 to 2.0 agent turns: the policy collapses"]
    assert watch.turns(1.0) == []


def test_rows_without_counted_tokens_and_truncated_rows_are_counted():
    assert CollapseWatch(total=1).rows(50) == []
    assert CollapseWatch(total=1).rows(50, without_action_tokens=2, truncated=3) == [
        "2 of 50 rows have no action token and teach nothing",
        "3 of 50 rows were longer than the limit and were cut",
    ]


def test_a_recompilation_is_warned_of_once():
    watch = CollapseWatch(total=1)
    assert watch.compilations(2, expected=2) == []
    assert watch.compilations(3, expected=2) == ["the train step was compiled 3 times, 2 expected: shapes change"]
    assert watch.compilations(4, expected=2) == []
