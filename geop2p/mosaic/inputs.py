"""What a model can read, and on which grid."""

import dataclasses
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from affine import Affine

from geop2p.errors import RasterError
from geop2p.raster.agreement import band_difference
from geop2p.raster.aligned import Reader, aligned_reader
from geop2p.raster.atomic import make_folder
from geop2p.raster.class_table import ClassTable, hex_color
from geop2p.raster.encoding import Encoding
from geop2p.raster.grid import Grid, local_crs
from geop2p.raster.kinds import guess_backscatter
from geop2p.raster.layers import UNLISTED_SHARE
from geop2p.raster.reading import RasterInfo, describe_raster, file_bands, has_colors, read_sample
from geop2p.raster.relief import relief_reader
from geop2p.translator import Card

log = logging.getLogger(__name__)

FOREIGN = 0.5  # share of pixels in colours of no class above which a picture is no map for the model
CLIPPED_TOO_MUCH = 0.05  # share of values outside the training's
SAME_PIXEL = 0.05  # relative difference of pixel sizes that still counts as the training's


def color_table(info: RasterInfo, card: Card) -> ClassTable | None:
    """What the colours of an input stand for if the model reads a map and the input is drawn in colours; else None.

    Raises:
        ConfigError: Two classes of the model have one colour.
    """
    if not card.source.is_classes or not has_colors(info):
        return None
    table = ClassTable("the model", (*card.source.classes, *card.source.ignored))
    table.check_colors()
    return table


def check_input(info: RasterInfo, card: Card, no_resample: bool) -> None:
    """Refuse a raster that the model cannot read.

    Raises:
        RasterError: It has other bands than the training's source, or bands in other units or of another scale, or
            no CRS where the model has a pixel size.
    """
    if info.by_points:
        log.info("%s: placed by ground control points, warped onto %s", info.path, info.grid.describe())
    expected = len(card.source.bands)
    if info.count != expected and not (card.source.is_classes and has_colors(info)):
        names = ", ".join(band.name for band in card.source.bands if band.name) or card.source.kind
        raise RasterError(f"{info.path}: has {info.count} bands, the model expects {expected} ({names})")
    is_float = np.dtype(info.dtype).kind == "f"
    if card.source.is_classes and is_float:
        raise RasterError(f"{info.path}: holds {info.dtype}, the model expects integer classes")
    if not card.source.is_classes:
        bands = file_bands(info)
        if card.source.relief is not None:  # has no offset
            bands = tuple(dataclasses.replace(band, offset=0.0) for band in bands)
        if (apart := band_difference(bands, card.source.bands)) is not None:
            raise RasterError(f"{info.path}: {apart} as in the training; convert the values, or correct what it says")
    if info.grid.crs is None and card.pixel_size is not None and not no_resample:
        raise RasterError(
            f"{info.path}: has no CRS, so its pixel size is unknown; assign one (gdal_edit -a_srs), or take its pixels "
            "for those of the training with --no-resample"
        )


def check_values(path: str | Path, source: Encoding, table: ClassTable | None = None) -> None:
    """Look at a sample of the input for values that the model never saw.

    Raises:
        RasterError: It is a map with none of the model's classes, or not in its colours, or backscatter stored in
            another way.
    """
    if source.relief is not None:
        return  # heights say nothing of relief
    values, valid = read_sample(path, as_colors=table is not None)
    if table is not None:
        _check_colors(path, table, *table.unlisted_share(values, valid))
    elif source.is_classes:
        known = {entry.value for entry in source.classes}
        found = set(np.unique(values[0][valid]).tolist()) - {entry.value for entry in source.ignored}
        unknown = ", ".join(str(code) for code in sorted(found - known))
        if found and not found & known:
            expected = ", ".join(f"{entry.value} {entry.name}" for entry in source.classes)
            raise RasterError(f"{path}: has the classes {unknown}, the model knows {expected}; recode the map")
        if unknown:
            log.warning("%s: the model never saw the classes %s; their ground is a guess", path, unknown)
        return
    if source.kind == "sar" and valid.any():
        found_as, reason = guess_backscatter(values, valid, file_bands(describe_raster(path)))
        if found_as != source.backscatter:
            raise RasterError(
                f"{path}: backscatter is {found_as} ({reason}), the model was trained on {source.backscatter}; "
                "convert it"
            )
    if (share := source.clipped_share(values, valid)) > CLIPPED_TOO_MUCH:
        log.warning(
            "%s: %.0f %% of the values lie outside those of the training; is it in other units?", path, 100 * share
        )


def _check_colors(path: str | Path, table: ClassTable, share: float, named: str) -> None:
    """Refuse a picture that is mostly not in the colours of the model's classes."""
    if share > FOREIGN:
        expected = ", ".join(f"{hex_color(entry.color)} {entry.name}" for entry in table.classes)
        raise RasterError(
            f"{path}: {100 * share:.0f} % of its pixels have colours such as {named}, the model knows {expected}; "
            "recolour the map, or give one band of classes"
        )
    if share > UNLISTED_SHARE:
        log.warning(
            "%s: %.2g %% of the pixels have colours of no class, such as %s; their ground is a guess",
            path, 100 * share, named,
        )  # fmt: skip


@contextmanager
def input_reader(path: str | Path, grid: Grid, source: Encoding, colors: ClassTable | None) -> Iterator[Reader]:
    """Windows of the input on a grid, as the model's source was read for its training."""
    if source.relief is not None:
        with relief_reader(path, grid, source.relief) as reader:
            yield reader
    else:
        with aligned_reader(path, grid, source.kind, colors=colors, backscatter=source.backscatter) as reader:
            yield reader


def check_output(input: str | Path, output: Path, overwrite: bool) -> None:
    """Refuse an output that would destroy something or could not be read as what it is called.

    Raises:
        RasterError: It exists, is the input, or is not called a GeoTIFF.
    """
    if output.suffix.lower() not in (".tif", ".tiff"):
        raise RasterError(f"{output}: the mosaic is a GeoTIFF; give a name that ends in .tif")
    if output.exists() and Path(input).exists() and output.samefile(input):
        raise RasterError(f"{output}: is the input; give another name")
    if output.exists() and not overwrite:
        raise RasterError(f"{output}: exists; give another name or --overwrite")
    make_folder(output.parent)


def output_grid(grid: Grid, card: Card, no_resample: bool) -> Grid:
    """The grid of the mosaic: the input's where its pixels have the training's size within 5 %, else a new one.

    The new grid is north-up from the input's first corner, in the input's CRS or, if that is geographic, in the UTM
    zone of the input's centre.
    """
    trained, found = card.pixel_size, grid.pixel_size
    if trained is None or found is None or no_resample:
        return grid
    if all(abs(here / there - 1) <= SAME_PIXEL for here, there in zip(found, trained, strict=True)):
        return grid
    crs = local_crs(grid)
    left, bottom, right, top = grid.bounds_in(crs)
    metres = Grid(crs, Affine(1, 0, (left + right) / 2, 0, -1, (bottom + top) / 2), 1, 1).pixel_size
    assert metres is not None
    down, along = (float(f"{size / metre:.6g}") for size, metre in zip(trained, metres, strict=True))
    height, width = max(1, round((top - bottom) / down)), max(1, round((right - left) / along))
    result = Grid(crs, Affine(along, 0, left, 0, -down, top), height, width)
    log.info(
        "pixels of %.4g m, the model was trained on %.4g m: reading through a warp onto %s",
        math.sqrt(math.prod(found)), math.sqrt(math.prod(trained)), result.describe(),
    )  # fmt: skip
    return result
