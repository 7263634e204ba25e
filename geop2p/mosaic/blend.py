"""Summing overlapping tiles into a part of the mosaic."""

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window

Floats = npt.NDArray[np.float32]


def ramp(size: int, overlap: int) -> Floats:
    """Weights of a tile along one axis: sin² up, flat, sin² down.

    Samples lie at half pixels: no weight is 0, and the falling and the rising ramp of neighbours sum to 1, since
    sin² + cos² = 1.

    Args:
        size: Pixels of the tile.
        overlap: Pixels of each ramp, at most half of `size`.

    Returns:
        float32 (size,).
    """
    weights = np.ones(size)
    rising = np.sin(np.pi / 2 * (np.arange(overlap) + 0.5) / max(overlap, 1)) ** 2
    weights[:overlap] = rising
    weights[size - overlap :] = rising[::-1]
    return weights.astype(np.float32)


class Blend:
    """A part of the mosaic under construction.

    Args:
        window: The part's place in the raster.
        channels: Channels of a tile.
        size: Side of a tile.
        overlap: Width of its ramps.
    """

    def __init__(self, window: Window, channels: int, size: int, overlap: int) -> None:
        self.window = window
        self._sum = np.zeros((channels, int(window.height), int(window.width)), np.float32)
        weights = ramp(size, overlap)
        self._weights = weights[:, None] * weights

    def add(self, tile: Window, values: Floats) -> None:
        """Add a tile (channels, size, size) at its place; what lies outside the part is left out."""
        row, col = int(tile.row_off - self.window.row_off), int(tile.col_off - self.window.col_off)
        here_r, there_r = _overlap(row, values.shape[1], self._sum.shape[1])
        here_c, there_c = _overlap(col, values.shape[2], self._sum.shape[2])
        self._sum[:, here_r, here_c] += values[:, there_r, there_c] * self._weights[there_r, there_c]

    def result(self) -> Floats:
        """The blended values (channels, rows, cols): exact where every tile that touches the pixel was added."""
        return self._sum


def _overlap(offset: int, size: int, length: int) -> tuple[slice, slice]:
    """Where `size` pixels put at `offset` fall on an axis of `length`, and which of them."""
    start, stop = max(0, offset), min(length, offset + size)
    return slice(start, max(start, stop)), slice(start - offset, max(start, stop) - offset)
