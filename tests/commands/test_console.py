"""What is printed, on terminals of all kinds and where there is none."""

import io
import re

import numpy as np
import pytest

from mnist_accel.console.display import (
    TrainingDisplay,
    format_confusion_matrix,
    format_duration,
    print_probabilities,
    print_table,
)

DIGITS = [str(digit) for digit in range(10)]


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")


def _train(display, clock, *, first=1, steps=30, epoch_every=10, seconds_per_step=1.0):
    with display:
        display.note("backend numba: fastest available")
        for step in range(first, first + steps):
            clock.now += seconds_per_step
            figures = {
                "step": step,
                "epoch": (step - 1) // epoch_every + 1,
                "loss": 1 / step,
                "accuracy": 1 - 1 / step,
                "images_per_s": 123_456.0,
            }
            display.advance(**figures)
            if step % 5 == 0:
                display.log_line(**figures, lr=0.05)
            if step % epoch_every == 0:
                display.epoch_line(f"epoch {step // epoch_every}: fine")


def _shown(*, stdout=None, stderr=None, total=30, quiet=False, progress=True, **training):
    stdout, stderr, clock = stdout or io.StringIO(), stderr or io.StringIO(), Clock()
    display = TrainingDisplay(
        total, quiet=quiet, progress=progress, stdout=stdout, stderr=stderr, clock=clock
    )
    _train(display, clock, **training)
    return stdout.getvalue(), stderr.getvalue()


def _screen(text):
    """What a terminal shows in the end of `text`, which may return and erase lines."""
    lines = [""]
    for part in re.split(r"(\n|\r|\x1b\[\??[\d;]*[A-Za-z])", text):
        if part == "\n":
            lines.append("")
        elif part == "\r":
            lines[-1] = "\r" + lines[-1].lstrip("\r")
        elif part == "\x1b[2K":
            lines[-1] = ""
        elif part == "\x1b[1A":
            lines.pop()
        elif not part.startswith("\x1b") and part:
            lines[-1] = part if lines[-1].startswith("\r") else lines[-1] + part
    return [line.lstrip("\r") for line in lines]


def test_a_pipe_gets_a_line_at_each_log_step():
    out, err = _shown()
    assert out == "epoch 1: fine\nepoch 2: fine\nepoch 3: fine\n"
    lines = err.splitlines()
    assert lines[0] == "backend numba: fastest available"
    assert len(lines) == 1 + 6
    assert lines[2] == (
        "epoch 1  step 10/30  loss 0.1000  accuracy 90.00%  lr 0.05  123,456 images/s  0:20 left"
    )
    assert "\x1b" not in err
    assert "\r" not in err


def test_a_long_line_is_not_wrapped_in_a_pipe():
    stderr = io.StringIO()
    with TrainingDisplay(1, quiet=False, progress=True, stderr=stderr) as display:
        display.note("x" * 500)
    assert stderr.getvalue() == "x" * 500 + "\n"


def test_brackets_are_printed_as_they_are():
    stderr = Terminal()
    with TrainingDisplay(1, quiet=False, progress=True, stderr=stderr) as display:
        display.note("pip install mnist-accel[cuda12] :smile:")
    assert stderr.getvalue() == "pip install mnist-accel[cuda12] :smile:\n"


def test_a_terminal_gets_a_bar_that_is_gone_in_the_end():
    out, err = _shown(stderr=Terminal())
    assert out == "epoch 1: fine\nepoch 2: fine\nepoch 3: fine\n"
    assert "━" in err
    assert "12/30  loss 0.0833  accuracy 91.67%  123,456 images/s  0:18 left" in err
    assert "lr 0.05" not in err  # the bar shows what the lines would
    assert [line for line in _screen(err) if line] == ["backend numba: fastest available"]
    assert err.count("\x1b[?25l") == err.count("\x1b[?25h") > 0  # the cursor is back


def test_results_do_not_tear_the_bar_on_a_shared_terminal():
    terminal = Terminal()
    _shown(stdout=terminal, stderr=terminal)
    assert [line for line in _screen(terminal.getvalue()) if line] == [
        "backend numba: fastest available",
        "epoch 1: fine",
        "epoch 2: fine",
        "epoch 3: fine",
    ]


