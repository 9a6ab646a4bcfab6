"""Step 5: the same function on a GPU.

Only the arrays change: they are copied to the GPU before the training, and the losses are copied
back after it. Without CuPy, the script uses a stand-in that computes with NumPy and counts what a
GPU would do.
"""

try:
    import cupy
except ImportError:
    cupy = None

import step_4_strict
from gpu_stand_in import StandIn
from problem import run

cp = cupy if cupy and cupy.is_available() else StandIn()


def train(images, labels, parameters):
    """Return the mean loss of each batch; change the parameters in place."""
    x, t, *weights = [cp.asarray(array) for array in (images, labels, *parameters)]
    losses = step_4_strict.train(x, t, weights)  # does not wait for the GPU
    for array, trained in zip(parameters, weights, strict=True):
        array[...] = cp.asnumpy(trained)  # waits for the GPU
    return cp.asnumpy(losses)


if __name__ == "__main__":
    run(train, images=16_000)
    if isinstance(cp, StandIn):
        print(f"no GPU here; the stand-in counted {cp.counts}")
