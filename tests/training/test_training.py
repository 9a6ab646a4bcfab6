"""Training: batches, epochs, stop conditions, divergence and accuracy."""

import itertools
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mnist_accel as ma
from backends import Order
from mnist_accel.data.batches import BatchSampler, split_indices
from mnist_accel.nn import Dropout, Linear, Network, SoftmaxCrossEntropy
from mnist_accel.runs.stop_rules import StopRules
from mnist_accel.training.callback import Callback
from mnist_accel.training.progress import EpochReport, StepsReport

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def small(mnist):
    rows = np.random.default_rng(0).permutation(60_000)[:300]
    return mnist.x_train[rows], mnist.t_train[rows]


def trainer(name="two-layer", backend="numpy", **settings):
    model = ma.create_model(name, backend=backend, seed=0)
    return ma.Trainer(model, **{"lr": 0.05, "batch_size": 32, **settings})


class Recorder(Callback):
    def __init__(self, every=None):
        self.every = every
        self.ends, self.steps, self.epochs = [], 0, []

    def on_steps(self, trainer, report):
        assert report.first_step == self.steps + 1
        assert len(report.losses) == len(report.correct) == len(report.images)
        self.steps = report.last_step
        self.ends.append(report.last_step)

    def on_epoch(self, trainer, report):
        self.epochs.append(report)


# Batches


def bounds_of(sampler, first, count):
    return sampler.steps(0, first, rates=np.zeros(count), before=first).bounds.tolist()


def test_shuffle_takes_every_image_once_an_epoch():
    sampler = BatchSampler(examples=103, batch_size=10, sampling="shuffle", seed=5)
    assert sampler.steps_per_epoch == 11
    steps = sampler.steps(0, 0, rates=np.zeros(11), before=0)
    parts = [steps.rows()[begin:end] for begin, end in steps.bounds]
    assert [len(part) for part in parts] == [10] * 10 + [3]
    assert sorted(np.concatenate(parts)) == list(range(103))
    assert not np.array_equal(sampler.order(0).rows(0, 103), sampler.order(1).rows(0, 103))
    assert sampler.order(1) == sampler.order(1)


def test_sampling_with_replacement_draws_every_batch_from_the_whole_set():
    sampler = BatchSampler(examples=1000, batch_size=300, sampling="replacement", seed=5)
    assert sampler.steps_per_epoch == 3
    rows = sampler.order(0).rows(0, 900)
    assert len(np.unique(rows)) < 700  # about 1000·(1 − e^−0.9) ≈ 593 are different
    small = BatchSampler(examples=5, batch_size=300, sampling="replacement", seed=5)
    assert small.steps_per_epoch == 1
    assert bounds_of(small, 0, 1) == [[0, 300]]


def test_full_sampling_takes_all_images_in_the_order_of_the_set():
    sampler = BatchSampler(examples=7, batch_size=7, sampling="full", seed=5)
    assert sampler.steps_per_epoch == 1
    assert bounds_of(sampler, 0, 3) == [[0, 7]] * 3
    assert sampler.order(3) == Order(7, "full")


def test_sequential_sampling_takes_batches_in_the_order_of_the_set():
    sampler = BatchSampler(examples=7, batch_size=3, sampling="sequential", seed=5)
    assert sampler.steps_per_epoch == 3
    assert bounds_of(sampler, 0, 3) == [[0, 3], [3, 6], [6, 7]]
    assert bounds_of(sampler, 1, 3) == [[0, 3], [3, 4], [4, 7]]
    assert sampler.order(3).rows(0, 7).tolist() == list(range(7))


def test_split_holds_out_random_images():
    kept, held_out = split_indices(1000, fraction=0.2, seed=1)
    assert len(held_out) == 200
    assert sorted([*kept, *held_out]) == list(range(1000))
    assert 0.35 < np.mean(held_out % 2) < 0.65
    with pytest.raises(ValueError, match="cannot hold out"):
        split_indices(3, fraction=0.01, seed=1)


# Epochs and steps


