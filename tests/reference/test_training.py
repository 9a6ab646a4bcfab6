"""Training with the reference."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import reference as ref

Array = ref.Array


@pytest.mark.parametrize("recipe", ref.RECIPES)
def test_training_lowers_the_loss_of_a_repeated_batch(recipe: str) -> None:
    rng = np.random.default_rng(11)
    batch, labels = rng.integers(0, 256, (2, 28, 28), dtype=np.uint8), [3, 8]
    start = ref.initial_weights(recipe, rng)
    _, losses = ref.train(
        recipe, start, np.tile(batch, (3, 1, 1)), labels * 3,
        optimizer="sgd", lr=0.001, steps=3, batch_size=2,
    )  # fmt: skip
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_training_uses_consecutive_batches_scheduled_rates_and_options() -> None:
    rng = np.random.default_rng(12)
    images = rng.integers(0, 256, (7, 28, 28), dtype=np.uint8)  # the seventh is not used
    labels = rng.integers(0, 10, 7)
    start = {
        key: w.astype(np.float32)
        for key, w in ref.initial_weights("two-layer", rng, hidden_sizes=(5,)).items()
    }
    kept = {key: w.copy() for key, w in start.items()}
    weights, losses = ref.train(
        "two-layer", start, images, labels,
        optimizer="momentum", lr=0.2, steps=2, batch_size=3,
        schedule=ref.cosine_lr, momentum=0.5, weight_decay=0.1,
    )  # fmt: skip

    w0 = {key: w.astype(np.float64) for key, w in start.items()}
    loss0, g0 = ref.batch_loss_and_gradients("two-layer", w0, images[:3], labels[:3])
    v0 = {key: g0[key] + 0.1 * w0[key] for key in w0}
    w1 = {key: w0[key] - 0.2 * v0[key] for key in w0}
    loss1, g1 = ref.batch_loss_and_gradients("two-layer", w1, images[3:6], labels[3:6])
    w2 = {key: w1[key] - 0.1 * (0.5 * v0[key] + g1[key] + 0.1 * w1[key]) for key in w0}

    assert losses == [loss0, loss1]
    for key in start:
        assert weights[key].dtype == np.float64
        assert_allclose(weights[key], w2[key], rtol=1e-12)
        assert_array_equal(start[key], kept[key])


def test_batch_loss_and_gradients_are_means_over_examples() -> None:
    rng = np.random.default_rng(13)
    weights = ref.initial_weights("backprop", rng, hidden_sizes=(4,))
    images = rng.integers(0, 256, (2, 1, 28, 28), dtype=np.uint8)
    loss, gradients = ref.batch_loss_and_gradients("backprop", weights, images, [1, 2])
    loss_a, a = ref.loss_and_gradients("backprop", weights, images[0], 1)
    loss_b, b = ref.loss_and_gradients("backprop", weights, images[1], 2)
    assert_allclose(loss, (loss_a + loss_b) / 2)
    for key, gradient in gradients.items():
        assert_allclose(gradient, (a[key] + b[key]) / 2)


def test_too_few_images_are_rejected() -> None:
    weights = ref.initial_weights("backprop", np.random.default_rng(14), hidden_sizes=(2,))
    with pytest.raises(ValueError, match="3 images, expected at least 2 × 2"):
        ref.train(
            "backprop", weights, np.zeros((3, 784), dtype=np.uint8), [0, 1, 2],
            optimizer="sgd", lr=1.0, steps=2, batch_size=2,
        )  # fmt: skip
