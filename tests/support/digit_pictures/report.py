"""Counts how pictures of digits are read: right, refused or wrong, per disturbance and strength."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

import mnist_accel as ma
from mnist_accel.commands import main
from mnist_accel.data import Dataset
from mnist_accel.nn.network import Network
from tests.support.digit_pictures.scenes import (
    CONTROLS,
    DISTURBANCES,
    STRENGTHS,
    Scene,
    make_picture,
)

Reader = Callable[[Path], np.ndarray]
CONFIDENT = 0.9


@dataclass(frozen=True)
class Part:
    """A part of the MNIST test set, with the first seed of its pictures.

    The rules were tuned on one part, and are reported on the other.
    """

    first: int
    last: int
    seed: int


TUNING = Part(0, 5000, 1_000_000)
REPORTING = Part(5000, 10_000, 2_000_000)


@dataclass
class Count:
    """The outcomes of one disturbance in one strength.

    Attributes:
        name: name of the disturbance.
        strength: 1 to 3.
        right: number of pictures whose digit is predicted.
        refused: messages of the refusals.
        wrong: seeds of the pictures in which another digit is predicted.
        confident: how many of these have a probability of at least `CONFIDENT`.
    """

    name: str
    strength: int
    right: int = 0
    refused: list[str] = field(default_factory=list)
    wrong: list[int] = field(default_factory=list)
    confident: int = 0

    @property
    def total(self) -> int:
        return self.right + len(self.refused) + len(self.wrong)


def trained_network() -> Network:
    """Return a lenet trained on MNIST; its weights are cached in the folder of temporary files."""
    folder = Path(tempfile.gettempdir()) / f"mnist_accel-digit-pictures-{ma.__version__}"
    if not (folder / "model.safetensors").exists():
        flags = ["--model", "lenet", "--epochs", "4", "--quiet", "--out", str(folder)]
        if main(["train", *flags]) != 0:
            raise RuntimeError(f"the training failed; remove {folder} and try again")
    return ma.load_model(folder / "model.safetensors", backend="numpy")


def measure(
    read: Reader,
    network: Network,
    dataset: Dataset,
    part: Part,
    *,
    per_strength: int,
    kinds: Sequence[Callable[[Scene, int], None]] = (*CONTROLS, *DISTURBANCES),
) -> list[Count]:
    """Return the outcomes of `per_strength` pictures for each disturbance and strength."""
    counts = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digit.png"
        for kind in kinds:
            number = (*CONTROLS, *DISTURBANCES).index(kind)
            for strength in STRENGTHS:
                count = Count(kind.__name__, strength)
                for repeat in range(per_strength):
                    seed = part.seed + 10_000 * number + 1_000 * strength + repeat
                    index = np.random.default_rng(seed).integers(part.first, part.last)
                    picture = make_picture(dataset.x_test[index], kind, strength, seed)
                    Image.fromarray(picture).save(path, compress_level=1)
                    _count(count, read, network, path, label=dataset.t_test[index], seed=seed)
                counts.append(count)
    return counts


def _count(
    count: Count, read: Reader, network: Network, path: Path, *, label: int, seed: int
) -> None:
    try:
        image = read(path)
    except ma.DataError as error:
        count.refused.append(str(error))
        return
    probabilities = network.predict_proba(image[None])[0]
    if probabilities.argmax() == label:
        count.right += 1
    else:
        count.wrong.append(seed)
        count.confident += int(probabilities.max() >= CONFIDENT)


def count_refused_without_digit(
    read: Reader,
    part: Part,
    *,
    per_strength: int,
    kinds: Sequence[Callable[[Scene, int], None]] = DISTURBANCES,
) -> list[tuple[str, int, int]]:
    """Return the name, refusals and total of each disturbance on paper without a digit."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digit.png"
        for kind in kinds:
            number = DISTURBANCES.index(kind)
            refused = total = 0
            for strength in STRENGTHS:
                for repeat in range(per_strength):
                    seed = part.seed + 500_000 + 10_000 * number + 1_000 * strength + repeat
                    Image.fromarray(make_picture(None, kind, strength, seed)).save(path)
                    total += 1
                    try:
                        read(path)
                    except ma.DataError:
                        refused += 1
            results.append((kind.__name__, refused, total))
    return results


def format_counts(counts: Sequence[Count]) -> str:
    """Return a table with one line per disturbance and strength."""
    lines = ["disturbance         strength  pictures   right  refused  wrong  wrong with ≥ 0.9"]
    lines += [
        f"{count.name:<20}{count.strength:>8}{count.total:>10}{count.right:>8}"
        f"{len(count.refused):>9}{len(count.wrong):>7}{count.confident:>18}"
        for count in counts
    ]
    for name in dict.fromkeys(count.name for count in counts):
        group = [count for count in counts if count.name == name]
        total = sum(count.total for count in group)
        right, refused, wrong = (
            sum(values) / total
            for values in (
                [count.right for count in group],
                [len(count.refused) for count in group],
                [len(count.wrong) for count in group],
            )
        )
        lines.append(f"{name:<20} all: {right:.1%} right, {refused:.1%} refused, {wrong:.1%} wrong")
    return "\n".join(lines)
