"""What a terminal shows of training: short lines; everything stays in the log and where there is no terminal."""

import io

import pytest

from launch.common.console import Console, ShortLine, clock_text

VALUES = {
    "loss": 0.412345, "grad_norm": 0.677, "logps/chosen": -15.54, "nll": 0.7355, "rewards/accuracies": 0.9375,
    "rewards/margins": 0.82512, "lr": 0.0003976,
}  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def loggers(in_process):
    """Consoles take the root logger; this fixture gives it back."""


def test_a_short_line_has_the_step_the_metrics_and_the_time_left():
    times = iter([10.0, 62.0])
    short = ShortLine("critic", lambda: next(times))
    assert short(20, 345, VALUES) == "critic 20/345  loss 0.412  accuracy 94%  margin 0.83"
    assert short(120, 345, VALUES) == "critic 120/345  loss 0.412  accuracy 94%  margin 0.83  0.52 s/step  1:57 left"


def test_metrics_that_a_stage_has_not_are_left_out():
    assert ShortLine("start")(20, 1600, {"loss": 2.0, "lr": 1e-3}) == "start 20/1600  loss 2"
    assert ShortLine("start")(20, 1600, {}) == ""


def test_a_short_line_never_wraps_at_80_columns():
    times = iter([0.0, 12_345_678.0])
    short = ShortLine("evaluation", lambda: next(times))
    worst = {"loss": -1.2345e-10, "rewards/accuracies": 1.0, "rewards/margins": -1.2345e-10}
    short(1, 10**6, worst)
    assert len(short(10**3, 10**6, worst)) < 80
    assert len(ShortLine("policy")(999_999, 999_999, worst)) < 80


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (117.2, "1:57"), (3599, "59:59"), (7500, "2:05:00")]
)
def test_time_is_told_as_a_clock_tells_it(seconds, text):
    assert clock_text(seconds) == text


def test_a_terminal_shows_the_short_line_and_the_log_keeps_the_whole_one(tmp_path):
    screen, line = Terminal(), "stage=critic step=5/60 loss=0.4123 lr=0.0003976"
    console = Console(screen)
    with console.logged_to(tmp_path / "log.txt"):
        console.progress("critic", 5, 60, line, "critic 5/60  loss 0.412")
    console.end_progress()
    assert "critic 5/60  loss 0.412" in screen.getvalue() and line not in screen.getvalue()
    assert (tmp_path / "log.txt").read_text() == line + "\n"


def test_without_a_terminal_the_whole_line_is_printed(tmp_path):
    stream, line = io.StringIO(), "stage=critic step=5/60 loss=0.4123 lr=0.0003976"
    Console(stream).progress("critic", 5, 60, line, "critic 5/60  loss 0.412")
    assert stream.getvalue() == line + "\n"


def test_odd_characters_do_not_keep_a_line_out_of_the_log(tmp_path):
    console = Console(io.StringIO())
    with console.logged_to(tmp_path / "log.txt"):
        console.say("/data/\udcff: – 😀")
    assert (tmp_path / "log.txt").read_bytes() == "/data/\\udcff: – 😀\n".encode()
