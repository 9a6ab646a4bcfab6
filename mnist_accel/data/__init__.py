"""Data sets: sources, file formats, batches, and checks of image and label arrays."""

from mnist_accel.data.dataset import DataForm, Dataset
from mnist_accel.data.datasets import DATASET_ALIASES, DATASETS, load_dataset, load_mnist
from mnist_accel.data.digit_image import read_digit_image

__all__ = [
    "DATASETS",
    "DATASET_ALIASES",
    "DataForm",
    "Dataset",
    "load_dataset",
    "load_mnist",
    "read_digit_image",
]
