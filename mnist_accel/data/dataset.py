"""A data set as the commands and the Python interface pass it on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends import Shape
from mnist_accel.data.identity import FileIdentity
from mnist_accel.data.raw import Kind, encode_labels

DIGIT_NAMES = tuple("0123456789")


@dataclass(frozen=True)
class DataForm:
    """What a network must know of a data set.

    Attributes:
        shape: shape of one example: (F,), (H, W) or (C, H, W).
        classes: number of classes.
        kind: "pixels" for images that are scaled to 0…1, "features" for other numbers.
    """

    shape: Shape = (28, 28)
    classes: int = 10
    kind: Kind = "pixels"

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width of an image that can be drawn; None for other examples."""
        is_image = self.kind == "pixels" and len(self.shape) == 2
        return (self.shape[0], self.shape[1]) if is_image else None

    @property
    def noun(self) -> str:
        """What messages call an example: "image" or, of features, "example"."""
        return "image" if self.kind == "pixels" else "example"

    def __str__(self) -> str:
        if self.image_size is not None:
            return f"images of {self.shape[0]}×{self.shape[1]}"
        return f"{'×'.join(map(str, self.shape))} {self.kind}"


@dataclass(frozen=True)
class Dataset:
    """Training and test examples with their labels.

    Attributes:
        name: one of `DATASETS`, or the name of a file.
        x_train: training images, uint8 (N, 28, 28), read-only. 0 is background, 255 is full ink.
            Files of the user may contain images of another size, or float32 in 0…1, or features,
            float32 (N, F). N is 0 if the whole data set is a test set.
        t_train: training labels, integers (N,) from 0, read-only.
        x_test: test images, in the same format.
        t_test: test labels, in the same format.
        class_names: names of the labels 0, 1, ….
        source: origin of the data, for messages.
        kind: "pixels" or "features".
        identity: what tells whether the user's files have changed; None for other data.
    """

    name: str
    x_train: NDArray[Any]
    t_train: NDArray[Any]
    x_test: NDArray[Any]
    t_test: NDArray[Any]
    class_names: tuple[str, ...]
    source: str
    kind: Kind = "pixels"
    identity: FileIdentity | None = None

    @property
    def form(self) -> DataForm:
        """What a network must know of the data set."""
        return DataForm(self.x_train.shape[1:], len(self.class_names), self.kind)

    @property
    def is_whole(self) -> bool:
        """Whether all examples are test examples."""
        return not len(self.x_train)

    def describe_test_set(self, count: int | None = None) -> str:
        """Return what is evaluated: "360 test images" or, of a file as a whole, "all 40 examples".

        Args:
            count: number of examples, if only the first ones are used.
        """
        total = len(self.x_test)
        used = total if count is None else count
        noun = self.form.noun if used == 1 else f"{self.form.noun}s"
        return f"all {used} {noun}" if self.is_whole and used == total else f"{used} test {noun}"

    def with_classes(self, names: Sequence[str]) -> "Dataset":
        """Return the data set with the labels of a network whose classes have these names.

        Raises:
            DataError: the data set has another class.
        """
        if tuple(names) == self.class_names:
            return self
        numbers = encode_labels(np.array(self.class_names), names, name=self.source)
        t_train, t_test = numbers[self.t_train], numbers[self.t_test]
        return replace(self, t_train=t_train, t_test=t_test, class_names=tuple(names))
