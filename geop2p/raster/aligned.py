"""Aligned reading: windows of any raster on any grid, as its kind demands."""

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
from rasterio.windows import Window

from geop2p.config import Backscatter, Kind
from geop2p.errors import GridMismatchError, RasterError, one_line
from geop2p.raster.blockwise import Blockwise, block_side
from geop2p.raster.class_table import ClassTable
from geop2p.raster.encoding import Array, Mask
from geop2p.raster.grid import Grid
from geop2p.raster.layer_names import is_remote
from geop2p.raster.overviews import overview_for
from geop2p.raster.placement import control_points, grid_of
from geop2p.raster.reading import (
    NO_ANSWER,
    color_bands,
    data_bands,
    gdal_env,
    opened,
)
from geop2p.raster.reproject import (
    CODES,
    FLOAT_BYTES,
    FLOATS,
    MARGIN,
    Resampler,
    pixel_ratio,
    through_power,
    warp_options,
)
from geop2p.raster.unreadable import unreadable_file
from geop2p.raster.validity import MaskReader, drawn_pixels, is_said_nothing, is_told_once, mask_reader, valid_pixels

COARSEST = 64  # pixels of a raster along one of a grid that are averaged as arrays: more would fill the memory

Read = Callable[[Window], tuple[Array, Mask]]


class Reader(Protocol):
    """Aligned windows of one layer on one grid."""

    grid: Grid

    def read(self, window: Window) -> tuple[Array, Mask]:
        """Values (bands, rows, cols) and valid pixels (rows, cols).

        Ground outside the grid or the layer is 0 and not valid.
        """


class HidingReader:
    """Windows of a layer without the ground of some values: unlabelled, or of no class."""

    def __init__(self, reader: Reader, hidden: list[int]) -> None:
        self.grid = reader.grid
        self._reader, self._hidden = reader, hidden

    def read(self, window: Window) -> tuple[Array, Mask]:
        """Values (bands, rows, cols) and valid pixels (rows, cols)."""
        values, valid = self._reader.read(window)
        return values, valid & ~np.isin(values[0], self._hidden) if self._hidden else valid


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
def aligned_reader(
    path: str | Path, grid: Grid, kind: Kind, *, colors: ClassTable | None = None, backscatter: Backscatter = "dB"
) -> Iterator[Reader]:
    """Open a raster for reading on any grid.

    Where its pixels coincide with the grid's they are read as they are, if need be from the last row to the first;
    otherwise they are warped: classes by nearest neighbour, or mode where the grid is coarser; others bilinear, or
    average where it is coarser (through the raster's overviews where they are fine enough); SAR in linear power.

    Args:
        path: File or GDAL name.
        grid: Where to read; must have a CRS unless pixels coincide.
        kind: What the raster holds.
        colors: For a map drawn in colours: the classes that they stand for. The reader gives their values.
        backscatter: For SAR: how its values are stored.

    Raises:
        GridMismatchError: The raster has no CRS, or the grid has none, and pixels do not coincide.
        RasterError: The raster cannot be opened or read.
    """
    with gdal_env(), opened(path) as dataset, ExitStack() as stack:
        own, points, bands = grid_of(dataset), control_points(dataset), data_bands(dataset)
        count, dtype = len(bands), dataset.dtypes[bands[0] - 1]
        conversion, resampling = FLOATS, _resampling(own, grid, kind)
        if kind == "sar" and backscatter != "power":
            conversion = through_power(backscatter, *_scales(dataset, bands))
        if colors is None:
            read: Read = partial(_read_pixels, dataset, bands, mask_reader(dataset, bands), path)
        else:
            shown = color_bands(dataset)
            read = partial(_read_codes, dataset, shown, mask_reader(dataset, shown), path, colors)
            count, dtype, conversion = 1, "uint8", CODES
        offset = grid.offset_in(own) if points is None else None
        if offset is None and points is None:
            read, own = _unmirrored(read, own)
            offset = grid.offset_in(own)
        if offset is None and (own.crs is None or grid.crs is None):
            raise GridMismatchError(
                f"{path}: {own.describe()} cannot be aligned with {grid.describe()}: a CRS is missing; "
                "assign one (gdal_edit -a_srs)"
            )
        if offset is not None:
            inside: Read = partial(_read_shifted, read, dataset.shape, count, dtype, offset)
        elif conversion is FLOATS and points is None:
            level = overview_for(dataset, bands, own, grid, kind)
            seen = dataset if level is None else stack.enter_context(opened(path, level))
            inside = stack.enter_context(_warped(path, seen, grid, resampling))
        else:
            resampler = Resampler(read, count, dtype, dataset.shape, own, points, grid, conversion, resampling)
            inside = _in_blocks(resampler)
        yield AlignedReader(grid, count, dtype, inside)


