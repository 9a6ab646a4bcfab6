"""Checks whether PyTorch can compute on this machine; it is imported only for this check."""

import importlib.util

from backends.availability import Availability, pip

INSTALL = pip("install", "mnist-accel[torch]")


def availability() -> Availability:
    """Return the version of PyTorch, or why it cannot run; never raise."""
    if importlib.util.find_spec("torch") is None:
        return Availability(False, "PyTorch is not installed", INSTALL)
    try:
        import torch

        product = float(torch.ones(1, 2) @ torch.ones(2, 1))
    except Exception as error:  # a broken installation may raise any exception
        summary = " ".join(f"{type(error).__name__}: {error}".split())
        reason = f"PyTorch is installed but does not work ({summary})"
        return Availability(False, reason, f"reinstall it: {INSTALL}")
    if product != 2.0:
        return Availability(False, f"1 + 1 gave {product}", f"reinstall PyTorch: {INSTALL}")
    return Availability(True, f"PyTorch {torch.__version__}, eager only")
