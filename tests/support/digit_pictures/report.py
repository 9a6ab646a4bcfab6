"""Counts how pictures of digits are read: right, refused or wrong, per disturbance."""

import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

import mnist_accel as ma
from mnist_accel.commands import main
from mnist_accel.data import Dataset
from mnist_accel.nn.network import Network
from tests.support.digit_pictures.pictures import Kind, make_picture
from tests.support.digit_pictures.scene import STRENGTHS, Pixels

Reader = Callable[[Path], np.ndarray]


@dataclass(frozen=True)
class Part:
    """A part of the MNIST test set, with the seed of its pictures.

    The rules were tuned on one part, and are reported on the other.
    """

    first: int
    last: int
    seed: int


TUNING = Part(0, 5000, 1)
REPORTING = Part(5000, 10_000, 2)


@dataclass
class Count:
    """The outcomes of one kind of picture.

    Attributes:
        name: name of the kind.
        right: per strength, the number of pictures whose digit is predicted.
        refused: per strength, the number of refusals.
        wrong: per strength, the number of pictures in which another digit is predicted.
        empty_refused: the number of refused pictures without a digit.
        empty: the number of pictures without a digit.
    """

    name: str
    right: list[int] = field(default_factory=lambda: [0] * len(STRENGTHS))
    refused: list[int] = field(default_factory=lambda: [0] * len(STRENGTHS))
    wrong: list[int] = field(default_factory=lambda: [0] * len(STRENGTHS))
    empty_refused: int = 0
    empty: int = 0

    @property
    def total(self) -> int:
        """Number of pictures with a digit."""
        return sum(self.right) + sum(self.refused) + sum(self.wrong)


def trained_network() -> Network:
    """Return a lenet trained on MNIST; its weights are cached in the folder of temporary files."""
    folder = Path(tempfile.gettempdir()) / f"mnist_accel-digit-pictures-{ma.__version__}"
    weights = folder / "model.safetensors"
    if not weights.exists():
        # Several processes that run tests may train at the same time, each in its own folder.
        with tempfile.TemporaryDirectory() as run:
            flags = ["--model", "lenet", "--epochs", "4", "--quiet", "--out", run]
            if main(["train", *flags]) != 0:
                raise RuntimeError("the training of the network that reads the pictures failed")
            folder.mkdir(exist_ok=True)
            (Path(run) / "model.safetensors").replace(weights)
    return ma.load_model(weights, backend="numpy")


def sample_pictures(
    kind: Kind, part: Part, dataset: Dataset, known: np.ndarray, *, per_strength: int
) -> Iterator[tuple[int, int, Pixels]]:
    """Yield the strength, label and picture of samples of one kind.

    Args:
        kind: of the pictures.
        part: of the test set.
        dataset: gives the digits.
        known: numbers of the images that may be used.
        per_strength: number of pictures of each strength.
    """
    candidates = known[(part.first <= known) & (known < part.last)]
    for strength in STRENGTHS:
        for repeat in range(per_strength):
            seed = _seed(kind, part, strength, repeat)
            index = np.random.default_rng(seed).choice(candidates)
            picture = make_picture(dataset.x_test[index], kind, strength, seed)
            yield strength, int(dataset.t_test[index]), picture


def _seed(kind: Kind, part: Part, strength: int, repeat: int) -> list[int]:
    return [part.seed, zlib.crc32(kind.__name__.encode()), strength, repeat]


def recognized(network: Network, dataset: Dataset) -> np.ndarray:
    """Return the numbers of the test images that the network predicts correctly.

    Only these are used, so that each wrong prediction is a fault of the reading.
    """
    predicted = np.concatenate(
        [network.predict_proba(part).argmax(axis=1) for part in np.split(dataset.x_test, 20)]
    )
    return np.flatnonzero(predicted == dataset.t_test)


def measure(
    read: Reader,
    network: Network,
    dataset: Dataset,
    part: Part,
    known: np.ndarray,
    *,
    per_strength: int,
    kind: Kind,
) -> Count:
    """Return the outcomes of `per_strength` pictures of a kind with each strength.

    `known` are the numbers of the images that may be used, as `recognized` returns them.
    """
    count = Count(kind.__name__)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digit.png"
        samples = sample_pictures(kind, part, dataset, known, per_strength=per_strength)
        for strength, label, picture in samples:
            Image.fromarray(picture).save(path, compress_level=1)
            try:
                predicted = network.predict_proba(read(path)[None])[0].argmax()
            except ma.DataError:
                count.refused[strength - 1] += 1
                continue
            outcome = count.right if predicted == label else count.wrong
            outcome[strength - 1] += 1
    return count


def count_empty(read: Reader, part: Part, count: Count, kind: Kind, *, per_strength: int) -> None:
    """Add to `count` how many pictures of a kind without a digit are refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digit.png"
        for strength in STRENGTHS:
            for repeat in range(per_strength):
                seed = _seed(kind, part, strength, 1000 + repeat)
                Image.fromarray(make_picture(None, kind, strength, seed)).save(path)
                count.empty += 1
                try:
                    read(path)
                except ma.DataError:
                    count.empty_refused += 1


def table_head(title: str) -> str:
    """Return the head of a Markdown table whose rows are kinds of pictures."""
    return (
        f"| {title} | Pictures | Right | Refused | Wrong | Without a digit: refused |\n"
        "|---|---:|---:|---:|---:|---:|"
    )


def table_row(count: Count) -> str:
    """Return the row of a kind of picture in a Markdown table."""
    shares = (
        f"{sum(part) / count.total:.0%}" for part in (count.right, count.refused, count.wrong)
    )
    name = count.name.replace("_", " ")
    empty = f"{count.empty_refused} of {count.empty}" if count.empty else ""
    return f"| {name} | {count.total} | {' | '.join(shares)} | {empty} |"
