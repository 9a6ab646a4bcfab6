"""What happens around a call of `fit`: requests, other data, the clock."""

import itertools

import numpy as np
import pytest

import mnist_accel as ma
from mnist_accel.nn import Dropout, Linear, Network, SoftmaxCrossEntropy


@pytest.fixture(scope="module")
def small():
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (70, 784)).astype(np.uint8), rng.integers(0, 10, 70)


def trainer(**given):
    return ma.Trainer(ma.create_model("two-layer", backend="numpy"), batch_size=16, **given)


def test_request_that_comes_early_is_heard(small):
    """Ctrl-C while the data are prepared, before the first step."""
    one = trainer()
    one.request_stop("early")
    history = one.fit(*small, epochs=3)
    assert history.stop_reason == "early"
    assert one.step == 0
    assert one.fit(*small, epochs=1).stop_reason == ""
    assert one.step == 5


def test_request_ends_a_chunk_before_its_last_step(small):
    """Steps are done in chunks, and a signal does not wait for the end of one."""
    one = trainer(clock=lambda: 0.0)  # no time passes: a chunk is a whole epoch
    one.fit(*small, iterations=1)
    update = one.model.backend.sgd_update

    def update_and_ask(*args, **settings):
        update(*args, **settings)
        if one.step == 3:
            one.request_stop("now")

    one.model.backend.sgd_update = update_and_ask
    history = one.fit(*small, epochs=2)
    assert one.step == 3
    assert len(history.losses) == 2
    assert one.progress.epoch_step == 3


def test_epoch_is_not_finished_on_fewer_images(small):
    one = trainer()
    one.fit(*small, iterations=4)
    weights = one.model.state_dict()
    images, labels = small
    with pytest.raises(ValueError, match="has done 4 steps, but 30 images make an epoch of 2"):
        one.fit(images[:30], labels[:30], epochs=1)
    assert all(np.array_equal(one.model.state_dict()[key], weights[key]) for key in weights)
    one.fit(*small, iterations=1)  # to the end of the epoch: others may come now
    one.fit(images[:30], labels[:30], epochs=1)
    assert one.step == 4 + 1 + 2


def test_pace_is_that_of_the_clock(small):
    ticks = itertools.count(0.0, 0.25)  # a chunk of one step between two looks at the clock
    history = trainer(clock=lambda: next(ticks)).fit(*small, epochs=1)
    assert history.epochs[0].images_per_s == 70 / (5 * 0.25)


def test_report_of_an_epoch_is_the_mean_of_its_images(small):
    """The last batch, of six, counts less than the others of sixteen."""
    history = trainer().fit(*small, epochs=1)
    expected = np.average(history.losses, weights=[16, 16, 16, 16, 6])
    assert history.epochs[0].train_loss == pytest.approx(expected, rel=1e-12)


def test_dropout_drops_others_at_every_step_and_the_same_for_a_seed(small):
    def losses(seed):
        model = Network(
            [Dropout(0.5), Linear(10)],
            SoftmaxCrossEntropy(),
            input_shape=(784,),
            backend=ma.get_backend("numpy"),
        )
        one = ma.Trainer(model, lr=1e-30, batch_size=70, sampling="full", seed=seed)
        return one.fit(*small, iterations=5).losses

    assert len(set(losses(0))) == 5  # the weights stay as they are
    assert losses(0) == losses(0)
    assert not set(losses(0)) & set(losses(1))


@pytest.mark.parametrize("validation_every", [0, -1])
def test_evaluation_has_a_positive_interval(validation_every, small):
    with pytest.raises(ValueError, match="validation_every must be at least 1"):
        trainer().fit(*small, epochs=1, validation_every=validation_every)
