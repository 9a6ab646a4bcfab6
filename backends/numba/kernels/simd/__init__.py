"""Inner loops written as vector instructions, one file per kernel family.

LLVM vectorizes a plain loop if it can prove that the arrays do not overlap and if the loop is long.
The inner loops of a small network have eight iterations. The functions of this package therefore
emit LLVM instructions themselves: they choose which numbers share a vector register and which
accumulators stay in registers until the end of a loop. Compiled code calls them like any other
function. `backends.numba.kernels.naive` has the same functions as plain loops.

A vector is `LANES` numbers. Pointers come from `views.pointer`; offsets and strides count numbers,
not bytes. Nothing checks them.
"""
