"""A record of the kernels that this process compiled, for progress displays."""

# Names of functions, in the order in which their compilation began, without the kernels that were
# loaded from a cache.
compiled_kernels: list[str] = []