@contextmanager
def _warped(path: str | Path, dataset: Any, grid: Grid, resampling: Resampling) -> Iterator[Read]:
    """Read an open raster on a grid: by GDAL's own warp where it knows what is valid, else as arrays.

    Mirror images are read as arrays, too: in GDAL's order of their rows ties fall to other pixels. Averages of very
    many pixels are always GDAL's, which adds them up in pieces.
    """
    own, bands = grid_of(dataset), data_bands(dataset)
    dtype, ratio = dataset.dtypes[bands[0] - 1], pixel_ratio(grid, own)
    fits = ratio <= COARSEST or resampling in (Resampling.nearest, Resampling.bilinear)
    if fits and (own.unmirrored is not own or not is_told_once(dataset, bands)):
        read, own = _unmirrored(partial(_read_pixels, dataset, bands, mask_reader(dataset, bands), path), own)
        yield _in_blocks(Resampler(read, len(bands), dtype, dataset.shape, own, None, grid, FLOATS, resampling))
        return
    with _warped_by_gdal(dataset, own, grid, resampling) as vrt:
        seen = data_bands(vrt)
        read = partial(_read_pixels, vrt, seen, mask_reader(vrt, seen), path)
        yield Blockwise(read, (grid.height, grid.width), len(bands), dtype)


def _in_blocks(resampler: Resampler) -> Read:
    """A resampler in blocks that are small enough for what it reads for one."""
    grid, bands = resampler.grid, resampler.bands
    side = block_side(pixel_ratio(grid, resampler.own), bands * FLOAT_BYTES, MARGIN)
    return Blockwise(resampler, (grid.height, grid.width), bands, resampler.dtype, side)


def _unmirrored(read: Read, own: Grid) -> tuple[Read, Grid]:
    """A way to read a dataset, and its grid, with rows from the last to the first where it shows a mirror image."""
    return (read, own) if own.unmirrored is own else (partial(_read_from_below, read, own.height), own.unmirrored)


def _read_from_below(read: Read, height: int, window: Window) -> tuple[Array, Mask]:
    """A window whose rows count from the last row of a dataset to its first."""
    bottom = height - window.row_off - window.height
    values, valid = read(Window(window.col_off, bottom, window.width, window.height))
    return np.ascontiguousarray(values[:, ::-1]), np.ascontiguousarray(valid[::-1])


def _read_shifted(
    read: Read, shape: tuple[int, int], bands: int, dtype: str, offset: tuple[int, int], window: Window
) -> tuple[Array, Mask]:
    """A window of a grid whose pixels coincide with the dataset's, `offset` (row, column) into it."""
    there = Window(window.col_off + offset[1], window.row_off + offset[0], window.width, window.height)
    return _padded(there, shape, bands, dtype, read)


def _scales(dataset: Any, bands: list[int]) -> tuple[Array, Array]:
    """Scale and offset of the bands, each (bands, 1, 1)."""
    scales, offsets = (np.array([values[band - 1] for band in bands]) for values in (dataset.scales, dataset.offsets))
    return scales.reshape(-1, 1, 1), offsets.reshape(-1, 1, 1)


