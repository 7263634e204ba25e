"""SSIM and MS-SSIM of masked bands.

SSIM after Wang et al., IEEE TIP 2004, with an 11x11 Gaussian window of standard deviation 1.5; MS-SSIM after Wang,
Simoncelli and Bovik, Asilomar 2003: five scales, each the means of 2x2 pixels of the one before.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from geop2p.raster.encoding import Array, Mask

WINDOW = 11
SIGMA = 1.5
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SMALLEST = WINDOW * 2 ** (len(SCALE_WEIGHTS) - 1)  # side of an image that has a whole window at every scale


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
    similarity, _, whole = _maps(*_tensors(predicted, real, valid), _span(data_range))
    return similarity.numpy(), whole.numpy()


def ms_ssim(predicted: Array, real: Array, valid: Mask, data_range: Array) -> tuple[Array, int]:
    """MS-SSIM of one image.

    Args:
        predicted: (bands, rows, cols).
        real: (bands, rows, cols).
        valid: (rows, cols).
        data_range: Range of the values of each band (bands,).

    Returns:
        MS-SSIM (bands,), and how many whole windows are valid at the coarsest scale: 0 for images that are smaller than
        176 pixels or have too large holes, whose MS-SSIM is 0.
    """
    first, second, there = _tensors(predicted, real, valid)
    span, product = _span(data_range), torch.ones(len(predicted), dtype=torch.float64)
    for scale, weight in enumerate(SCALE_WEIGHTS):
        if scale:
            first, second = (functional.avg_pool2d(side, 2) for side in (first, second))
            there = -functional.max_pool2d(-there[None], 2)[0]
        similarity, contrast, whole = _maps(first, second, there, span)
        count = int(whole.sum())
        if not count:
            return np.zeros(len(predicted)), 0
        last = scale == len(SCALE_WEIGHTS) - 1
        mean = (similarity if last else contrast)[:, whole].mean(dim=1)
        product *= mean.clamp(min=0) ** weight
    return product.numpy(), count


def _tensors(predicted: Array, real: Array, valid: Mask) -> tuple[Tensor, Tensor, Tensor]:
    """Both sides with 0 under the mask (bands, rows, cols), and the mask as 0 and 1 (1, rows, cols)."""
    sides = (torch.from_numpy(np.where(valid, side, 0).astype(np.float64)) for side in (predicted, real))
    first, second = sides
    return first, second, torch.from_numpy(valid[np.newaxis].astype(np.float64))


def _span(data_range: Array) -> Tensor:
    return torch.from_numpy(data_range.astype(np.float64)).reshape(-1, 1, 1)


def _maps(first: Tensor, second: Tensor, valid: Tensor, span: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """SSIM and its factor of contrast and structure where a whole window fits, and where all of it is valid."""
    rows, cols = (max(0, side - WINDOW + 1) for side in valid.shape[-2:])
    if not rows or not cols:
        nothing = torch.zeros(len(first), rows, cols, dtype=torch.float64)
        return nothing, nothing, torch.zeros(rows, cols, dtype=torch.bool)
    mean_1, mean_2 = _blur(first), _blur(second)
    var_1 = _blur(first * first) - mean_1**2
    var_2 = _blur(second * second) - mean_2**2
    both = _blur(first * second) - mean_1 * mean_2
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    contrast = (2 * both + c2) / (var_1 + var_2 + c2)
    similarity = (2 * mean_1 * mean_2 + c1) / (mean_1**2 + mean_2**2 + c1) * contrast
    whole = functional.max_pool2d(1 - valid[None], WINDOW, stride=1)[0, 0] == 0
    return similarity, contrast, whole


def _blur(image: Tensor) -> Tensor:
    """Gaussian means of (bands, rows, cols) where the whole window fits."""
    offsets = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    kernel = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    kernel = kernel / kernel.sum()
    rows = functional.conv2d(image[:, None], kernel.reshape(1, 1, -1, 1))
    return functional.conv2d(rows, kernel.reshape(1, 1, 1, -1))[:, 0]
