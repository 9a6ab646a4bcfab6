"""Rows are prepared with an epoch length, and measured with rounds, that fit the time."""

from dataclasses import replace

import numba
import pytest

from benchmarks.contenders import contenders
from benchmarks.contenders.project import ProjectBackend
from benchmarks.suite import tasks
from benchmarks.suite.cases import (
    TrainingCase,
)
from benchmarks.suite.preparer import NotComparableError
from mnist_accel.training.trainer import Trainer

SMALL = TrainingCase("two-layer", 10)


class Paced(ProjectBackend):
    """NumPy with a clock that advances only during updates and epochs."""

    def __init__(self, *, update_s, step_s):
        super().__init__("numpy")
        self.now, self._update_s, self._step_s = 0.0, update_s, step_s

    def clock(self):
        return self.now

    def training(self, task):
        session = super().training(task)
        updates, steps = session.updates, len(task.images) // task.batch_size

        def slow_updates(batches):
            self.now += self._update_s * len(batches)
            return updates(batches)

        def slow_run():
            self.now += steps * self._step_s

        session.updates, session.run = slow_updates, slow_run
        return session


@pytest.mark.parametrize(
    ("update_s", "step_s", "steps"),
    [
        (1e-4, 1e-5, 500),  # as the case has them
        (5e-3, 1e-5, 500),  # an epoch is much faster than single updates
        (1e-4, 9.9e-4, 80),  # an epoch of 495 ms is shortened to 80 ms
        (5e-3, 9e-3, 16),  # a length within a factor of two is accepted
        (9, 9, 1),
    ],
)
def test_epoch_length_fits_the_speed_of_the_contender(prepare_row, update_s, step_s, steps):
    contender = Paced(update_s=update_s, step_s=step_s)
    prepared = prepare_row(SMALL, contender, clock=contender.clock)
    assert prepared.info.steps == steps
    assert prepared.info.images == steps * 10


def test_epoch_length_is_chosen_in_at_most_three_trials(prepare_row):
    contender = Paced(update_s=1e-3, step_s=1)
    make, paces = contender.training, []

    def training(task):
        contender._step_s = (1, 1e-6)[len(paces) % 2]
        paces.append(contender._step_s)
        return make(task)

    contender.training = training
    prepare_row(SMALL, contender, clock=contender.clock)
    assert len(paces) <= 1 + 3  # the first session is for the check


def test_compile_time_is_that_of_the_first_session(prepare_row):
    """The following sessions use its compiled code."""
    contender = Paced(update_s=9e-2, step_s=9e-2)
    make, left = contender.training, [5.0, 0.0]

    def training(task):
        session = make(task)
        session.compile_s = left.pop(0)
        return session

    contender.training = training
    prepared = prepare_row(SMALL, contender, clock=contender.clock)
    assert prepared.info.phases_s["compile"] == 5
    assert left == []


def test_numba_compile_time_excludes_cached_code(monkeypatch):
    task = tasks.training_task(SMALL, 1)
    contender = contenders()["numba"]
    contender.training(task)
    assert contender.training(task).compile_s == 0
    compiled = numba.njit(lambda number: number + 1)
    prepare = Trainer.prepare
    monkeypatch.setattr(Trainer, "prepare", lambda *given: compiled(1) and prepare(*given))
    assert contender.training(task).compile_s > 0


def test_later_processes_keep_the_epoch_length(prepare_row):
    contender = Paced(update_s=9, step_s=9)
    row = prepare_row(SMALL, contender, clock=contender.clock, known_steps=7)
    assert row.info.steps == 7


@pytest.mark.parametrize(("call_s", "rounds"), [(1e-5, 100), (0.01, 10), (9, 1)])
def test_rounds_of_a_turn_fit_its_time(prepare_row, call_s, rounds):
    contender = Paced(update_s=1e-4, step_s=call_s)
    row = prepare_row(TrainingCase("two-layer", 7), contender, clock=contender.clock)
    assert row.info.steps == 1
    seconds = row.turn(0.1)
    assert len(seconds) == rounds
    assert seconds == pytest.approx([call_s] * rounds)


def test_turn_begins_with_a_warm_up(prepare_row):
    """Threads that wake up, and those of the previous contender, take time at its start."""
    contender = Paced(update_s=1e-4, step_s=1e-4)
    row = prepare_row(TrainingCase("two-layer", 7), contender, clock=contender.clock)
    awake_at = contender.now + 0.04

    def run():
        contender.now += 8e-3 if contender.now < awake_at else 1e-4

    assert replace(row, run=run).turn(0.1) == pytest.approx([1e-4] * 100)


def test_contender_without_a_call_is_not_compared(prepare_row):
    case = TrainingCase("cnn", 1, call="step")
    with pytest.raises(NotComparableError, match="loops does not have a single step"):
        prepare_row(case, contenders()["loops"])
