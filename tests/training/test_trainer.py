"""`Trainer.fit`: stop requests, changed data, chunks and the clock."""

import copy
import inspect
import itertools
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import mnist_accel as ma
from mnist_accel.nn import Dropout, Layer, Linear, Network, SoftmaxCrossEntropy
from tests.support.guarded_backend import GuardedBackend


@pytest.fixture(scope="module")
def small():
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (70, 784)).astype(np.uint8), rng.integers(0, 10, 70)


def trainer(**given):
    return ma.Trainer(ma.create_model("two-layer", backend="numpy"), batch_size=16, **given)


def test_stop_request_before_the_first_step_ends_fit(small):
    """Ctrl-C may come while the data are prepared."""
    one = trainer()
    one.request_stop("early")
    history = one.fit(*small, epochs=3)
    assert history.stop_reason == "early"
    assert one.step == 0
    assert one.fit(*small, epochs=1).stop_reason == ""
    assert one.step == 5


def test_stop_request_ends_a_chunk_early(small):
    """An eager chunk checks for a stop request before every step."""
    one = trainer(clock=lambda: 0.0)  # no time passes, so a chunk is a whole epoch
    one.fit(*small, iterations=1)
    update = one.model.backend.update
    numbers = itertools.count(one.step + 1)

    def update_and_ask(*args, **settings):
        update(*args, **settings)
        if next(numbers) == 3:
            one.request_stop("now")

    one.model.backend.update = update_and_ask
    history = one.fit(*small, epochs=2)
    assert one.step == 3
    assert len(history.losses) == 2
    assert one.progress.epoch_step == 3


def test_eager_chunks_take_a_fifth_of_a_second(small):
    """This limits the time between two calls of callbacks."""
    seconds = 0.0

    class Slow(ma.Callback):
        lengths: ClassVar = []

        def on_steps(self, trainer, report):
            self.lengths.append(len(report.losses))

    one = trainer(clock=lambda: seconds)
    update = one.model.backend.update

    def update_slowly(*args, **settings):
        nonlocal seconds
        update(*args, **settings)
        seconds += 0.0625  # whose sums are exact

    one.model.backend.update = update_slowly
    images, labels = (np.concatenate([array] * 4) for array in small)
    one.fit(images, labels, epochs=1, callbacks=[Slow()])
    assert Slow.lengths == [1, 3, 3, 3, 3, 3, 2]


def test_incomplete_epoch_cannot_continue_with_fewer_images(small):
    one = trainer()
    one.fit(*small, iterations=4)
    weights = one.model.state_dict()
    images, labels = small
    with pytest.raises(ValueError, match="completed 4 steps, but an epoch of 30 images has only 2"):
        one.fit(images[:30], labels[:30], epochs=1)
    assert all(np.array_equal(one.model.state_dict()[key], weights[key]) for key in weights)
    one.fit(*small, iterations=1)  # to the end of the epoch; other images are accepted now
    one.fit(images[:30], labels[:30], epochs=1)
    assert one.step == 4 + 1 + 2


def test_interrupted_chunk_has_no_effect(small):
    """A second Ctrl-C or a lack of memory may interrupt it at any step."""
    one, other = trainer(clock=lambda: 0.0), trainer()  # no time passes, so chunks are long
    one.fit(*small, iterations=3)
    other.fit(*small, iterations=3)
    update = one.model.backend.update
    numbers = itertools.count(one.step + 1)

    def update_and_fail(*args, **settings):
        update(*args, **settings)
        if next(numbers) == 8:
            raise KeyboardInterrupt

    one.model.backend.update = update_and_fail
    with pytest.raises(KeyboardInterrupt):
        one.fit(*small, epochs=3)
    one.model.backend.update = update
    assert one.step == 3  # the chunk was the rest of all epochs
    one.fit(*small, iterations=6)
    other.fit(*small, iterations=6)
    assert one.progress.epoch_step == other.progress.epoch_step
    for name, array in other.model.state_dict().items():
        assert np.array_equal(one.model.state_dict()[name], array)


