"""The ten mistakes of ports to a GPU, each as it is usually written, and corrected.

All functions take arrays of NumPy, CuPy, array-api-strict or the stand-in. `xp` is the namespace of
the arrays.
"""

import numpy as np
from array_api_compat import array_namespace, device

# 1. Implicit transfers


def transfers_wrong(xp, host_images, W):
    """Copy each batch to the GPU when it is used."""
    starts = range(0, len(host_images), 8)
    return [xp.asarray(host_images[n : n + 8]) @ W for n in starts]


def transfers_right(xp, host_images, W):
    """Copy all images once, and slice them on the GPU."""
    images = xp.asarray(host_images)
    return [images[n : n + 8, :] @ W for n in range(0, images.shape[0], 8)]


# 2. Waiting in every step


def waits_wrong(xp, images):
    """Convert every result to a Python number."""
    total = 0.0
    for n in range(images.shape[0]):
        total += float(xp.mean(images[n, :]))  # waits for the GPU
    return total


def waits_right(xp, images):
    """Add on the GPU, and convert the sum at the end."""
    total = xp.mean(images[0, :])
    for n in range(1, images.shape[0]):
        total += xp.mean(images[n, :])
    return float(total)


# 3. Boolean masks


def masks_wrong(xp, x):
    """Leaky ReLU with a mask. The host waits for the number of elements."""
    y = xp.asarray(x, copy=True)
    y[x < 0] = 0.01 * x[x < 0]
    return y


def masks_right(xp, x):
    """Leaky ReLU with a choice per element. All shapes are known."""
    return xp.where(x < 0, 0.01 * x, x)


# 4. Fancy indices copy


def indices_wrong(xp, images, labels, sums):
    """Add each image to the sum of its class: a copy, changed, and written back."""
    sums[labels, :] += images  # of two images of one class, one is lost
    return sums


def indices_right(xp, images, labels, sums):
    """Add each image to the sum of its class, with a matrix product."""
    classes = xp.arange(sums.shape[0], device=device(labels))
    one_hot = xp.astype(classes[:, None] == labels, images.dtype)
    return sums + one_hot @ images


# 5. Promotion to float64


def dtypes_wrong(xp, pixels):
    """Scale bytes: integers divided by an integer are float64."""
    return pixels / 255


def dtypes_right(xp, pixels):
    """Scale bytes in float32."""
    return xp.astype(pixels, xp.float32) / 255


# 6. Changes of a copy that should be a view


def views_wrong(xp, W):
    """Decay the weights. The elements of W.T are not in order, so reshape copies."""
    flat = xp.reshape(W.T, (-1,))
    flat *= 0.5


def views_right(xp, W):
    """Decay the weights in a view; `copy=False` is an error if none is possible."""
    flat = xp.reshape(W, (-1,), copy=False)
    flat *= 0.5


# 7. Python loops over arrays


def loops_wrong(xp, images):
    """Normalize image by image, with two launches each."""
    rows = [images[n, :] / xp.max(images[n, :]) for n in range(images.shape[0])]
    return xp.stack(rows)


def loops_right(xp, images):
    """Normalize all images, with two launches."""
    return images / xp.max(images, axis=1, keepdims=True)


# 8. The library's random generator


def random_wrong(xp, count):
    """Draw with the generator of the library: other numbers in every library."""
    return xp.random.default_rng(0).random(count)


def random_right(xp, count, **options):
    """Compute numbers in 0…1 from their positions: equal in every library.

    The formula is the finalizer of the hash function MurmurHash3.
    """
    i = xp.arange(1, count + 1, dtype=xp.uint32, **options)
    i = (i ^ (i >> 16)) * 0x85EBCA6B
    i = (i ^ (i >> 13)) * 0xC2B2AE35
    return xp.astype((i ^ (i >> 16)) >> 8, xp.float32) / 2**24


# 9. Long sums in float32


def sums_wrong(xp, x):
    """Add up columns in float32: each addition rounds the growing sum."""
    return xp.sum(x, axis=0)


def sums_right(xp, x):
    """Add up columns in float64; the numbers themselves stay float32."""
    return xp.sum(x, axis=0, dtype=xp.float64)


# 10. Mixed namespaces


def namespaces_wrong(x, W):
    """Create the bias with NumPy, on the host."""
    b = np.zeros(W.shape[1], dtype=np.float32)
    return np.maximum(x @ W + b, 0)


def namespaces_right(x, W):
    """Create the bias with the library and on the device of the data."""
    xp = array_namespace(x)
    b = xp.zeros(W.shape[1], dtype=x.dtype, device=device(x))
    return xp.maximum(x @ W + b, 0)
