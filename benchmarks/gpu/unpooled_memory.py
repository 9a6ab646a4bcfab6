"""A pytest plugin that disables CuPy's memory pool, so each array is a separate allocation.

The pool allocates more than an array needs, so memcheck would miss accesses beyond its end.
"""

import cupy

cupy.cuda.set_allocator(None)
