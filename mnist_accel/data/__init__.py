"""Data sets: sources, file formats, batches, and checks of image and label arrays."""

from mnist_accel.data.datasets import DATASETS, Dataset, load_dataset, load_mnist

__all__ = ["DATASETS", "Dataset", "load_dataset", "load_mnist"]
