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


def test_similar_candidates_take_turns_in_all_rounds_within_the_budget():
    machine = SimulatedMachine({"a": 100.0, "b": 99.0, "c": 98.0})
    turns = machine.measure_all(budget_s=0.6)
    assert turns == {"a": [100.0] * 5, "b": [99.0] * 5, "c": [98.0] * 5}
    assert machine.measured == ["a", "b", "c"] * 5
    assert machine.now == pytest.approx(0.6)


def test_pauses_before_turns_do_not_count():
    machine = SimulatedMachine({"a": 100.0, "b": 99.0})
    paused = []

    def pause(candidate):
        paused.append(candidate)
        machine.now += 10.0

    turns = machine.measure_all(budget_s=0.5, before_turn=pause)
    assert turns == {"a": [100.0] * 5, "b": [99.0] * 5}
    assert paused == machine.measured


def test_slow_candidates_are_dropped_after_three_turns():
    machine = SimulatedMachine({"a": 100.0, "slow": 20.0, "middle": 69.0, "near": 71.0})
    machine.measure_all()
    rounds = {name: machine.measured.count(name) for name in ("a", "slow", "middle", "near")}
    assert rounds == {"a": 5, "slow": 3, "middle": 3, "near": 5}


def test_measurement_ends_if_one_candidate_remains():
    machine = SimulatedMachine({"a": 100.0, "slow": 10.0})
    machine.measure_all()
    assert machine.measured == ["a", "slow"] * 3


@pytest.mark.parametrize("disturbed", [{1}, {3}, {1, 3}, {3, 5}])
def test_one_or_two_disturbed_turns_do_not_drop_a_candidate(disturbed):
    machine = SimulatedMachine(
        {"a": 100.0, "b": 80.0}, slowdown=lambda number: 1e3 if number in disturbed else 1.0
    )
    turns = machine.measure_all()
    assert {name: max(values) for name, values in turns.items()} == {"a": 100.0, "b": 80.0}
    assert len(turns["a"]) == len(turns["b"]) == 5


@pytest.mark.parametrize(("turn_s", "rounds"), [(1.0, 1), (0.3, 3), (0.1, 3)])
def test_turns_that_take_longer_than_planned_are_fewer(turn_s, rounds):
    machine = SimulatedMachine({"a": 100.0, "b": 90.0, "c": 95.0})
    measure_once = machine.measure
    machine.measure = lambda candidate, seconds: measure_once(candidate, turn_s)
    assert machine.measure_all(budget_s=0.6).keys() == {"a", "b", "c"}
    assert machine.measured == ["a", "b", "c"] * rounds


@pytest.mark.parametrize(
    ("chunk_s", "slow_chunk", "batch_size"), [(0.001, None, 200), (0.1, None, 16), (0.001, 3, 200)]
)
def test_batches_stay_small_if_steps_are_slow_more_than_once(chunk_s, slow_chunk, batch_size):
    readings = itertools.count()  # the trainer reads the clock twice per chunk

    def clock():
        number = next(readings)
        return number * chunk_s + (slow_chunk is not None and number > 2 * slow_chunk)

    trainer = ma.Trainer(
        ma.create_model("two-layer", backend=get_backend("numpy")), batch_size=200, clock=clock
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
