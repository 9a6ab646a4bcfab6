"""A pytest plugin that disables CuPy's memory pool, so each array is an allocation of its own.

The pool allocates more than an array needs, so memcheck would miss accesses behind the array.
"""

import cupy

cupy.cuda.set_allocator(None)
