"""The same training in this project: the network is data, and the backend compiles it."""

import numpy as np
from problem import BATCH, CLASSES, HIDDEN, LEARNING_RATE, PIXELS, run

import mnist_accel as ma
from mnist_accel.nn.layers import Linear, ReLU
from mnist_accel.nn.losses import SoftmaxCrossEntropy


def train(images, labels, parameters, *, backend="numba", batch_size=BATCH):
    """Return the mean loss of each batch; change the parameters in place."""
    network = ma.Network(
        [Linear(HIDDEN), ReLU(), Linear(CLASSES)],
        SoftmaxCrossEntropy(),
        input=ma.Pixels(PIXELS),
        backend=backend,
    )
    names = "W1", "b1", "W2", "b2"
    network.load_state_dict(dict(zip(names, parameters, strict=True)))
    trainer = ma.Trainer(
        network, "sgd", lr=LEARNING_RATE, batch_size=batch_size, sampling="sequential"
    )
    history = trainer.fit(images, labels, epochs=1)
    for name, array in zip(names, parameters, strict=True):
        array[...] = network.state_dict()[name]
    return np.array(history.losses)


if __name__ == "__main__":
    run(train, images=16_000)
