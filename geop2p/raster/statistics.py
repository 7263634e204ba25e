"""Streaming statistics of one band: exact moments and extremes, and a histogram for percentiles."""

from typing import Any

import numpy as np
import numpy.typing as npt

_SHIFT = 14  # of the 32 bits of a float32: 18 are kept, so a bin is at most 2**-9 of its value wide


class BandStatistics:
    """Minimum, maximum, mean and standard deviation (float64, exact) and percentiles of a stream of values.

    Percentiles come from a histogram whose bins are the leading 18 bits, as float32, of the values' distances from
    an anchor, the median of the first array: any range in one pass, and every result within 2**-9 (0.2 %) of its
    distance from that median.
    """

    def __init__(self) -> None:
        self.count = 0
        self.minimum = np.inf
        self.maximum = -np.inf
        self._mean = 0.0
        self._squares = 0.0
        self._anchor: float | None = None
        self._histogram: npt.NDArray[np.int64] = np.zeros(1 << (32 - _SHIFT), np.int64)

    def add(self, values: npt.NDArray[Any]) -> None:
        """Take in an array of any shape; every value must be finite."""
        if not values.size:
            return
        flat = values.astype(np.float64).ravel()
        count, mean = flat.size, float(flat.mean())
        squares = float(np.square(flat - mean).sum())
        total, gap = self.count + count, mean - self._mean
        self._squares += squares + gap * gap * self.count * count / total
        self._mean += gap * count / total
        self.count = total
        self.minimum = min(self.minimum, float(flat.min()))
        self.maximum = max(self.maximum, float(flat.max()))
        if self._anchor is None:
            self._anchor = float(np.median(flat))
        self._histogram += np.bincount(_bins(flat - self._anchor), minlength=self._histogram.size)

    @property
    def mean(self) -> float:
        """Mean of all values."""
        return self._mean

    @property
    def std(self) -> float:
        """Standard deviation of all values (population)."""
        return float(np.sqrt(self._squares / max(self.count, 1)))

    def percentile(self, percent: float) -> float:
        """The value below which `percent` of the values lie."""
        cumulative = np.cumsum(self._histogram)
        position = int(np.searchsorted(cumulative, percent / 100 * self.count))
        return float(np.clip(_centre(position) + (self._anchor or 0.0), self.minimum, self.maximum))


def _bins(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Bin of each value: the bits of a float32, made to count upwards from the lowest to the highest value."""
    bits = values.astype(np.float32).view(np.uint32)
    negative = bits >> 31 == 1
    ordered = np.where(negative, ~bits, bits | np.uint32(1 << 31))
    return (ordered >> _SHIFT).astype(np.int64)


def _centre(position: int) -> float:
    """The value in the middle of a bin."""
    ordered = np.uint32((position << _SHIFT) + (1 << (_SHIFT - 1)))
    bits = ordered & np.uint32((1 << 31) - 1) if ordered >> 31 else ~ordered
    return float(np.array([bits], np.uint32).view(np.float32)[0])
