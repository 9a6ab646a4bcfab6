"""The display of a training, on terminals of all kinds and in pipes."""

import io
import itertools
import re

import pytest

from mnist_accel.console.progress import Figures, TrainingDisplay, format_duration
from tests.support.terminal import Terminal, screen, without_colors


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def display_on(stderr, *, total=9, clock=None, quiet=False):
    """Return a display with a progress bar or log lines, on a stream."""
    return TrainingDisplay(total, quiet=quiet, progress=True, stderr=stderr, clock=clock or Clock())


def figures(step, *, epoch=1, loss=1.0, accuracy=0.5, images_per_s=1.0):
    return Figures(step, epoch, loss, accuracy, 0.05, images_per_s)


def train(display, clock, *, first=1, steps=30, epoch_every=10, seconds_per_step=0.4):
    """Call the display as a training does, with a log line every five steps."""
    with display:
        display.note("backend numba: fastest available")
        for step in range(first, first + steps):
            clock.now += seconds_per_step
            now = figures(
                step,
                epoch=(step - 1) // epoch_every + 1,
                loss=1 / step,
                accuracy=1 - 1 / step,
                images_per_s=123_456.0,
            )
            display.update(now)
            if step % 5 == 0:
                display.log(now)
            if step % epoch_every == 0:
                display.result(f"epoch {step // epoch_every}: fine")


def output(*, stdout=None, stderr=None, total=30, quiet=False, progress=True, **training):
    """Return what a training writes to stdout and stderr."""
    stdout, stderr, clock = stdout or io.StringIO(), stderr or io.StringIO(), Clock()
    display = TrainingDisplay(
        total, quiet=quiet, progress=progress, stdout=stdout, stderr=stderr, clock=clock
    )
    train(display, clock, **training)
    return stdout.getvalue(), stderr.getvalue()


def test_a_pipe_gets_a_line_at_each_log_step():
    out, err = output()
    assert out == "epoch 1: fine\nepoch 2: fine\nepoch 3: fine\n"
    lines = err.splitlines()
    assert lines[0] == "backend numba: fastest available"
    assert len(lines) == 1 + 6
    assert lines[2] == (
        "epoch 1  step 10/30  loss 0.1000  accuracy 90.00%  lr 0.05  123,456 images/s  0:08 left"
    )
    assert "\x1b" not in err
    assert "\r" not in err


def test_a_pipe_gets_more_lines_if_log_steps_are_seconds_apart():
    stderr, clock = io.StringIO(), Clock()
    with display_on(stderr, total=1000, clock=clock) as display:
        for step in range(1, 1001):
            clock.now += 1.0
            display.update(figures(step))
    text = stderr.getvalue().replace(",", "")
    steps = [int(step) for step in re.findall(r"step +(\d+)/", text)]
    assert steps[:3] == [3, 6, 9]
    distances = [after - before for before, after in itertools.pairwise(steps)]
    assert distances == sorted(distances)  # a long training has fewer lines per minute
    assert distances[-1] < 60


def test_a_long_line_is_not_wrapped_in_a_pipe():
    stderr = io.StringIO()
    with display_on(stderr) as display:
        display.note("x" * 500)
    assert stderr.getvalue() == "x" * 500 + "\n"


def test_brackets_and_colons_are_printed_unchanged():
    stderr = Terminal()
    with display_on(stderr) as display:
        display.note("pip install mnist-accel[cuda12] :smile:")
    assert stderr.getvalue() == "pip install mnist-accel[cuda12] :smile:\n"


def test_a_terminal_shows_a_bar_that_is_erased_at_the_end():
    out, err = output(stderr=Terminal())
    assert out == "epoch 1: fine\nepoch 2: fine\nepoch 3: fine\n"
    assert "━" in err
    assert "12/30  loss 0.0833  accuracy 91.67%  123,456 images/s  0:07 left" in err
    assert "lr 0.05" not in err  # log lines are not printed beside the bar
    assert [line for line in screen(err) if line] == ["backend numba: fastest available"]
    assert err.count("\x1b[?25l") == err.count("\x1b[?25h") > 0  # the cursor is shown again


