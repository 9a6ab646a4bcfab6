"""Learning-rate schedules: each step multiplies the optimizer's learning rate by a factor.

To add a schedule, write a class here and add it to `SCHEDULES`. A class in another package is
registered with `mnist_accel.register`.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from backends import Table, check_fraction, check_integer, check_non_negative, resolve_name


@dataclass(frozen=True)
class Schedule:
    """The constant factor 1, and the base of the other schedules.

    Attributes:
        kind: name of the schedule in files and on the command line.
    """

    kind: ClassVar[str] = "constant"

    @property
    def needs_total(self) -> bool:
        """Whether the factor depends on the total number of steps."""
        return False

    def factor(self, step: int, total_steps: int | None) -> float:
        """Return the factor of one step.

        Args:
            step: number of steps before this one.
            total_steps: number of steps of the whole training; None if unknown.
        """
        return 1.0


@dataclass(frozen=True)
class StepSchedule(Schedule):
    """Multiply by `gamma` after every `every` steps.

    Attributes:
        every: steps between two drops; None for a third of all steps.
        gamma: factor of one drop.
    """

    every: int | None = None
    gamma: float = 0.1
    kind: ClassVar[str] = "step"

    def __post_init__(self) -> None:
        if self.every is not None:
            check_integer(self, "every", at_least=1)
        check_non_negative(self, "gamma")

    @property
    def needs_total(self) -> bool:
        """True if the interval depends on the total."""
        return self.every is None

    def factor(self, step: int, total_steps: int | None) -> float:
        """Return gamma to the power of the number of drops so far."""
        every = self.every or max(1, math.ceil((total_steps or 1) / 3))
        return self.gamma ** (step // every)


@dataclass(frozen=True)
class CosineSchedule(Schedule):
    """Fall along half a cosine, from 1 at the first step to 0 one step after the last.

    Source: Loshchilov and Hutter 2017, without restarts.
    """

    kind: ClassVar[str] = "cosine"
    needs_total: ClassVar[bool] = True

    def factor(self, step: int, total_steps: int | None) -> float:
        """Return ½·(1 + cos(π·step / total))."""
        total = total_steps or 1
        return 0.5 * (1 + math.cos(math.pi * min(step, total) / total))


@dataclass(frozen=True)
class OneCycleSchedule(Schedule):
    """Rise linearly from 1/25 to 1, then fall along half a cosine to 1/250 000 (Smith 2018).

    Attributes:
        warmup: fraction of all steps for the rise, at least 0 and less than 1.
    """

    warmup: float = 0.3
    kind: ClassVar[str] = "one-cycle"
    needs_total: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_fraction(self, "warmup")

    def factor(self, step: int, total_steps: int | None) -> float:
        """Return the factor: the maximum at step warmup·total, the minimum at the last step."""
        start, end = 1 / 25, 1 / 25 / 1e4
        total = total_steps or 1
        peak = self.warmup * total
        if step < peak:
            return start + (1 - start) * step / peak
        fall = total - 1 - peak
        progress = min(1.0, (step - peak) / fall) if fall > 0 else 1.0
        return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * progress))


SCHEDULES: Table[type[Schedule]] = Table(
    "schedule",
    {cls.kind: cls for cls in (Schedule, StepSchedule, CosineSchedule, OneCycleSchedule)},
)


def create_schedule(name: str) -> Schedule:
    """Return the schedule called `name`.

    Raises:
        ValueError: no schedule has this name.
    """
    return SCHEDULES[resolve_name("schedule", name, SCHEDULES)]()
