"""Networks on features of any kind, weights of examples, and the squared error of numbers."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import mnist_accel as ma
import reference as ref
from backends import LOSSES, Backend
from backends.cupy.launch.losses import LOSSES as CUDA_LOSSES
from backends.numba.epoch import NumbaEpoch
from mnist_accel.nn import (
    Activation,
    AvgPool2d,
    Conv2d,
    Flatten,
    Layer,
    Linear,
    Loss,
    MaxPool2d,
    Network,
    Quadratic,
    SoftmaxCrossEntropy,
    SquaredError,
)
from mnist_accel.nn.inputs import Input
from mnist_accel.training.data import TrainingData
from tests.support.gpu_training import EmulatedBackend

Arrays = dict[str, Any]

EXAMPLES, BATCH, STEPS, LR = 60, 12, 10, 0.1
BACKENDS = ("numpy", "numba", "cupy-emulated")
RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(EXAMPLES, 7)) * 3
IMAGES = RNG.normal(size=(EXAMPLES, 3, 6, 5))
PIXELS = RNG.integers(256, size=(EXAMPLES, 2, 7, 9), dtype=np.uint8)
LABELS = RNG.integers(4, size=EXAMPLES)
NUMBERS = RNG.normal(size=(EXAMPLES, 4))
WEIGHTS = RNG.random(EXAMPLES) * 2


def backend_of(name: str) -> Backend:
    return EmulatedBackend() if name == "cupy-emulated" else ma.get_backend(name)


def network(
    loss: Loss, *, features: Any = 7, backend: str = "numpy", layers: list[Layer] | None = None
) -> Network:
    layers = layers or [Linear(5), Activation("tanh"), Linear(4)]
    return new_network(layers, loss, ma.Features(features), backend)


def new_network(layers: list[Layer], loss: Loss, taken: Input, backend: str) -> Network:
    return Network(layers, loss, input=taken, backend=backend_of(backend), dtype="float64")


def reference_steps(
    recipe: ref.Recipe, start: Arrays, x: Any, targets: Any, weights: Any
) -> tuple[list[float], Arrays]:
    """Return the loss of each step of plain SGD, and the weights after the last, from the loops."""
    current, losses = start, []
    for step in range(STEPS):
        rows = slice(step % 5 * BATCH, step % 5 * BATCH + BATCH)
        factors = None if weights is None else weights[rows]
        loss, gradients = ref.batch_loss_and_gradients(
            recipe, current, x[rows], targets[rows], factors
        )
        current, _ = ref.update("sgd", current, gradients, {}, lr=LR, t=step + 1)
        losses.append(loss)
    return losses, current


class InOrder(ma.Trainer):
    """Trains on the examples in their order, as the reference does."""

    def train(self, x: Any, t: Any, weights: Any) -> list[float]:
        losses = []
        for step in range(STEPS):
            rows = slice(step % 5 * BATCH, step % 5 * BATCH + BATCH)
            part = None if weights is None else weights[rows]
            losses += self.fit(x[rows], t[rows], sample_weight=part, iterations=1).losses
        return losses


def assert_follows_reference(
    model: Network, recipe: ref.Recipe, x: Any, targets: Any, weights: Any
) -> InOrder:
    """Compare losses and weights of ten steps with the reference, and return the trainer."""
    losses, expected = reference_steps(recipe, model.state_dict(), x, targets, weights)
    trainer = InOrder(model, ma.nn.SGD(LR), sampling="full")
    np.testing.assert_allclose(trainer.train(x, targets, weights), losses, rtol=1e-12)
    for name, value in model.state_dict().items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-9, atol=1e-12, err_msg=name)
    return trainer


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("loss", "is_weighted"),
    [(loss, is_weighted) for loss in map(Loss, LOSSES) for is_weighted in (False, True)],
)
def test_ten_steps_on_features_agree_with_the_reference(
    backend: str, loss: Loss, is_weighted: bool
) -> None:
    targets = LABELS if loss.has_classes else NUMBERS
    weights = WEIGHTS if is_weighted else None
    recipe = ref.Recipe(loss.kind, "tanh", (7, 5, 4), input_shape=(7, 1, 1), white=1)
    model = network(loss, backend=backend)
    trainer = assert_follows_reference(model, recipe, TABLE, targets, weights)
    is_compiled = backend == "numba" or (backend == "cupy-emulated" and loss.kind in CUDA_LOSSES)
    assert (trainer.compiled is not None) == is_compiled, trainer.not_compiled


# Inputs of several channels and odd sizes, with examples of them, and what pixels are divided by.
FOUR_DIMENSIONS: dict[str, tuple[Input, Any, float]] = {
    "features": (ma.Features((3, 6, 5)), IMAGES, 1),
    "pixels": (ma.Pixels((2, 7, 9), shift=-0.5), PIXELS, 255),
    "one channel": (ma.Pixels((1, 5, 9)), PIXELS[:, 0, :5], 255),
}


@pytest.mark.parametrize("name", FOUR_DIMENSIONS)
@pytest.mark.parametrize("loss", [SoftmaxCrossEntropy(), SquaredError()], ids=lambda x: x.kind)
@pytest.mark.parametrize("backend", BACKENDS)
def test_ten_weighted_steps_on_images_agree_with_the_reference(
    backend: str, loss: Loss, name: str
) -> None:
    taken, x, white = FOUR_DIMENSIONS[name]
    channels, height, width = taken.shape
    recipe = ref.Recipe(
        loss.kind,
        "relu",
        (4 * (height // 2) * (width // 2), 5, 4),
        (
            ref.Conv2d("W1", "b1", (4, channels, 3, 3), padding=1),
            ref.Activation("tanh"),
            ref.MaxPool2d("first"),
        ),
        pixel_shift=getattr(taken, "shift", 0.0),
        input_shape=(channels, height, width),
        white=white,
    )
    layers = [Conv2d(4, 3, padding=1), Activation("tanh"), MaxPool2d(), Flatten()]
    layers += [Linear(5), Activation("relu"), Linear(4)]
    model = new_network(layers, loss, taken, backend)
    targets = LABELS if loss.has_classes else NUMBERS
    trainer = assert_follows_reference(model, recipe, x, targets, WEIGHTS)
    assert (trainer.compiled is not None) == (backend != "numpy"), trainer.not_compiled


# First layers that read several channels in different ways.
FIRST = {
    "convolution": [Conv2d(4, 3, padding=1), Activation("relu"), MaxPool2d()],
    "pooling": [MaxPool2d(2), Conv2d(2, 2)],
    "averages": [AvgPool2d(2)],
    "activation": [Activation("tanh")],
    "linear": [],
}


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_images_of_several_channels_agree_between_backends(backend: str, first: str) -> None:
    layers: list[Layer] = [*FIRST[first], Flatten(), Linear(4)]
    losses, outputs = [], []
    for name in ("numpy", backend):
        model = network(SquaredError(), features=(3, 6, 5), backend=name, layers=layers)
        trainer = ma.Trainer(model, "adam", batch_size=BATCH)
        losses.append(trainer.fit(IMAGES, NUMBERS, sample_weight=WEIGHTS, iterations=STEPS).losses)
        assert (trainer.compiled is not None) == (name != "numpy"), trainer.not_compiled
        outputs.append(model.predict_logits(IMAGES))
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-10)
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_weight_counts_like_as_many_copies(backend: str) -> None:
    counts = np.arange(EXAMPLES) % 3
    rows = np.repeat(np.arange(EXAMPLES), counts)
    weighted, copied = (network(SoftmaxCrossEntropy(), backend=backend) for _ in range(2))
    settings: Any = {"sampling": "full", "lr": 0.5}
    weights = counts * (EXAMPLES / counts.sum())
    ma.Trainer(weighted, "sgd", **settings).fit(
        TABLE, LABELS, sample_weight=weights, iterations=STEPS
    )
    ma.Trainer(copied, "sgd", **settings).fit(TABLE[rows], LABELS[rows], iterations=STEPS)
    for name, value in copied.state_dict().items():
        np.testing.assert_allclose(weighted.state_dict()[name], value, rtol=1e-9, atol=1e-12)


def test_weights_of_one_change_no_bit() -> None:
    losses = []
    for weights in (None, np.ones(EXAMPLES)):
        trainer = ma.Trainer(network(Quadratic(), backend="numba"), batch_size=BATCH)
        losses.append(trainer.fit(TABLE, LABELS, sample_weight=weights, epochs=2).losses)
    assert losses[0] == losses[1]


def test_weights_without_a_kernel_train_eagerly_and_say_so_once(
    caplog: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(NumbaEpoch, "takes_weights", False)
    trainer = ma.Trainer(network(Quadratic(), backend="numba"), batch_size=BATCH)
    trainer.fit(TABLE, LABELS, sample_weight=WEIGHTS, iterations=2)
    trainer.fit(TABLE, LABELS, sample_weight=WEIGHTS, iterations=2)
    assert caplog.text.count("sample weights have no compiled form on") == 1


def test_a_regression_has_losses_but_no_accuracy() -> None:
    model = network(SquaredError())
    trainer = ma.Trainer(model, "adam", lr=0.01, batch_size=BATCH)
    history = trainer.fit(TABLE, NUMBERS, epochs=3, validation_data=(TABLE, NUMBERS))
    last = history.epochs[-1]
    assert last.train_accuracy is None
    assert last.validation_accuracy is None
    outputs = model.predict(TABLE)
    expected = ((outputs - NUMBERS) ** 2).sum(axis=1).mean() / 2
    assert last.validation_loss == pytest.approx(expected)
    assert ma.mean_loss(model, TABLE, NUMBERS) == pytest.approx(expected)
    with pytest.raises(ValueError, match="has no probabilities"):
        model.predict_proba(TABLE)
    with pytest.raises(ValueError, match="has no classes and no accuracy; call mean_loss"):
        ma.evaluate(model, TABLE, NUMBERS)


def test_gradients_of_a_regression_are_right() -> None:
    results = ma.check_gradients(network(SquaredError()), TABLE[:5], NUMBERS[:5])
    assert all(result.passed for result in results)


def test_one_output_takes_targets_of_one_dimension() -> None:
    model = network(SquaredError(), layers=[Linear(1)])
    assert np.isfinite(ma.Trainer(model).fit(TABLE, NUMBERS[:, 0], iterations=3).losses).all()


def test_integers_are_not_scaled() -> None:
    model = network(SoftmaxCrossEntropy())
    numbers = np.arange(14, dtype=np.uint8).reshape(2, 7)
    np.testing.assert_array_equal(
        model.predict_logits(numbers), model.predict_logits(numbers.astype(np.float64))
    )


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_two_and_a_thousand_classes(backend: str) -> None:
    for classes in (2, 1000):
        model = network(SoftmaxCrossEntropy(), backend=backend, layers=[Linear(classes)])
        labels = np.arange(EXAMPLES) % classes
        losses = ma.Trainer(model, batch_size=BATCH, lr=0.01).fit(TABLE, labels, epochs=30).losses
        assert losses[-1] < losses[0]
        assert model.predict_proba(TABLE).shape == (EXAMPLES, classes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": np.full((3, 7), np.nan)}, r"features must be finite .*nan at index \(0, 0\)"),
        ({"images": TABLE[:, :6]}, r"features must have shape \(N, 7\), got \(60, 6\)"),
        ({"images": TABLE.astype(complex)}, "features must be real numbers, got complex128"),
        ({"labels": LABELS[:50]}, "got 60 examples and 50 labels"),
        ({"sample_weight": WEIGHTS[1:]}, r"sample_weight must have shape \(60,\), got \(59,\)"),
        ({"sample_weight": -WEIGHTS}, "sample_weight must not be negative, got -"),
        ({"sample_weight": 0 * WEIGHTS}, "must contain a number above 0"),
        ({"sample_weight": WEIGHTS * np.inf}, "sample_weight must be finite"),
    ],
)
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_invalid_examples_are_refused(
    backend: str, arguments: dict[str, Any], message: str
) -> None:
    trainer = ma.Trainer(network(SoftmaxCrossEntropy(), backend=backend))
    with pytest.raises((ValueError, TypeError), match=message):
        trainer.fit(**{"images": TABLE, "labels": LABELS, **arguments}, epochs=1)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_predictions_refuse_features_that_are_not_finite(backend: str, value: float) -> None:
    wrong = TABLE.copy()
    wrong[3, 2] = value
    with pytest.raises(ValueError, match=r"features must be finite .* at index \(3, 2\)"):
        network(SoftmaxCrossEntropy(), backend=backend).predict(wrong)


@pytest.mark.parametrize("targets", [NUMBERS[:, :3], np.full((EXAMPLES, 4), np.nan), "no numbers"])
def test_invalid_targets_are_refused(targets: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="targets must "):
        ma.Trainer(network(SquaredError())).fit(TABLE, targets, epochs=1)
    assert TrainingData(network(SquaredError()), TABLE, NUMBERS).examples == EXAMPLES


def test_files_pickles_and_copies_keep_the_input(tmp_path: Any) -> None:
    for model in (network(SquaredError()), network(Quadratic(), features=(7,))):
        ma.save_model(tmp_path / "model", model)
        ma.save_checkpoint(tmp_path / "checkpoint", ma.Trainer(model))
        copies = [
            ma.load_model(tmp_path / "model", backend="numpy"),
            ma.load_checkpoint(tmp_path / "checkpoint", backend="numpy").model,
            pickle.loads(pickle.dumps(model)),
            copy.deepcopy(model),
        ]
        for other in copies:
            assert (other.input, other.loss) == (model.input, model.loss)
            np.testing.assert_array_equal(other.predict(TABLE), model.predict(TABLE))


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_features_of_images_may_be_flat(backend: str) -> None:
    layers: list[Layer] = [Flatten(), Linear(3)]
    model = network(SoftmaxCrossEntropy(), features=(1, 3, 4), backend=backend, layers=layers)
    rows = np.random.default_rng(1).standard_normal((8, 12)).astype(np.float32)
    expected = model.predict_proba(rows.reshape(8, 1, 3, 4))
    for shape in ((8, 12), (8, 3, 4)):
        np.testing.assert_array_equal(model.predict_proba(rows.reshape(shape)), expected)
    with pytest.raises(ValueError, match=r"must have shape .*\(N, 1, 3, 4\), got \(8, 4, 3\)"):
        model.predict(rows.reshape(8, 4, 3))


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_black_and_white_images_may_be_bool(backend: str) -> None:
    model = new_network([Linear(3)], SoftmaxCrossEntropy(), ma.Pixels(12), backend)
    is_white = np.random.default_rng(1).random((8, 12)) < 0.5
    expected = model.predict_proba(is_white.astype(np.float64))
    np.testing.assert_array_equal(model.predict_proba(is_white), expected)
    trainer = ma.Trainer(model, batch_size=4, lr=1.0)
    trainer.fit(is_white, np.arange(8) % 3, epochs=1)
    assert not np.array_equal(model.predict_proba(is_white), expected)
    with pytest.raises(TypeError, match=r"got int64; .* astype\(numpy.float32\) if they are 0…1"):
        model.predict(is_white.astype(np.int64))
