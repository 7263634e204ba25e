"""Where in the chip a model errs: the map of its error, and corners over centre."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geop2p.metrics.blocks import bootstrap, interval
from geop2p.raster.encoding import Array, Encoding, Mask

Sums = npt.NDArray[np.float64]


def pixel_error(predicted: Array, real: Array, encoding: Encoding) -> Array:
    """Error of each pixel (rows, cols): wrong or right for classes, else the mean over bands in the target's units."""
    if encoding.is_classes:
        wrong: Array = (predicted[0] != real[0]).astype(np.float64)
        return wrong
    error: Array = np.abs(encoding.in_units(predicted) - encoding.in_units(real)).mean(axis=0)
    return np.asarray(np.nan_to_num(error))


@dataclass(frozen=True)
class CornerRatio:
    """Mean error in the corners over mean error in the centre of a chip, 1 where position does not matter.

    Attributes:
        value: The ratio; None where there is no valid ground in corners or centre, or no error.
        low: Lower end of its 95 % bootstrap interval over blocks; None with fewer than two blocks.
        high: Upper end.
    """

    value: float | None
    low: float | None
    high: float | None


class PositionError:
    """Error by position in the chip, summed over chips.

    Corners are the four squares of an eighth of the side, the centre is the square of a quarter of it.

    Args:
        size: Side of the chips in pixels.
    """

    def __init__(self, size: int) -> None:
        self._sums = np.zeros((size, size))
        self._counts = np.zeros((size, size))
        eighth = max(1, size // 8)
        near = np.zeros(size, bool)
        near[:eighth] = near[size - eighth :] = True
        middle = np.zeros(size, bool)
        middle[size // 2 - eighth : size // 2 + eighth] = True
        self._corners, self._centre = near[:, None] & near, middle[:, None] & middle
        self._blocks: dict[str, Sums] = {}

    def add(self, error: Array, valid: Mask, block: str) -> None:
        """Take in the error (rows, cols) of a chip, its valid pixels and the block it lies in."""
        masked = np.where(valid, error, 0)
        self._sums += masked
        self._counts += valid
        entry = self._blocks.setdefault(block, np.zeros((2, 2)))
        for row, where in enumerate((self._corners, self._centre)):
            entry[row] += masked[where].sum(), valid[where].sum()

    def map(self) -> npt.NDArray[np.float64]:
        """Mean error (rows, cols); NaN where no chip was valid."""
        return np.divide(self._sums, self._counts, out=np.full_like(self._sums, np.nan), where=self._counts > 0)

    @property
    def blocks(self) -> list[Sums]:
        """((corner error, corner pixels), (centre error, centre pixels)) of each block."""
        return list(self._blocks.values())

    def corner_ratio(self) -> CornerRatio:
        """Corners over centre with its interval."""
        return corner_ratio(self.blocks)

    def draws(self) -> list[float | None]:
        """Corners over centre of the draws of blocks that the scores have, too."""
        return list(_drawn(np.array(self.blocks).reshape(-1, 2, 2)))


def corner_ratio(blocks: Sequence[Sums]) -> CornerRatio:
    """Corners over centre of some blocks, as `PositionError.blocks` gives them, with its interval."""
    sums = np.array(blocks).reshape(-1, 2, 2)
    value = _ratio(sums.sum(axis=0))
    if value is None or len(sums) < 2:
        return CornerRatio(value, None, None)
    return CornerRatio(value, *(interval(_drawn(sums)) or (None, None)))


def _drawn(sums: Sums) -> Iterator[float | None]:
    """The ratio of draws of blocks, from their sums (blocks, 2, 2)."""
    return (_ratio(np.tensordot(counts, sums, 1)) for counts in bootstrap(len(sums)))


def _ratio(sums: Sums) -> float | None:
    """From ((corner error, corner pixels), (centre error, centre pixels))."""
    (corner, corners), (centre, centres) = sums
    if not corners or not centres or not centre:
        return None
    return float((corner / corners) / (centre / centres))
