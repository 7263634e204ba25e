"""GeoTIFF chips in bulk: GDAL makes the header once, every chip gets its own position and pixels.

Uncompressed chips of one side of a scene differ in nothing else. GDAL takes about 2 ms to create a file, and does not
do so in parallel; writing the bytes takes a few hundredths of that.
"""

import struct
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

from geop2p.raster.atomic import reporting_write_errors, write_all
from geop2p.raster.chip_metadata import ChipMetadata
from geop2p.raster.encoding import Array, Mask
from geop2p.raster.grid import Grid
from geop2p.raster.reading import gdal_env, opened
from geop2p.raster.writing import write_chip


class ChipFiles:
    """Writes the chips of one side of a scene, one at a time.

    Args:
        grid: Where one of them lies; the others differ in position alone.
        bands: Their bands.
        dtype: numpy name of their type.
        metadata: What their files tell beside the pixels.
    """

    def __init__(self, grid: Grid, bands: int, dtype: str, metadata: ChipMetadata) -> None:
        self._grid, self._metadata = grid, metadata
        blank = np.zeros((bands, grid.height, grid.width), dtype)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "chip.tif"
            write_chip(file, blank, np.ones(blank.shape[1:], bool), grid, metadata)
            with gdal_env(), opened(file) as dataset:
                offset = int(dataset.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
            whole = file.read_bytes()
        if len(whole) != offset + blank.nbytes:
            raise RuntimeError(f"GDAL {rasterio.__gdal_version__} puts bytes behind the pixels of a plain GeoTIFF")
        self._whole = bytearray(whole)
        self._pixels = np.frombuffer(self._whole, dtype, offset=offset).reshape(blank.shape)
        self._pack = _pack_matrix if _pack_matrix(grid.transform) in whole[:offset] else _pack_tie_point
        self._place = None if grid.crs is None else whole.index(self._pack(grid.transform), 0, offset)

    def write(self, path: Path, values: Array, valid: Mask, grid: Grid) -> None:
        """Write one chip; one with pixels that are not valid, which needs a mask, is left to GDAL.

        Args:
            path: File to write or replace; not atomic.
            values: (bands, rows, cols).
            valid: (rows, cols).
            grid: Where the chip lies.

        Raises:
            OutputError: It cannot be written.
        """
        if not valid.all():
            write_chip(path, values, valid, grid, self._metadata)
            return
        if self._place is not None:
            position = self._pack(grid.transform)
            self._whole[self._place : self._place + len(position)] = position
        self._pixels[:] = values
        with reporting_write_errors(path), path.open("wb", buffering=0) as file:
            write_all(file, self._whole)


def _pack_tie_point(transform: Affine) -> bytes:
    """Value of the tag ModelTiepoint of a north-up grid (OGC 19-008r4, 7.1.2): pixel (0, 0, 0) lies at (x, y, 0)."""
    return struct.pack("<6d", 0, 0, 0, transform.c, transform.f, 0)


def _pack_matrix(transform: Affine) -> bytes:
    """Value of the tag ModelTransformation of any other grid (OGC 19-008r4, 7.1.3), row by row."""
    a, b, c, d, e, f = tuple(transform)[:6]
    return struct.pack("<16d", a, b, 0, c, d, e, 0, f, *[0.0] * 7, 1)
