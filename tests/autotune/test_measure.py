"""Candidates are measured in rounds, and slow ones are dropped."""

import itertools

import pytest

import mnist_accel as ma
from backends import get_backend
from mnist_accel.autotune import measure
from mnist_accel.autotune.measure import (
    ThroughputProbe,
    detect_busy_machine,
    measure_candidates,
)
from mnist_accel.data import load_dataset


class SimulatedMachine:
    """Candidates of known throughput, and a clock that only their measurements advance."""

    def __init__(self, throughput, slowdown=lambda number: 1.0):
        self.now = 0.0
        self.measured = []
        self._throughput = throughput
        self._slowdown = slowdown

    def measure(self, candidate, seconds):
        self.now += seconds
        self.measured.append(candidate)
        return self._throughput[candidate] / self._slowdown(len(self.measured))

    def measure_all(self, **settings):
        return measure_candidates(
            self.measure, list(self._throughput), clock=lambda: self.now, **settings
        )


def test_similar_candidates_are_measured_in_all_rounds_within_the_budget():
    machine = SimulatedMachine({"a": 100.0, "b": 99.0, "c": 98.0})
    assert machine.measure_all(budget_s=0.6) == {"a": 100.0, "b": 99.0, "c": 98.0}
    assert machine.measured == ["a", "b", "c"] * 4
    assert machine.now == pytest.approx(0.6)


def test_slow_candidates_are_dropped_early():
    machine = SimulatedMachine({"a": 100.0, "slow": 20.0, "middle": 40.0, "near": 90.0})
    machine.measure_all()
    rounds = {name: machine.measured.count(name) for name in ("a", "slow", "middle", "near")}
    assert rounds == {"a": 4, "slow": 1, "middle": 2, "near": 4}


def test_measurement_ends_if_one_candidate_remains():
    machine = SimulatedMachine({"a": 100.0, "slow": 10.0})
    machine.measure_all()
    assert machine.measured == ["a", "slow"]


def test_disturbance_of_one_measurement_does_not_change_the_result():
    machine = SimulatedMachine(
        {"a": 100.0, "b": 80.0}, slowdown=lambda number: 2.0 if number == 1 else 1.0
    )
    assert machine.measure_all() == {"a": 100.0, "b": 80.0}


def test_each_candidate_is_measured_once_even_if_the_budget_is_exceeded():
    machine = SimulatedMachine({"a": 100.0, "b": 90.0, "c": 95.0})
    measure_once = machine.measure
    machine.measure = lambda candidate, seconds: measure_once(candidate, 1.0)
    assert machine.measure_all(budget_s=0.5).keys() == {"a", "b", "c"}
    assert machine.measured == ["a", "b", "c"]


@pytest.mark.parametrize(("chunk_s", "batch_size"), [(0.001, 200), (0.1, 16)])
def test_batches_stay_small_if_steps_are_slow(chunk_s, batch_size):
    clock = itertools.count()  # the trainer reads the clock twice per chunk
    trainer = ma.Trainer(
        ma.create_model("two-layer", backend=get_backend("numpy")),
        batch_size=200,
        clock=lambda: next(clock) * chunk_s,
    )
    data = load_dataset("digits")
    probe = ThroughputProbe(trainer, trainer.prepare(data.x_train[:256], data.t_train[:256]))
    assert probe.measure(1, 0.05) > 0
    assert trainer.batch_size == batch_size
    assert trainer.model.backend.threads == 1


@pytest.mark.parametrize(("switches", "busy"), [(0, False), (10**9, True)])
def test_busy_machine_is_detected_by_context_switches(switches, busy, monkeypatch):
    counts = iter((5, 5 + switches))
    monkeypatch.setattr(measure, "_involuntary_switches", lambda: next(counts))
    with detect_busy_machine() as was_busy:
        pass
    assert was_busy() == busy


def test_the_system_counts_context_switches():
    assert measure._involuntary_switches() >= 0
