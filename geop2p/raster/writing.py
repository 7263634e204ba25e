"""Writing rasters: every file appears whole under its name or not at all."""

import contextlib
import math
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.shutil import copy as copy_raster
from rasterio.windows import Window

from geop2p.errors import OutputError, RasterError
from geop2p.raster.atomic import replacing
from geop2p.raster.chip_metadata import ChipMetadata
from geop2p.raster.encoding import Array, Band, Encoding, Mask
from geop2p.raster.grid import Grid
from geop2p.raster.reading import gdal_env, opened

BLOCK = 512
COPY_CACHE = 24 * 2**20  # bytes of GDAL's block cache while a mosaic is copied, which reads every block once


def fill_value(encoding: Encoding) -> float | None:
    """The nodata value of an output raster, or None where an internal mask says what is valid.

    NaN for floats; for classes a code that no class uses, the layer's own if possible; integer imagery, whose
    values are all legal, has a mask.
    """
    if encoding.is_classes:
        limits = np.iinfo(encoding.dtype)
        used = {entry.value for entry in encoding.classes}
        own = [] if encoding.nodata is None else [int(encoding.nodata)]
        wanted = [*own, 0, 255, *range(max(0, int(limits.min)), min(256, int(limits.max) + 1))]
        return next((code for code in wanted if code not in used and limits.min <= code <= limits.max), None)
    return None if encoding.is_integer else math.nan


def write_chip(path: Path, values: Array, valid: Mask, grid: Grid, metadata: ChipMetadata) -> None:
    """Write one chip as a GeoTIFF: values as they are, an internal mask unless all pixels are valid.

    Args:
        path: File to write or replace.
        values: (bands, rows, cols).
        valid: (rows, cols).
        grid: Where the chip lies.
        metadata: What the file tells beside them.
    """
    layout = {"driver": "GTiff", "interleave": "band", "blockysize": values.shape[1]}  # a band is one run of bytes
    with _tiff(path, values.shape, values.dtype, grid, layout) as dataset:
        # before the pixels, so that the header stays in front of them
        if metadata.palette and values.dtype in (np.uint8, np.uint16):
            dataset.write_colormap(1, metadata.palette)
        _tell_bands(dataset, metadata.bands)
        dataset.write(values)
        if not valid.all():
            dataset.write_mask(valid)


def _tell_bands(dataset: Any, bands: Sequence[Band]) -> None:
    """Write what differs from what files tell without."""
    if any((band.scale, band.offset) != (1, 0) for band in bands):
        dataset.scales, dataset.offsets = [band.scale for band in bands], [band.offset for band in bands]
    for number, band in enumerate(bands, start=1):
        if band.name:
            dataset.set_band_description(number, band.name)
        if band.unit:
            dataset.set_band_unit(number, band.unit)


