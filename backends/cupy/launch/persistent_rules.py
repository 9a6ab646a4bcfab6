"""What the persistent kernels have in common.

With few images per step, a GPU computes for about a microsecond and waits for launches the rest of
the time. The persistent kernels run all steps of a chunk in one launch:

- persistent_cnn: batches of one image; a convolution and a linear layer that fit one block.
- persistent_mlp: batches of up to 16 images; two linear layers, the first of which fits the shared
  memory of 8 blocks.

Both implement plain SGD. All other programs, and larger batches, run as CUDA graphs, which use more
of the GPU.
"""

from backends.cupy.loader import Constant

Constants = dict[str, Constant]

MAX_SHARED_BYTES = 48 << 10  # static shared memory per block, on every GPU
_ALIGNMENT = 8


def fits_shared_memory(reals: int, dtype: str, *, more_bytes: int) -> bool:
    """Return whether `reals` numbers of a dtype and `more_bytes` fit the shared memory."""
    size = 8 if dtype == "float64" else 4
    return reals * size + more_bytes + _ALIGNMENT <= MAX_SHARED_BYTES
