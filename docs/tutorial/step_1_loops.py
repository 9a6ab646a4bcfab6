"""Step 1: loops over one image at a time, without any library.

Each formula of the network is one loop. This is the version to read until nothing is unclear: all
later steps compute the same numbers.
"""

from math import exp, log

from problem import BATCH, CLASSES, HIDDEN, LEARNING_RATE, PIXELS, run


def train(images, labels, parameters):
    """Return the mean loss of each batch; change the parameters in place."""
    weights = W1, b1, W2, b2 = [array.tolist() for array in parameters]
    losses = []
    for start in range(0, len(images), BATCH):
        # The gradient of a batch is the sum over its images.
        dW1 = [[0.0] * HIDDEN for _ in range(PIXELS)]
        db1 = [0.0] * HIDDEN
        dW2 = [[0.0] * CLASSES for _ in range(HIDDEN)]
        db2 = [0.0] * CLASSES
        loss = 0.0
        for n in range(start, start + BATCH):
            x, label = images[n].tolist(), labels[n]
            loss += add_gradient(x, label, weights, (dW1, db1, dW2, db2)) / BATCH
        losses.append(loss)

        # Gradient descent: a small step against the gradient.
        for j in range(HIDDEN):
            for i in range(PIXELS):
                W1[i][j] -= LEARNING_RATE * dW1[i][j] / BATCH
            b1[j] -= LEARNING_RATE * db1[j] / BATCH
        for k in range(CLASSES):
            for j in range(HIDDEN):
                W2[j][k] -= LEARNING_RATE * dW2[j][k] / BATCH
            b2[k] -= LEARNING_RATE * db2[k] / BATCH
    for array, values in zip(parameters, weights, strict=True):
        array[...] = values
    return losses


def add_gradient(x, label, weights, gradients):
    """Add the gradient of the loss of one image to `gradients`; return the loss."""
    W1, b1, W2, b2 = weights
    dW1, db1, dW2, db2 = gradients

    # Forward: pixels x → hidden units h → logits z → probabilities p → loss.
    h = [
        max(0.0, b1[j] + sum(x[i] * W1[i][j] for i in range(PIXELS)))  # ReLU
        for j in range(HIDDEN)
    ]
    z = [b2[k] + sum(h[j] * W2[j][k] for j in range(HIDDEN)) for k in range(CLASSES)]
    largest = max(z)  # subtracted, so that exp never overflows
    e = [exp(z[k] - largest) for k in range(CLASSES)]
    total = sum(e)
    p = [e[k] / total for k in range(CLASSES)]
    loss = log(total) - (z[label] - largest)  # −log p[label]

    # Backward: the chain rule, from the loss to every weight.
    dz = [p[k] - (k == label) for k in range(CLASSES)]
    dh = [0.0] * HIDDEN
    for j in range(HIDDEN):
        if h[j] > 0:
            dh[j] = sum(dz[k] * W2[j][k] for k in range(CLASSES))
    for k in range(CLASSES):
        db2[k] += dz[k]
        for j in range(HIDDEN):
            dW2[j][k] += h[j] * dz[k]
    for j in range(HIDDEN):
        db1[j] += dh[j]
        for i in range(PIXELS):
            dW1[i][j] += x[i] * dh[j]
    return loss


if __name__ == "__main__":
    run(train, images=128)