def test_epochs_train_like_the_same_number_of_iterations(small):
    by_epochs, by_steps = trainer(), trainer()
    history = by_epochs.fit(*small, epochs=2)
    by_steps.fit(*small, iterations=20)
    assert by_epochs.step == by_steps.step == len(history.losses) == 20
    assert [report.epoch for report in history.epochs] == [1, 2]
    for key, value in by_epochs.model.state_dict().items():
        assert np.array_equal(value, by_steps.model.state_dict()[key])
    for wrong in ({}, {"epochs": 1, "iterations": 1}, {"epochs": 0}, {"iterations": -1}):
        with pytest.raises(ValueError, match=r"epochs|iterations"):
            trainer().fit(*small, **wrong)


def test_incomplete_epoch_is_reported_and_completed_later(small):
    one = trainer()
    first = one.fit(*small, iterations=14, validation_data=small)
    assert [(r.epoch, r.step) for r in first.epochs] == [(1, 10), (2, 14)]
    second = one.fit(*small, epochs=1, validation_data=small)
    assert [(r.epoch, r.step) for r in second.epochs] == [(2, 20)]


def test_validation_runs_at_the_interval_and_after_the_last_epoch(small):
    history = trainer().fit(*small, epochs=5, validation_data=small, validation_every=2)
    seen = [report.epoch for report in history.epochs if report.validation_accuracy is not None]
    assert seen == [2, 4, 5]
    last = history.epochs[-1]
    assert last.validation_correct == round(last.validation_accuracy * last.validation_total)


def test_chunks_end_at_the_multiples_of_the_interval_of_each_callback(small):
    every_four, every_six = Recorder(4), Recorder(6)
    trainer().fit(*small, iterations=25, callbacks=[every_four, every_six])
    assert every_four.steps == 25
    assert {4, 8, 12, 16, 20, 24} <= set(every_four.ends)
    assert {6, 12, 18, 24} <= set(every_six.ends)


def test_full_batch_equals_train_batch(small):
    by_fit = trainer("fcnn", sampling="full", batch_size=300)
    by_fit.fit(*small, iterations=3)
    by_hand = trainer("fcnn")
    for _ in range(3):
        by_hand.train_batch(*small)
    for key, value in by_fit.model.state_dict().items():
        assert np.array_equal(value, by_hand.model.state_dict()[key])


@pytest.mark.parametrize("sampling", ["shuffle", "replacement", "sequential", "full"])
@pytest.mark.parametrize("threads", [None, 1, 2])
def test_chunks_of_several_epochs_do_not_change_a_bit(sampling, threads, small):
    """Weights, losses, reports of epochs, validations and position are those of single epochs."""
    fits = []
    for callbacks in ([Recorder()], []):
        backend = ma.get_backend("numba", threads=threads) if threads else ma.get_backend("numpy")
        clock = itertools.count(0.0, 0.01).__next__
        one = trainer(
            backend=backend, optimizer="adam", sampling=sampling, batch_size=70, clock=clock
        )
        settings = {"validation_data": small, "validation_every": 3, "callbacks": callbacks}
        first = one.fit(*small, epochs=7, **settings)
        rest = one.fit(*small, iterations=9, **settings)  # ends within an epoch
        fits.append((one, first.epochs + rest.epochs, first.losses + rest.losses))
        if callbacks:
            ends = callbacks[0].ends
            steps = one.sampler(300).steps_per_epoch
            assert {steps * epoch for epoch in range(1, 8)} <= set(ends)
    (by_epoch, *expected), (together, *got) = fits
    for reports in (expected[0], got[0]):
        reports[:] = [replace(report, images_per_s=0) for report in reports]
    assert got == expected
    assert replace(together.progress, epoch_seconds=0) == replace(
        by_epoch.progress, epoch_seconds=0
    )
    arrays = [
        [one.model.parameters.flat, *one.optimizer_state.values()] for one in (together, by_epoch)
    ]
    assert all(map(np.array_equal, *arrays))


def test_chunks_continue_into_the_next_epoch_unless_a_callback_or_a_validation_needs_its_end(small):
    def chunks(**settings):
        one = trainer(batch_size=100, clock=lambda: 0.0)  # no time passes
        run, lengths = one.chunks.run, []
        one.chunks.run = lambda data, steps, **options: (
            lengths.append(len(steps.bounds)) or run(data, steps, **options)
        )
        history = one.fit(*small, epochs=6, **settings)
        assert [report.epoch for report in history.epochs] == [1, 2, 3, 4, 5, 6]
        assert [report.step for report in history.epochs] == [3, 6, 9, 12, 15, 18]
        return lengths

    class TwoAtOnce(Callback):
        def __init__(self):
            self.epochs_at_once = 2

    assert chunks() == [1, 17]  # the first step is timed
    assert chunks(callbacks=[Callback()]) == [1, 2, 3, 3, 3, 3, 3]
    assert chunks(callbacks=[TwoAtOnce()]) == [1, 5, 6, 6]
    assert chunks(validation_data=small, validation_every=4) == [1, 11, 6]
    none_at_once = TwoAtOnce()
    none_at_once.epochs_at_once = 0
    with pytest.raises(ValueError, match="epochs_at_once must be at least 1, or None, got 0"):
        chunks(callbacks=[none_at_once])


