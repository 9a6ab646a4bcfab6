"""Long operations show what they do and how long they have run."""

import io
import threading

import pytest

from backends import compilation, compiled_kernels, needed_kernels
from mnist_accel.commands.dispatcher import guarded
from mnist_accel.console import activity
from mnist_accel.console.activity import preparation
from tests.support.terminal import Terminal, screen


@pytest.fixture(autouse=True)
def short_times(monkeypatch):
    for name in ("DELAY_SECONDS", "TERMINAL_SECONDS", "PIPE_SECONDS"):
        monkeypatch.setattr(activity, name, 0.01)


class Details:
    """A function that counts its calls, and an event that the third one sets."""

    def __init__(self):
        self.calls = 0
        self.third = threading.Event()

    def __call__(self):
        self.calls += 1
        if self.calls == 3:
            self.third.set()
        return f"{self.calls} MB"


def watch(stream):
    details = Details()
    with activity.activity("loading", stream, detail=details):
        assert details.third.wait(30)


def test_a_pipe_gets_lines_and_the_duration():
    stream = io.StringIO()
    watch(stream)
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["loading: 0 s; 1 MB", "loading: 0 s; 2 MB"]
    assert lines[-1].startswith("loading: finished after 0.")
    assert "\x1b" not in stream.getvalue()


def test_a_terminal_updates_one_line():
    terminal = Terminal()
    watch(terminal)
    text = terminal.getvalue()
    assert "loading: 0 s; 1 MB" in text
    (line,) = (line for line in screen(text) if line)
    assert line.startswith("loading: finished after 0.")
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor is shown again
    assert text.endswith("\n")


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_a_short_operation_prints_nothing(monkeypatch, stream):
    monkeypatch.setattr(activity, "DELAY_SECONDS", 30.0)
    with activity.activity("loading", stream):
        pass
    assert stream.getvalue() == ""


def test_a_hidden_activity_prints_nothing():
    stream = io.StringIO()
    shown = Details()
    with (
        activity.hide_activities(True),
        activity.activity("loading", stream, detail=shown),
    ):
        assert not shown.third.wait(0.1)
    assert stream.getvalue() == ""
    with activity.hide_activities(False):
        watch(stream)
    assert "loading: finished" in stream.getvalue()


def fail_after(details, stream):
    with activity.activity("loading", stream, detail=details):
        assert details.third.wait(30)
        raise OSError("disk")


def test_a_failed_operation_is_not_reported_as_finished():
    stream = io.StringIO()
    with pytest.raises(OSError, match="disk"):
        fail_after(Details(), stream)
    assert "finished" not in stream.getvalue()


def test_a_closed_pipe_ends_only_the_display():
    class Closed(io.StringIO):
        def write(self, text):
            tried.set()
            raise BrokenPipeError

    tried = threading.Event()
    with pytest.raises(BrokenPipeError), activity.activity("loading", Closed()):
        assert tried.wait(30)


class WaitsForText(io.StringIO):
    """A stream that sets an event when a text is written to it."""

    def __init__(self, text):
        super().__init__()
        self.found = threading.Event()
        self._text = text

    def write(self, text):
        if self._text in text:
            self.found.set()
        return super().write(text)


def test_compiling_is_mentioned_only_if_kernels_are_compiled():
    stream = WaitsForText("compiling kernel 2 of at most 9 (kept for later runs")
    first = WaitsForText("preparing: 0 s\n")
    with preparation(first):
        assert first.found.wait(30)
    assert "compiling" not in first.getvalue()
    with preparation(stream):
        compiled_kernels.extend(["conv2d", "linear"])
        needed_kernels.extend(["conv2d"] * 9)
        assert stream.found.wait(30)
    del compiled_kernels[-2:], needed_kernels[-9:]


def test_python_code_announces_that_kernels_are_compiled_and_commands_do_not(monkeypatch, caplog):
    def compile_kernels():
        monkeypatch.setattr(compilation, "compiled_kernels", [])
        compilation.record_compilation("conv2d")
        compilation.record_compilation("linear")
        return 0

    assert guarded(compile_kernels, prog="train") == 0
    assert caplog.records == []
    compile_kernels()
    (record,) = caplog.records
    assert record.name == "mnist_accel"
    assert record.message.startswith("compiling kernels for this CPU; this takes up to 10 seconds")
