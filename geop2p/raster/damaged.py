"""Finding the blocks that cannot be read, and reading around them."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import numpy as np
from rasterio.windows import Window

from geop2p.errors import RasterError
from geop2p.raster.aligned import Reader
from geop2p.raster.borders import overlap_slices
from geop2p.raster.encoding import Array, Mask

log = logging.getLogger(__name__)

OUTSIDE = Window(-1, -1, 1, 1)

Block = tuple[Array, Mask]


class DamagedReader:
    """Windows of a layer in which the blocks that cannot be read hold no data, or are named in the error.

    GDAL raises the first time that it meets a damaged block and may give what it made of it the next time, so a window
    that fails is halved until its halves can be read or are one block, each by a reader of its own.

    Args:
        reader: What raises `RasterError` for a window with such a block.
        block: (rows, cols) of a block, counted from the grid's origin.
        anew: Opens the same reader once more.
        skip: Whether such blocks are left without data.
    """

    def __init__(
        self, reader: Reader, block: tuple[int, int], anew: Callable[[], AbstractContextManager[Reader]], *, skip: bool
    ) -> None:
        self.grid = reader.grid
        self._reader, self._block, self._anew, self._skip = reader, block, anew, skip
        self._bad: set[tuple[int, int]] = set()

    def read(self, window: Window) -> Block:
        """Values (bands, rows, cols) and valid pixels (rows, cols).

        Raises:
            RasterError: A block cannot be read and is not to be skipped.
        """
        blocks = self._touched(window)
        if not self._has_bad(blocks):
            try:
                return self._reader.read(window)
            except RasterError:
                found = self._in_pieces(window, blocks)  # told block by block
                if self._skip:
                    return found
                raise  # as no block of it fails alone
        return self._in_pieces(window, blocks)

    def _touched(self, window: Window) -> Window:
        """The blocks that a window touches, as rows and columns of blocks."""
        rows, cols = self._block
        top, left = int(window.row_off // rows), int(window.col_off // cols)
        bottom = int(-(-(window.row_off + window.height) // rows))
        return Window(left, top, int(-(-(window.col_off + window.width) // cols)) - left, bottom - top)

    def _has_bad(self, blocks: Window) -> bool:
        return any(
            blocks.row_off <= row < blocks.row_off + blocks.height
            and blocks.col_off <= col < blocks.col_off + blocks.width
            for row, col in self._bad
        )

    def _in_pieces(self, window: Window, blocks: Window) -> Block:
        shape = (int(window.height), int(window.width))
        outside, _ = self._reader.read(OUTSIDE)
        values, valid = np.zeros((len(outside), *shape), outside.dtype), np.zeros(shape, bool)
        for place, found in self._readable(blocks):
            here_r, there_r = overlap_slices(int(place.row_off - window.row_off), int(place.height), shape[0])
            here_c, there_c = overlap_slices(int(place.col_off - window.col_off), int(place.width), shape[1])
            values[:, here_r, here_c] = found[0][:, there_r, there_c]
            valid[here_r, here_c] = found[1][there_r, there_c]
        return values, valid

    def _readable(self, blocks: Window) -> Iterator[tuple[Window, Block]]:
        """Places inside some blocks that can be read, and what they hold."""
        rows, cols = self._block
        place = Window(blocks.col_off * cols, blocks.row_off * rows, blocks.width * cols, blocks.height * rows)
        cause: RasterError | None = None
        if not self._has_bad(blocks):
            try:
                with self._anew() as reader:
                    found = reader.read(place)
            except RasterError as error:
                cause = error
            else:
                yield place, found
                return
        if blocks.height * blocks.width > 1:
            for half in _halves(blocks):
                yield from self._readable(half)
        elif cause is not None:
            with self._anew() as reader:  # if that fails it is not the block
                reader.read(OUTSIDE)
            row, col = int(blocks.row_off), int(blocks.col_off)
            named = f"block ({row}, {col}) of {rows} x {cols} pixels of the grid"
            if not self._skip:
                raise RasterError(f"{cause}; it is {named}, which --skip-bad leaves without data") from cause
            self._bad.add((row, col))
            log.warning("%s is left without data: %s", named, cause)


def _halves(blocks: Window) -> tuple[Window, Window]:
    """Two windows of one, cut across its longer side."""
    row, col, height, width = (int(n) for n in (blocks.row_off, blocks.col_off, blocks.height, blocks.width))
    if height >= width:
        return Window(col, row, width, height // 2), Window(col, row + height // 2, width, height - height // 2)
    return Window(col, row, width // 2, height), Window(col + width // 2, row, width - width // 2, height)