def test_loss_of_an_epoch_does_not_depend_on_the_ends_of_chunks(small):
    together, one = trainer(batch_size=3), trainer(batch_size=3)
    (expected,) = together.fit(*small, epochs=1).epochs
    for _ in range(99):
        one.fit(*small, iterations=1)
    (report,) = one.fit(*small, iterations=1).epochs
    assert report.train_loss == expected.train_loss


def test_full_batch_loss_falls_monotonically(mnist):
    rows = np.random.default_rng(0).permutation(60_000)[:2000]
    model = ma.create_model("fcnn", backend="numba")
    falling = ma.Trainer(model, lr=0.0075, sampling="full", batch_size=2000)
    losses = falling.fit(mnist.x_train[rows], mnist.t_train[rows], iterations=40).losses
    assert all(np.diff(losses) < 0)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_same_seed_gives_the_same_weights_in_another_process(backend):
    code = (
        "import hashlib, numpy as np, mnist_accel as ma\n"
        "rng = np.random.default_rng(0)\n"
        "x, t = rng.integers(0, 256, (100, 784)).astype(np.uint8), rng.integers(0, 10, 100)\n"
        f"model = ma.create_model('lenet', backend='{backend}', seed=1)\n"
        "ma.Trainer(model, 'adam', batch_size=40, seed=2).fit(x, t, epochs=2)\n"
        "print(hashlib.sha256(model.parameters.flat.tobytes()).hexdigest())\n"
    )
    run = [sys.executable, "-c", code]
    digests = {subprocess.run(run, cwd=ROOT, capture_output=True, check=True).stdout for _ in "ab"}
    assert len(digests) == 1


def test_optimizer_objects_have_their_own_learning_rate(small):
    from mnist_accel.nn import Adam

    by_name = trainer(optimizer="adam", lr=0.003)
    by_instance = trainer(optimizer=Adam(lr=0.003), lr=None)
    assert by_name.fit(*small, iterations=3).losses == by_instance.fit(*small, iterations=3).losses
    with pytest.raises(ValueError, match="has its own lr"):
        trainer(optimizer=Adam(), lr=0.1)


def test_schedules_change_the_learning_rate(small):
    one = trainer(schedule="cosine", total_steps=10)
    assert one.learning_rate() == 0.05
    one.fit(*small, iterations=5)
    assert one.learning_rate() == pytest.approx(0.025)
    with pytest.raises(ValueError, match="pass total_steps"):
        trainer(schedule="cosine").train_batch(*small)


# Stop conditions


def test_stop_request_ends_after_the_step(small):
    class StopAt(Callback):
        every = 7

        def on_steps(self, trainer, report):
            trainer.request_stop("enough")

    one = trainer()
    history = one.fit(*small, epochs=3, callbacks=[StopAt()])
    assert history.stop_reason == "enough"
    assert one.step == len(history.losses) <= 7
    assert history.epochs == []


def report(accuracy):
    return EpochReport(1, 1, 0.0, 0.0, 0.0, validation_accuracy=accuracy)


def rules(**given):
    return StopRules(**{"target_accuracy": None, "patience": None, "max_seconds": None, **given})


def test_training_stops_at_the_target_without_improvement_or_at_the_time_limit():
    stopped = trainer()
    target = rules(target_accuracy=0.9)
    target.on_epoch(stopped, report(0.89))
    assert stopped._stop_reason == ""
    target.on_epoch(stopped, report(0.9))
    assert "target accuracy 90.00%" in stopped._stop_reason

    stopped = trainer()
    patient = rules(patience=2)
    for accuracy in (0.5, 0.4, 0.6, 0.6):
        patient.on_epoch(stopped, report(accuracy))
    assert stopped._stop_reason == ""
    patient.on_epoch(stopped, report(0.1))
    assert stopped._stop_reason == "no improvement in 2 evaluations"

    stopped = trainer()
    timed = rules(max_seconds=10.0)
    timed.on_steps(stopped, StepsReport(1, np.zeros(1), np.zeros(1), np.ones(1), seconds=9.75))
    assert stopped._stop_reason == ""
    timed.on_steps(stopped, StepsReport(2, np.zeros(1), np.zeros(1), np.ones(1), seconds=0.25))
    assert stopped._stop_reason == "time limit of 10 seconds reached"


