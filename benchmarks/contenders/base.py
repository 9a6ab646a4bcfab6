"""The interface of contenders.

A contender is a backend of this project, or a library that a user could choose instead (a
baseline). It prepares a task: it builds its network, moves the data to its device
and compiles. The result is a session that can be checked and timed. Each method of a session
returns only when its results are available, so that the clock can be read right after it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends import SGD, Adam, Availability, UpdateRule
from mnist_accel.nn import Network
from mnist_accel.util.text import abbreviate_home

HostArray: TypeAlias = NDArray[Any]
HostArrays: TypeAlias = Mapping[str, HostArray]


@dataclass(frozen=True)
class TrainingTask:
    """A network to train, and the images to train it on.

    Attributes:
        model: the network on NumPy, with the initial weights; contenders read its layers, loss,
            `input_shape` and `pixel_shift`, and do not change it.
        optimizer: optimizer with its settings; the learning rate is constant.
        batch_size: images per step, at most the number of images.
        images: (N, 784) uint8, or (N, inputs) float32 in 0…1.
        labels: (N,) int64.
        seed: seed of the order of the images.
    """

    model: Network
    optimizer: UpdateRule
    batch_size: int
    images: NDArray[Any]
    labels: NDArray[np.int64]
    seed: int

    @property
    def is_full_batch(self) -> bool:
        """Whether a batch is the whole set; its images are then used in their stored order."""
        return self.batch_size == len(self.images)

    def pixels(self, images: NDArray[Any] | None = None) -> NDArray[np.float32]:
        """Return images, by default those of the task, as the network's float32 input.

        The shape is (N, *input_shape).
        """
        images = self.images if images is None else images
        pixels = images.astype(np.float32)
        if images.dtype == np.uint8:
            pixels /= np.float32(255)
        if self.model.pixel_shift:
            pixels += np.float32(self.model.pixel_shift)
        return pixels.reshape(-1, *self.model.input_shape)


class TrainingSession(ABC):
    """A network that is ready to be trained, with its data on the device in float32 or uint8.

    Attributes:
        transfer_s: seconds to move the data to the device; 0 if nothing is moved.
        compile_s: seconds of compilation before the first `run`; 0 if nothing is compiled, or an
            earlier session has compiled the code.
    """

    transfer_s: float = 0.0
    compile_s: float = 0.0

    def compile(self) -> None:  # noqa: B027  # most sessions have nothing to do here
        """Compile the code that only `run` needs, which the first `run` would compile otherwise."""

    @abstractmethod
    def run(self) -> None:
        """Train one epoch: each image once, in batches, in a new random order.

        If the task is full-batch, the images are not shuffled.
        """

    def run_from_arrays(self) -> None:
        """Train one epoch on the arrays of the task, and prepare them again, as a first `fit` does.

        Raises:
            NotImplementedError: the session has no such call.
        """
        raise NotImplementedError

    def step(self) -> None:
        """Make one update on the next batch of an epoch.

        Raises:
            NotImplementedError: the session has no such call.
        """
        raise NotImplementedError

    @abstractmethod
    def reset(self) -> None:
        """Restore the initial weights and a new optimizer state."""

    @abstractmethod
    def gradients(self, rows: NDArray[np.int64]) -> HostArrays:
        """Return the gradients of the mean loss of the images in these rows, by parameter name.

        Names and shapes are those of `Network.state_dict`; the weights do not change.
        """

    @abstractmethod
    def updates(self, batches: NDArray[np.int64]) -> Sequence[float]:
        """Make one update per batch; return the mean loss of each batch before its update.

        This runs the same code as `run`. If `run` makes all updates in one call, so does this.

        Args:
            batches: rows of the images, shape (steps, batch); if the task is full-batch, each batch
                has all rows.
        """

    @abstractmethod
    def weights(self) -> HostArrays:
        """Return the weights, with the names and shapes of `Network.state_dict`."""

    @abstractmethod
    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the most probable class (N,) of each host image (N, 784)."""


class PopulationSession(ABC):
    """Networks that are ready to be trained together, each with its own learning rate and seed."""

    def compile(self) -> None:  # noqa: B027  # most sessions have nothing to do here
        """Compile the code that only `run` needs, which the first `run` would compile otherwise."""

    @abstractmethod
    def run(self) -> None:
        """Train each network for one epoch from its initial weights, in its own image order."""

    @abstractmethod
    def updates(self, batches: NDArray[np.int64]) -> NDArray[Any]:
        """Make updates from the initial weights; return their losses (members, steps).

        Args:
            batches: rows of the images, shape (members, steps, batch). They are the image order of
                the project, so that its trainer visits them by itself.
        """

    @abstractmethod
    def weights(self, member: int) -> HostArrays:
        """Return the weights of a network, with the names and shapes of `Network.state_dict`."""


