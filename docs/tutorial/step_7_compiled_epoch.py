"""Step 7: one call runs all steps of the epoch.

In step 6, Python still makes three calls per step. Here the loop over the steps is compiled with
the kernels.
"""

import numpy as np
from numba import njit
from problem import BATCH, CLASSES, HIDDEN, run
from step_6_kernels import classifier, hidden_layer, update


def train(images, labels, parameters):
    """Return the mean loss of each batch; change the parameters in place."""
    return epoch(images, labels, *parameters)


@njit(cache=True)
def epoch(images, labels, W1, b1, W2, b2):
    """Make one step per batch; return the losses."""
    h = np.empty((BATCH, HIDDEN), np.float32)
    dh = np.empty((BATCH, HIDDEN), np.float32)
    dz = np.empty((BATCH, CLASSES), np.float32)
    losses = np.empty(len(images) // BATCH)
    for step in range(len(losses)):
        x = images[step * BATCH : (step + 1) * BATCH]
        t = labels[step * BATCH : (step + 1) * BATCH]
        hidden_layer(x, W1, b1, h)
        losses[step] = classifier(h, t, W2, b2, dz, dh)
        update(x, h, dh, dz, W1, b1, W2, b2)
    return losses


if __name__ == "__main__":
    run(train, images=16_000)
