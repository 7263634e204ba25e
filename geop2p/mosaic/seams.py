"""Seams as numbers: the seam index of a mosaic, and the statistics of its bands, in one pass over its rows."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.windows import Window

from geop2p.mosaic.plan import AT_ONCE, PART_MULTIPLE, Lattice, cuts
from geop2p.raster.aligned import Read, Reader
from geop2p.raster.encoding import Array, Encoding, Mask
from geop2p.raster.reading import BLOCK_CACHE, gdal_env
from geop2p.raster.statistics import BandStatistics
from geop2p.raster.threads import in_order
from geop2p.raster.vrt import BandSummary

STRIP = 128  # rows that are read at once
PIECE = 16 * PART_MULTIPLE  # columns that are read at once: whole blocks, so that few are read twice


class SeamIndex:
    """Steps across the lines where tiles hand over, relative to steps between other neighbouring pixels.

    1.0 means that a line of the lattice cannot be told from any other. For classes a step is a change of class, for
    backscatter it is one of dB. Where the network may repeat a pattern with its stride, the others are those at the
    same place in the pattern, if anything changes there.

    Args:
        lattice: The tiles of the mosaic.
        height: Rows of the mosaic.
        width: Columns of the mosaic.
        is_classes: Whether its values are classes.
    """

    def __init__(self, lattice: Lattice, height: int, width: int, is_classes: bool) -> None:
        self._lines = [_lines(lattice, axis, side) for axis, side in enumerate((height, width))]
        self._is_classes = is_classes
        self._sums = [np.zeros(height), np.zeros(width)]  # of the steps into each row, and into each column
        self._counts = [np.zeros(height, np.int64), np.zeros(width, np.int64)]

    def add(self, values: Array, valid: Mask, first: tuple[int, int], known: tuple[int, int]) -> None:
        """Take in a window.

        Args:
            values: (bands, rows, cols).
            valid: (rows, cols).
            first: Row and column of the mosaic that it begins with.
            known: How many of its rows and columns were given before, 0 or 1 of each: what joins two calls.
        """
        (row, col), (rows, cols) = first, known
        fresh, mask = values[:, :, cols:], valid[:, cols:]
        below = slice(row + 1, row + valid.shape[0])
        self._count(0, below, fresh[:, 1:], fresh[:, :-1], mask[1:], mask[:-1])
        fresh, mask = values[:, rows:], valid[rows:]
        right = slice(col + 1, col + valid.shape[1])
        self._count(1, right, fresh[:, :, 1:], fresh[:, :, :-1], mask[:, 1:], mask[:, :-1])

    def _count(self, axis: int, into: slice, after: Array, before: Array, known: Mask, was_known: Mask) -> None:
        both = known & was_known
        if self._is_classes:
            steps = (after != before).view(np.uint8)
        elif after.dtype in (np.uint8, np.uint16):  # in their own type: several times faster
            steps = np.maximum(after, before) - np.minimum(after, before)
        else:
            steps = np.abs(np.subtract(after, before, dtype=np.float64))
        if not both.all():
            steps = np.where(both, steps, steps.dtype.type(0))
        exact = np.uint32 if steps.dtype.kind == "u" else np.float64
        sums = steps.sum(axis=axis, dtype=exact)  # over bands, or rows: along the memory
        self._sums[axis][into] += sums.sum(axis=1 if axis == 0 else 0, dtype=np.float64) / len(after)
        self._counts[axis][into] += both.sum(axis=1 - axis)

    def result(self) -> float | None:
        """Mean over the axes that have lines; None where none has, or where nothing changes anywhere."""
        ratios = []
        for (lines, alike), sums, counts in zip(self._lines, self._sums, self._counts, strict=True):
            others = alike if counts[alike].any() and sums[alike].any() else ~lines
            on, off = counts[lines].sum(), counts[others].sum()
            if on and off and sums[others].sum() > 0:
                ratios.append((sums[lines].sum() / on) / (sums[others].sum() / off))
        return float(np.mean(ratios)) if ratios else None


def _lines(lattice: Lattice, axis: int, side: int) -> tuple[Mask, Mask]:
    """The pixels of an axis that tiles hand over at, and the others at the same place of the network's stride."""
    pixels, handovers = np.arange(side), lattice.handovers(axis, side)
    lines = np.isin(pixels, handovers)
    return lines, ~lines & np.isin(pixels % lattice.stride, [line % lattice.stride for line in handovers])


def survey(reader: Reader, encoding: Encoding, lattice: Lattice | None) -> tuple[list[BandSummary], float | None]:
    """Read a mosaic once: statistics of each band, and its seam index. Another thread reads ahead.

    Args:
        reader: The mosaic on its own grid.
        encoding: What it holds.
        lattice: Its tiles; None: no seam index.
    """
    height, width = reader.grid.height, reader.grid.width
    seams = None if lattice is None else SeamIndex(lattice, height, width, encoding.is_classes)
    statistics = [BandStatistics() for _ in encoding.bands]
    windows = [
        Window(max(0, left - 1), max(0, top - 1), right - max(0, left - 1), bottom - max(0, top - 1))
        for left, right in cuts(0, width, PIECE)
        for top, bottom in cuts(0, height, STRIP)
    ]
    columns = min(width, PIECE + PART_MULTIPLE)
    cache = PART_MULTIPLE * columns * (len(encoding.bands) * np.dtype(encoding.dtype).itemsize + 1)  # a row of blocks

    @contextmanager
    def opened() -> Iterator[Read]:
        with gdal_env(), rasterio.Env(GDAL_CACHEMAX=min(cache + cache // 4, BLOCK_CACHE)):
            yield reader.read

    for window, (values, valid) in zip(windows, in_order(windows, opened, 1), strict=True):
        above, before = int(window.row_off > 0), int(window.col_off > 0)  # rows and columns that were read before
        for start in range(above, len(valid), AT_ONCE):
            joined = 1 if start else 0
            rows = slice(start - joined, start + AT_ONCE)
            if seams is not None:
                steps_of = encoding.in_units(values[:, rows]) if encoding.is_linear_sar else values[:, rows]
                place = int(window.row_off) + start - joined, int(window.col_off)
                seams.add(steps_of, valid[rows], place, (joined, before))
            fresh = np.s_[start : start + AT_ONCE, before:]
            for band, plane in zip(statistics, values, strict=True):
                band.add(plane[fresh] if valid[fresh].all() else plane[fresh][valid[fresh]])
    return [_summary(band, height * width) for band in statistics], None if seams is None else seams.result()


def _summary(band: BandStatistics, pixels: int) -> BandSummary:
    share = 100 * band.count / pixels
    if not band.count:
        return BandSummary(None, None, None, None, share)
    return BandSummary(band.minimum, band.maximum, band.mean, band.std, share)


def mismatch(first: Array, second: Array, valid: Mask, is_classes: bool) -> npt.NDArray[np.float64]:
    """Difference of two predictions of the same pixels, (bands, valid pixels); 0 or 1 for classes."""
    if is_classes:
        wrong: npt.NDArray[np.float64] = (first != second)[:, valid].astype(np.float64)
        return wrong
    apart: npt.NDArray[np.float64] = np.abs(first.astype(np.float64) - second.astype(np.float64))[:, valid]
    return apart
