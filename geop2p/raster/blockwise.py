"""Warped pixels by fixed blocks of their grid.

GDAL computes a warp for the window that it is asked for, and chooses the size of its kernel by it, so that the same
pixel differs from window to window. Blocks anchored at the grid's origin make it a function of the grid alone.
"""

import math
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from rasterio.windows import Window

from geop2p.raster.encoding import Array, Mask

SIDE = 512  # pixels
READ_BYTES = 32 * 2**20  # of a raster for a block of a grid, where its pixels become an array
KEPT_BYTES = 16 * 2**20  # of blocks that are kept for the next windows


def block_side(ratio: float, pixel_bytes: int, margin: int) -> int:
    """Side of blocks of which each needs no more than `READ_BYTES` of a raster; 1 where that is not enough for a pixel.

    Args:
        ratio: Pixels of the raster along one of the grid.
        pixel_bytes: Of the raster, all bands, as an array.
        margin: Pixels of the raster that are read beyond a pixel of the grid around the block.
    """
    along = math.sqrt(READ_BYTES / pixel_bytes) - 2 * margin
    fits = along / max(ratio, 1) - 2
    return min(SIDE, 2 ** math.floor(math.log2(fits))) if fits >= 1 else 1


class Blockwise:
    """Reads windows that lie inside a grid, block by block.

    Args:
        read: Reads one block, values (bands, rows, cols) and valid pixels (rows, cols).
        shape: (rows, columns) of the grid.
        bands: Bands that it gives.
        dtype: numpy name of their type.
        side: Of a block.
    """

    def __init__(
        self,
        read: Callable[[Window], tuple[Array, Mask]],
        shape: tuple[int, int],
        bands: int,
        dtype: str,
        side: int = SIDE,
    ) -> None:
        self._read, self._shape, self._bands, self._dtype, self._side = read, shape, bands, dtype, side
        self._blocks: OrderedDict[tuple[int, int], tuple[Array, Mask]] = OrderedDict()
        self._most = max(2, KEPT_BYTES // (side * side * (bands * np.dtype(dtype).itemsize + 1)))

    def __call__(self, window: Window) -> tuple[Array, Mask]:
        """Values (bands, rows, cols) and valid pixels (rows, cols)."""
        top, left, rows, cols = (int(value) for value in (window.row_off, window.col_off, window.height, window.width))
        values, valid = np.empty((self._bands, rows, cols), self._dtype), np.empty((rows, cols), bool)
        side = self._side
        for row in range(top // side * side, top + rows, side):
            for col in range(left // side * side, left + cols, side):
                found, there = self._block(row, col)
                first, last = max(row, top), min(row + side, top + rows)
                start, end = max(col, left), min(col + side, left + cols)
                here = np.s_[first - top : last - top, start - left : end - left]
                inside = np.s_[first - row : last - row, start - col : end - col]
                values[:, *here], valid[here] = found[:, *inside], there[inside]
        return values, valid

    def _block(self, row: int, col: int) -> tuple[Array, Mask]:
        if (row, col) not in self._blocks:
            height, width = min(self._side, self._shape[0] - row), min(self._side, self._shape[1] - col)
            self._blocks[row, col] = self._read(Window(col, row, width, height))
            if len(self._blocks) > self._most:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end((row, col))
        return self._blocks[row, col]
