"""The Python interface of networks: parameters, predictions, and checks of arguments."""

import numpy as np
import pytest

import mnist_accel as ma
from mnist_accel.nn import (
    SGD,
    Adam,
    AvgPool2d,
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
    Network,
    OneCycleSchedule,
    SoftmaxCrossEntropy,
    StepSchedule,
)
from mnist_accel.recipes.models import RECIPES

SHAPES = {
    "fcnn": {
        "W1": (784, 128), "b1": (128,), "W2": (128, 64), "b2": (64,), "W3": (64, 10), "b3": (10,),
    },
    "two-layer": {"W1": (784, 50), "b1": (50,), "W2": (50, 10), "b2": (10,)},
    "backprop": {"W1": (784, 30), "b1": (30,), "W2": (30, 10), "b2": (10,)},
    "cnn": {"W1": (8, 1, 3, 3), "W2": (1352, 10), "b2": (10,)},
    "three-layer": {
        "W1": (784, 50), "b1": (50,), "W2": (50, 100), "b2": (100,), "W3": (100, 10), "b3": (10,),
    },
    "lenet": {
        "W1": (6, 1, 5, 5), "b1": (6,), "W2": (16, 6, 5, 5), "b2": (16,),
        "W3": (400, 120), "b3": (120,), "W4": (120, 84), "b4": (84,), "W5": (84, 10), "b5": (10,),
    },
    "fast99": {
        "W1": (8, 1, 5, 5), "b1": (8,), "W2": (32, 8, 5, 5), "b2": (32,),
        "W3": (512, 128), "b3": (128,), "W4": (128, 10), "b4": (10,),
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def batch(mnist):
    return mnist.x_train[:32], mnist.t_train[:32]


def model(name="two-layer", **settings):
    return ma.create_model(name, backend="numpy", **settings)


@pytest.mark.parametrize("name", RECIPES)
def test_state_dict_has_the_shapes_of_the_recipe(name):
    network = model(name)
    state = network.state_dict()
    assert {key: value.shape for key, value in state.items()} == SHAPES[name]
    assert list(state) == list(SHAPES[name])
    assert all(value.dtype == np.float32 for value in state.values())
    doubled = {key: 2 * value for key, value in state.items()}
    network.load_state_dict(doubled)
    assert all(np.array_equal(network.state_dict()[key], doubled[key]) for key in doubled)


@pytest.mark.parametrize("name", RECIPES)
def test_parameters_are_views_of_one_vector(name):
    network = model(name)
    flat = network.parameters.flat
    assert flat.ndim == 1
    assert flat.size == sum(value.size for value in network.state_dict().values())
    flat[:] = 7
    assert all((value == 7).all() for value in network.state_dict().values())


@pytest.mark.parametrize(
    ("name", "std_of"),
    [
        ("two-layer", {"W1": 0.01, "W2": 0.01, "b1": 0, "b2": 0}),
        ("backprop", {"W1": 1, "W2": 1, "b1": 1}),
        ("cnn", {"W1": 1 / 9, "W2": 1 / 1352, "b2": 0}),
    ],
)
def test_initial_weights_have_the_standard_deviations_of_the_original_programs(name, std_of):
    settings = {"hidden_sizes": (500,)} if name == "backprop" else {}
    state = model(name, **settings).state_dict()
    for key, std in std_of.items():
        spread = std / np.sqrt(2 * state[key].size)  # standard error of a standard deviation
        assert abs(state[key].std() - std) <= 4 * spread


def test_initial_weights_depend_on_the_seed_and_not_on_the_backend():
    one, same, other = model(seed=1), model(seed=1), model(seed=2)
    numba = ma.create_model("two-layer", backend="numba", seed=1)
    assert np.array_equal(one.state_dict()["W1"], same.state_dict()["W1"])
    assert np.array_equal(one.state_dict()["W1"], numba.state_dict()["W1"])
    assert not np.array_equal(one.state_dict()["W1"], other.state_dict()["W1"])


@pytest.mark.parametrize("name", ["two-layer", "cnn"])
def test_every_image_form_gives_the_same_result(name, mnist, monkeypatch):
    """uint8 or floating point, flat or not, integer or one-hot labels."""
    images, labels = mnist.x_train[:8], mnist.t_train[:8]
    fractions = images.astype(np.float32) / 255
    one_hot = np.eye(10, dtype=np.float32)[labels]
    forms = [
        (images, labels),
        (images.reshape(-1, 784), labels.astype(np.int64)),
        (images.reshape(-1, 1, 28, 28), one_hot),
        (fractions, labels),
        (fractions.reshape(-1, 784), one_hot),
        (fractions.reshape(-1, 1, 28, 28), labels),
    ]
    results = []
    for x, t in forms:
        network = model(name)
        loss = ma.Trainer(network, lr=0.05).train_batch(x, t)
        results.append((loss, network.predict_proba(x), ma.evaluate(network, x, t).loss))
    for loss, probabilities, mean in results[1:]:
        assert loss == results[0][0]
        assert mean == results[0][2]
        assert np.array_equal(probabilities, results[0][1])


def test_pixels_are_shifted_only_for_cnn(batch):
    images = np.zeros((1, 784), np.uint8)
    for name in RECIPES:
        network = model(name)
        x = network.gather(network.backend.asarray(images), network.backend.asarray(np.arange(1)))
        assert set(np.unique(x)) == {-0.5 if name == "cnn" else 0.0}


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (
            np.full((2, 784), 2.0),
            ValueError,
            r"0…1, got 2\.0 at index \(0, 0\) of \(images, pixels\); the largest pixel is 2\.0; "
            "divide by 255",
        ),
        (np.full((2, 784), -0.1), ValueError, r"0…1, got -0.1"),
        (
            np.full((2, 784), np.nan),
            ValueError,
            r"0…1, got nan at index \(0, 0\) .*; replace",
        ),
        (np.zeros((2, 783)), ValueError, r"\(N, 784\).*got \(2, 783\)"),
        (np.zeros(784), ValueError, r"got \(784,\)"),
        (
            np.zeros((2, 14, 56)),
            ValueError,
            r"shape \(N, 784\) or \(N, 28, 28\) or \(N, 1, 28, 28\), got \(2, 14, 56\)",
        ),
        (np.zeros((2, 28, 28, 1)), ValueError, r"got \(2, 28, 28, 1\)"),
        (np.zeros((2, 784), complex), TypeError, "uint8 .*, float .* or bool, got complex128"),
        (np.zeros((2, 784), int), TypeError, "uint8 .*, float .* or bool, got int64"),
    ],
)
def test_wrong_images_are_rejected(images, error, message):
    with pytest.raises(error, match=message):
        model().predict(images)
    with pytest.raises(error, match=message):
        ma.Trainer(model()).train_batch(images, np.zeros(2, int))


