"""Seams as numbers: the seam index of a mosaic, and the statistics of its bands, in one pass over its rows."""

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window

from geop2p.mosaic.plan import Lattice
from geop2p.raster.aligned import Reader
from geop2p.raster.encoding import Array, Encoding, Mask
from geop2p.raster.statistics import BandStatistics
from geop2p.raster.vrt import BandSummary

STRIP = 512


class SeamIndex:
    """Steps across the lines where tiles hand over, relative to all other steps between neighbouring pixels.

    1.0 means that a line of the lattice cannot be told from any other. For classes a step is a change of class, for
    backscatter it is one of dB.

    Args:
        lattice: The tiles of the mosaic.
        height: Rows of the mosaic.
        width: Columns of the mosaic.
        is_classes: Whether its values are classes.
    """

    def __init__(self, lattice: Lattice, height: int, width: int, is_classes: bool) -> None:
        self._row_lines = np.isin(np.arange(height), lattice.handovers(0, height))
        self._col_lines = np.isin(np.arange(width), lattice.handovers(1, width))
        self._is_classes = is_classes
        self._sums = np.zeros((2, 2))  # axis, on a line or not
        self._counts = np.zeros((2, 2), np.int64)

    def add(self, values: Array, valid: Mask, first_row: int, new_from: int) -> None:
        """Take in full-width rows.

        Args:
            values: (bands, rows, cols).
            valid: (rows, cols).
            first_row: Row of the mosaic that they begin with.
            new_from: How many of them were given before, 0 or 1: the row that joins two calls.
        """
        rows = np.arange(first_row + 1, first_row + len(valid))
        self._count(0, values[:, 1:], values[:, :-1], valid[1:] & valid[:-1], self._row_lines[rows][:, None])
        fresh, mask = values[:, new_from:], valid[new_from:]
        self._count(1, fresh[:, :, 1:], fresh[:, :, :-1], mask[:, 1:] & mask[:, :-1], self._col_lines[None, 1:])

    def _count(self, axis: int, after: Array, before: Array, both: Mask, lines: Mask) -> None:
        if self._is_classes:
            steps = (after != before).mean(axis=0)
        else:
            steps = np.abs(after.astype(np.float64) - before.astype(np.float64)).mean(axis=0)
        for column, where in enumerate((both & lines, both & ~lines)):
            self._sums[axis, column] += steps[where].sum()
            self._counts[axis, column] += int(where.sum())

    def result(self) -> float | None:
        """Mean over the axes that have lines; None where none has, or where nothing changes anywhere."""
        ratios = []
        for sums, counts in zip(self._sums, self._counts, strict=True):
            if counts.all() and sums[1] > 0:
                ratios.append((sums[0] / counts[0]) / (sums[1] / counts[1]))
        return float(np.mean(ratios)) if ratios else None


def survey(reader: Reader, encoding: Encoding, lattice: Lattice) -> tuple[list[BandSummary], float | None]:
    """Read a mosaic once: statistics of each band, and its seam index.

    Args:
        reader: The mosaic on its own grid.
        encoding: What it holds.
        lattice: Its tiles.
    """
    height, width = reader.grid.height, reader.grid.width
    seams = SeamIndex(lattice, height, width, encoding.is_classes)
    statistics = [BandStatistics() for _ in encoding.bands]
    for row in range(0, height, STRIP):
        overlap = 1 if row else 0
        window = Window(0, row - overlap, width, min(STRIP, height - row) + overlap)
        values, valid = reader.read(window)
        seams.add(encoding.in_units(values) if encoding.is_linear_sar else values, valid, row - overlap, overlap)
        for band, plane in zip(statistics, values[:, overlap:], strict=True):
            band.add(plane[valid[overlap:]])
    return [_summary(band, height * width) for band in statistics], seams.result()


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
