"""Aligned reading: windows of any raster on any grid, as its kind demands."""

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioIOError
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject
from rasterio.warp import transform as transform_points
from rasterio.windows import Window

from geop2p.config import Backscatter, Kind
from geop2p.errors import GridMismatchError, RasterError
from geop2p.raster.backscatter import from_power, to_power
from geop2p.raster.encoding import Array, Mask
from geop2p.raster.grid import Grid
from geop2p.raster.reading import data_bands, gdal_env, grid_of, one_line, opened, read_masks, valid_pixels

WARP_TOLERANCE = 0.001  # pixels that GDAL may misplace a position by to save time (its default is 0.125)


class Reader(Protocol):
    """Aligned windows of one layer on one grid."""

    grid: Grid

    def read(self, window: Window) -> tuple[Array, Mask]:
        """Values (bands, rows, cols) and valid pixels (rows, cols).

        Ground outside the grid or the layer is 0 and not valid.
        """


class AlignedReader:
    """Windows of a raster on a grid.

    Args:
        grid: Where to read.
        bands: How many bands a window has.
        dtype: numpy name of their type.
        read_inside: Reads a window that lies inside the grid.
    """

    def __init__(self, grid: Grid, bands: int, dtype: str, read_inside: Callable[[Window], tuple[Array, Mask]]) -> None:
        self.grid = grid
        self._bands, self._dtype, self._read_inside = bands, dtype, read_inside

    def read(self, window: Window) -> tuple[Array, Mask]:
        """Values (bands, rows, cols) and valid pixels (rows, cols); see `Reader`."""
        size = (self.grid.height, self.grid.width)
        return _padded(window, size, self._bands, self._dtype, self._read_inside)


@contextmanager
def aligned_reader(path: str | Path, grid: Grid, kind: Kind, backscatter: Backscatter = "dB") -> Iterator[Reader]:
    """Open a raster for reading on any grid.

    Where its pixels coincide with the grid's they are read as they are; otherwise they are warped: classes by
    nearest neighbour, or mode where the grid is coarser; others bilinear, or average where it is coarser; SAR
    in linear power.

    Args:
        path: File or GDAL name.
        grid: Where to read; must have a CRS unless pixels coincide.
        kind: What the raster holds.
        backscatter: For SAR: how its values are stored.

    Raises:
        GridMismatchError: The raster has no CRS, or the grid has none, and pixels do not coincide.
        RasterError: The raster cannot be opened or read.
    """
    with gdal_env(), opened(path) as dataset, ExitStack() as stack:
        own, bands = grid_of(dataset), data_bands(dataset)
        dtype = dataset.dtypes[bands[0] - 1]
        offset = grid.offset_in(own)
        if offset is not None:
            inside = partial(_read_shifted, dataset, bands, offset, path)
        elif own.crs is None or grid.crs is None:
            raise GridMismatchError(
                f"{path}: {own.describe()} cannot be aligned with {grid.describe()}: a CRS is missing; "
                "assign one (gdal_edit -a_srs)"
            )
        elif kind == "sar" and backscatter != "power":
            inside = partial(_read_power, dataset, bands, own, grid, path, backscatter)
        else:
            vrt = stack.enter_context(_warped(dataset, own, grid, _resampling(own, grid, kind)))
            inside = partial(_read_pixels, vrt, data_bands(vrt), path)
        yield AlignedReader(grid, len(bands), dtype, inside)


def _read_shifted(
    dataset: Any, bands: list[int], offset: tuple[int, int], path: str | Path, window: Window
) -> tuple[Array, Mask]:
    """A window of a grid whose pixels coincide with the dataset's, `offset` (row, column) into it."""
    there = Window(window.col_off + offset[1], window.row_off + offset[0], window.width, window.height)
    dtype = dataset.dtypes[bands[0] - 1]
    return _padded(there, dataset.shape, len(bands), dtype, partial(_read_pixels, dataset, bands, path))


