"""A record of the kernels that this process needs and compiles, and the message before it does."""

import logging

# Names of functions, in the order in which their compilation began, without the kernels that were
# loaded from a cache.
compiled_kernels: list[str] = []
# Names of the kernels that the programs of this process need; some are in the cache already.
needed_kernels: list[str] = []

# Unlike Python's warnings, messages of this logger never become errors. Python prints them on
# stderr if the program does not configure logging.
_LOGGER = logging.getLogger("mnist_accel")


def record_compilation(kernel: str) -> None:
    """Record that the compilation of a kernel begins; the first one is announced."""
    if not compiled_kernels:
        _LOGGER.warning(
            "compiling kernels for this CPU; this takes up to 10 seconds, and later runs reuse them"
        )
    compiled_kernels.append(kernel)
