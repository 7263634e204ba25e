"""What lies beyond the border of an array. numpy only."""

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt


def reflect_indices(start: int, stop: int, length: int) -> npt.NDArray[np.int64]:
    """Positions start to stop - 1 of an axis that goes on by reflection beyond 0 to length - 1.

    The edge pixel is the mirror and is not repeated; an axis of one pixel repeats it.
    """
    positions = np.arange(start, stop)
    if length == 1:
        return np.zeros_like(positions)
    period = 2 * (length - 1)
    folded = np.abs(positions) % period
    mirrored: npt.NDArray[np.int64] = np.minimum(folded, period - folded)
    return mirrored


def take_along(array: npt.NDArray[Any], axis: int, indices: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Positions of an axis, as `array.take` gives them; fast where most follow each other, a view where all do."""
    breaks = np.flatnonzero(np.diff(indices) != 1) + 1
    first, last = max(itertools.pairwise([0, *breaks, len(indices)]), key=lambda run: run[1] - run[0])
    middle = array.swapaxes(0, axis)[indices[first] : indices[first] + last - first].swapaxes(0, axis)
    if last - first == len(indices):
        return middle
    pieces = array.take(indices[:first], axis), middle, array.take(indices[last:], axis)
    return np.concatenate(pieces, axis)


def overlap_slices(offset: int, size: int, length: int) -> tuple[slice, slice]:
    """Where `size` pixels put at `offset` fall on an axis of `length`, and which of them; both empty if none do."""
    start, stop = max(0, offset), min(length, offset + size)
    return slice(start, max(start, stop)), slice(start - offset, max(start, stop) - offset)
