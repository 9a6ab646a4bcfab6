"""Tiles of matrix products, as kernels/gemm_tile.cuh computes them."""

import math
from dataclasses import dataclass

from backends.cupy.loader import WARP_SIZE

LANE_ROWS = 4  # rows of the lanes of a warp in a tile


@dataclass(frozen=True)
class Tile:
    """The part of a product that one block computes.

    Attributes:
        thread_tile: side of the square of results that one thread computes.
        warps: warps per block.
    """

    thread_tile: int
    warps: int

    @property
    def threads(self) -> int:
        """Threads per block."""
        return self.warps * WARP_SIZE

    @property
    def rows(self) -> int:
        """Rows of the tile."""
        return LANE_ROWS * self.thread_tile

    @property
    def columns(self) -> int:
        """Columns of the tile."""
        return WARP_SIZE // LANE_ROWS * self.thread_tile

    @property
    def constants(self) -> dict[str, int]:
        """Options of gemm_tile.cuh."""
        return {
            "THREAD_TILE": self.thread_tile,
            "TILE_ROWS": self.rows,
            "TILE_COLUMNS": self.columns,
            "TILE_WARPS": self.warps,
        }

    def grid(self, rows: int, columns: int) -> tuple[int, int]:
        """Return the number of tiles down and across a product of this size."""
        return math.ceil(rows / self.rows), math.ceil(columns / self.columns)


# Large tiles take a quarter to a third fewer instructions per multiplication; small ones keep more
# blocks busy.
SMALL, LARGE = Tile(4, warps=8), Tile(8, warps=4)
MIN_LARGE_TILES = 768  # several waves of blocks on a large GPU


def tile_for(dtype: str, rows: int, columns: int, *, splits: int = 1) -> Tile:
    """Return the tiles by which a product is computed.

    Args:
        dtype: dtype of the product. Large tiles of float64 would exceed the shared memory.
        rows: rows of the product.
        columns: columns of the product. A large tile would be mostly empty if there are few.
        splits: blocks that split the sum of a tile.
    """
    tiles = math.prod(LARGE.grid(rows, columns)) * splits
    is_large = dtype == "float32" and columns > SMALL.columns and tiles >= MIN_LARGE_TILES
    return LARGE if is_large else SMALL
