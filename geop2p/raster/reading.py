"""Reading rasters: opening them, and what a file says of itself.

This is the only module that opens rasters for reading.
"""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from geop2p.errors import RasterError, one_line
from geop2p.raster import agreement
from geop2p.raster.categories import read_categories
from geop2p.raster.encoding import Array, Band, Mask
from geop2p.raster.folder import RASTER_SUFFIXES, folder_vrt, stamps_of
from geop2p.raster.grid import Grid
from geop2p.raster.layer_names import is_missing, is_remote
from geop2p.raster.placement import control_points, grid_of, is_by_polynomials
from geop2p.raster.validity import drawn_pixels, mask_reader, valid_pixels

BLOCK_CACHE = 64 * 2**20  # bytes of GDAL's block cache, instead of 5 % of the machine's memory
NOT_PIXELS = (".aux.xml", ".ovr")  # beside a raster: programs make them by looking at it
OPEN_FILES = 16  # of a virtual raster at once: each holds some MB
NO_ANSWER = "see that its server gives it, also in parts (range requests), and repeat, or fetch the file first"
SAMPLE_SIDE = 1024  # pixels; a raster up to this size is looked at as a whole
SAMPLE_WINDOW = 64  # pixels
SAMPLE_WINDOWS = 8  # along each axis


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
        block: (rows, cols) that the file stores together.
        by_points: Whether only ground control points place it; `grid` is then the one that it is warped to.
        by_polynomials: Whether only rational polynomials (RPC) place it; `grid` is then that of its pixels.
        parts: Further files that its pixels or their validity come from: those that a VRT names, masks beside it.
        is_whole: Whether every pixel is valid whatever it holds: integers without nodata, mask or alpha.
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
    block: tuple[int, int]
    by_points: bool = False
    by_polynomials: bool = False
    parts: tuple[str, ...] = ()
    is_whole: bool = False


def gdal_env(threads: str = "ALL_CPUS") -> AbstractContextManager[Any]:
    """GDAL's settings for all work of geop2p: a bounded cache, masks inside files, all cores unless told otherwise.

    Inside an environment that has these settings already they stay as they are.
    """
    wanted = {"GDAL_CACHEMAX": BLOCK_CACHE, "GDAL_TIFF_INTERNAL_MASK": True, "GDAL_NUM_THREADS": threads}
    wanted |= {"GDAL_MAX_DATASET_POOL_SIZE": OPEN_FILES, "VRT_NUM_THREADS": "1"}  # whose threads lose errors of blocks
    if rasterio.env.hasenv() and set(wanted) <= set(rasterio.env.getenv()):
        return contextlib.nullcontext()
    env: AbstractContextManager[Any] = rasterio.Env(**wanted)
    return env


@contextmanager
def opened(path: str | Path, overview: int | None = None) -> Iterator[Any]:
    """Open a raster for reading.

    Args:
        path: File or GDAL name, or a folder whose rasters are read as one.
        overview: Number of the overview to read instead of the raster itself, from 0; None: the raster.

    Raises:
        RasterError: It is missing, no raster, or a block of it cannot be read.
    """
    name = str(path)
    if is_missing(name):
        raise RasterError(f"{name}: no such file")
    source = _folder_source(name, stamps_of(name))[0] if Path(name).is_dir() else name
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # our own errors say what a missing CRS means
            dataset = rasterio.open(source) if overview is None else rasterio.open(source, overview_level=overview)
        with dataset:
            yield dataset
    except RasterioError as error:
        advice = NO_ANSWER if is_remote(name) else "give one that GDAL opens, or fetch it again"
        if name.lower().endswith(".zip") and Path(name).is_file():
            advice = f"give the raster inside, as /vsizip/{name}/NAME"
        raise RasterError(
            f"{name}: cannot be read as a raster ({one_line(error.__cause__ or error)}); {advice}"
        ) from error


@functools.lru_cache(maxsize=4)
def _folder_source(folder: str, stamps: tuple[tuple[str, int, int], ...]) -> tuple[str, tuple[str, ...]]:
    """The virtual raster over the rasters of a folder and all their files, kept: every file is opened for it."""
    with contextlib.suppress(RasterioError), rasterio.open(folder) as dataset:
        return folder, tuple(dataset.files)  # a format that is a folder, such as Zarr
    files = [Path(folder) / name for name, _, _ in stamps]
    rasters = [file for file in files if file.suffix.lower() in RASTER_SUFFIXES or _is_raster(file)]
    found = [describe_raster(file) for file in rasters]
    return folder_vrt(folder, found), tuple(name for info in found for name in (info.path, *info.parts))


def _parts(path: str, files: Sequence[str]) -> tuple[str, ...]:
    """Files of a raster, beside its own, that its pixels or their validity come from."""
    found = _folder_source(path, stamps_of(path))[1] if Path(path).is_dir() else files
    return tuple(name for name in found if name != path and not name.endswith(NOT_PIXELS))


def _is_raster(file: Path) -> bool:
    """Whether GDAL takes a file of any name for a raster."""
    with contextlib.suppress(RasterError), opened(file) as dataset:
        return bool(dataset.count)
    return False