@pytest.mark.parametrize(
    ("input_shape", "accepted", "rejected"),
    [
        ((1, 4, 6), [(24,), (4, 6), (1, 4, 6)], [(6, 4), (4, 6, 1), (24, 1)]),
        ((3, 4, 4), [(48,), (3, 4, 4)], [(4, 4, 3), (12, 4), (6, 8)]),
        ((24,), [(24,)], [(4, 6), (1, 24)]),
    ],
)
def test_images_must_have_the_input_shape(input_shape, accepted, rejected):
    network = Network(
        [*([Flatten()] if len(input_shape) == 3 else []), Linear(10)],
        SoftmaxCrossEntropy(),
        input=ma.Pixels(input_shape),
        backend=ma.get_backend("numpy"),
    )
    for shape in accepted:
        assert network.predict(np.zeros((2, *shape), np.uint8)).shape == (2,)
    for shape in rejected:
        with pytest.raises(ValueError, match="images must have shape"):
            network.predict(np.zeros((2, *shape), np.uint8))


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.array([0, 10]), ValueError, "0…9, got 10 at index 1"),
        (np.array([-1, 0]), ValueError, "0…9, got -1 at index 0"),
        (np.zeros((2, 10)), ValueError, "one-hot"),
        (np.full((2, 10), 0.1), ValueError, "one-hot"),
        (np.zeros(2), TypeError, "integers or one-hot rows, got float64"),
        (np.zeros(3, int), ValueError, "got 2 images and 3 labels"),
    ],
)
def test_wrong_labels_are_rejected(labels, error, message):
    with pytest.raises(error, match=message):
        ma.Trainer(model()).train_batch(np.zeros((2, 784)), labels)


