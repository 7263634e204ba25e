"""SSIM and MS-SSIM of masked bands.

SSIM after Wang et al., IEEE TIP 2004, with an 11x11 Gaussian window of standard deviation 1.5; MS-SSIM after Wang,
Simoncelli and Bovik, Asilomar 2003: five scales, each the means of 2x2 pixels of the one before.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from geop2p.raster.encoding import Array, Mask

WINDOW = 11
SIGMA = 1.5
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SMALLEST = WINDOW * 2 ** (len(SCALE_WEIGHTS) - 1)  # side of an image that has a whole window at every scale


class Maps(NamedTuple):
    """What is found at every place of one scale where a whole window fits.

    Attributes:
        similarity: SSIM (bands, rows, cols).
        contrast: Its factor of contrast and structure (bands, rows, cols).
        whole: Where all of the window is valid (rows, cols).
    """

    similarity: Tensor
    contrast: Tensor
    whole: Tensor


def scale_maps(predicted: Array, real: Array, valid: Mask, data_range: Array) -> Iterator[Maps]:
    """The maps of the scales, each made when it is asked for, the finest first; empty where no window fits.

    Args:
        predicted: (bands, rows, cols).
        real: (bands, rows, cols).
        valid: (rows, cols).
        data_range: Range of the values of each band (bands,).
    """
    first, second, there = _tensors(predicted, real, valid)
    span = torch.from_numpy(data_range.astype(np.float64)).reshape(-1, 1, 1)
    yield _maps(first, second, there, span)
    for _ in SCALE_WEIGHTS[1:]:
        first, second = (functional.avg_pool2d(side, 2) for side in (first, second))
        there = -functional.max_pool2d(-there[None], 2)[0]
        yield _maps(first, second, there, span)


def over_scales(scales: Iterable[Maps]) -> tuple[Array, int]:
    """MS-SSIM of one image.

    Args:
        scales: Its `scale_maps`.

    Returns:
        MS-SSIM (bands,), and how many whole windows are valid at the coarsest scale: 0 for images that are smaller than
        176 pixels or have too large holes, whose MS-SSIM is 0.
    """
    product, count = np.ones(1), 0
    for scale, (maps, weight) in enumerate(zip(scales, SCALE_WEIGHTS, strict=True), 1):
        count = int(maps.whole.sum())
        if not count:
            return np.zeros(len(maps.similarity)), 0
        factor = maps.similarity if scale == len(SCALE_WEIGHTS) else maps.contrast
        inside = factor.flatten(1) if count == maps.whole.numel() else factor[:, maps.whole]
        product = product * (inside.mean(dim=1).clamp(min=0) ** weight).numpy()
    return product, count


def _tensors(predicted: Array, real: Array, valid: Mask) -> tuple[Tensor, Tensor, Tensor]:
    """Both sides with 0 under the mask (bands, rows, cols), and the mask as 0 and 1 (1, rows, cols)."""
    sides = (torch.from_numpy(np.where(valid, side, 0).astype(np.float64)) for side in (predicted, real))
    first, second = sides
    return first, second, torch.from_numpy(valid[np.newaxis].astype(np.float64))


def _maps(first: Tensor, second: Tensor, valid: Tensor, span: Tensor) -> Maps:
    rows, cols = (max(0, side - WINDOW + 1) for side in valid.shape[-2:])
    if not rows or not cols:
        nothing = torch.zeros(len(first), rows, cols, dtype=torch.float64)
        return Maps(nothing, nothing, torch.zeros(rows, cols, dtype=torch.bool))
    mean_1, mean_2 = _blur(first), _blur(second)
    product, squares = mean_1 * mean_2, mean_1**2 + mean_2**2
    variances = _blur(first**2 + second**2) - squares  # of both, which SSIM only adds up
    covariance = _blur(first * second) - product
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    contrast = (2 * covariance + c2) / (variances + c2)
    return Maps((2 * product + c1) / (squares + c1) * contrast, contrast, _whole(valid))


def _whole(valid: Tensor) -> Tensor:
    """Where all of a window is valid."""
    holes = 1 - valid
    if not holes.any():
        return torch.ones([side - WINDOW + 1 for side in valid.shape[-2:]], dtype=torch.bool)
    for window in ((WINDOW, 1), (1, WINDOW)):
        holes = functional.max_pool2d(holes, window, stride=1)
    return holes[0] == 0


def _blur(image: Tensor) -> Tensor:
    """Gaussian means of (bands, rows, cols) where the whole window fits.

    Shifted copies are added up, which for 64-bit floats takes a quarter of the time of a convolution.
    """
    offsets = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    kernel = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    weights = (kernel / kernel.sum()).tolist()
    for axis in (1, 2):
        fitting = image.shape[axis] - WINDOW + 1
        means = image.narrow(axis, 0, fitting) * weights[0]
        for shift, weight in enumerate(weights[1:], 1):
            means.add_(image.narrow(axis, shift, fitting), alpha=weight)
        image = means
    return image
