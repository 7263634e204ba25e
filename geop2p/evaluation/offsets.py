"""Whether a mosaic errs more where its tiles meet: its error by place in the tile, over many lattices."""

from collections.abc import Iterable, Iterator

import numpy as np
from rasterio.windows import Window

from geop2p.evaluation.position import PositionError, pixel_error
from geop2p.mosaic.mosaic import Mosaic
from geop2p.mosaic.plan import Lattice
from geop2p.raster.aligned import Reader
from geop2p.raster.encoding import Array, Mask

SHIFTS = 4  # on each axis: every pixel of the ground lies once near a corner of a tile and once in its centre


def error_by_position(mosaic: Mosaic, reader: Reader, truth: Reader, windows: Iterable[Window]) -> PositionError:
    """Predict ground on 16 lattices and sum the error by its place between the lines where tiles hand over.

    Args:
        mosaic: What predicts.
        reader: Its input.
        truth: What should come out, on the same grid.
        windows: Ground to look at; each is a block of the bootstrap.

    Returns:
        The error over all lattices; its side is the distance between tiles.
    """
    target, shifts = mosaic.translator.card.target, mosaic.shifts(SHIFTS)
    result = PositionError(mosaic.lattice.step)
    for window in windows:
        real, there = truth.read(window)
        for shift in ((down, right) for down in shifts for right in shifts):
            made, valid = mosaic.window(reader, window, shift)
            error = pixel_error(made, real, target)
            for cell, known in _cells(error, valid & there, window, mosaic.lattice, shift):
                result.add(cell, known, f"{window.row_off} {window.col_off}")
    return result


def _cells(
    error: Array, valid: Mask, window: Window, lattice: Lattice, shift: tuple[int, int]
) -> Iterator[tuple[Array, Mask]]:
    """A window cut at the lines where tiles hand over, each piece in its place in a square of `step` pixels."""
    step, before = lattice.step, lattice.overlap - lattice.overlap // 2
    first = [int(at + before + by) % step for at, by in zip((window.row_off, window.col_off), shift, strict=True)]
    edges = [(start, -(start + length) % step) for start, length in zip(first, error.shape, strict=True)]
    error, valid = np.pad(error, edges), np.pad(valid, edges)
    for row in range(0, len(error), step):
        for col in range(0, error.shape[1], step):
            place = np.s_[row : row + step, col : col + step]
            yield error[place], valid[place]
