"""Notes that are printed during a long preparation."""

import threading

import pytest

from mnist_accel.console import phases


@pytest.fixture(autouse=True)
def short_times(monkeypatch):
    monkeypatch.setattr(phases, "SILENT_SECONDS", 0.01)
    monkeypatch.setattr(phases, "REPEAT_SECONDS", 0.01)


def test_a_long_preparation_prints_notes_and_its_duration():
    lines = []
    printed_three = threading.Event()

    def note(line):
        lines.append(line)
        if len(lines) == 3:
            printed_three.set()

    with phases.preparation_notes(note):
        assert printed_three.wait(30)
    assert lines[0].startswith("preparing; the first time on a machine")
    assert all(line.startswith("preparing for 0 s") for line in lines[1:-1])
    assert lines[-1].startswith("ready after 0.")


def test_a_short_preparation_prints_nothing(monkeypatch):
    monkeypatch.setattr(phases, "SILENT_SECONDS", 30.0)
    lines = []
    with phases.preparation_notes(lines.append):
        pass
    assert lines == []


def test_a_failed_preparation_is_not_reported_as_ready():
    lines = []
    printed = threading.Event()

    def note(line):
        lines.append(line)
        printed.set()

    def wait_and_fail():
        with phases.preparation_notes(note):
            assert printed.wait(30)
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        wait_and_fail()
    assert not any(line.startswith("ready") for line in lines)