def test_an_interruption_at_any_line_leaves_weights_and_number_of_steps_that_belong_together(small):
    """Ctrl-C may come after the update of the weights and before the steps are counted."""

    def fit(at=None):
        """Return the trainer, its weights after each step, and the lines that ran."""
        one, lines = trainer(optimizer="momentum", clock=lambda: 0.0), []
        data = one.prepare(images, labels)
        one.fit(data, iterations=2)

        def in_training(frame, event, arg):
            line = frame.f_code.co_filename, frame.f_lineno
            if line not in lines:
                lines.append(line)
                if line == at:
                    raise KeyboardInterrupt
            return in_training

        def trace(frame, event, arg):
            return in_training if Path(frame.f_code.co_filename).parent == folder else None

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            one.fit(data, iterations=7)  # one chunk to the third epoch
        except KeyboardInterrupt:
            assert at is not None
        finally:
            sys.settrace(before)
        return one, lines

    def arrays(one):
        return [one.model.parameters.flat, *one.optimizer_state.values()]

    folder = Path(inspect.getfile(ma.Trainer)).parent
    images, labels = small[0][:40], small[1][:40]
    after, one = {}, trainer(optimizer="momentum")
    for _ in range(9):
        one.fit(images, labels, iterations=1)
        after[one.step] = copy.deepcopy(arrays(one))
    _, lines = fit()
    steps = set()
    for line in lines:
        interrupted, _ = fit(at=line)
        steps.add(interrupted.step)
        assert all(map(np.array_equal, arrays(interrupted), after[interrupted.step])), line
    assert steps == {2, 9}


class Count:
    """Counts the steps of chunks. It need not be a `Callback`."""

    every = 0

    def __init__(self):
        self.lengths = []

    def on_steps(self, trainer, report):
        self.lengths.append(len(report.losses))

    def on_epoch(self, trainer, report):
        pass


class CountFreely(Count):
    epochs_at_once = None


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize(
    ("callback", "lengths"),
    [(Count, [1, 6, 6, 6, 6, 6, 4, *[6] * 5, 5]), (CountFreely, [1, *[6] * 11, 3])],
)
def test_chunks_take_a_fifth_of_a_second_on_every_backend(
    small, backend, callback, lengths, monkeypatch
):
    """A compiled chunk cannot be interrupted, so this limits the response to Ctrl-C."""
    one = ma.Trainer(ma.create_model("two-layer", backend=backend), batch_size=2)
    count, run, seconds = callback(), one.chunks.run, 0.0

    def run_slowly(data, steps, **options):
        nonlocal seconds
        seconds += 0.03 * len(steps.bounds)
        return run(data, steps, **options)

    monkeypatch.setattr(one.chunks, "run", run_slowly)
    one._clock = lambda: seconds
    one.fit(*small, epochs=2, callbacks=[count])
    assert count.lengths == lengths


def test_images_per_second_use_the_clock(small):
    ticks = itertools.count(0.0, 0.25)  # between two readings of the clock: a chunk of one step
    history = trainer(clock=lambda: next(ticks)).fit(*small, epochs=1)
    assert history.epochs[0].images_per_s == 70 / (5 * 0.25)


def test_epoch_report_is_a_mean_over_images(small):
    """The last batch has six images and counts less than those with sixteen."""
    history = trainer().fit(*small, epochs=1)
    expected = np.average(history.losses, weights=[16, 16, 16, 16, 6])
    assert history.epochs[0].train_loss == pytest.approx(expected, rel=1e-12)


def test_dropout_masks_differ_between_steps_and_repeat_with_the_seed(small):
    def losses(seed):
        model = Network(
            [Dropout(0.5), Linear(10)],
            SoftmaxCrossEntropy(),
            input=ma.Pixels((784,)),
            backend=ma.get_backend("numpy"),
        )
        one = ma.Trainer(model, lr=1e-30, batch_size=70, sampling="full", seed=seed)
        return one.fit(*small, iterations=5).losses

    assert len(set(losses(0))) == 5  # the weights do not change
    assert losses(0) == losses(0)
    assert not set(losses(0)) & set(losses(1))


@pytest.mark.parametrize("validation_every", [0, -1])
def test_validation_interval_must_be_positive(validation_every, small):
    with pytest.raises(ValueError, match="validation_every must be at least 1"):
        trainer().fit(*small, epochs=1, validation_every=validation_every)


class Noise(Layer):
    """A custom random layer that adds noise in training."""

    kind = "noise"
    is_random = True

    def forward(self, backend, parameters, x, rng):
        if rng is None:
            return x, None
        noise = backend.asarray(rng.standard_normal(x.shape), dtype="float32")
        return x + noise, None

    def backward(self, backend, parameters, saved, dy, *, need_dx):
        return dy, {}


