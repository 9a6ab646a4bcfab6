"""Fixtures that more than one test module needs."""

import pytest

from mnist_accel.data import Dataset, load_dataset


@pytest.fixture(scope="session")
def mnist() -> Dataset:
    """The real MNIST, from wherever this machine has it or can get it."""
    return load_dataset("mnist")
