"""Launches a compiled kernel with arguments by name."""

from collections.abc import Callable, Mapping
from typing import Any

from backends.cupy.signature import Type, convert_all


class Kernel:
    """A compiled kernel.

    CuPy checks no arguments: a Python int would arrive as 8 bytes and a float as a double, whatever
    the kernel expects. So each argument is checked against its declaration and converted.

    Args:
        name: name of the kernel, for error messages.
        function: CuPy's kernel.
        parameters: the declared parameters by name, in their order.
        is_cooperative: whether all blocks of a launch must be resident together.
    """

    def __init__(
        self,
        name: str,
        function: Any,
        parameters: Mapping[str, Type],
        *,
        is_cooperative: bool = False,
    ) -> None:
        self._name = name
        self._launch = cooperative(function) if is_cooperative else function
        self._parameters = parameters

    def __call__(
        self, grid: tuple[int, ...], threads: int, *, members: int = 1, **arguments: Any
    ) -> None:
        """Launch the kernel, unless the grid is empty.

        Args:
            grid: number of blocks in x, and in y.
            threads: number of threads per block.
            members: number of members of a population, and of blocks in z.
            arguments: one for each parameter; `backends.cupy.signature` lists what each type takes.

        Raises:
            ArgumentError: an argument is missing, unknown, or not what the kernel declares.
        """
        values = convert_all(f"kernel {self._name}", self._parameters, arguments)
        x, y = (*grid, 1)[:2]
        if x and y:
            self._launch((x, y, members), (threads,), tuple(values.values()))


def cooperative(function: Any) -> Callable[..., None]:
    """Return a function that launches a kernel of CuPy cooperatively, with the same arguments.

    The blocks of a cooperative launch are resident together. CuPy's own way to request that,
    `RawModule(enable_cooperative_groups=True)`, links the module with CUDA's device runtime, which
    the kernels do not need and which not every installation contains.
    """

    def launch(grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
        # `kernel` is read at each launch because CuPy keeps one function per GPU.
        function.kernel(grid, block, arguments, enable_cooperative_groups=True)

    return launch