def describe_raster(path: str | Path) -> RasterInfo:
    """What a raster file says of itself.

    Raises:
        RasterError: It cannot be opened, or has values that are not real numbers.
    """
    with gdal_env(), opened(path) as dataset:
        data = data_bands(dataset)
        if not data:
            raise RasterError(f"{path}: has no band of data, only alpha")
        kinds = {dataset.dtypes[band - 1] for band in data}
        if len(kinds) > 1 or "complex" in dataset.dtypes[data[0] - 1]:
            way_out = "write the amplitude first" if any("complex" in kind for kind in kinds) else "convert them to one"
            raise RasterError(
                f"{path}: bands of type {', '.join(sorted(kinds))}; expected one real number type: {way_out}"
            )
        interp = [dataset.colorinterp[band - 1] for band in data]
        has_palette = interp[0] == ColorInterp.palette
        flags = [dataset.mask_flag_enums[band - 1] for band in data]  # know of alpha only as the last of 2 or 4 bands
        may_hide = len(data) < dataset.count or not all(MaskFlags.all_valid in flag for flag in flags)
        return RasterInfo(
            path=str(path),
            grid=_grid(path, dataset),
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
            has_mask=MaskFlags.per_dataset in flags[0],
            block=tuple(dataset.block_shapes[data[0] - 1]),
            by_points=control_points(dataset) is not None,
            by_polynomials=is_by_polynomials(dataset),
            parts=_parts(str(path), dataset.files),
            is_whole="int" in dataset.dtypes[data[0] - 1] and not may_hide,
        )


def _grid(path: str | Path, dataset: Any) -> Grid:
    try:
        return grid_of(dataset)
    except RasterError as error:
        raise RasterError(f"{path}: {error}") from error


def read_sample(
    path: str | Path, as_colors: bool = False, enough: Callable[[Array, Mask], bool] | None = None
) -> tuple[Array, Mask]:
    """Some values of a raster as they are: all of a small one, else windows spread evenly over it.

    Where no window holds data, as on a raster that is nearly empty, the whole raster is read, thinned.

    Args:
        path: File or GDAL name.
        as_colors: Give red, green and blue in this order; a pixel is then valid where any of them is.
        enough: Whether a window alone tells what is looked for; the first such window is the sample.

    Returns:
        Values (bands, rows, cols), windows side by side, and valid pixels (rows, cols).
    """
    with gdal_env(), opened(path) as dataset:
        bands = color_bands(dataset) if as_colors else data_bands(dataset)
        read_masks = mask_reader(dataset, bands)

        def read(window: Window | None, shape: tuple[int, ...] = ()) -> tuple[Array, Mask]:
            there = (len(bands), *shape) if shape else None
            values = dataset.read(bands, window=window, out_shape=there, resampling=Resampling.nearest)
            masks = read_masks(window, shape)
            return values, drawn_pixels(values, masks) if as_colors else valid_pixels(values, masks)

        if max(dataset.shape) <= SAMPLE_SIDE:
            return read(None)
        pieces = []
        for window in _spread(dataset.shape, dataset.block_shapes[0]):
            pieces.append(read(window))
            if enough is not None and enough(*pieces[-1]):
                return pieces[-1]
        if any(valid.any() for _, valid in pieces):
            columns = zip(*pieces, strict=True)
            values, valid = (np.concatenate(column, axis=-1) for column in columns)
            return values, valid
        factor = max(dataset.shape) / SAMPLE_SIDE
        return read(None, tuple(max(1, round(side / factor)) for side in dataset.shape))


def _spread(shape: tuple[int, int], blocks: tuple[int, int]) -> list[Window]:
    """Windows in an even pattern over so many rows and columns, each at the corner of a block, so in one if it fits."""
    axes = []
    for side, block in zip(shape, blocks, strict=True):
        piece = min(side, SAMPLE_WINDOW)
        places = np.linspace(0, side - piece, SAMPLE_WINDOWS).astype(int)
        snapped = places if block >= side else np.minimum(places // block * block, side - piece)
        axes.append([(int(place), piece) for place in np.unique(snapped)])
    return [Window(col, row, across, down) for row, down in axes[0] for col, across in axes[1]]


def read_whole(path: str | Path) -> tuple[Array, Mask]:
    """Values (bands, rows, cols) and valid pixels (rows, cols) of a small raster.

    Raises:
        RasterError: It is missing or damaged.
    """
    # GDAL asks for files beside it by name: listing the folder for each of its chips takes the square of their number
    with gdal_env(), rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN=True), opened(path) as dataset:
        bands = data_bands(dataset)
        values = dataset.read(bands)
        return values, valid_pixels(values, mask_reader(dataset, bands)(None))


def color_bands(dataset: Any) -> list[int]:
    """Numbers of the bands of data: those that names or roles call red, green and blue, else in their own order."""
    numbers = data_bands(dataset)
    names = [Band(dataset.descriptions[number - 1] or "") for number in numbers]
    found = agreement.color_bands(names, [dataset.colorinterp[number - 1].name for number in numbers])
    return [numbers[place] for place in found] if found and len(numbers) == 3 else numbers


def has_colors(info: RasterInfo) -> bool:
    """Whether it may be a picture in red, green and blue."""
    return info.count == 3 and info.dtype == "uint8"


def file_bands(info: RasterInfo) -> tuple[Band, ...]:
    """What a file says of each band."""
    return tuple(map(Band, info.names, info.units, info.scales, info.offsets))


def data_bands(dataset: Any) -> list[int]:
    """Numbers of the bands that are data, not alpha."""
    return [band for band, role in zip(dataset.indexes, dataset.colorinterp, strict=True) if role != ColorInterp.alpha]