def _read_power(
    dataset: Any, bands: list[int], own: Grid, grid: Grid, path: str | Path, stored: Backscatter, window: Window
) -> tuple[Array, Mask]:
    """A window of a grid from a dataset of backscatter, averaged or interpolated as linear power."""
    wanted, dtype = grid.window(window), dataset.dtypes[bands[0] - 1]
    shape = (len(bands), wanted.height, wanted.width)
    source = _window_around(wanted, own)
    if source is None:
        return np.zeros(shape, dtype), np.zeros(shape[1:], bool)
    found, valid = _read_pixels(dataset, bands, path, source)
    scale, offset = (
        np.array([values[band - 1] for band in bands]).reshape(-1, 1, 1) for values in (dataset.scales, dataset.offsets)
    )
    power = np.where(valid, to_power(np.where(valid, found, 0) * scale + offset, stored), np.nan)
    here, result = own.window(source), np.full(shape, np.nan)
    reproject(
        power,
        result,
        src_transform=here.transform,
        src_crs=here.crs,
        src_nodata=np.nan,
        dst_transform=wanted.transform,
        dst_crs=wanted.crs,
        dst_nodata=np.nan,
        resampling=_resampling(own, grid, "sar"),
        tolerance=WARP_TOLERANCE,
    )
    there: Mask = np.all(np.isfinite(result) & ((result > 0) | (stored != "dB")), axis=0)
    values = (from_power(np.where(there, result, 1), stored) - offset) / scale
    if np.dtype(dtype).kind in "iu":
        limits = np.iinfo(dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return values.astype(dtype), there


def _warped(dataset: Any, own: Grid, grid: Grid, resampling: Resampling) -> Any:
    """A warped view on the grid that knows what is valid.

    Where a value means no data every band keeps it, so that a pixel is valid only if all its bands are, as without
    a warp; otherwise an alpha band is added, unless the data has its own.
    """
    by_value = dataset.nodata is not None
    has_alpha = ColorInterp.alpha in dataset.colorinterp
    return WarpedVRT(
        dataset,
        src_crs=own.crs,
        crs=grid.crs,
        transform=grid.transform,
        width=grid.width,
        height=grid.height,
        resampling=resampling,
        add_alpha=not (by_value or has_alpha),
        tolerance=WARP_TOLERANCE,
        UNIFIED_SRC_NODATA="NO",
    )


def _resampling(own: Grid, grid: Grid, kind: Kind) -> Resampling:
    """How values of this kind come from one pixel size to the other."""
    here, there = own.pixel_size, grid.pixel_size
    coarser = here is not None and there is not None and math.prod(there) > 2 * math.prod(here)
    if kind == "classes":
        return Resampling.mode if coarser else Resampling.nearest
    return Resampling.average if coarser else Resampling.bilinear


def _window_around(wanted: Grid, own: Grid, margin: int = 4) -> Window | None:
    """The window of `own` that covers a grid on the ground, with a margin for interpolation; None if apart."""
    edge = _outline(wanted)
    xs, ys = transform_points(wanted.crs, own.crs, *edge)
    to_pixels = ~own.transform
    points = [to_pixels @ (x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(x) and math.isfinite(y)]
    if not points:
        return None
    ratio = margin + math.ceil(max(1.0, _pixel_ratio(wanted, own)) * 2)
    cols, rows = zip(*points, strict=True)
    left, right = math.floor(min(cols)) - ratio, math.ceil(max(cols)) + ratio
    top, bottom = math.floor(min(rows)) - ratio, math.ceil(max(rows)) + ratio
    left, right = max(left, 0), min(right, own.width)
    top, bottom = max(top, 0), min(bottom, own.height)
    if left >= right or top >= bottom:
        return None
    return Window(left, top, right - left, bottom - top)


def _pixel_ratio(wanted: Grid, own: Grid) -> float:
    """How many pixels of `own` one pixel of `wanted` spans at most."""
    there, here = wanted.pixel_size, own.pixel_size
    if there is None or here is None:
        return 1.0
    return max(there) / min(here)


def _outline(grid: Grid, points: int = 21) -> tuple[list[float], list[float]]:
    """Positions along the outline of a grid, as lists of x and y."""
    steps = np.linspace(0, 1, points)
    corners = [*grid.corners, grid.corners[0]]
    xs, ys = [], []
    for (x0, y0), (x1, y1) in itertools.pairwise(corners):
        xs += list(x0 + steps * (x1 - x0))
        ys += list(y0 + steps * (y1 - y0))
    return xs, ys


def _padded(
    window: Window, size: tuple[int, int], bands: int, dtype: str, read: Callable[[Window], tuple[Array, Mask]]
) -> tuple[Array, Mask]:
    """A window that may reach beyond rows and columns of `size`: read inside, 0 and not valid outside."""
    rows, cols = int(window.height), int(window.width)
    values, valid = np.zeros((bands, rows, cols), dtype), np.zeros((rows, cols), bool)
    row, col = int(window.row_off), int(window.col_off)
    top, left = max(0, row), max(0, col)
    bottom, right = min(size[0], row + rows), min(size[1], col + cols)
    if top < bottom and left < right:
        found, there = read(Window(left, top, right - left, bottom - top))
        at_rows, at_cols = slice(top - row, bottom - row), slice(left - col, right - col)
        values[:, at_rows, at_cols], valid[at_rows, at_cols] = found, there
    return values, valid


def _read_pixels(dataset: Any, bands: list[int], path: str | Path, window: Window) -> tuple[Array, Mask]:
    """A window that lies inside a dataset.

    Raises:
        RasterError: A block of it cannot be read.
    """
    try:
        values = dataset.read(bands, window=window)
        masks = read_masks(dataset, bands, window)
    except RasterioIOError as error:
        bottom, right = window.row_off + window.height - 1, window.col_off + window.width - 1
        raise RasterError(
            f"{path}: pixels cannot be read in rows {window.row_off} to {bottom}, columns {window.col_off} to {right} "
            f"({one_line(error.__cause__ or error)}); the file is damaged: fetch or make it again"
        ) from error
    return values, valid_pixels(values, masks)
