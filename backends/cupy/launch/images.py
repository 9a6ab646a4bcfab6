"""Launches of the kernels that select images: eager batches, and the image order of a chunk."""

from backends.cupy.launch.launcher import THREADS, Launcher, c_type, grid_of
from backends.operations.common import Array
from backends.order import ROUNDS, Order


def gather_batch(
    launcher: Launcher, images: Array, rows: Array, pixel_shift: float, batch: Array
) -> None:
    """Set `batch` (B, pixels) to the given rows of `images`, normalized."""
    kernel = launcher.kernel("batches", "gather_batch", {"PIXEL": c_type(images)})
    count, pixels = batch.shape
    kernel(
        grid_of(count * pixels, per_image=pixels),
        THREADS,
        images=images,
        rows=rows,
        count=count,
        pixels=pixels,
        pixel_shift=pixel_shift,
        batch=batch,
    )


def image_order(launcher: Launcher, order: Order, first: int, rows: Array) -> None:
    """Set `rows` (count,) to the rows of the data set at the positions from `first` on.

    Raises:
        ValueError: the order has no such positions.
    """
    order.check(first, first + int(rows.size))
    kernel = launcher.kernel("order", "order", {"ORDER": order.kind.upper(), "ROUNDS": ROUNDS})
    kernel(
        grid_of(rows.size),
        THREADS,
        first=int(first),
        count=int(rows.size),
        examples=order.examples,
        bits=order.bits,
        keys={"rounds": order.keys},
        rows=rows,
    )
