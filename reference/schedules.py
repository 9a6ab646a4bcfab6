"""Learning-rate schedules: the rate of each update; `step` counts the updates from 0."""

import math
from collections.abc import Callable

Schedule = Callable[[int, int, float], float]


def constant_lr(step: int, total_steps: int, lr: float) -> float:
    """Return lr."""
    return lr


def step_lr(
    step: int, total_steps: int, lr: float, *, every: int = 1000, gamma: float = 0.1
) -> float:
    """Return lr·gamma^⌊step/every⌋."""
    return float(lr * gamma ** (step // every))


def cosine_lr(step: int, total_steps: int, lr: float) -> float:
    """Return lr·½·(1 + cos(π·step/total_steps)), which is 0 one step after the last."""
    return lr * 0.5 * (1 + math.cos(math.pi * step / total_steps))


def one_cycle_lr(step: int, total_steps: int, lr: float) -> float:
    """Return the rate of a linear warm-up from lr/25 to lr and half a cosine down to lr/25/10⁴.

    With peak = 0.3·total_steps, start = lr/25 and end = start/10⁴:

    - step < peak: start + (lr − start)·step/peak
    - otherwise: end + (lr − end)·½·(1 + cos(π·(step − peak)/(total_steps − 1 − peak)))
    """
    peak, start, end = 0.3 * total_steps, lr / 25, lr / 25 / 1e4
    if step < peak:
        return start + (lr - start) * step / peak
    progress = (step - peak) / (total_steps - 1 - peak)
    return end + (lr - end) * 0.5 * (1 + math.cos(math.pi * progress))
