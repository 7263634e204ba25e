"""How many pixels of each class windows hold, counted for all windows of a region at once.

Threads do this side by side: a few sums over large arrays let the others run, thousands of small ones do not.
"""

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from geop2p.raster.encoding import Array, Mask

FEW = 16  # classes that are counted one by one
ROWS = 255  # whose sum a byte holds

Counts = npt.NDArray[np.int64]


def true_pixels(flags: Mask, tops: Sequence[int], lefts: Sequence[int], size: int) -> Counts:
    """How many flags are true in the square windows with these first rows and columns, (tops, lefts)."""
    ones, starts = flags.view(np.uint8), np.asarray(lefts)
    counts = np.empty((len(tops), len(lefts)), np.int64)
    for place, top in enumerate(tops):
        before = np.zeros(flags.shape[1] + 1, np.int64)
        for first in range(top, top + size, ROWS):
            before[1:] += np.add.reduce(ones[first : min(first + ROWS, top + size)], axis=0, dtype=np.uint8)
        np.cumsum(before, out=before)
        counts[place] = before[starts + size] - before[starts]
    return counts


def class_counts(
    codes: Array,
    valid: Mask | None,
    tops: Sequence[int],
    lefts: Sequence[int],
    size: int,
    likely: Collection[int],
    pixels: Counts,
) -> dict[int, Counts]:
    """Valid pixels of each class in the square windows with these first rows and columns, (tops, lefts) each.

    Args:
        codes: Class of every pixel (rows, cols).
        valid: (rows, cols); None: all are.
        tops: First rows.
        lefts: First columns.
        size: Side of a window in pixels.
        likely: Values that are probably all there are. Windows that hold others are looked at one by one; all are where
            many are likely.
        pixels: Valid pixels of the windows (tops, lefts).
    """
    counts: dict[int, Counts] = {}
    if len(likely) <= FEW:
        for value in sorted(likely):
            flags = codes == value
            counts[value] = true_pixels(flags if valid is None else flags & valid, tops, lefts, size)
    known, shape = set(counts), pixels.shape
    for row, col in np.argwhere(sum(counts.values(), np.zeros(shape, np.int64)) < pixels):
        window = np.s_[tops[row] : tops[row] + size, lefts[col] : lefts[col] + size]
        found = codes[window].ravel() if valid is None else codes[window][valid[window]]
        for value, count in zip(*present(found), strict=True):
            if value not in known:
                counts.setdefault(int(value), np.zeros(shape, np.int64))[row, col] = count
    return counts


def present(codes: Array) -> tuple[Array, Counts]:
    """The values that occur, ascending, and how often."""
    if codes.dtype not in (np.uint8, np.uint16):
        return np.unique(codes, return_counts=True)
    every = np.bincount(codes)
    values = np.flatnonzero(every)
    return values, every[values]