def test_results_on_the_same_terminal_do_not_disturb_the_bar():
    terminal = Terminal()
    output(stdout=terminal, stderr=terminal)
    assert [line for line in screen(terminal.getvalue()) if line] == [
        "backend numba: fastest available",
        "epoch 1: fine",
        "epoch 2: fine",
        "epoch 3: fine",
    ]


def test_notes_and_warnings_are_printed_above_the_bar():
    stderr = Terminal()
    with display_on(stderr) as display:
        display.update(figures(1))
        display.warn("the disk is nearly full")
        lines = [line for line in screen(stderr.getvalue()) if line]
    assert lines[0] == "warning: the disk is nearly full"
    assert lines[1].startswith(
        "epoch 1  1/9  loss 1.0000  accuracy 50.00%  1 images/s  -:-- left ━"
    )


def test_the_cursor_is_shown_again_after_an_error():
    stderr = Terminal()
    display = display_on(stderr)

    def interrupted_training():
        with display:
            display.update(figures(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted_training()
    assert stderr.getvalue().rstrip("\r").count("\x1b[?25h") == 1
    assert not any(screen(stderr.getvalue()))


def test_a_dumb_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    _, err = output(stderr=Terminal())
    assert "\x1b" not in err
    assert len(err.splitlines()) == 1 + 6


def test_forced_colors_do_not_animate_a_pipe(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_INTERACTIVE", "1")
    _, err = output()
    assert "\x1b" not in err


def test_no_color_removes_the_colors_of_the_bar(monkeypatch):
    color = re.compile(r"\x1b\[[\d;]*3\d[\d;]*m")
    _, with_color = output(stderr=Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    _, without = output(stderr=Terminal())
    assert color.search(with_color)
    assert not color.search(without)
    assert "━" in without


@pytest.mark.parametrize("width", [30, 50, 80, 200])
def test_the_bar_fits_into_one_line(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    stderr = Terminal()
    with display_on(stderr, total=90_000) as display:
        display.update(figures(45_000, epoch=2, loss=0.5, images_per_s=1e6))
        (line,) = (line for line in screen(stderr.getvalue()) if line)
    assert len(line) <= width
    assert line.count("━") + line.count("╸") + line.count("╺") >= 8
    assert "loss 0.5000" in line


@pytest.mark.parametrize("terminal", [False, True])
def test_without_progress_only_notes_and_epochs_are_printed(terminal):
    out, err = output(stderr=Terminal() if terminal else None, progress=False)
    assert err == "backend numba: fastest available\n"
    assert out.count("\n") == 3


@pytest.mark.parametrize("terminal", [False, True])
def test_a_quiet_display_prints_only_warnings(terminal):
    stream = Terminal() if terminal else io.StringIO()
    assert output(stdout=io.StringIO(), stderr=stream, quiet=True) == ("", "")
    display_on(stream, quiet=True).warn("cupy: no device is visible")
    assert without_colors(stream.getvalue()) == "warning: cupy: no device is visible\n"


def test_the_remaining_time_of_a_resumed_training_counts_only_its_own_steps():
    _, err = output(total=1010, first=1001, steps=5)
    assert "0:02 left" in err


def test_the_remaining_time_does_not_jump_after_one_slow_step():
    stderr, clock = io.StringIO(), Clock()
    with display_on(stderr, total=1000, clock=clock) as display:
        for step in range(1, 101):
            clock.now += 1.0 if step != 100 else 30.0
            display.update(figures(step))
            if step in (99, 100):
                display.log(figures(step))
    left = {
        int(step): 60 * int(m) + int(s)
        for step, m, s in re.findall(r"step +(\d+)/.* (\d+):(\d+) left", stderr.getvalue())
    }
    before, after = left[99], left[100]
    assert before == 901
    assert before < after < 2 * before


def test_the_bar_is_drawn_at_most_ten_times_per_second_and_at_the_last_step():
    _, err = output(stderr=Terminal(), steps=30, epoch_every=100, seconds_per_step=0.01)
    drawn = re.findall(r"(\d+)/30", err)
    assert len(drawn) <= 5
    assert drawn[-1] == "30"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0:00"), (59.6, "1:00"), (61, "1:01"), (3599.7, "1:00:00"), (90_061, "25:01:01")],
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text
