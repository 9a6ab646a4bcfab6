"""Step 4: array-api-strict finds on a CPU what would break on a GPU.

Its arrays belong to a device that is not the CPU, and it has only the functions of the standard.
Three lines of the draft fail on it. `train` below is the draft with these lines corrected.
"""

import array_api_strict
import numpy as np
from array_api_compat import array_namespace, device
from problem import BATCH, CLASSES, LEARNING_RATE, run

DEVICE = array_api_strict.Device("device1")


def train(images, labels, parameters):
    """Return the mean loss of each batch; change the parameters in place."""
    xp = array_namespace(images)
    W1, b1, W2, b2 = parameters
    classes = xp.arange(CLASSES, device=device(images))
    losses = []
    for step in range(images.shape[0] // BATCH):
        batch = slice(step * BATCH, (step + 1) * BATCH)
        x, t = images[batch, :], labels[batch]

        # Forward
        h = xp.maximum(x @ W1 + b1, 0)
        z = h @ W2 + b2
        z = z - xp.max(z, axis=1, keepdims=True)
        e = xp.exp(z)
        total = xp.sum(e, axis=1, keepdims=True)
        y = xp.astype(t[:, None] == classes, x.dtype)  # 1 at the label, otherwise 0
        losses.append(xp.mean(xp.log(total) - xp.sum(z * y, axis=1, keepdims=True)))

        # Backward
        dz = (e / total - y) / BATCH
        dh = xp.where(h > 0, dz @ W2.T, 0)
        gradients = x.T @ dh, xp.sum(dh, axis=0), h.T @ dz, xp.sum(dz, axis=0)

        # Update
        for array, gradient in zip(parameters, gradients, strict=True):
            array -= LEARNING_RATE * gradient
    return xp.stack(losses)


def train_strictly(images, labels, parameters):
    """Call `train` with arrays of array-api-strict; return the losses as a NumPy array."""
    on_device = [to_device(array) for array in (images, labels, *parameters)]
    losses = train(on_device[0], on_device[1], on_device[2:])
    for array, trained in zip(parameters, on_device[2:], strict=True):
        array[...] = to_host(trained)
    return to_host(losses)


def to_device(array):
    """Copy a NumPy array to the device."""
    return array_api_strict.asarray(array, device=DEVICE, copy=True)


def to_host(array):
    """Copy an array of the device to NumPy."""
    return np.asarray(array.to_device(array_api_strict.Device("CPU_DEVICE")))


if __name__ == "__main__":
    run(train_strictly, images=1600)
