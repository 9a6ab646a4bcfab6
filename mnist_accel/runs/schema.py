"""The schemas of the files in a run folder that a resumed run reads.

Fields that are not listed are ignored. NaN and infinity are written as null.
"""

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct
from msgspec.structs import asdict

from mnist_accel.data.identity import FileIdentity
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


class DataSettings(Struct, frozen=True):
    """The settings that select a data set; release 0.1.0 had only the first two."""

    dataset: str | None = None
    data_dir: str | None = None
    label_column: str | None = None
    test_split: Fraction | None = None
    kind: str | None = None

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `load_dataset`, without those that are not set."""
        given = {"name": self.dataset or "mnist", **asdict(self)}
        del given["dataset"]
        return {name: value for name, value in given.items() if value is not None}


ClassNames: TypeAlias = Annotated[tuple[str, ...], Meta(min_length=2, max_length=1000)]


class DataUsed(Struct, frozen=True):
    """The data of a run; early versions wrote only the name and the number of images."""

    train_images: AtLeastOne
    name: Name | None = None
    kind: Literal["pixels", "features"] = "pixels"
    shape: Annotated[tuple[AtLeastOne, ...], Meta(min_length=1, max_length=3)] | None = None
    class_names: ClassNames | None = None
    identity: FileIdentity | None = None  # only of the user's own files


class RunConfig(Struct, frozen=True):
    """`config.json`, without the other settings, which the argument parser checks."""

    backend: BackendUsed
    data: DataUsed
    settings: DataSettings = DataSettings()
    earlier: list[dict[str, Any]] = []


class PopulationData(Struct, frozen=True):
    """What the `config.json` of a population says about its data."""

    fixed: DataSettings = DataSettings()
    class_names: ClassNames | None = None
    identity: FileIdentity | None = None
