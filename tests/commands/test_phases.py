"""A word to who waits."""

import threading

import pytest

from mnist_accel.console import phases


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(phases, "PATIENCE_S", 0.01)
    monkeypatch.setattr(phases, "PROGRESS_S", 0.01)


def test_who_waits_hears_that_it_goes_on_and_how_long_it_took():
    lines = []
    heard_three = threading.Event()

    def note(line):
        lines.append(line)
        if len(lines) == 3:
            heard_three.set()

    with phases.getting_ready(note):
        assert heard_three.wait(30)
    assert lines[0].startswith("getting ready; the first time on a machine")
    assert all(line.startswith("getting ready for 0 s") for line in lines[1:-1])
    assert lines[-1].startswith("ready after 0.")


def test_who_hardly_waits_hears_nothing(monkeypatch):
    monkeypatch.setattr(phases, "PATIENCE_S", 30.0)
    lines = []
    with phases.getting_ready(lines.append):
        pass
    assert lines == []


def test_what_fails_is_not_ready():
    lines = []
    heard = threading.Event()

    def note(line):
        lines.append(line)
        heard.set()

    def wait_and_fail():
        with phases.getting_ready(note):
            assert heard.wait(30)
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        wait_and_fail()
    assert not any(line.startswith("ready") for line in lines)