def test_custom_random_layer_gets_a_generator_only_in_training(small):
    model = Network(
        [Noise(), Linear(10)],
        SoftmaxCrossEntropy(),
        input=ma.Pixels((784,)),
        backend=ma.get_backend("numpy"),
    )
    one = ma.Trainer(model, lr=1e-30, batch_size=70, sampling="full")
    assert len(set(one.fit(*small, iterations=3).losses)) == 3  # the weights do not change
    assert ma.evaluate(model, *small).loss == ma.evaluate(model, *small).loss


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((5, 784)), np.zeros(4, int), "got 5 images and 4 labels"),
        (np.zeros((5, 783)), np.zeros(5, int), r"images must have shape .* got \(5, 783\)"),
        (np.zeros((5, 784)), np.full(5, 10), "labels must be in 0…9, got 10 at index 0$"),
        (np.zeros((5, 784)), np.array([1, 2, 3, 4, 10]), "got 10 at index 4; subtract 1"),
        (np.zeros((5, 784)), np.zeros((5, 1), int), r"flatten them with labels\.ravel\(\)$"),
        (np.zeros((5, 28, 28, 1)), np.zeros(5, int), r"move the channels with numpy.moveaxis"),
        (np.zeros((28, 28)), np.zeros(28, int), r"give a single one as images\[None\]"),
        (np.ma.masked_equal(np.eye(5, 784), 1), np.zeros(5, int), "images has 5 masked values"),
        (np.zeros((0, 784)), np.zeros(0, int), "expected at least one image, got none"),
    ],
)
def test_wrong_validation_data_are_rejected_before_the_first_step(images, labels, message, small):
    one = trainer()
    with pytest.raises(ValueError, match=message):
        one.fit(*small, epochs=2, validation_data=(images, labels), validation_every=2)
    assert one.step == 0


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((5, 784)), np.zeros(5), r"got float64; convert class numbers with .*astype\(int"),
        (np.zeros((5, 784)), np.zeros(5, bool), r"got bool; convert class numbers with"),
        (np.array([np.zeros(3), np.zeros(4)], object), np.zeros(2, int), "with numpy.stack"),
    ],
)
def test_messages_about_wrong_types_say_how_to_convert(images, labels, message, small):
    with pytest.raises(TypeError, match=message):
        trainer().fit(images, labels, epochs=1)


def test_training_and_prediction_run_in_the_computation_context_of_the_backend(small):
    backend = GuardedBackend()
    one = ma.Trainer(ma.create_model("two-layer", backend=backend), batch_size=16)
    backend.guarded = True
    one.train_batch(*small)
    one.fit(*small, epochs=1, validation_data=small)
    one.model.predict_proba(small[0])
    assert one.step == 1 + 5


class Reports(ma.Callback):
    """Keeps the reports of epochs."""

    def __init__(self):
        self.seen = []

    def on_epoch(self, trainer, report):
        self.seen.append(report)


class FullDisk(ma.Callback):
    def on_epoch(self, trainer, report):
        raise OSError("No space left on device")


def test_report_that_a_callback_could_not_write_is_made_again(small):
    one, reports = trainer(), Reports()
    data = one.prepare(*small)
    with pytest.raises(OSError, match="No space left"):
        one.train_to(5, data, callbacks=[FullDisk()])
    assert (one.progress.epoch, one.progress.epoch_step) == (0, 5)
    one.train_to(5, data, callbacks=[reports])
    assert [report.epoch for report in reports.seen] == [1]
    assert (one.progress.epoch, one.progress.epoch_step) == (1, 0)


def test_report_of_an_incomplete_epoch_is_repeated(small):
    """A run that is resumed after its last step writes this report again."""
    one, reports = trainer(), Reports()
    data = one.prepare(*small)
    for _ in range(2):
        assert one.train_to(7, data, validation_data=small, callbacks=[reports]) == ""
    assert [report.epoch for report in reports.seen] == [1, 2, 2]
    assert reports.seen[1] == reports.seen[2]


def test_steps_that_are_completed_cannot_be_the_last(small):
    one = trainer()
    one.fit(*small, iterations=3)
    with pytest.raises(ValueError, match="last_step is 2, but 3 steps are completed"):
        one.train_to(2, one.prepare(*small))