def test_notes_and_warnings_go_above_the_bar():
    stderr, clock = Terminal(), Clock()
    display = TrainingDisplay(9, quiet=False, progress=True, stderr=stderr, clock=clock)
    with display:
        display.advance(step=1, epoch=1, loss=1.0, accuracy=None, images_per_s=None)
        display.warn("the disk is nearly full")
        screen = [line for line in _screen(stderr.getvalue()) if line]
    assert screen[0] == "warning: the disk is nearly full"
    assert screen[1].startswith("epoch 1  1/9  loss 1.0000  -:-- left  ━")


def test_the_cursor_comes_back_after_an_error():
    stderr = Terminal()
    display = TrainingDisplay(9, quiet=False, progress=True, stderr=stderr)

    def interrupted_training():
        with display:
            display.advance(step=1, epoch=1, loss=1.0, accuracy=None, images_per_s=None)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted_training()
    assert stderr.getvalue().rstrip("\r").count("\x1b[?25h") == 1
    assert not any(_screen(stderr.getvalue()))


def test_a_dumb_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    _, err = _shown(stderr=Terminal())
    assert "\x1b" not in err
    assert len(err.splitlines()) == 1 + 6


def test_forced_colour_does_not_animate_a_pipe(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_INTERACTIVE", "1")
    _, err = _shown()
    assert "\x1b" not in err


def test_no_color_is_respected(monkeypatch):
    colour = re.compile(r"\x1b\[[\d;]*3\d[\d;]*m")
    _, with_colour = _shown(stderr=Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    _, without = _shown(stderr=Terminal())
    assert colour.search(with_colour)
    assert not colour.search(without)
    assert "━" in without


@pytest.mark.parametrize("width", [30, 50, 80, 200])
def test_the_bar_fits_on_one_line(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    stderr, clock = Terminal(), Clock()
    display = TrainingDisplay(90_000, quiet=False, progress=True, stderr=stderr, clock=clock)
    with display:
        display.advance(step=45_000, epoch=2, loss=0.5, accuracy=0.5, images_per_s=1e6)
        (line,) = (line for line in _screen(stderr.getvalue()) if line)
    assert len(line) <= width
    assert line.count("━") + line.count("╸") + line.count("╺") >= 8
    assert "loss 0.5000" in line


@pytest.mark.parametrize("terminal", [False, True])
def test_without_progress_only_notes_and_epochs_remain(terminal):
    out, err = _shown(stderr=Terminal() if terminal else None, progress=False)
    assert err == "backend numba: fastest available\n"
    assert out.count("\n") == 3


@pytest.mark.parametrize("terminal", [False, True])
def test_quiet_prints_nothing_but_warnings(terminal):
    stream = Terminal() if terminal else io.StringIO()
    assert _shown(stdout=io.StringIO(), stderr=stream, quiet=True) == ("", "")
    display = TrainingDisplay(1, quiet=True, progress=True, stderr=stream)
    display.warn("cupy: no device is visible")
    assert re.sub(r"\x1b\[\d+m", "", stream.getvalue()) == "warning: cupy: no device is visible\n"


@pytest.mark.parametrize("total", [None, 0])
def test_without_a_known_end_the_time_so_far_is_shown(total):
    _, err = _shown(total=total)
    assert err.splitlines()[2].endswith("step 10  loss 0.1000  accuracy 90.00%  lr 0.05  "
                                        "123,456 images/s  0:10 so far")  # fmt: skip
    _, err = _shown(total=total, stderr=Terminal())
    assert "0:10 so far" in err
    assert "━" not in err


def test_the_time_left_of_a_resumed_training_counts_its_own_steps_only():
    _, err = _shown(total=1010, first=1001, steps=5)
    assert "0:05 left" in err


def test_the_time_left_follows_the_pace_without_jumping():
    stderr, clock = io.StringIO(), Clock()
    display = TrainingDisplay(1000, quiet=False, progress=True, stderr=stderr, clock=clock)
    with display:
        for step in range(1, 101):
            clock.now += 1.0 if step != 100 else 30.0
            figures = {"step": step, "epoch": 1, "loss": 1.0, "accuracy": 0.5}
            display.advance(**figures, images_per_s=1.0)
            if step in (99, 100):
                display.log_line(**figures, images_per_s=1.0)
    before, after = (
        60 * int(m) + int(s) for m, s in re.findall(r"(\d+):(\d+) left", stderr.getvalue())
    )
    assert before == 901
    assert before < after < 2 * before


def test_the_bar_is_drawn_at_most_ten_times_a_second_and_at_the_last_step():
    _, err = _shown(stderr=Terminal(), steps=30, epoch_every=100, seconds_per_step=0.01)
    drawn = re.findall(r"(\d+)/30", err)
    assert len(drawn) <= 5
    assert drawn[-1] == "30"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0:00"), (59.6, "1:00"), (61, "1:01"), (3599.7, "1:00:00"), (90_061, "25:01:01")],
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


def _bars(stream, probabilities=(0.25, 0.5, 0.0, 0.003), names=("a", "bb", "c", "d")):
    print_probabilities(probabilities, names, stream)
    return stream.getvalue().splitlines()


def test_probabilities_as_bars():
    assert _bars(io.StringIO()) == [
        "a     25.00%  " + "█" * 10,
        "bb    50.00%  " + "█" * 20,
        "c      0.00%",
        "d      0.30%  ▏",
    ]


def test_probabilities_in_ascii_where_there_is_nothing_else():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_probabilities([0.25, 0.5], ["é", "b"], stream)
    stream.flush()
    assert stream.buffer.getvalue().decode("ascii").splitlines() == [
        "?    25.00%  " + "#" * 10,
        "b    50.00%  " + "#" * 20,
    ]


def test_the_most_probable_class_stands_out_on_a_terminal():
    lines = _bars(Terminal())
    assert ["\x1b[" in line for line in lines] == [False, True, False, False]


def test_a_table_in_a_pipe_is_aligned_and_never_cut():
    stream = io.StringIO()
    print_table(
        ["backend", "loss", "remark"], [["numpy", "10.5", "x" * 300], ["cupy", 1e-3, ""]], stream
    )
    lines = stream.getvalue().splitlines()
    assert lines == [
        "backend   loss  remark",
        "-------  -----  " + "-" * 300,
        "numpy     10.5  " + "x" * 300,
        "cupy     0.001",
    ]


def test_the_last_column_of_a_table_in_a_pipe_is_folded_between_words():
    stream = io.StringIO()
    remark = "a-remark of/several words " * 8
    print_table(["status", "remark"], [["ok", remark], ["", "short"]], stream)
    lines = stream.getvalue().splitlines()
    assert [len(line) for line in lines[:2]] == [len("status  remark"), max(map(len, lines))]
    assert max(map(len, lines)) <= 100
    assert lines[2].startswith("ok      a-remark of/several words a-remark ")
    assert lines[3].startswith("        ")
    assert " ".join(lines[2:]).split() == ["ok", *remark.split(), "short"]


def test_a_table_on_a_terminal_is_folded_to_its_width(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    print_table(["check", "remedy"], [["CuPy", "install [cuda12] " * 20]], stream)
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in stream.getvalue().splitlines()]
    assert max(map(len, lines)) <= 60
    assert "".join(lines).count("[cuda12]") == 20


def test_a_table_without_rows_is_its_head():
    stream = io.StringIO()
    print_table(["a", "long"], [], stream)
    assert stream.getvalue() == "a  long\n-  ----\n"


def test_a_row_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="argument"):
        print_table(["a", "b"], [["1"]], io.StringIO())


def test_confusion_matrix_of_digits():
    matrix = np.diag(np.arange(10) + 995)
    matrix[3, 8] = 42
    lines = format_confusion_matrix(matrix, DIGITS).splitlines()
    assert len(lines) == 12
    assert lines[1].split() == ["true", *DIGITS]
    assert lines[2 + 3].split() == ["3", ".", ".", ".", "998", ".", ".", ".", ".", "42", "."]


@pytest.mark.parametrize("largest", [0, 9, 1000, 600_000])
def test_confusion_matrix_fits_in_80_columns(largest):
    names = [f"quite a long name {digit}" for digit in DIGITS]
    text = format_confusion_matrix(np.full((10, 10), largest), names)
    assert max(map(len, text.splitlines())) <= 80
    assert text.isascii()
    assert "\n3 " in text
