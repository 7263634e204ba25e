"""Where a model errs on the ground: by class, by distance to the next class, by distance from the training."""

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from geop2p.raster.class_table import class_titles
from geop2p.raster.encoding import Array, Encoding, Mask

EDGES = (0, 1, 2, 4, 8, 16)  # pixels: a bin begins at each, the last is open
REACH = EDGES[-1] + 1  # pixels around some ground in which a step from class to class tells the bins on it


class ErrorBreakdown:
    """Mean error of the pixels of each class, and of those so far from another class.

    Args:
        encoding: Of the map that says where the classes lie.
    """

    def __init__(self, encoding: Encoding) -> None:
        self._classes = encoding.classes
        self._by_class = np.zeros((len(self._classes), 2))
        self._by_distance = np.zeros((len(EDGES), 2))

    def add(self, error: Array, codes: Array, valid: Mask, bins: npt.NDArray[np.int64]) -> None:
        """Take in the error of some ground, its map, its valid pixels and their `boundary_bins`, all (rows, cols)."""
        for row, entry in enumerate(self._classes):
            here = valid & (codes == entry.value)
            self._by_class[row] += error[here].sum(), here.sum()
        for column in range(len(EDGES)):
            here = valid & (bins == column)
            self._by_distance[column] += error[here].sum(), here.sum()

    def result(self) -> dict[str, Any]:
        """`by_class`: mean error by name; `by_boundary_distance`: a list of `from`, `to` (pixels) and `error`."""
        classes = zip(class_titles(self._classes), self._by_class, strict=True)
        ends = (*EDGES[1:], None)
        return {
            "by_class": {name: float(total / count) for name, (total, count) in classes if count},
            "by_boundary_distance": [
                {"from": low, "to": high, "error": float(total / count), "share": float(count / self._pixels)}
                for low, high, (total, count) in zip(EDGES, ends, self._by_distance, strict=True)
                if count
            ],
        }

    @property
    def _pixels(self) -> float:
        return float(self._by_distance[:, 1].sum())


def boundary_bins(codes: Array, valid: Mask) -> npt.NDArray[np.int64]:
    """The bin of `EDGES` of each pixel: pixels to the nearest one beside another class, rows or columns, the more.

    Args:
        codes: Map (rows, cols); a step to or from ground that is not valid is no boundary.
        valid: (rows, cols).
    """
    beside = np.zeros(codes.shape, bool)
    for axis in (0, 1):
        one, other = (np.swapaxes(side, 0, axis) for side in (codes, valid))
        steps = (one[1:] != one[:-1]) & other[1:] & other[:-1]
        view = np.swapaxes(beside, 0, axis)
        view[1:] |= steps
        view[:-1] |= steps
    within = torch.from_numpy(beside).float()[None]
    bins = np.zeros(codes.shape, np.int64)
    for before, edge in pairwise((1, *EDGES[1:])):
        step = edge - before  # what is within the next edge lies so far from what is within this one
        within = functional.max_pool2d(within, (2 * step + 1, 1), stride=1, padding=(step, 0))
        within = functional.max_pool2d(within, (1, 2 * step + 1), stride=1, padding=(0, step))
        bins += (within[0] == 0).numpy()
    return bins


def by_training_distance(errors: npt.NDArray[np.float64], distances: npt.NDArray[np.float64]) -> list[dict[str, float]]:
    """Mean error of the chips in thirds by their distance from the training; chips of one distance are not parted.

    Args:
        errors: Mean error of each chip; chips without are left out.
        distances: Pixels to the nearest training chip; infinite ones are left out.

    Returns:
        `from`, `to` (pixels), `error` and `chips` of each part.
    """
    known = np.isfinite(distances) & np.isfinite(errors)
    apart, error = distances[known], errors[known]
    if not len(apart):
        return []
    bounds = np.unique(np.quantile(apart, [1 / 3, 2 / 3], method="inverted_cdf"))
    parts = np.searchsorted(bounds, apart)
    return [
        {
            "from": float(apart[parts == part].min()),
            "to": float(apart[parts == part].max()),
            "error": float(error[parts == part].mean()),
            "chips": int((parts == part).sum()),
        }
        for part in np.unique(parts)
    ]
