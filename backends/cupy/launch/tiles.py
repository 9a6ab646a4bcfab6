"""Products of matrices by tiles of the result, as tiles.cuh computes them."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Tile:
    """Part of a product, which a block of threads computes.

    Attributes:
        side: of the square of numbers that a thread has.
        threads: of a block.
    """

    side: int
    threads: int

    @property
    def rows(self) -> int:
        """How many rows of the product it has."""
        return 4 * self.side

    @property
    def columns(self) -> int:
        """How many columns of the product it has."""
        return 8 * self.side

    def grid(self, rows: int, columns: int) -> tuple[int, int]:
        """Return how many tiles lie below each other and side by side in a product of this size."""
        return math.ceil(rows / self.rows), math.ceil(columns / self.columns)


SMALL, LARGE = Tile(4, threads=256), Tile(8, threads=128)
FEWEST_LARGE = 768  # keep a large GPU busy: some blocks on each multiprocessor, one after the other


def tile_of(dtype: str, rows: int, columns: int, *, shares: int = 1) -> Tile:
    """Return which tiles a product is computed by.

    Args:
        dtype: of its numbers; only of float32 do so many fit the shared memory.
        rows: of the product.
        columns: of the product; of few, a small tile leaves less room.
        shares: parts into which its terms are shared out.
    """
    blocks = math.prod(LARGE.grid(rows, columns)) * shares
    is_large = dtype == "float32" and columns > SMALL.columns and blocks >= FEWEST_LARGE
    return LARGE if is_large else SMALL
