"""Masked scores, summed in float64 over any number of chips or windows.

Formulas: PSNR = 10 log10(range^2 / MSE); SSIM after Wang et al., IEEE TIP 2004, with an 11x11 Gaussian window of
standard deviation 1.5; mIoU = mean over classes of p_ii / (row_i + column_i - p_ii).
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from geop2p.raster.encoding import Array, Encoding, Mask

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5


class ImageScores:
    """L1, RMSE, PSNR and SSIM per band in the target's units: dB for backscatter, however it is stored.

    Args:
        encoding: The target's; its encoded interval is the range of PSNR and SSIM.
    """

    def __init__(self, encoding: Encoding) -> None:
        self._names = encoding.band_names
        self._in_units, self._range = encoding.in_units, encoding.unit_range
        bands = len(encoding.bands)
        self._absolute, self._squared, self._similarity = np.zeros(bands), np.zeros(bands), np.zeros(bands)
        self._pixels = 0
        self._windows = 0

    def add(self, predicted: Array, real: Array, valid: Mask) -> None:
        """Take in a pair of stored values (bands, rows, cols) and their valid pixels (rows, cols)."""
        first, second = (self._in_units(np.where(valid, side, 0)) for side in (predicted, real))
        difference = (first - second)[:, valid]
        self._absolute += np.abs(difference).sum(axis=1)
        self._squared += np.square(difference).sum(axis=1)
        self._pixels += int(valid.sum())
        similarity, whole = ssim_map(first, second, valid, self._range)
        self._similarity += similarity[:, whole].sum(axis=1)
        self._windows += int(whole.sum())

    def result(self) -> dict[str, Any]:
        """Means over bands under `l1`, `rmse`, `psnr`, `ssim`, and per band under `bands`.

        L1 and RMSE are in physical units, dB for backscatter. Values are None where no pixel (or no window of SSIM)
        was valid.
        """
        if not self._pixels:
            return {"l1": None, "rmse": None, "psnr": None, "ssim": None, "pixels": 0, "bands": {}}
        mse = self._squared / self._pixels
        l1, rmse = self._absolute / self._pixels, np.sqrt(mse)
        psnr = [
            10 * math.log10(span**2 / error) if error else math.inf
            for span, error in zip(self._range, mse, strict=True)
        ]
        ssim = self._similarity / self._windows if self._windows else np.full(len(mse), np.nan)
        bands = {
            name: {"l1": a, "rmse": b, "psnr": _finite(c), "ssim": _finite(d)}
            for name, a, b, c, d in zip(self._names, l1.tolist(), rmse.tolist(), psnr, ssim.tolist(), strict=True)
        }
        pooled = float((mse / self._range**2).mean())
        return {
            "l1": float(l1.mean()),
            "rmse": float(math.sqrt(float(np.square(rmse).mean()))),
            "psnr": _finite(-10 * math.log10(pooled) if pooled else math.inf),
            "ssim": _finite(float(ssim.mean())),
            "pixels": self._pixels,
            "bands": bands,
        }


class ClassScores:
    """Confusion matrix, pixel accuracy, class accuracy and mIoU of maps of classes.

    Args:
        encoding: The target's; other codes than its classes count as wrong.
    """

    def __init__(self, encoding: Encoding) -> None:
        self._codes = np.array([entry.value for entry in encoding.classes])
        self._names = [entry.name for entry in encoding.classes]
        self.confusion = np.zeros((len(self._codes), len(self._codes)), np.int64)

    def add(self, predicted: Array, real: Array, valid: Mask) -> None:
        """Take in a pair of stored codes (1, rows, cols) and their valid pixels; unknown real codes are skipped."""
        order = np.argsort(self._codes)
        known = valid & np.isin(real[0], self._codes) & np.isin(predicted[0], self._codes)
        rows = order[np.searchsorted(self._codes[order], real[0][known])]
        columns = order[np.searchsorted(self._codes[order], predicted[0][known])]
        size = len(self._codes)
        self.confusion += np.bincount(rows * size + columns, minlength=size * size).reshape(size, size)

    def result(self) -> dict[str, Any]:
        """`accuracy`, `class_accuracy`, `miou` over classes that occur, and IoU per class under `classes`."""
        hits, rows, columns = np.diag(self.confusion), self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        total = int(self.confusion.sum())
        if not total:
            return {"accuracy": None, "class_accuracy": None, "miou": None, "pixels": 0, "classes": {}}
        union = rows + columns - hits
        iou = hits / np.maximum(union, 1)
        return {
            "accuracy": float(hits.sum() / total),
            "class_accuracy": float((hits[rows > 0] / rows[rows > 0]).mean()),
            "miou": float(iou[union > 0].mean()),
            "pixels": total,
            "classes": {
                name: float(value) for name, value, there in zip(self._names, iou, union > 0, strict=True) if there
            },
        }


Scores = ImageScores | ClassScores


def scores_for(encoding: Encoding) -> Scores:
    """The scores that fit what the target holds."""
    return ClassScores(encoding) if encoding.is_classes else ImageScores(encoding)


def ssim_map(predicted: Array, real: Array, valid: Mask, data_range: Array) -> tuple[Array, Mask]:
    """SSIM at every place where a whole window fits.

    Args:
        predicted: (bands, rows, cols).
        real: (bands, rows, cols).
        valid: (rows, cols).
        data_range: Range of the values of each band (bands,).

    Returns:
        SSIM (bands, rows - 10, cols - 10), and where the whole window is valid; both empty for smaller arrays.
    """
    rows, cols = valid.shape
    shape = (max(0, rows - SSIM_WINDOW + 1), max(0, cols - SSIM_WINDOW + 1))
    if not all(shape):
        return np.zeros((len(predicted), *shape)), np.zeros(shape, bool)
    first, second = (torch.from_numpy(np.where(valid, side, 0).astype(np.float64)) for side in (predicted, real))
    mean_1, mean_2 = _blur(first), _blur(second)
    var_1 = _blur(first * first) - mean_1**2
    var_2 = _blur(second * second) - mean_2**2
    both = _blur(first * second) - mean_1 * mean_2
    span = torch.from_numpy(data_range.astype(np.float64)).reshape(-1, 1, 1)
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    top = (2 * mean_1 * mean_2 + c1) * (2 * both + c2)
    bottom = (mean_1**2 + mean_2**2 + c1) * (var_1 + var_2 + c2)
    holes = torch.from_numpy(~valid).double()[None, None]
    whole = functional.max_pool2d(holes, SSIM_WINDOW, stride=1)[0, 0] == 0
    return (top / bottom).numpy(), whole.numpy()


def _blur(image: Tensor) -> Tensor:
    """Gaussian means of (bands, rows, cols) where the whole window fits."""
    offsets = torch.arange(SSIM_WINDOW, dtype=torch.float64) - SSIM_WINDOW // 2
    kernel = torch.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    kernel = kernel / kernel.sum()
    rows = functional.conv2d(image[:, None], kernel.reshape(1, 1, -1, 1))
    return functional.conv2d(rows, kernel.reshape(1, 1, 1, -1))[:, 0]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
