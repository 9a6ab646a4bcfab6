"""Each case is prepared once, with an epoch length and rounds that fit the time."""

from dataclasses import replace

import numba
import pytest

from benchmarks.contenders import contenders
from benchmarks.contenders.project import ProjectBackend
from benchmarks.suite import preparer, tasks
from benchmarks.suite.cases import (
    TrainingCase,
)
from benchmarks.suite.preparer import Preparer
from mnist_accel.training.trainer import Trainer

SMALL = TrainingCase("two-layer", 10)


def test_epoch_of_a_slow_contender_is_shortened(monkeypatch):
    monkeypatch.setattr(preparer, "EPOCH_S", 1e-9)
    prepared = Preparer().prepare(SMALL, contenders()["numpy"])
    assert (prepared.info.steps, prepared.info.images) == (1, 10)


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


def test_row_is_prepared_once_for_all_passes():
    contender = Paced(update_s=1e-6, step_s=1e-6)
    prepares = Preparer(clock=contender.clock)
    prepared = prepares.prepare(SMALL, contender)
    assert prepared.info.steps == SMALL.steps
    assert prepared.info.images == SMALL.steps * 10
    assert prepares.prepare(SMALL, contender) is prepared


@pytest.mark.parametrize(
    ("update_s", "step_s", "steps"),
    [
        (1e-6, 1e-6, 500),  # as the case has them
        (5e-3, 1e-6, 500),  # an epoch is much faster than single updates
        (1e-6, 9.9e-4, 151),  # an epoch of 495 ms is shortened to 150 ms
        (5e-3, 9e-3, 30),  # a length within a factor of two is accepted
        (9, 9, 1),
    ],
)
def test_epoch_length_fits_the_speed_of_the_contender(update_s, step_s, steps):
    contender = Paced(update_s=update_s, step_s=step_s)
    prepared = Preparer(clock=contender.clock).prepare(SMALL, contender)
    assert prepared.info.steps == steps


def test_epoch_length_is_chosen_in_at_most_three_trials():
    contender = Paced(update_s=1e-3, step_s=1)
    make, paces = contender.training, []

    def training(task):
        contender._step_s = (1, 1e-6)[len(paces) % 2]
        paces.append(contender._step_s)
        return make(task)

    contender.training = training
    Preparer(clock=contender.clock).prepare(SMALL, contender)
    assert len(paces) == 1 + 3  # the first session is for the check


def test_compile_time_is_that_of_the_first_session():
    """The following sessions use its compiled code."""
    contender = Paced(update_s=1e-6, step_s=1e-6)
    make, left = contender.training, [5.0, 0.0]

    def training(task):
        session = make(task)
        session.compile_s = left.pop(0)
        return session

    contender.training = training
    prepared = Preparer(clock=contender.clock).prepare(SMALL, contender)
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


def test_continued_run_keeps_the_epoch_length():
    contender = Paced(update_s=9, step_s=9)
    known = {(SMALL.name, contender.name): 7}
    prepares = Preparer(clock=contender.clock, known_steps=known)
    assert prepares.prepare(SMALL, contender).info.steps == 7


@pytest.mark.parametrize(("call_s", "rounds", "calls"), [(1e-5, 100, 50), (0.01, 10, 1), (9, 2, 1)])
def test_rounds_and_calls_fit_the_budget(call_s, rounds, calls):
    contender = Paced(update_s=1e-6, step_s=call_s)
    prepares = Preparer(clock=contender.clock)
    one_step = TrainingCase("two-layer", 7)
    prepared = prepares.prepare(one_step, contender)
    assert prepared.info.steps == 1
    assert prepares.rounds(prepared, budget_s=0.1) == (rounds, calls)


def test_warm_up_lasts_until_threads_are_distributed():
    contender = Paced(update_s=1e-6, step_s=1e-4)
    prepares = Preparer(clock=contender.clock)
    prepared = prepares.prepare(TrainingCase("two-layer", 7), contender)
    spread_at = contender.now + 0.1

    def run():
        contender.now += 8e-3 if contender.now < spread_at else 1e-4

    assert prepares.rounds(replace(prepared, run=run), budget_s=0.1) == (100, 5)
