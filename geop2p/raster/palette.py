"""Colours that a picture is limited to."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def nearest_colors(values: npt.NDArray[Any], palette: Sequence[tuple[int, int, int]]) -> npt.NDArray[np.int32]:
    """The colour of a palette that is nearest to each pixel's, the first of those that are as near.

    Args:
        values: Red, green and blue from 0 to 255 (3, rows, cols).
        palette: Colours.

    Returns:
        (3, rows, cols).
    """
    colors, bands = np.array(palette, np.int32), values.astype(np.int32)
    apart = [sum(np.square(band - part) for band, part in zip(bands, color, strict=True)) for color in colors]
    nearest: npt.NDArray[np.int32] = colors[np.argmin(apart, axis=0)].transpose(2, 0, 1)
    return nearest
