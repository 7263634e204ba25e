"""How many pixels of each class windows hold, counted for all windows of a region at once.

Threads do this side by side: a few sums over large arrays let the others run, thousands of small ones do not.
"""

from collections.abc import Iterable, Sequence

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
    codes: Array, valid: Mask | None, tops: Sequence[int], lefts: Sequence[int], size: int, likely: Iterable[int]
) -> dict[int, Counts]:
    """Valid pixels of each class in the square windows with these first rows and columns, (tops, lefts) each.

    Args:
        codes: Class of every pixel (rows, cols).
        valid: (rows, cols); None: all are.
        tops: First rows.
        lefts: First columns.
        size: Side of a window in pixels.
        likely: Values that are probably all there are: the others are looked for only if these are not all.
    """

    def count(value: int) -> Counts:
        flags = codes == value
        return true_pixels(flags if valid is None else np.logical_and(flags, valid, out=flags), tops, lefts, size)

    values = sorted(likely)
    counts = {value: count(value) for value in values} if len(values) <= FEW else {}
    pixels = size * size if valid is None else true_pixels(valid, tops, lefts, size)
    if np.all(sum(counts.values()) == pixels):
        return counts
    values = _values(codes if valid is None else codes[valid])[0].tolist()
    if len(values) <= FEW:
        return counts | {value: count(value) for value in values if value not in counts}
    counts = {value: np.zeros((len(tops), len(lefts)), np.int64) for value in values}
    for at in np.ndindex(len(tops), len(lefts)):
        window = np.s_[tops[at[0]] : tops[at[0]] + size, lefts[at[1]] : lefts[at[1]] + size]
        for value, number in zip(
            *_values(codes[window] if valid is None else codes[window][valid[window]]), strict=True
        ):
            counts[int(value)][at] = number
    return counts


def _values(codes: Array) -> tuple[Array, Counts]:
    """The values that occur, ascending, and how often."""
    if codes.dtype not in (np.uint8, np.uint16):
        return np.unique(codes, return_counts=True)
    every = np.bincount(codes.ravel())
    values = np.flatnonzero(every)
    return values, every[values]
