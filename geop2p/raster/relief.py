"""Relief: height minus the mean height of the ground around, which tells hills from plains at any altitude.

The mean is taken over a disc whose radius is fixed in metres and reaches beyond the window that is read, so that all
windows of a layer agree where they meet. (With its sign it is the topographic position index of Weiss, 2001.)
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window

from geop2p.errors import ConfigError
from geop2p.raster.aligned import AlignedReader, Reader, aligned_reader
from geop2p.raster.encoding import Array, Mask
from geop2p.raster.grid import Grid

Halfwidths = list[int]

FURTHEST = 2048  # pixels that a disc reaches, of which memory takes the square


@contextmanager
def relief_reader(path: str | Path, grid: Grid, radius: float) -> Iterator[Reader]:
    """Open an elevation raster for reading its relief on any grid.

    Values are float32 in the stored unit. Ground beyond the grid counts where the raster has any; pixels without
    data count nowhere.

    Args:
        path: File or GDAL name.
        grid: Where to read; pixels of its size, measured at its centre, make up the disc.
        radius: Of the disc in metres.

    Raises:
        ConfigError: The grid has no pixel size in metres, or one that is larger than the radius.
        GridMismatchError: The raster cannot be aligned with the grid.
        RasterError: The raster cannot be opened or read.
    """
    halfwidths = disc(grid, radius, path)
    down, along = len(halfwidths) // 2, max(halfwidths)
    around = grid.window(Window(-along, -down, grid.width + 2 * along, grid.height + 2 * down))
    with aligned_reader(path, around, "elevation") as heights:
        count = heights.read(Window(0, 0, 1, 1))[0].shape[0]
        yield AlignedReader(grid, count, "float32", partial(_read_relief, heights, halfwidths))


def disc(grid: Grid, radius: float, path: str | Path) -> Halfwidths:
    """The pixels within a radius: for each row of the disc, how far they reach to each side of its middle.

    The radius becomes whole pixels first, so that grids whose pixels differ by less than they are told apart by (a
    projection stretches them from place to place) have the same disc.

    Args:
        grid: Gives the pixel size, at its centre.
        radius: In metres.
        path: For messages.

    Raises:
        ConfigError: The pixel size is unknown, or too large or too small for the radius.
    """
    size = grid.pixel_size
    if size is None:
        raise ConfigError(f"{path}: relief needs a pixel size in metres, the grid has no CRS")
    down, along = (round(radius / side) for side in size)
    if not down or not along:
        raise ConfigError(f"{path}: relief within {radius:g} m on pixels of {max(size):.4g} m; give a larger radius")
    if max(down, along) > FURTHEST:
        raise ConfigError(
            f"{path}: relief within {radius:g} m on pixels of {min(size):.4g} m reaches {max(down, along)} pixels, "
            f"expected {FURTHEST} at most; give a radius up to {FURTHEST * min(size):.6g} m, or larger pixels "
            "(gdalwarp -tr)"
        )
    return [math.isqrt(along**2 * (down**2 - row**2) // down**2) for row in range(-down, down + 1)]


def relief_of(heights: Array, valid: Mask, halfwidths: Halfwidths) -> npt.NDArray[np.float32]:
    """Height minus the mean over a disc of valid pixels, for the middle of an array.

    Args:
        heights: (bands, rows, cols), with a margin of the disc's radius on all sides.
        valid: (rows, cols), margin included.
        halfwidths: The disc.

    Returns:
        float32 (bands, rows, cols) without the margin; 0 where not valid.
    """
    down, along = len(halfwidths) // 2, max(halfwidths)
    middle = (slice(down, heights.shape[1] - down), slice(along, heights.shape[2] - along))
    planes = np.concatenate([np.where(valid, heights, 0).astype(np.float64), valid[np.newaxis].astype(np.float64)])
    sums = _disc_sums(planes, halfwidths)
    means = sums[:-1] / np.maximum(sums[-1], 1)
    apart: npt.NDArray[np.float32] = np.where(valid[middle], planes[:-1, *middle] - means, 0).astype(np.float32)
    return apart


def _disc_sums(planes: npt.NDArray[np.float64], halfwidths: Halfwidths) -> npt.NDArray[np.float64]:
    """Sums over a disc around every pixel that is at least its radius from the border.

    Row by row of the disc, from running sums along the rows: exact for integers, whatever the window.
    """
    down, along = len(halfwidths) // 2, max(halfwidths)
    running = np.pad(np.cumsum(planes, axis=2), ((0, 0), (0, 0), (1, 0)))
    rows, cols = planes.shape[1] - 2 * down, planes.shape[2] - 2 * along
    sums = np.zeros((len(planes), rows, cols))
    for row, half in enumerate(halfwidths):
        line = running[:, row : row + rows]
        first, end = along - half, along + half + 1
        sums += line[:, :, end : end + cols]
        sums -= line[:, :, first : first + cols]
    return sums


def _read_relief(heights: Reader, halfwidths: Halfwidths, window: Window) -> tuple[Array, Mask]:
    """A window that lies inside the grid, from the grid that is larger by the disc's radius on all sides."""
    down, along = len(halfwidths) // 2, max(halfwidths)
    wide = Window(window.col_off, window.row_off, window.width + 2 * along, window.height + 2 * down)
    values, valid = heights.read(wide)
    rows, cols = int(window.height), int(window.width)
    return relief_of(values, valid, halfwidths), valid[down : down + rows, along : along + cols]
