"""Compiles Numba kernels into the cache on disk, so that parallel test processes only load them."""

import numpy as np

from mnist_accel import Trainer, create_model, get_backend
from mnist_accel.recipes.models import RECIPES

if __name__ == "__main__":
    numba = get_backend("numba")
    labels = np.zeros(2, np.int64)
    # Kernels for float64 pixels are not compiled, because only slow tests use them.
    for dtype, pixels in (("float32", "uint8"), ("float32", "float32"), ("float64", "uint8")):
        images = np.zeros((2, 784), pixels)
        for name, recipe in RECIPES.items():
            model = create_model(name, backend=numba, dtype=dtype)
            Trainer(model, recipe.optimizer, batch_size=2).prepare(images, labels)
            model.predict(images)
            Trainer(model, "adam", batch_size=2, compiled=False).train_batch(images, labels)
