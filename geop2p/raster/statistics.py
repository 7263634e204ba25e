"""Streaming statistics of one band: exact moments and extremes, and a histogram for percentiles."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_SHIFT = 14  # of the 32 bits of a float32: 18 are kept, so a bin is at most 2**-9 of its value wide
LEADING_BINS = 1 << (32 - _SHIFT)
_HUGE = 1e150  # magnitudes beyond it, fill values that no file declares, count as it: their squares are no numbers
_LEAST, _MOST = -(2**15), 2**16 - 1  # of all integers of 8 and 16 bits
_TALLIES = _MOST - _LEAST + 1
_TALLIED = np.arange(_LEAST, _MOST + 1, dtype=np.float64)


@dataclass(frozen=True)
class Distribution:
    """The valid values of a band in the training chips, in the units of the band's interval.

    Attributes:
        count: How many they are.
        minimum: Exact.
        maximum: Exact.
        mean: Exact to rounding.
        std: Of the population, exact to rounding.
        percentiles: (percent, value) in rising order.
        percentile_error: Largest error of a percentile as a share of its distance from the band's typical value (the
            median of the first chip); 0 where they are exact.
    """

    count: int
    minimum: float
    maximum: float
    mean: float
    std: float
    percentiles: tuple[tuple[float, float], ...]
    percentile_error: float

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Distribution":
        """Read the JSON form."""
        return cls(**data | {"percentiles": tuple((percent, value) for percent, value in data["percentiles"])})


class BandStatistics:
    """Minimum, maximum, mean and standard deviation (float64, exact) and percentiles of a stream of values.

    Integers of 8 and 16 bits are counted value by value, so their percentiles are exact. Those of other types come
    from a histogram whose bins are the leading 18 bits, as float32, of the values' distances from an anchor, the
    median of the first array: any range in one pass, and every result within 2**-9 (0.2 %) of its distance from that
    median. All arrays of one stream have the same type.
    """

    def __init__(self) -> None:
        self.count = 0
        self.minimum = np.inf
        self.maximum = -np.inf
        self._mean = 0.0
        self._squares = 0.0
        self._anchor: float | None = None
        self._histogram: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._is_exact = False

    def add(self, values: npt.NDArray[Any]) -> None:
        """Take in an array of any shape; every value must be finite."""
        if not values.size:
            return
        flat = values.ravel()
        low, high = float(flat.min()), float(flat.max())
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        self.count += flat.size
        if flat.dtype.kind in "iu" and flat.dtype.itemsize <= 2:
            self._tally(flat)
        else:
            self._take(np.clip(flat.astype(np.float64), -_HUGE, _HUGE))

    def _tally(self, flat: npt.NDArray[Any]) -> None:
        """Count every value of an array of 8 or 16-bit integers."""
        if not self._histogram.size:
            self._histogram, self._is_exact = np.zeros(_TALLIES, np.int64), True
        counts = np.bincount(flat.view(f"u{flat.dtype.itemsize}"))  # negative values in two's complement, at the end
        positive = 1 << 8 * flat.dtype.itemsize - 1 if flat.dtype.kind == "i" else counts.size
        self._histogram[-_LEAST : -_LEAST + counts[:positive].size] += counts[:positive]
        self._histogram[-_LEAST - positive : -_LEAST - positive + counts[positive:].size] += counts[positive:]

    def _take(self, flat: npt.NDArray[np.float64]) -> None:
        """Add an array to the moments and to the histogram; `count` holds it already."""
        mean = float(flat.mean())
        squares = float(np.square(flat - mean).sum())
        before, gap = self.count - flat.size, mean - self._mean
        self._squares += squares + gap * gap * before * flat.size / self.count
        self._mean += gap * flat.size / self.count
        if self._anchor is None:
            self._anchor = float(np.median(flat))
            self._histogram = np.zeros(LEADING_BINS, np.int64)
        self._histogram += np.bincount(leading_bits(flat - self._anchor), minlength=LEADING_BINS)

    @property
    def mean(self) -> float:
        """Mean of all values."""
        if not self._is_exact:
            return self._mean
        return float(self._histogram @ _TALLIED / max(self.count, 1))

    @property
    def std(self) -> float:
        """Standard deviation of all values (population)."""
        squares = self._histogram @ np.square(_TALLIED - self.mean) if self._is_exact else self._squares
        return float(np.sqrt(squares / max(self.count, 1)))

    @property
    def percentile_error(self) -> float:
        """Largest error of a percentile, as a share of its distance from the anchor."""
        return 0.0 if self._is_exact else 2.0**-9

    def percentiles(self, percents: Sequence[float]) -> list[float]:
        """For each percent the least value that so many of the values do not exceed."""
        cumulative = np.cumsum(self._histogram)
        whole = 1 - 1e-14  # so that a rank which is whole does not become the next for what 99.9 is in binary
        ranks = np.maximum(np.array(percents) / 100 * self.count * whole, 1)
        positions = np.searchsorted(cumulative, ranks).tolist()
        anchor = self._anchor or 0.0
        values = [place + _LEAST if self._is_exact else _centre(place) + anchor for place in positions]
        return [float(min(max(value, self.minimum), self.maximum)) for value in values]


def leading_bits(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Bin of each value, out of `LEADING_BINS`: bits of a float32, made to count up from the lowest to the highest."""
    most = np.finfo(np.float32).max
    bits = np.clip(values, -most, most).astype(np.float32).view(np.uint32)
    negative = bits >> 31 == 1
    ordered = np.where(negative, ~bits, bits | np.uint32(1 << 31))
    return (ordered >> _SHIFT).astype(np.int64)


def _centre(position: int) -> float:
    """The value in the middle of a bin."""
    ordered = np.uint32((position << _SHIFT) + (1 << (_SHIFT - 1)))
    bits = ordered & np.uint32((1 << 31) - 1) if ordered >> 31 else ~ordered
    return float(np.array([bits], np.uint32).view(np.float32)[0])
