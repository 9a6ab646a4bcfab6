"""The kernels that were compiled in this process, for displays of progress."""

# Names of functions, in the order in which their compilation began. Kernels that are loaded from a
# cache are not contained.
compiled_kernels: list[str] = []
