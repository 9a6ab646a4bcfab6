"""Inner loops written as vector instructions, one file per kernel family.

LLVM vectorizes a plain loop only if it is long and the arrays are known not to overlap. The inner
loops of a small network have about eight iterations. The functions of this package therefore emit
LLVM instructions themselves. They choose which numbers share a vector register and which
accumulators stay in registers during a loop. Compiled code calls them like any other function.
`backends.numba.kernels.naive` contains the same functions as plain loops.

The module `vector_width` chooses the width of vectors. Callers get pointers from `views.pointer`.
Offsets and strides count numbers, not bytes, and are not checked.
"""
