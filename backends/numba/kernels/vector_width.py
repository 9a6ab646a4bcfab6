"""The width of the vectors in the SIMD kernels, which depends on the processor.

    registers                           width     float32    float64
    NEON (ARM)                          128 bits     4          2
    AVX, AVX2, and all others           256 bits     8          4
    AVX-512 with two 512-bit FMA units  512 bits    16          8

LLVM divides a vector that is wider than the registers, so code of every width runs everywhere.
"""

import os

from numba.core.registry import cpu_target

from backends.numba.environment import WIDTH_VARIABLE

# LLVM's names of processors with AVX-512 that compute 512 bits in two passes, have one such FMA
# unit where they have two of 256 bits, or reduce their clock frequency for such instructions.
_SLOW_512 = {
    "cannonlake", "cascadelake", "cooperlake", "icelake-client", "rocketlake", "skylake-avx512",
    "tigerlake", "znver4",
}  # fmt: skip

_TRIPLE, _PROCESSOR, _FEATURES = cpu_target.target_context.codegen().magic_tuple()
# Whether Numba compiles for a 64-bit ARM processor.
IS_ARM = _TRIPLE.startswith(("aarch64", "arm64"))


def _width() -> int:
    """Return the width in bits for the processor for which Numba compiles."""
    chosen = os.environ.get(WIDTH_VARIABLE)
    if chosen is not None:
        return int(chosen)
    if IS_ARM:
        return 128
    is_wide = "+avx512f" in _FEATURES.split(",") and _PROCESSOR not in _SLOW_512
    return 512 if is_wide else 256


VECTOR_BYTES = _width() // 8
# Number of vector registers: AVX2 has 16, AVX-512 and NEON have 32.
REGISTERS = 16 if VECTOR_BYTES == 32 else 32
# Number of parameters that fill whole cache lines and vectors of any width and dtype.
ALIGNMENT = 16


def lanes_of(itemsize: int) -> int:
    """Return how many numbers of `itemsize` bytes a vector has."""
    return VECTOR_BYTES // itemsize


def max_sums(vector_bytes: int) -> int:
    """Return how many vectors of a size a loop can keep in registers beside its operands."""
    registers = 16 if VECTOR_BYTES == 32 else 32
    return (registers - 4) * VECTOR_BYTES // max(VECTOR_BYTES, vector_bytes)
