"""The one raster that is made of the parts, and what it says of itself."""

import dataclasses
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.windows import Window

from geop2p.config import PredictConfig
from geop2p.config.prediction import MOST_OVERLAP
from geop2p.errors import GeoP2PError
from geop2p.models.moments import takes_given
from geop2p.mosaic.catalogue import item_path, write_item
from geop2p.mosaic.checks import PLACING
from geop2p.mosaic.companions import CompanionRaster, put_together, remove_companions
from geop2p.mosaic.extras import Extra
from geop2p.mosaic.kept import COGS, check_present, leave_parts
from geop2p.mosaic.mosaic import Mosaic
from geop2p.mosaic.overview import write_overview
from geop2p.mosaic.seam_map import make_seam_map
from geop2p.mosaic.seams import mismatch, survey
from geop2p.mosaic.tags import figure_tags, provenance_tags
from geop2p.raster.aligned import Reader, aligned_reader
from geop2p.raster.atomic import discard_leftovers, write_text
from geop2p.raster.categories import write_categories
from geop2p.raster.encoding import Array, Mask
from geop2p.raster.styles import style_path, write_style
from geop2p.raster.vrt import Part, TiledRaster, vrt_xml
from geop2p.raster.writing import write_cog

log = logging.getLogger(__name__)

MISMATCH_WINDOWS = 16
MISMATCH_SIDE = 512


def assemble(
    mosaic: Mosaic,
    reader: Reader,
    folder: Path,
    made: list[Part],
    output: Path,
    progress: bool,
) -> dict[str, Any]:
    """Make the COG or the VRT of the parts, its style and its class names, and the rasters beside it; the seam figures.

    They take their names when all are whole, the output last, so that a run killed here is continued like any other.

    Raises:
        GeoP2PError: Tiles disagree more than the settings allow, or there is nothing to measure that by.
    """
    target, grid = mosaic.translator.card.target, mosaic.shown
    vrt, cog = folder / "mosaic.vrt", folder / "mosaic.tif"
    write_text(vrt, vrt_xml(TiledRaster(grid, target, made)))
    with aligned_reader(vrt, grid, target.kind) as finished:
        summaries, seam_index = survey(finished, target, mosaic.lattice.moved(mosaic.frame))
        figures = {"seam_index": seam_index} | _tile_mismatch(mosaic, reader, finished, made)
    _check_mismatch(mosaic, output, figures["tile_mismatch_percent"], is_empty=not made)
    tags = provenance_tags(mosaic, mosaic.frame) | figure_tags(figures)
    raster = TiledRaster(grid, target, made, summaries, tags)
    write_text(vrt, vrt_xml(raster))
    beside = [_extra(mosaic, extra, folder, made) for extra in mosaic.extras.rasters]
    if mosaic.config.seam_map is not None:
        beside.append(make_seam_map(mosaic, reader, vrt, mosaic.config.seam_map, folder, progress))
    if not mosaic.config.keep_parts:
        write_cog(vrt, cog, target)
    elif len(made) > 1:
        overview = write_overview(folder / COGS, _moved(raster, ""), mosaic.part_side)
        raster = dataclasses.replace(raster, overview=overview)
    write_text(folder / PLACING, "\n".join(companion.name for companion in beside))
    for companion in beside:
        companion.place()
    for path in (style_path(output), item_path(output), output):
        discard_leftovers(path)
    write_style(output, target, summaries)
    remove_companions(output)
    if target.is_classes:
        write_categories(output, target)
    if mosaic.config.keep_parts:
        _leave(folder, output, raster, figures)
    else:
        cog.replace(output)
    return figures


def _leave(folder: Path, output: Path, raster: TiledRaster, figures: dict[str, Any]) -> None:
    """Leave the parts with the small copy of them, the STAC item and, last, the VRT."""
    raster = _moved(raster, f"{leave_parts(output, folder, raster.parts).name}/")
    write_item(output, raster, figures)
    write_text(output, vrt_xml(raster))
    check_present(output.parent, raster.parts)


def _moved(raster: TiledRaster, folder: str) -> TiledRaster:
    """A raster whose files lie in another folder."""
    parts = [dataclasses.replace(part, file=f"{folder}{Path(part.file).name}") for part in raster.parts]
    if (overview := raster.overview) is not None:
        mask = None if overview.mask is None else f"{folder}{overview.mask}"
        overview = dataclasses.replace(overview, file=f"{folder}{overview.file}", mask=mask)
    return dataclasses.replace(raster, parts=parts, overview=overview)


def _extra(mosaic: Mosaic, extra: Extra, folder: Path, made: Sequence[Part]) -> CompanionRaster:
    """A raster that was made with the parts."""
    said = provenance_tags(mosaic, mosaic.frame) | extra.tags
    del said["GEOP2P_KIND"]  # of the mosaic
    vrt, own = folder / f"mosaic.{extra.name}.vrt", [Part(extra.part(part.file), part.window) for part in made]
    return put_together(vrt, extra.path, TiledRaster(mosaic.shown, extra.encoding, own, tags=said), extra.ramp)


