"""Arguments of wrong types are refused in one line that says what is accepted."""

import numpy as np
import pytest

import mnist_accel as ma
from backends import SGD

MODEL = ma.create_model("two-layer", backend="numpy")
IMAGES, LABELS = np.zeros((4, 784), np.float32), np.zeros(4, int)


def trainer(**options):
    return ma.Trainer(MODEL, **options)


def fit(**options):
    return trainer().fit(IMAGES, LABELS, epochs=1, **options)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ma.create_model("cnn", backend=None), "backend must be a name or a backend from"),
        (lambda: ma.create_model("two-layer", hidden_sizes=5), "hidden_sizes must be a sequence"),
        (
            lambda: ma.create_model("two-layer", hidden_sizes="128,64"),
            "must be a sequence of integers, got '128,64'",
        ),
        (lambda: ma.get_backend("numpy", threads="2"), "threads must be an integer, got '2'"),
        (
            lambda: ma.get_backend("auto", device=1.5),
            "device must be a name such as 'cuda:0', or its number",
        ),
        (lambda: ma.load_mnist("fashion-mnist"), "normalize must be True or False, got 'fash"),
        (lambda: ma.Trainer("lenet"), "model must be a network, such as one from create_model"),
        (lambda: trainer(optimizer=None), "optimizer must be a name, or one such as Adam()"),
        (lambda: trainer(optimizer=SGD), "optimizer must be a name, or one such as Adam()"),
        (lambda: trainer(schedule=5), "schedule must be a name, or one such as Schedule()"),
        (lambda: fit(callbacks=[print]), "callbacks must be a list of Callback objects"),
        (lambda: fit(validation_data=IMAGES), "validation_data must be a pair (images, labels)"),
        (lambda: fit(validation_every="1"), "validation_every must be an integer, got '1'"),
        (lambda: ma.evaluate("run", IMAGES, LABELS), "model must be a network, such as one from"),
        (lambda: ma.check_gradients("cnn", IMAGES, LABELS), "model must be a network, such as"),
        (lambda: ma.save_checkpoint("file", MODEL), "must be a Trainer; save_model writes a netwo"),
        (lambda: ma.read_digit_image(IMAGES), "a pathlib.Path or a binary stream, got array"),
    ],
)
def test_a_wrong_type_is_named_with_the_accepted_one(call, says):
    with pytest.raises(TypeError) as caught:
        call()
    message = str(caught.value)
    assert says in message
    assert "\n" not in message
    assert len(message) < 200
