"""Whether a model knows where it errs: the error of a mosaic by its predicted spread."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geop2p.errors import ConfigError, GridMismatchError
from geop2p.raster.aligned import Reader, aligned_reader
from geop2p.raster.encoding import Array, Mask
from geop2p.raster.grid import Grid
from geop2p.raster.reading import describe_raster, opened
from geop2p.raster.statistics import LEADING_BINS, leading_bits

GROUPS = 10
STEPS = 100  # of the curves that are compared

Sums = npt.NDArray[np.float64]


class Calibration:
    """Error by predicted spread, in one pass and in memory that does not grow.

    Pixels are sorted by the leading 18 bits of their spread: those nearer to each other than 0.2 % count as equal.

    Args:
        is_confidence: Whether the raster holds the probability of the class that is shown, so that one minus it is
            sorted by.
        scales: By which the values of its bands are multiplied.
        offsets: What is then added to them.
    """

    def __init__(
        self, is_confidence: bool = False, scales: Sequence[float] = (1.0,), offsets: Sequence[float] = (0.0,)
    ) -> None:
        self._is_confidence = is_confidence
        self._scales, self._offsets = (np.array(given, np.float64)[:, np.newaxis] for given in (scales, offsets))
        self._by_spread = np.zeros((3, LEADING_BINS))  # count, spread, error
        self._by_error = np.zeros((2, LEADING_BINS))  # count, error

    def add(self, error: Array, spread: Array, valid: Mask) -> None:
        """Take in pixels.

        Args:
            error: (rows, cols), in the units of the spread; of classes 1 where it is wrong.
            spread: Stored values (bands, rows, cols); their mean counts.
            valid: Where both are known (rows, cols).
        """
        wrong = error[valid].astype(np.float64)
        apart = (spread[:, valid] * self._scales + self._offsets).mean(axis=0)
        apart = 1 - apart if self._is_confidence else apart
        _sum_up(self._by_spread, np.maximum(apart, 0), np.stack([np.ones_like(apart), apart, wrong]))
        _sum_up(self._by_error, wrong, np.stack([np.ones_like(wrong), wrong]))

    def result(self) -> dict[str, Any] | None:
        """Figures and curves; None where no pixel was known.

        `groups`: tenths of the pixels in the order of their spread, with `share` of the pixels, mean `spread`
        (`confidence`, where that was given) and mean `error`; pixels of one spread are not parted, so there may be
        fewer. `ause`: area between the curve of the error that is left when the pixels of the largest spread are taken
        away, and the same with those of the largest error, in units of the mean error (Ilg et al., ECCV 2018, arXiv
        1802.07095): 0 if the spread sorts pixels as their error does; `ause_of_chance` if it says nothing. `curve` and
        `best_curve`: those two, at even shares from all pixels to none. For a confidence `ece`: mean distance between
        the confidence of a group and its share of right pixels (Nixon et al., CVPR workshops 2019, arXiv 1904.01685).
        """
        pixels = self._by_spread[0].sum()
        if not pixels:
            return None
        found: dict[str, Any] = {"pixels": int(pixels), "error": float(self._by_spread[2].sum() / pixels)}
        found["groups"] = [self._told(*sums) for sums in _groups(self._by_spread)]
        if self._is_confidence:
            gaps = [row["share"] * abs(row["confidence"] - (1 - row["error"])) for row in found["groups"]]
            found["ece"] = float(np.sum(gaps))
        curve, best = _left(*self._by_spread[[0, 2]]), _left(*self._by_error)
        known = found["error"] > 0
        found["ause"] = float((curve - best).mean() / found["error"]) if known else None
        found["ause_of_chance"] = float(1 - best.mean() / found["error"]) if known else None
        return found | {"curve": curve.tolist(), "best_curve": best.tolist()}

    def _told(self, count: float, spread: float, error: float) -> dict[str, float]:
        """A group from its sums."""
        mean = spread / count
        named = {"confidence": 1 - mean} if self._is_confidence else {"spread": mean}
        return {"share": count / float(self._by_spread[0].sum()), **named, "error": error / count}


@contextmanager
def calibration_reader(path: Path | None, grid: Grid, bands: int) -> Iterator[tuple[Calibration, Reader] | None]:
    """The sums for a raster of confidence or uncertainty, and its reader; None without a path.

    Args:
        path: The raster.
        grid: Of the mosaic.
        bands: Of the mosaic.

    Raises:
        RasterError: It is missing or unreadable.
        GridMismatchError: It lies on another grid than the mosaic.
        ConfigError: It has neither one band nor those of the mosaic.
    """
    if path is None:
        yield None
        return
    info = describe_raster(path)
    if (info.grid.height, info.grid.width) != (grid.height, grid.width) or info.grid.offset_in(grid) != (0, 0):
        raise GridMismatchError(
            f"{path}: lies on {info.grid.describe()}, the mosaic on {grid.describe()}; give the raster made with it"
        )
    if info.count not in (1, bands):
        expected = " or ".join(map(str, sorted({1, bands})))
        raise ConfigError(f"{path}: has {info.count} bands, expected {expected}; give the one made with the mosaic")
    with opened(path) as dataset:
        is_confidence = dataset.tags().get("GEOP2P_MEASURE") == "probability"
    with aligned_reader(path, grid, "image") as reader:
        yield Calibration(is_confidence, info.scales, info.offsets), reader


def _sum_up(sums: Sums, keys: Sums, values: Sums) -> None:
    """Add values (rows, pixels) to sums (rows, bins) by the bins of their keys."""
    bins = leading_bits(keys)
    for row, entry in enumerate(values):
        sums[row] += np.bincount(bins, entry, minlength=LEADING_BINS)


def _groups(sums: Sums) -> list[list[float]]:
    """Sums (rows, bins), the first of which are counts, added up over groups of as many pixels as bins allow."""
    filled = sums[:, sums[0] > 0]
    middle = np.cumsum(filled[0]) - filled[0] / 2
    numbers = np.minimum(middle / filled[0].sum() * GROUPS, GROUPS - 1).astype(int)
    return [filled[:, numbers == number].sum(axis=1).tolist() for number in np.unique(numbers)]


def _left(counts: Sums, errors: Sums) -> Sums:
    """Mean error of the pixels that are left when the last of them are taken away, (steps,) from none to nearly all.

    Args:
        counts: Pixels of each bin, the surest first.
        errors: Sum of their errors.
    """
    filled = counts > 0
    shares = np.concatenate([[0.0], np.cumsum(counts[filled]) / counts.sum()])
    sums = np.concatenate([[0.0], np.cumsum(errors[filled]) / counts.sum()])
    left = 1 - np.arange(STEPS) / STEPS
    found: Sums = np.interp(left, shares, sums) / left
    return found
