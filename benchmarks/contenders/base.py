"""What takes part in the benchmarks: the contract of a contender.

A contender is one way to do the work: a backend of this project, or a peer that a user would pick
instead. It prepares a task (builds its network, moves the data to where it computes, compiles) and
hands back a session, of which the measuring knows two things only: how to check it, and how to run
it. Every session works until its results are there, so that a clock may be read when it returns.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends import Availability
from mnist_accel.nn import Network
from mnist_accel.nn.optimizers import UpdateRule

HostArray: TypeAlias = NDArray[Any]
HostArrays: TypeAlias = Mapping[str, HostArray]


@dataclass(frozen=True)
class TrainingTask:
    """A network to train, and the images to train it on.

    Attributes:
        model: the network on NumPy, with the weights that every contender starts from; its layers,
            loss, `input_shape` and `pixel_shift` describe it. Not to be changed.
        optimizer: and its settings; the learning rate is constant.
        batch_size: images a step, at most as many as there are.
        images: (N, 784) uint8.
        labels: (N,) int64.
        seed: of the order of the images.
    """

    model: Network
    optimizer: UpdateRule
    batch_size: int
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    seed: int

    @property
    def takes_all(self) -> bool:
        """Whether a batch is the whole set: its images are taken as they lie, in no other order."""
        return self.batch_size == len(self.images)


class TrainingSession(ABC):
    """A network that is ready to be trained; the data lie where it computes, in float32 or uint8.

    Attributes:
        transfer_s: seconds that moving the data to the device took; 0 where nothing was moved.
        compile_s: seconds spent on compiling before the first `run`; 0 where nothing was compiled,
            or an earlier session has left the code.
    """

    transfer_s: float = 0.0
    compile_s: float = 0.0

    def compile(self) -> None:  # noqa: B027  # most have nothing to do here
        """Get ready what `run` needs and nothing else does; a `run` without it does so first."""

    @abstractmethod
    def run(self) -> None:
        """Train one epoch: every image once, in a new random order, in batches; and wait for it.

        Where the task takes all images at once, it need not shuffle them.
        """

    @abstractmethod
    def reset(self) -> None:
        """Go back to the weights of the task, and to an optimizer that has not made a step."""

    @abstractmethod
    def gradients(self, rows: NDArray[np.int64]) -> HostArrays:
        """Return the gradients of the mean loss of the images in these rows, by parameter name.

        Names and shapes are those of `Network.state_dict`; the weights do not change.
        """

    @abstractmethod
    def updates(self, batches: NDArray[np.int64]) -> Sequence[float]:
        """Make an update on each batch; return the mean loss of each before its own update.

        They are made by the code that `run` times: in one call where that makes many in one.

        Args:
            batches: rows of the images (steps, batch); all of them, each once, where the task takes
                all at once.
        """

    @abstractmethod
    def weights(self) -> HostArrays:
        """Return the weights as `Network.state_dict` names and shapes them."""

    @abstractmethod
    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the most probable class of each host image (N, 784)."""


# Takes images (N, 784) float32 in 0…1 on the host, and returns probabilities (N, classes) there.
InferenceSession: TypeAlias = Callable[[NDArray[np.float32]], HostArray]


@dataclass(frozen=True)
class OperationTask:
    """One operation of a network, and its inputs.

    Attributes:
        name: "linear", "conv2d", "max_pool2d", "conv2d_relu_max_pool2d", "softmax_cross_entropy",
            "sgd_update" or "adam_update".
        direction: "forward", or "backward": the gradients of the inputs in `wanted`.
        inputs: host arrays by name: x (N, …) float32, and weight, bias, labels, dy where the
            operation has them.
        settings: stride, padding, size, lr and the like.
        wanted: names of the inputs whose gradients "backward" returns, in their order.
    """

    name: str
    direction: Literal["forward", "backward"]
    inputs: HostArrays
    settings: Mapping[str, Any]
    wanted: tuple[str, ...] = ()


@dataclass(frozen=True)
class OperationSession:
    """An operation whose inputs lie where it computes.

    Attributes:
        run: does it once, and waits for it.
        results: does it once, and returns what it computes as host arrays, in the order in which
            the task names them.
    """

    run: Callable[[], Any]
    results: Callable[[], Sequence[HostArray]]


class Contender(ABC):
    """One way to do the work.

    Attributes:
        name: as reports show it.
        is_peer: whether it is somebody else's work.
        ties: which of several equal maxima in a pooling window receive the gradient; what its
            library does, or what the recipe asks for where it can choose ("recipe").
    """

    name: ClassVar[str]
    is_peer: ClassVar[bool] = True
    ties: ClassVar[Literal["first", "recipe"]] = "first"

    @abstractmethod
    def availability(self) -> Availability:
        """Say whether it can run here; never raise."""

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Return the version of each library that does the work, and what else decides its pace."""

    def device(self) -> Literal["cpu", "gpu"]:
        """Say where it computes, if it can run here."""
        return "cpu"

    def peak_device_bytes(self) -> int | None:
        """Return the most memory of a GPU that the library has taken; None where it uses none."""
        return None

    def refusal(self, task: TrainingTask) -> str:
        """Say why it cannot do this training; empty where it can."""
        return ""

    def inference_refusal(self, model: Network, batch_size: int) -> str:
        """Say why it cannot predict with this network, so many images at once; empty if it can."""
        return ""

    @abstractmethod
    def training(self, task: TrainingTask) -> TrainingSession:
        """Prepare a training."""

    @abstractmethod
    def inference(self, model: Network) -> InferenceSession:
        """Prepare predictions with the weights of a network on NumPy."""

    @abstractmethod
    def operation(self, task: OperationTask) -> OperationSession | None:
        """Prepare an operation; None where it has no such operation of its own."""