def _warped_by_gdal(dataset: Any, own: Grid, grid: Grid, resampling: Resampling) -> Any:
    """A warped view on the grid that knows what is valid.

    Where a value means no data every band keeps it, so that a pixel is valid only if all its bands are; floats of which
    nothing is said may be NaN, which means it. Otherwise an alpha band is added, unless the data has its own.
    """
    has_alpha, missing = ColorInterp.alpha in dataset.colorinterp, dict[str, float]()
    if np.dtype(dataset.dtypes[0]).kind == "f" and is_said_nothing(dataset):
        missing = {"src_nodata": math.nan, "nodata": math.nan}
    by_value = bool(missing) or dataset.nodata is not None
    return WarpedVRT(
        dataset,
        src_crs=own.crs,
        crs=grid.crs,
        transform=grid.transform,
        width=grid.width,
        height=grid.height,
        resampling=resampling,
        add_alpha=not (by_value or has_alpha),
        UNIFIED_SRC_NODATA="NO",
        **missing,
        **warp_options(resampling),
    )


def _resampling(own: Grid, grid: Grid, kind: Kind) -> Resampling:
    """How values of this kind come from one pixel size to the other."""
    here, there = own.pixel_size, grid.pixel_size
    coarser = here is not None and there is not None and math.prod(there) > 2 * math.prod(here)
    if kind == "classes":
        return Resampling.mode if coarser else Resampling.nearest
    return Resampling.average if coarser else Resampling.bilinear


def _padded(
    window: Window, size: tuple[int, int], bands: int, dtype: str, read: Callable[[Window], tuple[Array, Mask]]
) -> tuple[Array, Mask]:
    """A window that may reach beyond rows and columns of `size`: read inside, 0 and not valid outside."""
    rows, cols = int(window.height), int(window.width)
    row, col = int(window.row_off), int(window.col_off)
    if row >= 0 and col >= 0 and row + rows <= size[0] and col + cols <= size[1]:
        return read(window)
    values, valid = np.zeros((bands, rows, cols), dtype), np.zeros((rows, cols), bool)
    top, left = max(0, row), max(0, col)
    bottom, right = min(size[0], row + rows), min(size[1], col + cols)
    if top < bottom and left < right:
        found, there = read(Window(left, top, right - left, bottom - top))
        at_rows, at_cols = slice(top - row, bottom - row), slice(left - col, right - col)
        values[:, at_rows, at_cols], valid[at_rows, at_cols] = found, there
    return values, valid


def _read_pixels(
    dataset: Any, bands: list[int], read_masks: MaskReader, path: str | Path, window: Window
) -> tuple[Array, Mask]:
    """A window that lies inside a dataset."""
    values, masks = _read_masked(dataset, bands, read_masks, path, window)
    return values, valid_pixels(values, masks)


def _read_codes(
    dataset: Any, bands: list[int], read_masks: MaskReader, path: str | Path, colors: ClassTable, window: Window
) -> tuple[Array, Mask]:
    """The classes that the colours of a window stand for; valid where any band is: 0 is part of many."""
    values, masks = _read_masked(dataset, bands, read_masks, path, window)
    return colors.codes(values), drawn_pixels(values, masks)


def _read_masked(
    dataset: Any, bands: list[int], read_masks: MaskReader, path: str | Path, window: Window
) -> tuple[Array, Array | None]:
    """Values (bands, rows, cols) and masks (see `mask_reader`) of a window that lies inside a dataset.

    Raises:
        RasterError: A block of it cannot be read.
    """
    try:
        values: Array = dataset.read(bands, window=window)
        return values, read_masks(window)
    except RasterioIOError as error:
        bottom, right = window.row_off + window.height - 1, window.col_off + window.width - 1
        file = unreadable_file(dataset, window)
        damaged = f"{file or 'the file'} is damaged: fetch or make it again"
        raise RasterError(
            f"{path}: pixels cannot be read in rows {window.row_off} to {bottom}, columns {window.col_off} to {right} "
            f"({one_line(error.__cause__ or error)}); {NO_ANSWER if is_remote(file or path) else damaged}"
        ) from error
