"""Summing overlapping tiles into a part of the mosaic."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rasterio.windows import Window
from torch import Tensor

from geop2p.mosaic.plan import AT_ONCE
from geop2p.raster.borders import overlap_slices

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


def move_up(rows: Any, count: int) -> None:
    """Move rows (channels, rows, cols) up by so many, in place; the last ones stay as they are."""
    kept = rows.shape[1] - count
    for start in range(0, kept, count):  # in pieces that do not overlap their new place
        stop = min(start + count, kept)
        rows[:, start:stop] = rows[:, start + count : stop + count]


class Blend:
    """A part of the mosaic under construction, from top to bottom: rows that no later tile touches are given away.

    Args:
        window: The part's place in the raster.
        channels: Channels of a tile.
        size: Side of a tile.
        overlap: Width of its ramps.
        device: Where tiles come from and are summed.
        dtype: Of tiles and sums.
    """

    def __init__(
        self,
        window: Window,
        channels: int,
        size: int,
        overlap: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.window, self._top = window, int(window.row_off)
        shape = (channels, min(size, int(window.height)), int(window.width))
        self._sum = torch.zeros(shape, dtype=dtype, device=device)
        weights = torch.from_numpy(ramp(size, overlap)).to(device)
        self._weights = weights[:, None] * weights if overlap else None

    def add(self, tile: Window, values: Tensor) -> None:
        """Add a tile (channels, rows, cols) at its place; what lies outside the part is left out.

        Its first row is not below the first of `until`'s next.
        """
        row, col = int(tile.row_off) - self._top, int(tile.col_off - self.window.col_off)
        here_r, there_r = overlap_slices(row, values.shape[1], self._sum.shape[1])
        here_c, there_c = overlap_slices(col, values.shape[2], self._sum.shape[2])
        sums, shown = self._sum[:, here_r, here_c], values[:, there_r, there_c]
        if self._weights is None:
            sums += shown
        else:
            sums.addcmul_(shown, self._weights[there_r, there_c])

    def until(self, row: int) -> Iterator[Floats]:
        """Give away the rows (channels, rows, cols) above `row` of the raster: every tile that touches them was added.

        What is given is good until the next is asked for.
        """
        end, held = min(row, int(self.window.row_off + self.window.height)), self._sum.shape[1]
        while self._top < end:
            count = min(end - self._top, held)
            for start in range(0, count, AT_ONCE):
                yield self._sum[:, start : min(start + AT_ONCE, count)].cpu().numpy()
            self._top += count
            move_up(self._sum, count)
            self._sum[:, held - count :] = 0
