"""Data sets: where they come from, and how their files are read."""

from mnist_accel.data.datasets import DATASETS, Dataset, load_dataset, load_mnist

__all__ = ["DATASETS", "Dataset", "load_dataset", "load_mnist"]