def test_train_batch_makes_one_update_with_exactly_this_batch(batch):
    network = model("two-layer", dtype="float64")
    before = network.state_dict()
    trainer = ma.Trainer(network, optimizer="sgd", lr=0.05, batch_size=512)
    loss = trainer.train_batch(*batch)
    assert trainer.step == 1
    # The change of the weights by SGD gives the gradient, which is compared with a difference
    # quotient of the loss.
    gradient = {key: (before[key] - network.state_dict()[key]) / 0.05 for key in before}
    moved = {key: value.copy() for key, value in before.items()}
    moved["b2"][3] += 1e-4
    network.load_state_dict(moved)
    above = ma.evaluate(network, *batch).loss
    assert (above - loss) / 1e-4 == pytest.approx(gradient["b2"][3], rel=1e-3)


def test_predicted_classes_have_the_largest_probabilities(batch):
    for name in RECIPES:
        network = model(name)
        probabilities = network.predict_proba(batch[0])
        assert probabilities.shape == (32, 10)
        assert np.array_equal(network.predict(batch[0]), probabilities.argmax(axis=1))
        if name not in ("fcnn", "backprop"):
            np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert model().predict(batch[0][:0]).shape == (0,)
    assert model().predict_proba(batch[0][:0]).shape == (0, 10)


