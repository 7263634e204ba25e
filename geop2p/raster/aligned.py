"""Aligned reading: windows of any raster on any grid, as its kind demands."""

import itertools
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioIOError
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject
from rasterio.warp import transform as transform_points
from rasterio.windows import Window

from geop2p.config import Kind
from geop2p.errors import GridMismatchError, RasterError
from geop2p.raster.encoding import Array, Mask
from geop2p.raster.grid import Grid
from geop2p.raster.reading import data_bands, gdal_env, grid_of, one_line, opened, read_masks, valid_pixels

WARP_TOLERANCE = 0.001  # pixels that GDAL may misplace a position by to save time (its default is 0.125)


class Reader(Protocol):
    """Aligned windows of one layer on one grid."""

    grid: Grid

    def read(self, window: Window) -> tuple[Array, Mask]:
        """Values (bands, rows, cols) and valid pixels (rows, cols); ground outside the layer is not valid."""


@contextmanager
def aligned_reader(path: str | Path, grid: Grid, kind: Kind) -> Iterator[Reader]:
    """Open a raster for reading on any grid.

    Where its pixels coincide with the grid's they are read as they are; otherwise they are warped: classes by
    nearest neighbour, or mode where the grid is coarser; others bilinear, or average where it is coarser; SAR
    in linear power (its values taken as dB).

    Args:
        path: File or GDAL name.
        grid: Where to read; must have a CRS unless pixels coincide.
        kind: What the raster holds.

    Raises:
        GridMismatchError: The raster has no CRS, or the grid has none, and pixels do not coincide.
        RasterError: The raster cannot be opened or read.
    """
    with gdal_env(), opened(path) as dataset, ExitStack() as stack:
        own = grid_of(dataset)
        offset = grid.offset_in(own)
        if offset is not None:
            yield _NativeReader(dataset, grid, offset)
            return
        if own.crs is None or grid.crs is None:
            raise GridMismatchError(
                f"{path}: {own.describe()} cannot be aligned with {grid.describe()}: a CRS is missing; "
                "assign one (gdal_edit -a_srs)"
            )
        resampling = _resampling(own, grid, kind)
        if kind == "sar":
            yield _PowerReader(dataset, own, grid, resampling)
        else:
            yield _WarpedReader(stack.enter_context(_warped(dataset, grid, resampling)), grid, path)


class _NativeReader:
    """Windows of a raster whose pixels coincide with the grid's."""

    def __init__(self, dataset: Any, grid: Grid, offset: tuple[int, int]) -> None:
        self.grid = grid
        self._dataset = dataset
        self._offset = offset
        self._bands = data_bands(dataset)

    def read(self, window: Window) -> tuple[Array, Mask]:
        row, col = self._offset
        there = Window(window.col_off + col, window.row_off + row, window.width, window.height)
        return _read_padded(self._dataset, self._bands, there)


class _WarpedReader:
    """Windows of a raster warped to the grid."""

    def __init__(self, vrt: Any, grid: Grid, path: str | Path) -> None:
        self.grid = grid
        self._vrt = vrt
        self._bands = data_bands(vrt)
        self._path = path

    def read(self, window: Window) -> tuple[Array, Mask]:
        return _read_padded(self._vrt, self._bands, window, self._path)


class _PowerReader:
    """Windows of a raster in dB, averaged and interpolated as linear power."""

    def __init__(self, dataset: Any, own: Grid, grid: Grid, resampling: Resampling) -> None:
        self.grid = grid
        self._dataset = dataset
        self._own = own
        self._resampling = resampling
        self._bands = data_bands(dataset)

    def read(self, window: Window) -> tuple[Array, Mask]:
        wanted = self.grid.window(window)
        source = _window_around(wanted, self._own)
        shape = (len(self._bands), wanted.height, wanted.width)
        if source is None:
            return np.zeros(shape, self._dataset.dtypes[0]), np.zeros(shape[1:], bool)
        decibel, valid = _read_padded(self._dataset, self._bands, source)
        power = np.where(valid, 10 ** (np.where(valid, decibel, 0).astype(np.float64) / 10), np.nan)
        here = self._own.window(source)
        result = np.full(shape, np.nan)
        reproject(
            power,
            result,
            src_transform=here.transform,
            src_crs=here.crs,
            src_nodata=np.nan,
            dst_transform=wanted.transform,
            dst_crs=wanted.crs,
            dst_nodata=np.nan,
            resampling=self._resampling,
            tolerance=WARP_TOLERANCE,
        )
        found = np.isfinite(result).all(axis=0) & (result > 0).all(axis=0)
        values = 10 * np.log10(np.where(found, result, 1))
        return values.astype(self._dataset.dtypes[0]), found


def _warped(dataset: Any, grid: Grid, resampling: Resampling) -> Any:
    """A warped view on the grid with an alpha band that says what is valid, unless the data has its own."""
    has_alpha = ColorInterp.alpha in dataset.colorinterp
    return WarpedVRT(
        dataset,
        crs=grid.crs,
        transform=grid.transform,
        width=grid.width,
        height=grid.height,
        resampling=resampling,
        add_alpha=not has_alpha,
        tolerance=WARP_TOLERANCE,
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


def _read_padded(dataset: Any, bands: list[int], window: Window, path: str | Path | None = None) -> tuple[Array, Mask]:
    """A window of a dataset; pixels outside are 0 and not valid."""
    rows, cols = int(window.height), int(window.width)
    values = np.zeros((len(bands), rows, cols), dataset.dtypes[bands[0] - 1])
    valid = np.zeros((rows, cols), bool)
    top, left = max(0, int(window.row_off)), max(0, int(window.col_off))
    bottom = min(dataset.height, int(window.row_off) + rows)
    right = min(dataset.width, int(window.col_off) + cols)
    if top >= bottom or left >= right:
        return values, valid
    inside = Window(left, top, right - left, bottom - top)
    try:
        found = dataset.read(bands, window=inside)
        masks = read_masks(dataset, bands, inside)
    except RasterioIOError as error:
        where = f"rows {top} to {bottom - 1}, columns {left} to {right - 1}"
        raise RasterError(
            f"{path or dataset.name}: pixels cannot be read in {where} ({one_line(error.__cause__ or error)}); "
            "the file is damaged: fetch or make it again"
        ) from error
    at_rows = slice(top - int(window.row_off), bottom - int(window.row_off))
    at_cols = slice(left - int(window.col_off), right - int(window.col_off))
    values[:, at_rows, at_cols] = found
    valid[at_rows, at_cols] = valid_pixels(found, masks)
    return values, valid