# Divergence


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("stopped_clock", [True, False])
def test_divergence_names_step_and_tensor_and_restores_the_weights(backend, stopped_clock, small):
    """The restored weights are those at the start of the chunk, which has one step or many."""
    clock = (lambda: 0.0) if stopped_clock else time.perf_counter
    healthy, wild = trainer(backend=backend, lr=1e18), trainer(backend=backend, lr=1e18)
    wild._clock = clock
    with pytest.raises(ma.DivergedError) as caught:
        wild.fit(*small, epochs=1)
    step = caught.value.step
    assert step > 2
    assert f"at step {step}" in str(caught.value)
    assert caught.value.tensor in str(caught.value)
    assert 1 <= wild.step < step
    assert wild.step == wild.progress.epoch_step
    healthy.fit(*small, iterations=wild.step)
    for key, value in wild.model.state_dict().items():
        assert np.isfinite(value).all()
        assert np.array_equal(value, healthy.model.state_dict()[key])


def test_divergence_is_located_with_dropout(small):
    model = Network(
        [Linear(50), Dropout(0.5), Linear(10)],
        SoftmaxCrossEntropy(),
        input=ma.Pixels((784,)),
        backend=ma.get_backend("numpy"),
    )
    wild = ma.Trainer(model, lr=1e30, batch_size=32)
    with pytest.raises(ma.DivergedError) as caught:
        wild.fit(*small, epochs=1)
    assert caught.value.tensor != "loss"
    assert wild.step < caught.value.step


def test_overflow_of_weights_is_found_before_the_next_loss(small):
    one = trainer(lr=1e38)
    one.model.load_state_dict({k: v * 1e4 for k, v in one.model.state_dict().items()})
    with pytest.raises(ma.DivergedError) as caught:
        one.train_batch(*small)
    assert caught.value.step == 1
    assert all(np.isfinite(value).all() for value in one.model.state_dict().values())


# Accuracy after a short training; `make accept` trains completely


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_two_layer_learns(backend, mnist):
    model = ma.create_model("two-layer", backend=backend)
    one = ma.Trainer(model, lr=0.05, batch_size=512, sampling="replacement")
    one.fit(mnist.x_train, mnist.t_train, iterations=1000)
    assert ma.evaluate(model, mnist.x_test, mnist.t_test).accuracy >= 0.88


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_cnn_learns_one_image_at_a_time(backend, mnist):
    model = ma.create_model("cnn", backend=backend)
    one = ma.Trainer(model, lr=0.005, batch_size=1)
    one.fit(mnist.x_train[:1000], mnist.t_train[:1000], epochs=5)
    assert ma.evaluate(model, mnist.x_test[:1000], mnist.t_test[:1000]).accuracy >= 0.80


@pytest.mark.parametrize(
    ("name", "settings", "images", "required"),
    [
        ("three-layer", {"optimizer": "adam", "lr": 0.002, "batch_size": 64}, 60_000, 0.92),
        ("backprop", {"lr": 3.0, "batch_size": 10}, 30_000, 0.85),
        ("lenet", {"optimizer": "adam", "lr": 0.002, "batch_size": 64}, 10_000, 0.93),
    ],
)
def test_other_recipes_learn_in_an_epoch(name, settings, images, required, mnist):
    model = ma.create_model(name, backend="numba")
    rows = np.random.default_rng(0).permutation(60_000)[:images]
    ma.Trainer(model, **settings).fit(mnist.x_train[rows], mnist.t_train[rows], epochs=1)
    assert ma.evaluate(model, mnist.x_test, mnist.t_test).accuracy >= required


def test_history_can_be_written_as_json(small):
    history = trainer().fit(*small, epochs=1, validation_data=small)
    json.dumps([vars(report) for report in history.epochs])
    assert all(isinstance(loss, float) for loss in history.losses)