def test_evaluation_agrees_with_its_confusion_matrix(batch):
    result = ma.evaluate(model(), *batch)
    assert result.total == 32
    assert result.correct == np.trace(result.confusion_matrix)
    assert result.accuracy == result.correct / 32
    assert np.array_equal(result.confusion_matrix.sum(axis=1), np.bincount(batch[1], minlength=10))
    row = int(batch[1][0])
    hits, count = result.confusion_matrix[row, row], result.confusion_matrix[row].sum()
    assert result.per_class_accuracy[row] == hits / count
    empty_class = ma.evaluate(model(), batch[0][:1], batch[1][:1])
    assert np.isnan(empty_class.per_class_accuracy).sum() == 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet"}, "unknown model 'resnet'; choose from fcnn"),
        ({"name": "cnn", "hidden_sizes": (5,)}, "'cnn' has no hidden layers"),
        ({"name": "cnn", "activation": "relu"}, "'cnn' has no hidden activation"),
        (
            {"name": "two-layer", "activation": "gelu"},
            "unknown activation 'gelu'; choose from relu",
        ),
        ({"name": "two-layer", "hidden_sizes": (0,)}, "at least 1"),
        ({"name": "two-layer", "hidden_sizes": (5, -1)}, r"at least 1 each, got \(5, -1\)"),
        (
            {"name": "two-layer", "dtype": "float16"},
            "unknown dtype 'float16'; choose from float32",
        ),
        ({"name": "two-layer", "backend": "tpu"}, "unknown backend 'tpu'"),
    ],
)
def test_wrong_arguments_of_create_model_are_rejected(arguments, message):
    with pytest.raises(ValueError, match=message):
        ma.create_model(**{"backend": "numpy", **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimizer": "lion"}, "unknown optimizer 'lion'"),
        ({"lr": -1.0}, "lr must be more than 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"sampling": "sorted"}, "unknown sampling "),
        ({"schedule": "linear"}, "unknown schedule 'linear'"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_wrong_arguments_of_the_trainer_are_rejected(arguments, message):
    with pytest.raises(ValueError, match=message):
        ma.Trainer(model(), **arguments)


@pytest.mark.parametrize(
    ("kind", "arguments", "error", "message"),
    [
        (Linear, {"units": 0}, ValueError, "units must be at least 1, got 0"),
        (Linear, {"units": 2.5}, TypeError, "units must be an integer, got 2.5"),
        (Conv2d, {"channels": 0, "kernel_size": 3}, ValueError, "channels must be at least 1"),
        (Conv2d, {"channels": 1, "kernel_size": 0}, ValueError, "kernel_size must be at least 1"),
        (Conv2d, {"channels": 1, "kernel_size": 3, "stride": 0}, ValueError, "stride .* got 0"),
        (Conv2d, {"channels": 1, "kernel_size": 3, "padding": -1}, ValueError, "padding .* got -1"),
        (MaxPool2d, {"size": 0}, ValueError, "size must be at least 1, got 0"),
        (MaxPool2d, {"size": 8}, ValueError, "size must be 1 to 7, got 8"),
        (AvgPool2d, {"size": 8.5}, TypeError, "size must be an integer, got 8.5"),
        (AvgPool2d, {"size": 2, "stride": 0}, ValueError, "stride must be at least 1, got 0"),
        (MaxPool2d, {"ties": "bogus"}, ValueError, "ties must be one of .*, got 'bogus'"),
        (Dropout, {"rate": 1}, ValueError, "rate must be at least 0 and less than 1, got 1"),
        (Dropout, {"rate": "0.5"}, TypeError, "rate must be a number, got '0.5'"),
        (SGD, {"lr": np.nan}, ValueError, "lr must be more than 0 and finite, got nan"),
        (SGD, {"weight_decay": -1}, ValueError, "weight_decay must be at least 0 and finite"),
        (SGD, {"momentum": 1}, ValueError, "momentum must be at least 0 and less than 1, got 1"),
        (Adam, {"eps": -1e-8}, ValueError, "eps must be at least 0 and finite, got -1e-08"),
        (StepSchedule, {"every": 2.5}, TypeError, "every must be an integer, got 2.5"),
        (OneCycleSchedule, {"warmup": "0"}, TypeError, "warmup must be a number, got '0'"),
    ],
)
def test_wrong_numbers_are_rejected_by_constructors(kind, arguments, error, message):
    with pytest.raises(error, match=message):
        kind(**arguments)


def test_numpy_scalars_do_not_change_the_dtype(batch):
    network = Network(
        [Flatten(), Dropout(np.float64(0.5)), Linear(np.int64(10))],
        SoftmaxCrossEntropy(),
        input=ma.Pixels(np.array([1, 28, 28]), shift=np.float64(-0.5)),
        backend=ma.get_backend("numpy"),
    )
    pixels = batch[0].reshape(-1, 784)
    x = network.gather(pixels, np.arange(4))
    logits, _ = network.forward(x, rng=np.random.default_rng(0))
    assert x.dtype == logits.dtype == np.float32


def test_layer_without_backward_cannot_be_created():
    class Half(Layer):
        kind = "half"

        def forward(self, backend, parameters, x, rng):
            return x / 2, None

    with pytest.raises(TypeError, match=r"abstract .*backward"):
        Half()


def test_layers_that_do_not_fit_together_are_rejected():
    backend = ma.get_backend("numpy")

    def network(*layers):
        return Network(layers, SoftmaxCrossEntropy(), input=ma.Pixels((1, 28, 28)), backend=backend)

    with pytest.raises(ValueError, match="put Flatten before"):
        network(Linear(10))
    with pytest.raises(ValueError, match="a patch of 29 does not fit an input of 28"):
        network(Conv2d(1, kernel_size=29), Flatten())
    with pytest.raises(ValueError, match="must end in a vector"):
        network(Conv2d(1, kernel_size=3))
    with pytest.raises(ValueError, match="at least one layer with parameters"):
        network(Flatten())
    with pytest.raises(ValueError, match="needs uniform=True"):
        network(Conv2d(1, kernel_size=3), MaxPool2d(2, ties="all"), Flatten())
    odd = network(Conv2d(2, kernel_size=4), AvgPool2d(2), MaxPool2d(3, stride=2), Flatten())
    assert odd.classes == 2 * 5 * 5


def test_dropout_acts_only_in_training(batch):
    network = Network(
        [Linear(2000), Dropout(0.25), Linear(10)],
        SoftmaxCrossEntropy(),
        input=ma.Pixels((784,)),
        backend=ma.get_backend("numpy"),
    )
    x = np.ones((4, 784), np.float32)
    trained, tape = network.forward(x, rng=np.random.default_rng(0))
    mask = tape[1]
    assert set(np.unique(mask)) == {0, np.float32(1 / 0.75)}
    assert abs((mask == 0).mean() - 0.25) < 0.03
    first, _ = network.forward(x)
    second, _ = network.forward(x)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, trained)
