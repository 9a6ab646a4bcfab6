"""The schemas of the files in a run folder that a resumed run reads.

Fields that are not listed are ignored. NaN and infinity are written as null.
"""

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct

from mnist_accel.util.schema import Amount, AtLeastOne, Count, Finite, Fraction, Name


class StepsLine(Struct, frozen=True, tag_field="event", tag="steps"):
    """A line of `metrics.jsonl` for consecutive steps up to and including `step`."""

    step: AtLeastOne
    losses: list[Finite]
    images_per_s: Amount
    seconds: Amount
    epoch: AtLeastOne | None = None
    loss: Finite | None = None
    accuracy: Fraction | None = None
    lr: Finite | None = None


class EpochLine(Struct, frozen=True, tag_field="event", tag="epoch"):
    """A line of `metrics.jsonl` for an epoch."""

    epoch: AtLeastOne
    step: AtLeastOne
    train_accuracy: Fraction | None
    validation_accuracy: Fraction | None
    train_loss: Finite | None = None
    images_per_s: Amount | None = None
    validation_loss: Finite | None = None
    validation_correct: Count | None = None
    validation_total: Count | None = None


MetricsLine: TypeAlias = StepsLine | EpochLine


class BackendUsed(Struct, frozen=True):
    """The backend that computed a run; early versions wrote neither threads nor a device."""

    used: Name
    threads: AtLeastOne | None = None
    device: Count | Name | None = None  # a number N of early versions means "cuda:N"


class DataUsed(Struct, frozen=True):
    """The data of a run; early versions wrote neither the form nor the names of the classes."""

    train_images: AtLeastOne
    name: Name | None = None
    kind: Literal["pixels", "features"] = "pixels"
    shape: Annotated[tuple[AtLeastOne, ...], Meta(min_length=1, max_length=3)] | None = None
    class_names: Annotated[tuple[str, ...], Meta(min_length=2, max_length=1000)] | None = None


class RunConfig(Struct, frozen=True):
    """`config.json`, without the settings, which the argument parser checks."""

    backend: BackendUsed
    data: DataUsed
    earlier: list[dict[str, Any]] = []
