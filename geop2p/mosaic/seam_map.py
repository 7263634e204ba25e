"""Where tiles disagree: a raster of the difference between the mosaic and a prediction on a shifted lattice."""

import contextlib
from pathlib import Path

import numpy as np
from rasterio.windows import Window
from tqdm import tqdm

from geop2p.mosaic.companions import CompanionRaster, put_together
from geop2p.mosaic.mosaic import Mosaic
from geop2p.mosaic.part_notes import finished_files, note_finished
from geop2p.mosaic.plan import part_windows
from geop2p.mosaic.seams import mismatch
from geop2p.raster.aligned import Reader, aligned_reader
from geop2p.raster.encoding import Array, Band, Encoding, Mask
from geop2p.raster.vrt import Part, TiledRaster
from geop2p.raster.writing import part_writer

DESCRIPTION = "Difference between predictions on two lattices of tiles (geop2p): where it is not 0, tiles disagree"


def make_seam_map(
    mosaic: Mosaic, reader: Reader, vrt: Path, output: Path, folder: Path, progress: bool
) -> CompanionRaster:
    """Make the tile mismatch of every pixel: the mean over bands in the target's units, or 0 and 1 for classes.

    It costs as much as the mosaic did. Parts that are there already are kept.

    Args:
        mosaic: What made the mosaic.
        reader: Its input.
        vrt: The mosaic.
        output: What the GeoTIFF is to be called in the end.
        folder: For the parts.
        progress: Show a progress bar.
    """
    target, grid, frame = mosaic.translator.card.target, mosaic.shown, mosaic.frame
    encoding = seam_encoding(target)
    made, half = [], mosaic.shifts(2)[1]
    with aligned_reader(vrt, grid, target.kind) as result:
        for window in tqdm(part_windows(frame, mosaic.part_side), unit="part", desc="seam map", disable=not progress):
            here = Window(window.col_off - frame.col_off, window.row_off - frame.row_off, window.width, window.height)
            name = f"seams_r{window.row_off:07d}_c{window.col_off:07d}"
            path = folder / f"{name}.tif"
            if not finished_files(folder, name, thorough=True):
                with (
                    part_writer(path, mosaic.grid.window(window), encoding) as write,
                    contextlib.closing(mosaic.rows(reader, window, (half, half))) as rows,
                ):
                    row = 0
                    for second, valid, _ in rows:
                        first, _ = result.read(Window(here.col_off, here.row_off + row, here.width, len(valid)))
                        write(row, _apart(first, second, valid, target), valid)
                        row += len(valid)
                note_finished(folder, name, [path])
            made.append(Part(path.name, here))
    tags = {"TIFFTAG_IMAGEDESCRIPTION": DESCRIPTION}
    return put_together(folder / "seams.vrt", output, TiledRaster(grid, encoding, made, tags=tags))


def seam_encoding(target: Encoding) -> Encoding:
    """What the raster holds."""
    return Encoding("elevation", "float32", (Band("tile mismatch", _unit(target)),))


def _unit(target: Encoding) -> str:
    units = {band.unit for band in target.bands}
    if target.is_classes or len(units) > 1:
        return ""
    return "dB" if target.is_linear_sar else units.pop()


def _apart(first: Array, second: Array, valid: Mask, target: Encoding) -> Array:
    if not target.is_classes:
        first, second = target.in_units(first), target.in_units(second)
    apart = np.zeros((1, *valid.shape), np.float32)
    apart[0, valid] = mismatch(first, second, valid, target.is_classes).mean(axis=0)
    return apart
