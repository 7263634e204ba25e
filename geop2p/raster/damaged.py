"""Reading around what cannot be read."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
from rasterio.windows import Window

from geop2p.errors import RasterError
from geop2p.raster.aligned import Reader
from geop2p.raster.borders import shared
from geop2p.raster.encoding import Array, Mask

log = logging.getLogger(__name__)

Block = tuple[Array, Mask]


class SkippingReader:
    """Windows of a layer in which the blocks that cannot be read hold no data.

    GDAL raises the first time that it meets a damaged block and may give what it made of it the next time, so every
    block of a window that fails is tried by a reader of its own.

    Args:
        reader: What raises `RasterError` for a window with such a block.
        block: (rows, cols) of a block, counted from the grid's origin.
        anew: Opens the same reader once more.
    """

    def __init__(
        self, reader: Reader, block: tuple[int, int], anew: Callable[[], AbstractContextManager[Reader]]
    ) -> None:
        self.grid = reader.grid
        self._reader, self._block, self._anew = reader, block, anew
        self._bad: set[tuple[int, int]] = set()

    def read(self, window: Window) -> Block:
        """Values (bands, rows, cols) and valid pixels (rows, cols)."""
        places = self._touched(window)
        if self._bad.isdisjoint(places):
            try:
                return self._reader.read(window)
            except RasterError:
                pass  # told block by block
        return self._in_pieces(window, places)

    def _touched(self, window: Window) -> list[tuple[int, int]]:
        rows, cols = self._block
        down = range(int(window.row_off // rows), int(-(-(window.row_off + window.height) // rows)))
        along = range(int(window.col_off // cols), int(-(-(window.col_off + window.width) // cols)))
        return [(row, col) for row in down for col in along]

    def _in_pieces(self, window: Window, places: list[tuple[int, int]]) -> Block:
        shape = (int(window.height), int(window.width))
        outside, _ = self._reader.read(Window(-1, -1, 1, 1))
        values, valid = np.zeros((len(outside), *shape), outside.dtype), np.zeros(shape, bool)
        for row, col in places:
            found = None if (row, col) in self._bad else self._read_block(row, col)
            if found is not None:
                here_r, there_r = shared(row * self._block[0] - int(window.row_off), self._block[0], shape[0])
                here_c, there_c = shared(col * self._block[1] - int(window.col_off), self._block[1], shape[1])
                values[:, here_r, here_c] = found[0][:, there_r, there_c]
                valid[here_r, here_c] = found[1][there_r, there_c]
        return values, valid

    def _read_block(self, row: int, col: int) -> Block | None:
        rows, cols = self._block
        try:
            with self._anew() as reader:
                return reader.read(Window(col * cols, row * rows, cols, rows))
        except RasterError as error:
            self._bad.add((row, col))
            log.warning("block (%d, %d) of %d x %d pixels is left without data: %s", row, col, rows, cols, error)
            return None
