"""Step 6: kernels of our own. The loops of step 1 return, and Numba compiles them.

NumPy writes an array for every operator, and the next operator reads it again. A kernel computes
several formulas while their numbers are in registers. It can also use what only we know: four of
five pixels are 0.
"""

import numpy as np
from numba import njit
from problem import BATCH, CLASSES, HIDDEN, LEARNING_RATE, PIXELS, run


def train(images, labels, parameters):
    """Return the mean loss of each batch; change the parameters in place."""
    W1, b1, W2, b2 = parameters
    h, dh = np.empty((2, BATCH, HIDDEN), np.float32)
    dz = np.empty((BATCH, CLASSES), np.float32)
    losses = np.empty(len(images) // BATCH)
    for step in range(len(losses)):
        batch = slice(step * BATCH, (step + 1) * BATCH)
        x, t = images[batch], labels[batch]
        hidden_layer(x, W1, b1, h)
        losses[step] = classifier(h, t, W2, b2, dz, dh)
        update(x, h, dh, dz, W1, b1, W2, b2)
    return losses


@njit(cache=True)
def hidden_layer(x, W1, b1, h):
    """Compute h = ReLU(x W1 + b1)."""
    for n in range(BATCH):
        h[n] = b1
        for i in range(PIXELS):
            if x[n, i] != 0:
                for j in range(HIDDEN):
                    h[n, j] += x[n, i] * W1[i, j]
        for j in range(HIDDEN):
            h[n, j] = max(h[n, j], np.float32(0))


@njit(cache=True)
def classifier(h, t, W2, b2, dz, dh):
    """Return the mean loss, and compute its gradients dz and dh."""
    loss = 0.0
    for n in range(BATCH):
        z = h[n] @ W2 + b2
        z -= z.max()
        e = np.exp(z)
        loss += np.log(e.sum()) - z[t[n]]
        dz[n] = e / e.sum()
        dz[n, t[n]] -= 1
        for j in range(HIDDEN):
            dh[n, j] = 0
            if h[n, j] > 0:
                for k in range(CLASSES):
                    dh[n, j] += dz[n, k] * W2[j, k]
    return loss / BATCH


@njit(cache=True)
def update(x, h, dh, dz, W1, b1, W2, b2):
    """Take a step of gradient descent; no gradient of a weight is stored."""
    rate = np.float32(LEARNING_RATE / BATCH)
    for n in range(BATCH):
        for j in range(HIDDEN):
            b1[j] -= rate * dh[n, j]
        for i in range(PIXELS):
            if x[n, i] != 0:
                for j in range(HIDDEN):
                    W1[i, j] -= rate * x[n, i] * dh[n, j]
        for k in range(CLASSES):
            b2[k] -= rate * dz[n, k]
        for j in range(HIDDEN):
            for k in range(CLASSES):
                W2[j, k] -= rate * h[n, j] * dz[n, k]


if __name__ == "__main__":
    run(train, images=16_000)
