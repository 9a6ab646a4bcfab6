"""A record of the kernels that this process compiled, and the message before the first of them."""

import logging

# Names of functions, in the order in which their compilation began, without the kernels that were
# loaded from a cache.
compiled_kernels: list[str] = []

# Unlike Python's warnings, messages of this logger never become errors. Python prints them on
# stderr if the program does not configure logging.
_LOGGER = logging.getLogger("mnist_accel")


def record_compilation(kernel: str) -> None:
    """Record that the compilation of a kernel begins; the first one is announced."""
    if not compiled_kernels:
        _LOGGER.warning(
            "compiling kernels for this CPU; this takes up to 30 seconds, once per installation"
        )
    compiled_kernels.append(kernel)
