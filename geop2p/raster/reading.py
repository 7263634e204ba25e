"""Reading rasters: what a file holds, and aligned windows of it on any grid.

This is the only module that opens rasters for reading.
"""

import hashlib
import itertools
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from xml.etree import ElementTree

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import RasterioError, RasterioIOError
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject
from rasterio.windows import Window

from geop2p.config import Kind
from geop2p.errors import GridMismatchError, RasterError
from geop2p.raster.encoding import Array, Mask
from geop2p.raster.grid import Grid

BLOCK_CACHE = 256 * 2**20  # bytes of GDAL's block cache, instead of 5 % of the machine's memory
WARP_TOLERANCE = 0.001  # pixels that GDAL may misplace a position by to save time (its default is 0.125)
SAMPLE_SIDE = 1024


@dataclass(frozen=True)
class RasterInfo:
    """What a raster file says of itself.

    Attributes:
        path: File or GDAL name.
        grid: Where its pixels lie.
        dtype: numpy name of the values' type.
        count: Bands of data, a mask band (alpha) not counted.
        nodata: Value that means no data.
        names: Band descriptions, empty where absent.
        units: Units of the bands, empty where absent.
        scales: Physical value is stored value times scale plus offset.
        offsets: See scales.
        color_interp: GDAL's names of the bands' roles.
        palette: Colour of every value of the first band's colour table.
        categories: Name of every value that has one.
        has_mask: Whether a mask or alpha band says what is valid.
    """

    path: str
    grid: Grid
    dtype: str
    count: int
    nodata: float | None
    names: tuple[str, ...]
    units: tuple[str, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    color_interp: tuple[str, ...]
    palette: dict[int, tuple[int, int, int]]
    categories: dict[int, str]
    has_mask: bool


class Reader(Protocol):
    """Aligned windows of one layer on one grid."""

    grid: Grid

    def read(self, window: Window) -> tuple[Array, Mask]:
        """Values (bands, rows, cols) and valid pixels (rows, cols); ground outside the layer is not valid."""


def gdal_env() -> AbstractContextManager[Any]:
    """GDAL's settings for all work of geop2p: bounded cache, masks inside files, no directory listings."""
    env: AbstractContextManager[Any] = rasterio.Env(
        GDAL_CACHEMAX=BLOCK_CACHE,
        GDAL_TIFF_INTERNAL_MASK=True,
        GDAL_DISABLE_READDIR_ON_OPEN="FALSE",
        GDAL_NUM_THREADS="ALL_CPUS",
    )
    return env


@contextmanager
def opened(path: str | Path) -> Iterator[Any]:
    """Open a raster for reading.

    Raises:
        RasterError: It is missing, no raster, or a block of it cannot be read.
    """
    name = str(path)
    if "://" not in name and not name.startswith("/vsi") and ":" not in Path(name).name and not Path(name).exists():
        raise RasterError(f"{name}: no such file")
    try:
        with rasterio.open(name) as dataset:
            yield dataset
    except RasterioError as error:
        cause = error.__cause__ or error
        raise RasterError(f"{name}: cannot be read as a raster: {_one_line(cause)}") from error


def describe_raster(path: str | Path) -> RasterInfo:
    """What a raster file says of itself.

    Raises:
        RasterError: It cannot be opened, or has values that are not real numbers.
    """
    with gdal_env(), opened(path) as dataset:
        data = _data_bands(dataset)
        if not data:
            raise RasterError(f"{path}: has no band of data, only alpha")
        kinds = {dataset.dtypes[band - 1] for band in data}
        if len(kinds) > 1 or np.dtype(dataset.dtypes[0]).kind not in "iuf":
            raise RasterError(f"{path}: bands of type {', '.join(sorted(kinds))}; expected one real number type")
        interp = [dataset.colorinterp[band - 1] for band in data]
        has_palette = interp[0] == ColorInterp.palette
        flags = dataset.mask_flag_enums[data[0] - 1]
        return RasterInfo(
            path=str(path),
            grid=_grid_of(dataset),
            dtype=dataset.dtypes[data[0] - 1],
            count=len(data),
            nodata=dataset.nodatavals[data[0] - 1],
            names=tuple(dataset.descriptions[band - 1] or "" for band in data),
            units=tuple(dataset.units[band - 1] or "" for band in data),
            scales=tuple(dataset.scales[band - 1] for band in data),
            offsets=tuple(dataset.offsets[band - 1] for band in data),
            color_interp=tuple(entry.name for entry in interp),
            palette={value: color[:3] for value, color in dataset.colormap(1).items()} if has_palette else {},
            categories=read_categories(path),
            has_mask=MaskFlags.per_dataset in flags,
        )


def _grid_of(dataset: Any) -> Grid:
    if dataset.gcps[0] and dataset.transform.is_identity:
        raise RasterError(f"{dataset.name}: placed by ground control points only; warp it first (gdalwarp)")
    return Grid(dataset.crs, dataset.transform, dataset.height, dataset.width)


def read_categories(path: str | Path) -> dict[int, str]:
    """Class names by value from the category names of the file's `.aux.xml` (GDAL PAM); empty without one."""
    sidecar = Path(f"{path}.aux.xml")
    if not sidecar.is_file():
        return {}
    try:
        names = ElementTree.parse(sidecar).findall("./PAMRasterBand[@band='1']/CategoryNames/Category")
    except ElementTree.ParseError as error:
        raise RasterError(f"{sidecar}: not valid XML ({error}); delete or repair it") from error
    return {value: name.text.strip() for value, name in enumerate(names) if name.text and name.text.strip()}


def fingerprint(path: str | Path) -> dict[str, Any]:
    """Size, modification time and hash of the first and last MiB of a file: whether an input has changed.

    Names that are no local file (URLs, `/vsi…`) have only their name.
    """
    file = Path(path)
    if not file.is_file():
        return {"name": str(path)}
    status = file.stat()
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        digest.update(stream.read(2**20))
        stream.seek(max(0, status.st_size - 2**20))
        digest.update(stream.read())
    return {"size": status.st_size, "mtime": int(status.st_mtime), "sha256_ends": digest.hexdigest()}


def read_sample(path: str | Path) -> tuple[Array, Mask]:
    """A thinned view of a whole raster, at most 1024 pixels a side, values untouched (nearest)."""
    with gdal_env(), opened(path) as dataset:
        bands = _data_bands(dataset)
        factor = max(1.0, max(dataset.shape) / SAMPLE_SIDE)
        shape = tuple(max(1, round(side / factor)) for side in dataset.shape)
        values = dataset.read(bands, out_shape=(len(bands), *shape), resampling=Resampling.nearest)
        masks = _read_masks(dataset, bands, None, shape)
        return values, _valid(values, masks)


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
        own = _grid_of(dataset)
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
        self._bands = _data_bands(dataset)

    def read(self, window: Window) -> tuple[Array, Mask]:
        row, col = self._offset
        there = Window(window.col_off + col, window.row_off + row, window.width, window.height)
        return _read_padded(self._dataset, self._bands, there)


class _WarpedReader:
    """Windows of a raster warped to the grid."""

    def __init__(self, vrt: Any, grid: Grid, path: str | Path) -> None:
        self.grid = grid
        self._vrt = vrt
        self._bands = _data_bands(vrt)
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
        self._bands = _data_bands(dataset)

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
    xs, ys = rasterio.warp.transform(wanted.crs, own.crs, *edge)
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


def _data_bands(dataset: Any) -> list[int]:
    """Numbers of the bands that are data, not alpha."""
    return [band for band, role in zip(dataset.indexes, dataset.colorinterp, strict=True) if role != ColorInterp.alpha]


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
        masks = _read_masks(dataset, bands, inside)
    except RasterioIOError as error:
        where = f"rows {top} to {bottom - 1}, columns {left} to {right - 1}"
        raise RasterError(
            f"{path or dataset.name}: pixels cannot be read in {where} ({_one_line(error.__cause__ or error)}); "
            "the file is damaged: fetch or make it again"
        ) from error
    at_rows = slice(top - int(window.row_off), bottom - int(window.row_off))
    at_cols = slice(left - int(window.col_off), right - int(window.col_off))
    values[:, at_rows, at_cols] = found
    valid[at_rows, at_cols] = _valid(found, masks)
    return values, valid


def _read_masks(dataset: Any, bands: list[int], window: Window | None, shape: tuple[int, ...] = ()) -> Array:
    """0 where not valid, (bands, rows, cols); from the alpha band where there is one."""
    if ColorInterp.alpha in dataset.colorinterp:
        alpha = [dataset.colorinterp.index(ColorInterp.alpha) + 1]
        masks: Array = dataset.read(alpha, window=window, out_shape=(1, *shape) if shape else None)
    else:
        masks = dataset.read_masks(bands, window=window, out_shape=(len(bands), *shape) if shape else None)
    return masks


def _valid(values: Array, masks: Array) -> Mask:
    """Where every band is data: not masked and finite."""
    valid: Mask = np.all(masks > 0, axis=0)
    if values.dtype.kind == "f":
        valid &= np.all(np.isfinite(values), axis=0)
    return valid


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