def _tile_mismatch(mosaic: Mosaic, reader: Reader, finished: Reader, made: Sequence[Part]) -> dict[str, float | None]:
    """Mean difference between the mosaic and predictions on a shifted lattice, over a sample of its valid ground.

    In the target's units, and in percent of its encoded range; for classes the share that differs. None where no
    ground is valid, or where tiles are so small that there is no other lattice.

    The shift is half the distance between tiles; half a tile would be the lattice itself at an overlap of a half.
    """
    frame, target, half = mosaic.frame, mosaic.translator.card.target, mosaic.shifts(2)[1]
    sums, pixels = np.zeros(len(target.bands)), 0
    units = (lambda values: values) if target.is_classes else target.in_units
    for place, first, valid in _sample(finished, made) if half else ():
        there = Window(frame.col_off + place.col_off, frame.row_off + place.row_off, place.width, place.height)
        second, _ = mosaic.window(reader, there, (half, half))
        sums += mismatch(units(first), units(second), valid, target.is_classes).sum(axis=1)
        pixels += int(valid.sum())
    if not pixels:
        return {"tile_mismatch": None, "tile_mismatch_percent": None}
    span = np.ones(1) if target.is_classes else target.unit_range
    means = sums / pixels
    return {"tile_mismatch": float(means.mean()), "tile_mismatch_percent": float(100 * (means / span).mean())}


def _sample(finished: Reader, made: Sequence[Part]) -> Iterator[tuple[Window, Array, Mask]]:
    """Windows of 512 pixels of a mosaic, drawn at random from those with valid pixels; in no way by its parts.

    They hold as many valid pixels as an eighth of its windows could, one at least, unless 16 hold fewer: a figure must
    not rest on a window that a border or a hole leaves a few pixels of.

    Args:
        finished: The mosaic.
        made: Its parts with ground, beyond which there is none to look at.

    Yields:
        The window, its values (bands, rows, cols) and valid pixels (rows, cols).
    """
    grid, side = finished.grid, MISMATCH_SIDE
    has_part = np.zeros((math.ceil(grid.height / side), math.ceil(grid.width / side)), bool)
    for part in made:
        rows, cols = part.window.toslices()
        has_part[rows.start // side : math.ceil(rows.stop / side), cols.start // side : math.ceil(cols.stop / side)] = (
            True
        )
    drawn = np.random.default_rng(0).permutation(has_part.size)
    corners = (tuple(side * place for place in divmod(cell, has_part.shape[1])) for cell in drawn.tolist())
    wanted = side**2 * int(np.clip(has_part.size // 8, 1, MISMATCH_WINDOWS))
    pixels = windows = 0
    for top, left in corners:
        if not has_part[top // side, left // side]:
            continue
        window = Window(left, top, min(side, grid.width - left), min(side, grid.height - top))
        values, valid = finished.read(window)
        if not valid.any():
            continue
        yield window, values, valid
        pixels, windows = pixels + int(valid.sum()), windows + 1
        if pixels >= wanted or windows == MISMATCH_WINDOWS:
            return


def _check_mismatch(mosaic: Mosaic, output: Path, percent: float | None, is_empty: bool) -> None:
    """Refuse a mosaic whose tiles disagree more than --max-mismatch, or that has no ground to measure; else warn.

    Raises:
        GeoP2PError: The mismatch is above the limit, or nothing could be measured.
    """
    allowed = mosaic.config.max_mismatch
    if is_empty and allowed is not None:
        raise GeoP2PError(
            f"{output}: not made: no ground is valid, so --max-mismatch {allowed:g} has nothing to measure; look at "
            "the nodata value of the input and at --aoi, or leave --max-mismatch out"
        )
    if is_empty:
        log.warning("%s: no valid ground: the mosaic is empty; look at the input's nodata value and at --aoi", output)
    elif percent is None and allowed is not None:
        log.warning(
            "%s: --max-mismatch %g measured nothing: tiles of %d pixels have no other lattice",
            output, allowed, mosaic.lattice.network_size,
        )  # fmt: skip
    if allowed is not None and percent is not None and percent > allowed:
        raise GeoP2PError(
            f"{output}: not made: predictions of neighbouring tiles differ by {percent:.3g} % of the range, "
            f"--max-mismatch allows {allowed:g} %; {' '.join(_remedies(mosaic))}"
        )


def _remedies(mosaic: Mosaic) -> list[str]:
    """What makes tiles agree better, the best first; exact ones differ by rounding alone."""
    if mosaic.is_exact:
        return ["allow more"]
    config, network, found = mosaic.config, mosaic.translator, list[str]()
    if mosaic.norm_stats != "tile" and network.card.field is not None:
        found.append(_way_to_exact_tiles(mosaic.config))
    else:
        if mosaic.norm_stats == "tile" and takes_given(network.generator):
            found.append(f"give --norm-stats field{'' if mosaic.engine == 'torch' else ' with --engine torch'},")
        found.append("train with a recipe whose tiles are exact (pix2pix-geo),")
    if config.overlap is not None and config.overlap < MOST_OVERLAP:
        found.append("give a larger --overlap,")
    return [*found, "or allow more"]


def _way_to_exact_tiles(config: PredictConfig) -> str:
    if config.overlap is not None:
        return "leave --overlap out,"
    return "give more --memory," if config.tile_side is None else "give larger tiles (--tile-size),"
