"""Train the network of `mnist_accel/data/digit_image/likeness.py`, and store its weights.

    python -m tests.support.digit_pictures.train_likeness

It learns the digits of the training sets of MNIST and scikit-learn, as they are and in other pens,
against shapes that are no digit. Takes a few minutes.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image
from scipy import ndimage

import mnist_accel as ma
from mnist_accel.data.digit_image import likeness
from mnist_accel.data.digit_image.normalize import to_mnist
from mnist_accel.nn import Linear, Network, ReLU, SoftmaxCrossEntropy
from tests.support.digit_pictures.other_shapes import (
    SHAPES,
    SIZE,
    letters,
    scribble,
    sheet,
    slanted,
    touching,
)

NUM_DIGITS, NUM_ROUNDS = 26_000, 2_000  # each round adds 12 shapes
HIDDEN = 64
FONTS = sorted(
    str(path)
    for path in (Path(mpl.get_data_path()) / "fonts" / "ttf").glob("*.ttf")
    if path.name.startswith(("DejaVuSans", "DejaVuSerif", "STIXGeneral"))
    and "Display" not in path.name
)


def redraw(image, rng):
    """Return a digit (28, 28) enlarged, with another pen, slope and rotation."""
    large = Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    turned = slanted(large, rng.uniform(-0.15, 0.15)).rotate(
        rng.uniform(-8, 8), Image.Resampling.BILINEAR
    )
    ink = np.asarray(turned, dtype=np.float32) / 255
    if rng.random() < 0.4:
        return ink
    mask = ndimage.gaussian_filter(ink, 1.2) > 0.42
    distance = ndimage.distance_transform_edt(~mask) - ndimage.distance_transform_edt(mask)
    other = np.clip(rng.uniform(-2.5, 4) + 0.5 - distance, 0, 1).astype(np.float32)
    return other if other.max() == 1 else ink  # a thin stroke may vanish


def examples(images, rng):
    """Return images (N, 28, 28) as uint8, and whether each shows a digit (N,)."""

    def digit():
        return redraw(images[rng.integers(len(images))], rng)

    shown = list(images[rng.permutation(len(images))[: NUM_DIGITS // 2]])
    digits = [digit() for _ in range(NUM_DIGITS // 2)]
    others = []
    for _ in range(NUM_ROUNDS):
        others += [shape(rng) for shape in (*SHAPES, scribble)]
        others += [letters(rng, FONTS) for _ in range(2)]
        others += [touching(digit(), digit(), rng) for _ in range(3)]
        others.append(sheet(digit(), rng))
    others = [ink for ink in others if ink.max() > 0.5]
    read = [np.rint(255 * to_mnist(ink)).astype(np.uint8) for ink in (*digits, *others)]
    return np.stack([*shown, *read]), np.repeat([1, 0], [NUM_DIGITS, len(others)])


def main():
    """Train, store the weights, and print the quantiles of the scores of the MNIST test set."""
    data, rng = ma.load_dataset("mnist"), np.random.default_rng(0)
    # The second set, of other writers, is small.
    images = [data.x_train, np.repeat(ma.load_dataset("digits").x_train, 8, axis=0)]
    x, t = examples(np.concatenate(images), rng)
    layers = [Linear(HIDDEN), ReLU(), Linear(2)]
    network = Network(layers, SoftmaxCrossEntropy(), input=ma.Pixels((784,)), backend="numpy")
    trainer = ma.Trainer(network, optimizer="adam", lr=0.002, batch_size=100, seed=0)
    trainer.fit(x.reshape(-1, 784), t, epochs=12)
    weights = {name: np.asarray(w, np.float16) for name, w in network.state_dict().items()}
    np.savez_compressed(likeness.PATH, **weights)
    scores = likeness.score(data.x_test.astype(np.float32) / 255)
    for fraction in (0.001, 0.003, 0.005, 0.01):
        print(f"{fraction:.1%} of the MNIST test set are below {np.quantile(scores, fraction):.2f}")


if __name__ == "__main__":
    main()
