"""Where tiles and parts lie. Everything is anchored to the grid's origin, so any process finds the same. Pure."""

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rasterio.windows import Window

from geop2p.raster.encoding import Encoding

PART_MULTIPLE = 512
LARGEST_PART = 4096  # pixels of its side; larger ones save no more than 3 % of the tiles
READ_ROWS = 512  # rows that are read at once, counted from the grid's origin: whole blocks of most rasters
AT_ONCE = 64  # rows that are worked on at once: few enough to stay in the cache of the processor


@dataclass(frozen=True)
class Lattice:
    """Square tiles whose neighbours share a ramp of `overlap` pixels.

    Tile 0 of an axis begins `overlap + shift` pixels before the origin, so that inside the raster every pixel lies
    in the flat of one tile or in the ramps of two, the border of the raster included.

    Attributes:
        size: Side in pixels of the ground that a tile contributes to.
        overlap: Width of a ramp in pixels, at most half of `size`.
        halo: Pixels around a tile that the network sees and that are thrown away.
        shift: (rows, columns) by which the whole lattice is moved up and left.
        stride: Pixels after which what the network draws may repeat, on all of the ground alike; 1: it is not known.
    """

    size: int
    overlap: int
    halo: int = 0
    shift: tuple[int, int] = (0, 0)
    stride: int = 1

    @property
    def network_size(self) -> int:
        """Side of what the network sees of a tile."""
        return self.size + 2 * self.halo

    @property
    def step(self) -> int:
        """Distance between tiles."""
        return self.size - self.overlap

    def moved(self, window: Window) -> "Lattice":
        """The same tiles as seen from the first pixel of a window."""
        down, right = (
            int(by + offset) % self.step
            for by, offset in zip(self.shift, (window.row_off, window.col_off), strict=True)
        )
        return dataclasses.replace(self, shift=(down, right))

    def starts(self, axis: int, start: int, stop: int) -> list[int]:
        """First pixels of the tiles that hold any of the pixels start to stop - 1 of an axis (0: rows, 1: columns)."""
        before = self.overlap + self.shift[axis]  # from the first pixel of tile 0 to the origin
        first, last = (start + before - self.size) // self.step + 1, (stop - 1 + before) // self.step
        return [number * self.step - before for number in range(first, last + 1)]

    def tiles(self, window: Window) -> list[Window]:
        """The tiles that touch a window, rows first: the order in which they are summed."""
        rows = self.starts(0, int(window.row_off), int(window.row_off + window.height))
        cols = self.starts(1, int(window.col_off), int(window.col_off + window.width))
        return [Window(col, row, self.size, self.size) for row in rows for col in cols]

    def handovers(self, axis: int, length: int) -> list[int]:
        """Pixels of an axis that are the first past the middle of a ramp: where one tile hands over to the next."""
        lines = (start + self.overlap // 2 for start in self.starts(axis, 0, length))
        return [line for line in lines if 0 < line < length]


def part_windows(frame: Window, side: int) -> list[Window]:
    """Squares of `side` pixels counted from the grid's origin that cover a window of it, cut at its edges, rows first.

    The squares do not depend on the window.
    """
    rows, cols = (
        cuts(int(first), int(first + length), side)
        for first, length in ((frame.row_off, frame.height), (frame.col_off, frame.width))
    )
    return [Window(left, top, right - left, bottom - top) for top, bottom in rows for left, right in cols]


def cuts(start: int, stop: int, side: int) -> list[tuple[int, int]]:
    """The numbers start to stop - 1 cut at the multiples of `side`: (first, end) of each piece."""
    edges = [start, *range((start // side + 1) * side, stop, side), stop]
    return list(itertools.pairwise(edges))


def column_bytes(
    lattice: Lattice,
    source: Encoding,
    target: Encoding,
    extras: Sequence[Encoding] = (),
    extra_sums: int = 0,
    noise: int = 0,
) -> int:
    """What a part holds in memory for each of its columns while it is made; its height costs nothing.

    Args:
        lattice: The tiles.
        source: Encoding of the input.
        target: Encoding of the mosaic.
        extras: Encodings of the rasters that are made with it.
        extra_sums: Bytes of a pixel of what is summed for these.
        noise: Channels of noise beside those of the source.
    """
    step, rows = lattice.step, lattice.network_size
    file_rows = 3 * READ_ROWS * _pixel_bytes(source)
    strips = 4 * (source.channels + noise) * (2 * rows + step)  # this one, and the first, or two, that are read ahead
    sums = (4 * target.channels + extra_sums) * lattice.size
    written = 6 * PART_MULTIPLE * sum(_pixel_bytes(encoding) for encoding in (target, *extras))
    return file_rows + strips + sums + written


def _pixel_bytes(encoding: Encoding) -> int:
    """Of a pixel of a raster and its mask."""
    return len(encoding.bands) * np.dtype(encoding.dtype).itemsize + 1


def part_side(memory: int, a_column: int, unit: int = PART_MULTIPLE) -> int:
    """The largest side of a part whose buffers fit the memory.

    Args:
        memory: Bytes for the buffers.
        a_column: Bytes for each column of a part.
        unit: The side is a multiple of it, and at least that.
    """
    return max(unit, min(memory // a_column, LARGEST_PART) // unit * unit)
