"""The one raster that is made of the parts, and what it says of itself."""

import importlib.metadata
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.windows import Window

from geop2p.errors import GeoP2PError
from geop2p.mosaic.mosaic import Mosaic
from geop2p.mosaic.plan import Lattice, parts
from geop2p.mosaic.seam_map import write_seam_map
from geop2p.mosaic.seams import mismatch, survey
from geop2p.raster.aligned import Reader, aligned_reader
from geop2p.raster.atomic import write_text
from geop2p.raster.reading import opened
from geop2p.raster.styles import write_style
from geop2p.raster.vrt import BandSummary, Part, vrt_xml
from geop2p.raster.writing import write_categories, write_cog

MISMATCH_WINDOWS = 16
MISMATCH_SIDE = 512


def assemble(
    mosaic: Mosaic,
    reader: Reader,
    folder: Path,
    made: list[Part],
    output: Path,
    tags: dict[str, str],
    progress: bool,
) -> dict[str, Any]:
    """Make the COG of the parts, its style and its class names, and the map of its seams; the seam figures.

    The output takes its name last, so that a run killed here is continued like any other.

    Raises:
        GeoP2PError: Tiles disagree more than the settings allow.
    """
    target, grid = mosaic.translator.card.target, mosaic.shown
    vrt, cog = folder / "mosaic.vrt", folder / "mosaic.tif"
    blank = [BandSummary(None, None, None, None, 0.0)] * len(target.bands)
    write_text(vrt, vrt_xml(grid, target, made, blank, {}))
    with aligned_reader(vrt, grid, target.kind) as finished:
        summaries, seam_index = survey(finished, target, mosaic.lattice.moved(mosaic.frame))
        figures = {"seam_index": seam_index} | _tile_mismatch(mosaic, reader, finished, made)
    _check_mismatch(mosaic, output, figures["tile_mismatch_percent"])
    told = {f"GEOP2P_{name.upper()}": f"{value}" for name, value in figures.items() if value is not None}
    described = tags | _tags(mosaic) | told
    write_text(vrt, vrt_xml(grid, target, made, summaries, described))
    if mosaic.config.seam_map is not None:
        write_seam_map(mosaic, reader, vrt, mosaic.config.seam_map, folder, progress)
    write_cog(vrt, cog, target)
    write_style(output, target, summaries)
    for suffix in (".aux.xml", ".msk", ".ovr"):
        Path(f"{output}{suffix}").unlink(missing_ok=True)  # of a raster that is replaced
    if target.is_classes:
        write_categories(output, target)
    cog.replace(output)
    return figures


def _tile_mismatch(mosaic: Mosaic, reader: Reader, finished: Reader, made: Sequence[Part]) -> dict[str, float | None]:
    """Mean difference between the mosaic and predictions on a shifted lattice, in seeded windows of valid ground.

    In the target's units, and in percent of its encoded range; for classes the share that differs. None where no
    ground is valid, or where tiles are so small that there is no other lattice.

    The shift is half the distance between tiles; half a tile would be the lattice itself at an overlap of a half.
    """
    frame, target, half = mosaic.frame, mosaic.translator.card.target, mosaic.shifts(2)[1]
    sums, pixels = np.zeros(len(target.bands)), 0
    for place in _windows_with_ground(finished, made) if half else ():
        first, valid = finished.read(place)
        there = Window(frame.col_off + place.col_off, frame.row_off + place.row_off, place.width, place.height)
        second, _ = mosaic.window(reader, there, (half, half))
        if not target.is_classes:
            first, second = target.in_units(first), target.in_units(second)
        sums += mismatch(first, second, valid, target.is_classes).sum(axis=1)
        pixels += int(valid.sum())
    if not pixels:
        return {"tile_mismatch": None, "tile_mismatch_percent": None}
    span = np.ones(1) if target.is_classes else target.unit_range
    means = sums / pixels
    return {"tile_mismatch": float(means.mean()), "tile_mismatch_percent": float(100 * (means / span).mean())}


def _windows_with_ground(finished: Reader, made: Sequence[Part]) -> Iterator[Window]:
    """Some of the windows of 512 pixels that the parts are made of, drawn at random from those with valid pixels."""
    windows = [
        Window(cell.col_off + part.window.col_off, cell.row_off + part.window.row_off, cell.width, cell.height)
        for part in made
        for cell in parts(Window(0, 0, part.window.width, part.window.height), MISMATCH_SIDE)
    ]
    wanted = int(np.clip(len(windows) // 8, 1, MISMATCH_WINDOWS))
    drawn = (windows[number] for number in np.random.default_rng(0).permutation(len(windows)))
    yield from itertools.islice((window for window in drawn if finished.read(window)[1].any()), wanted)


def _check_mismatch(mosaic: Mosaic, output: Path, percent: float | None) -> None:
    allowed = mosaic.config.max_mismatch
    if allowed is not None and percent is not None and percent > allowed:
        raise GeoP2PError(
            f"{output}: not made: predictions of neighbouring tiles differ by {percent:.3g} % of the range, "
            f"--max-mismatch allows {allowed:g} %; train with a recipe whose tiles are exact (pix2pix-geo), use a "
            "larger --overlap, or allow more"
        )


def _tags(mosaic: Mosaic) -> dict[str, str]:
    """What the output says of its making."""
    card, lattice = mosaic.translator.card, mosaic.lattice.moved(mosaic.frame)
    psnr = {} if mosaic.int8_psnr is None else {"GEOP2P_INT8_PSNR": f"{mosaic.int8_psnr:.2f}"}
    return psnr | {
        "GEOP2P_SYNTHETIC": "YES",
        "TIFFTAG_IMAGEDESCRIPTION": "Generated by a model (geop2p), not observed",
        "TIFFTAG_SOFTWARE": f"geop2p {importlib.metadata.version('geop2p')}",
        "GEOP2P_MODEL_SHA256": mosaic.translator.digest,
        "GEOP2P_RECIPE": card.recipe,
        "GEOP2P_KIND": card.target.kind,
        "GEOP2P_MODE": mosaic.tiles.mode,
        "GEOP2P_NORM_STATS": mosaic.norm_stats,
        "GEOP2P_ENGINE": mosaic.engine,
        "GEOP2P_TILE_SIZE": str(lattice.network_size),
        "GEOP2P_OVERLAP": str(lattice.overlap),
        "GEOP2P_HALO": str(lattice.halo),
        "GEOP2P_TILE_SHIFT": f"{lattice.shift[0]} {lattice.shift[1]}",
    }


def mosaic_lattice(path: str | Path) -> Lattice | None:
    """The tiles that a mosaic of geop2p was made of, from its tags; None for any other raster."""
    with opened(path) as dataset:
        tags = dataset.tags()
    if "GEOP2P_TILE_SIZE" not in tags:
        return None
    halo = int(tags.get("GEOP2P_HALO", "0"))  # mosaics made before there were halos have neither of the two
    down, right = (int(number) for number in tags.get("GEOP2P_TILE_SHIFT", "0 0").split())
    return Lattice(int(tags["GEOP2P_TILE_SIZE"]) - 2 * halo, int(tags["GEOP2P_OVERLAP"]), halo, (down, right))
