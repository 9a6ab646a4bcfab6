"""Launches of pooling and of its gradients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from backends.cupy.launch.launcher import THREADS, Launcher, c_type, grid_of
from backends.operations.common import Array, Ties
from backends.program import Stage


@dataclass(frozen=True)
class PoolShape:
    """Sizes of a pooling layer; kernels/pooling.cu describes the fields."""

    height: int
    width: int
    cell_rows: int
    cell_columns: int
    size: int
    stride: int


def pool_shape(x_shape: Sequence[int], y_shape: Sequence[int], size: int, stride: int) -> PoolShape:
    """Return the sizes of a pooling layer from images (…, H, W) to cells (…, PH, PW)."""
    (height, width), (cell_rows, cell_columns) = x_shape[-2:], y_shape[-2:]
    return PoolShape(height, width, cell_rows, cell_columns, size, stride)


def pool_shape_of(stage: Stage) -> PoolShape:
    """Return the sizes of the pooling in a stage of kind "max_pool2d" or "avg_pool2d"."""
    assert stage.pooling is not None
    pooling = stage.pooling
    return pool_shape(stage.input_shape, stage.output_shape, pooling.size, pooling.stride)


def mask_dtype(size: int) -> str:
    """Return the dtype of tie masks for patches with a side of `size` pixels."""
    return "uint8" if size * size <= 8 else "int64"


def max_pool2d(
    launcher: Launcher, x: Array, y: Array, mask: Array, shape: PoolShape, ties: Ties
) -> None:
    """Set `y` to the maximum of each patch, and `mask` to the tie mask of each patch."""
    kernel = _kernel(launcher, "max_pool2d", mask)
    cells, all_ties = int(y.size), ties == "all"
    kernel(
        grid_of(cells, per_image=shape.cell_rows * shape.cell_columns),
        THREADS,
        x=x,
        cells=cells,
        shape=shape,
        all_ties=all_ties,
        y=y,
        mask=mask,
    )


def max_pool2d_backward(
    launcher: Launcher, dy: Array, mask: Array, dx: Array, shape: PoolShape
) -> None:
    """Set `dx` to the gradient of the input of max-pooling."""
    kernel = _kernel(launcher, "max_pool2d_backward", mask)
    pixels, grid = int(dx.size), grid_of(dx.size, per_image=shape.height * shape.width)
    kernel(grid, THREADS, dy=dy, mask=mask, pixels=pixels, shape=shape, dx=dx)


def avg_pool2d(launcher: Launcher, x: Array, y: Array, shape: PoolShape) -> None:
    """Set `y` to the mean of each patch."""
    cells, grid = int(y.size), grid_of(y.size, per_image=shape.cell_rows * shape.cell_columns)
    _kernel(launcher, "avg_pool2d")(grid, THREADS, x=x, cells=cells, shape=shape, y=y)


def avg_pool2d_backward(launcher: Launcher, dy: Array, dx: Array, shape: PoolShape) -> None:
    """Set `dx` to the gradient of the input of average-pooling."""
    pixels, grid = int(dx.size), grid_of(dx.size, per_image=shape.height * shape.width)
    kernel = _kernel(launcher, "avg_pool2d_backward")
    kernel(grid, THREADS, dy=dy, pixels=pixels, shape=shape, dx=dx)


def _kernel(launcher: Launcher, name: str, mask: Array | None = None) -> Callable[..., None]:
    """Return a kernel of pooling.cu for tie masks of the dtype of `mask`.

    Average-pooling has no tie masks, but the file does not compile without the option MASK.
    """
    kernel = launcher.kernel("pooling", name, {"MASK": "uint8" if mask is None else c_type(mask)})
    return partial(kernel, member_stride=launcher.member_stride)
