"""Which pixels of a window are shown: valid and wanted."""

import numpy as np
from rasterio.windows import Window

from geop2p.raster.encoding import Mask
from geop2p.raster.vectors import Area


class Masks:
    """Which pixels of a window are valid and wanted, row by row from the top.

    Args:
        window: Where.
        area: What is wanted; None: all.
    """

    def __init__(self, window: Window, area: Area | None) -> None:
        self._window, self._area = window, area
        self._next = int(window.row_off)  # first row that `add` does not know
        self._masks: list[Mask] = []

    def add(self, place: Window, valid: Mask) -> None:
        """Take in the valid pixels of a place that covers the columns of the window; rows it knows are left out."""
        stop = min(int(place.row_off + place.height), int(self._window.row_off + self._window.height))
        if stop <= self._next:
            return
        col = int(self._window.col_off - place.col_off)
        cols = slice(col, col + int(self._window.width))
        mask = valid[self._next - int(place.row_off) : stop - int(place.row_off), cols]
        if self._area is not None:
            there = Window(self._window.col_off, self._next, self._window.width, stop - self._next)
            mask = mask & self._area.mask(there)
        self._masks.append(mask)
        self._next = stop

    def take(self, count: int) -> Mask:
        """The next rows (count, cols)."""
        pieces, missing = [], count
        while missing:
            first = self._masks.pop(0)
            if len(first) > missing:
                self._masks.insert(0, first[missing:])
            pieces.append(first[:missing])
            missing -= len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
