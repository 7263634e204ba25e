"""The baseline that any model must beat: the best constant per class, or straight line per band."""

import numpy as np
import numpy.typing as npt

from geop2p.raster.encoding import Array, Encoding, Mask
from geop2p.tiling.chips import ChipSet
from geop2p.training.data import ChipArrays, Indices

Matrix = npt.NDArray[np.float64]

NO_TRAINING = "no training chips"  # why there is no baseline


class LinearBaseline:
    """Least squares from encoded source to encoded target, pixel by pixel, fitted on training chips.

    For a source of classes that is the mean colour of each class; for a target of classes, the class that is
    most frequent in each source class.

    Args:
        chips: Training chips.
        source: Encoding of their source.
        target: Encoding of their target.
    """

    def __init__(self, chips: ChipArrays, source: Encoding, target: Encoding) -> None:
        self._source, self._target = source, target
        inputs = source.channels + 1
        squares: Matrix = np.zeros((inputs, inputs))
        products: Matrix = np.zeros((inputs, target.channels))
        for row in range(len(chips)):
            valid = chips.valid[row]
            features = self._features(chips.source[row], valid)[:, valid]
            wanted = target.encode(chips.target[row], valid)[:, valid].astype(np.float64)
            squares += np.asarray(features @ features.T, np.float64)
            products += np.asarray(features @ wanted.T, np.float64)
        self._weights: Matrix = np.asarray(np.linalg.lstsq(squares, products, rcond=None)[0], np.float64)

    def predict(self, source: Array, valid: Mask) -> Array:
        """Stored target values (bands, rows, cols) for stored source values (bands, rows, cols)."""
        features = self._features(source, valid)
        return self._target.decode(np.tensordot(self._weights.T, features, axes=1))

    def predict_rows(self, chips: ChipArrays, rows: Indices) -> list[Array]:
        """Stored target values of some chips."""
        return [self.predict(chips.source[row], chips.valid[row]) for row in rows]

    def _features(self, source: Array, valid: Mask) -> Matrix:
        encoded = self._source.encode(source, valid).astype(np.float64)
        return np.concatenate([encoded, np.ones((1, *valid.shape))])


def fit_baseline(chipset: ChipSet, source: Encoding, target: Encoding, progress: bool = False) -> LinearBaseline | None:
    """The baseline of a chip set for two encodings; None where there are no training chips to fit it on."""
    if not chipset.counts["train"]:
        return None
    return LinearBaseline(ChipArrays.load(chipset, "train", progress), source, target)
