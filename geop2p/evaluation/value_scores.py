"""How well values were read in imagery, beside what reading one value everywhere would have come to."""

from typing import Any

import numpy as np
import numpy.typing as npt

from geop2p.raster.encoding import Array, Encoding, Mask

STEPS = 1020  # of the encoded interval, in which the real values are counted; a multiple of 255, so 8 bits are exact


class ValueScores:
    """L1 of values on the scale of their encoding (from -1 to 1), and that of the best constant.

    The best constant is the median of each band of the real values that were taken in: who has learned nothing but how
    values are distributed does no better, whatever the distribution is and wherever it was learned.

    Args:
        encoding: Of the values.

    Attributes:
        sums: All that was taken in: `absolute` differences of each band, and how often each value occurs (`counts`,
            (bands, values)).
    """

    def __init__(self, encoding: Encoding) -> None:
        self._encode, bands = encoding.encode, encoding.channels
        self.sums: dict[str, npt.NDArray[np.float64]] = {
            "absolute": np.zeros(bands),
            "counts": np.zeros((bands, STEPS + 1)),
        }

    def add(self, predicted: Array, real: Array, valid: Mask) -> None:
        """Take in a pair of stored values (bands, rows, cols) and their valid pixels (rows, cols)."""
        here, there = (self._encode(side, valid)[:, valid].astype(np.float64) for side in (predicted, real))
        self.sums["absolute"] += np.abs(here - there).sum(axis=1)
        places = np.rint((there + 1) / 2 * STEPS).astype(np.int64)
        self.sums["counts"] += [np.bincount(band, minlength=STEPS + 1) for band in places]

    def result(self) -> dict[str, Any]:
        """`l1` and `constant_l1`, means over bands, None without a pixel; `pixels`."""
        counts = self.sums["counts"]
        total = counts.sum(axis=1)
        if not total.any():
            return {"l1": None, "constant_l1": None, "pixels": 0}
        values = np.linspace(-1, 1, STEPS + 1)
        medians = values[(counts.cumsum(axis=1) * 2 >= total[:, np.newaxis]).argmax(axis=1)]
        apart = (counts * np.abs(values - medians[:, np.newaxis])).sum(axis=1)
        means = {"l1": self.sums["absolute"] / total, "constant_l1": apart / total}
        return {name: float(found.mean()) for name, found in means.items()} | {"pixels": int(total[0])}
