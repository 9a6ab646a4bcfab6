"""Data sets: sources, file formats, batches, and checks of image and label arrays."""

from mnist_accel.data.datasets import DATASET_ALIASES, DATASETS, Dataset, load_dataset, load_mnist
from mnist_accel.data.digit_image import read_digit_image

__all__ = [
    "DATASETS",
    "DATASET_ALIASES",
    "Dataset",
    "load_dataset",
    "load_mnist",
    "read_digit_image",
]