# Maps host images (N, 784) float32 in 0…1 to probabilities (N, classes) on the host.
InferenceSession: TypeAlias = Callable[[NDArray[np.float32]], HostArray]


@dataclass(frozen=True)
class OperationTask:
    """One operation of a network, and its inputs.

    Attributes:
        name: "linear", "conv2d", "max_pool2d", "conv2d_relu_max_pool2d", "softmax_cross_entropy",
            "sgd_update" or "adam_update".
        direction: "forward", or "backward" for the gradients of all inputs except dy, in order.
        inputs: host arrays by name: x (N, …) float32, then weight, bias, labels and dy if the
            operation has them; for updates weight, grad and the state arrays of the rule.
        settings: stride, padding and size of the operation, or the settings of the update rule and
            the number of the `step`, from 1.
    """

    name: str
    direction: Literal["forward", "backward"]
    inputs: HostArrays
    settings: Mapping[str, Any]

    @property
    def rule(self) -> UpdateRule:
        """The update rule of "sgd_update" or "adam_update"."""
        settings = {name: value for name, value in self.settings.items() if name != "step"}
        return SGD(**settings) if self.name == "sgd_update" else Adam(**settings)


@dataclass(frozen=True)
class OperationSession:
    """An operation whose inputs are on the device.

    Attributes:
        run: computes the operation once, and returns when the results are available.
        results: computes the operation once, and returns the results as host arrays, in the order
            that `OperationTask` describes.
    """

    run: Callable[[], Any]
    results: Callable[[], Sequence[HostArray]]


class Contender(ABC):
    """A backend of this project or a baseline.

    Attributes:
        name: name in reports.
        is_baseline: whether it is another library, with which this project is compared.
        ties: "first" if the first of several equal maxima in a pooling patch receives the gradient,
            "recipe" if the contender follows the rule of the recipe.
    """

    name: ClassVar[str]
    is_baseline: ClassVar[bool] = True
    ties: ClassVar[Literal["first", "recipe"]] = "first"

    @abstractmethod
    def availability(self) -> Availability:
        """Return whether it can run here, with reason and remedy; never raises."""

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Return the versions of the libraries that do the work, and what else affects speed."""

    def device(self) -> Literal["cpu", "gpu"]:
        """Return where it computes."""
        return "cpu"

    def peak_device_bytes(self) -> int | None:
        """Return the peak GPU memory that the library reserved; None if it uses no GPU."""
        return None

    def skip_reason(self, task: TrainingTask) -> str:
        """Return why it does not support this training; empty if it does."""
        return ""

    def inference_skip_reason(self, model: Network, batch_size: int) -> str:
        """Return why it does not support this network or batch size; empty if it does."""
        return ""

    @abstractmethod
    def training(self, task: TrainingTask) -> TrainingSession:
        """Prepare a training."""

    def population(self, members: Sequence[TrainingTask]) -> PopulationSession:
        """Prepare the training of several networks.

        Args:
            members: trainings that differ only in initial weights, seed and learning rate.

        Raises:
            NotImplementedError: the contender does not support it; the message states the reason.
        """
        raise NotImplementedError(f"{self.name} does not train populations")

    def estimator(self, task: Literal["classifier", "regressor"], **settings: Any) -> Any:
        """Return a new scikit-learn estimator with the defaults of scikit-learn's networks.

        Args:
            task: what it is.
            settings: parameters with other values.

        Raises:
            NotImplementedError: the contender has none.
        """
        raise NotImplementedError(f"{self.name} has no estimators")

    @abstractmethod
    def inference(self, model: Network) -> InferenceSession:
        """Prepare predictions with the weights of a network on NumPy."""

    def operation(self, task: OperationTask) -> OperationSession | None:
        """Prepare an operation; None if the contender does not have this operation."""
        return None


def explanation(availability: Availability) -> str:
    """Return the reason and the remedy for a result file, without the name of the user."""
    parts = availability.reason, availability.remedy
    return abbreviate_home("; ".join(filter(None, parts)))