@contextlib.contextmanager
def part_writer(path: Path, grid: Grid, encoding: Encoding) -> Iterator[Callable[[int, Array, Mask], None]]:
    """Write one part of a mosaic: pixels that are not valid hold the nodata value, or 0 under an internal mask.

    The function that it gives takes the first row, values (bands, rows, cols) and valid pixels (rows, cols), and may
    be called in another thread. Rows that are not written are not valid; `BLOCK` rows at once are written best.

    Raises:
        OutputError: The file does not hold what was written.
    """
    nodata, (height, width) = fill_value(encoding), (grid.height, grid.width)
    fill = np.array(0 if nodata is None else nodata, encoding.dtype)
    profile = {"driver": "GTiff", "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "nodata": nodata}
    profile |= {"compress": "zstd", "zstd_level": 1, "bigtiff": "if_safer", "sparse_ok": True}
    shape = (len(encoding.bands), height, width)
    written: dict[Window, int] = {}
    with _tiff(path, shape, encoding.dtype, grid, profile) as dataset:

        def write(row: int, values: Array, valid: Mask) -> None:
            if not valid.any():
                return
            window = Window(0, row, width, len(valid))
            stored = values if valid.all() else np.where(valid, values, fill)
            with gdal_env():
                dataset.write(stored, window=window)
                if nodata is None:
                    dataset.write_mask(valid, window=window)
            written[window] = _checksum(stored, valid if nodata is None else None)

        yield write
    _check_written(path, written, nodata is None)


def _checksum(values: Array, valid: Mask | None) -> int:
    of_valid = 0 if valid is None else zlib.crc32(np.ascontiguousarray(valid).data)
    return zlib.crc32(np.ascontiguousarray(values).data, of_valid)


def _check_written(path: Path, written: dict[Window, int], has_mask: bool) -> None:
    """Refuse a file that does not hold what went into it: GDAL is silent if the disk is full when it closes one.

    Raises:
        OutputError: It does not; it is removed.
    """
    try:
        with gdal_env(), opened(path) as dataset:
            masks = (dataset.dataset_mask(window=window) > 0 if has_mask else None for window in written)
            found = [_checksum(dataset.read(window=window), mask) for window, mask in zip(written, masks, strict=True)]
    except RasterError:
        found = []
    if found != list(written.values()):
        path.unlink(missing_ok=True)
        raise OutputError(f"{path}: does not hold what was written; is the disk full?")


@contextlib.contextmanager
def _tiff(
    path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike, grid: Grid, profile: dict[str, Any]
) -> Iterator[Any]:
    bands, rows, cols = shape
    profile = profile | {"count": bands, "height": rows, "width": cols, "dtype": dtype}
    if bands > 1 and (bands, np.dtype(dtype).name) != (3, "uint8"):  # neither gray nor red, green, blue
        profile |= {"photometric": "minisblack", "alpha": "no"}  # GDAL takes the fourth of four 8-bit bands for alpha
        profile["num_threads"] = 1  # GDAL's threads give the mask the main image's count of extra bands, and complain
    profile |= {"crs": grid.crs, "transform": grid.georeference}
    with (
        replacing(path) as temporary,
        gdal_env(),
        _pixel_positions_allowed(grid),
        rasterio.open(temporary, "w", **profile) as dataset,
    ):
        yield dataset


@contextlib.contextmanager
def _pixel_positions_allowed(grid: Grid) -> Iterator[None]:
    """A raster without CRS and transform is meant to have no georeference: no warning."""
    with warnings.catch_warnings():
        if grid.georeference is None:
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def write_cog(vrt: Path, output: Path, encoding: Encoding, overviews: int | None = None) -> None:
    """Make a cloud-optimised GeoTIFF of a virtual raster, tags, mask and overviews included.

    Args:
        vrt: The virtual raster.
        output: File to write or replace.
        encoding: What it holds.
        overviews: How many it has, each half the side of the one before; None: down to the side of a block.

    Raises:
        RasterError: It cannot be written.
        OutputError: It is not whole.
    """
    options = {
        "driver": "COG",
        "blocksize": BLOCK,
        "compress": "deflate",
        "predictor": "no" if encoding.is_classes else "yes",
        "overview_resampling": "mode" if encoding.is_classes else "nearest" if encoding.palette else "average",
        "bigtiff": "if_safer",
        "num_threads": "all_cpus",
    }
    if overviews is not None:
        options["overview_count"] = overviews
    try:
        with replacing(output) as temporary, gdal_env(), rasterio.Env(GDAL_CACHEMAX=COPY_CACHE):
            copy_raster(vrt, temporary, **options)
            _check_levels(temporary, output)
    except (RasterioError, CPLE_BaseError, SystemError) as error:  # the last where GDAL gives rasterio no reason
        raise RasterError(
            f"{output}: cannot be written ({error}); is the disk full or the folder read-only?"
        ) from error


def _check_levels(cog: Path, name: Path) -> None:
    """Look at the first and the last block of a raster and of each of its overviews.

    GDAL tells of a disk that gets full while it writes a raster, but not if that happens when it closes it.

    Raises:
        OutputError: One of them cannot be read.
    """
    try:
        with opened(cog) as dataset:
            levels = [None, *range(len(dataset.overviews(1)))]
        for level in levels:
            with opened(cog, level) as dataset:
                for row, col in ((0, 0), (dataset.height - 1, dataset.width - 1)):
                    dataset.read(window=Window(col, row, 1, 1))
                    dataset.dataset_mask(window=Window(col, row, 1, 1))
    except RasterError as error:
        raise OutputError(f"{name}: is not whole as it was written; is the disk full?") from error
