"""Parts on disk, and the one raster that is made of them."""

import importlib.metadata
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.windows import Window
from tqdm import tqdm

from geop2p.mosaic.mosaic import Mosaic
from geop2p.mosaic.plan import Lattice, parts
from geop2p.mosaic.seams import mismatch, survey
from geop2p.raster.aligned import Reader, aligned_reader
from geop2p.raster.atomic import write_json, write_text
from geop2p.raster.reading import opened
from geop2p.raster.styles import write_style
from geop2p.raster.vrt import BandSummary, Part, vrt_xml
from geop2p.raster.writing import fill_value, write_categories, write_cog, write_part

log = logging.getLogger(__name__)

MISMATCH_WINDOWS = 16
MISMATCH_SIDE = 512
MANIFEST = "parts.json"


def make_parts(
    mosaic: Mosaic, reader: Reader, folder: Path, claim: dict[str, Any], progress: bool
) -> tuple[list[Part], int]:
    """Write every part that is not there yet; a JSON file beside a part says that it is finished.

    Returns:
        The parts with valid ground, and the pixels that went through the network for all of them.
    """
    manifest = folder / MANIFEST
    if manifest.exists() and json.loads(manifest.read_text()) != claim:
        log.warning("%s: left by a run with another model, input or settings; beginning again", folder)
        shutil.rmtree(folder)
    write_json(manifest, claim)
    windows = parts(mosaic.grid.height, mosaic.grid.width, mosaic.part_side)
    total = sum(len(mosaic.lattice.tiles(window)) for window in windows)
    made, network_pixels = [], 0
    with tqdm(total=total, unit="tile", desc="predict", disable=not progress) as bar:
        for window in windows:
            name = f"part_r{window.row_off:07d}_c{window.col_off:07d}"
            finished = folder / f"{name}.json"
            if finished.exists():
                bar.update(len(mosaic.lattice.tiles(window)))
            else:
                write_json(finished, _make_part(mosaic, reader, folder / f"{name}.tif", window, bar))
            entry = json.loads(finished.read_text())
            network_pixels += entry["network_pixels"]
            if not entry["empty"]:
                made.append(Part(f"{name}.tif", window))
    return made, network_pixels


def _make_part(mosaic: Mosaic, reader: Reader, path: Path, window: Window, bar: Any) -> dict[str, Any]:
    """Predict a part and write it, unless none of its ground is valid."""
    before = mosaic.network_pixels
    values, valid = mosaic.window(reader, window, bar=bar)
    if valid.any():
        nodata = fill_value(mosaic.translator.card.target)
        write_part(path, values, valid, mosaic.grid.window(window), nodata)
    return {"empty": not valid.any(), "network_pixels": mosaic.network_pixels - before}


def assemble(
    mosaic: Mosaic, reader: Reader, folder: Path, made: list[Part], output: Path, tags: dict[str, str]
) -> dict[str, Any]:
    """Make the COG of the parts, its style and its class names; the seam figures.

    The output takes its name last, so that a run killed here is continued like any other.
    """
    target, grid = mosaic.translator.card.target, mosaic.grid
    vrt, cog = folder / "mosaic.vrt", folder / "mosaic.tif"
    blank = [BandSummary(None, None, None, None, 0.0)] * len(target.bands)
    write_text(vrt, vrt_xml(grid, target, made, blank, {}))
    with aligned_reader(vrt, grid, target.kind) as finished:
        summaries, seam_index = survey(finished, target, mosaic.lattice)
        figures = {"seam_index": seam_index} | _tile_mismatch(mosaic, reader, finished)
    described = tags | _tags(mosaic) | {f"GEOP2P_{name.upper()}": f"{value}" for name, value in figures.items()}
    write_text(vrt, vrt_xml(grid, target, made, summaries, described))
    write_cog(vrt, cog, target)
    write_style(output, target, summaries)
    for suffix in (".aux.xml", ".msk", ".ovr"):
        Path(f"{output}{suffix}").unlink(missing_ok=True)  # of a raster that is replaced
    if target.is_classes:
        write_categories(output, target)
    cog.replace(output)
    return figures


def _tile_mismatch(mosaic: Mosaic, reader: Reader, finished: Reader) -> dict[str, float | None]:
    """Mean difference between the mosaic and predictions on a shifted lattice, in seeded windows.

    In the target's units, and in percent of its encoded range; for classes the share that differs.

    The shift is half the distance between tiles; half a tile would be the lattice itself at an overlap of a half.
    """
    grid, target = mosaic.grid, mosaic.translator.card.target
    half = mosaic.shifts(2)[1]
    height, width = min(MISMATCH_SIDE, grid.height), min(MISMATCH_SIDE, grid.width)
    count = int(np.clip(grid.height * grid.width // (8 * MISMATCH_SIDE**2), 1, MISMATCH_WINDOWS))
    generator = np.random.default_rng(0)
    sums, pixels = np.zeros(len(target.bands)), 0
    for _ in range(count):
        row = int(generator.integers(0, grid.height - height + 1))
        col = int(generator.integers(0, grid.width - width + 1))
        window = Window(col, row, width, height)
        first, valid = finished.read(window)
        if valid.any():
            second, _ = mosaic.window(reader, window, (half, half))
            if not target.is_classes:
                first, second = target.in_units(first), target.in_units(second)
            sums += mismatch(first, second, valid, target.is_classes).sum(axis=1)
            pixels += int(valid.sum())
    if not pixels:
        return {"tile_mismatch": None, "tile_mismatch_percent": None}
    span = np.ones(1) if target.is_classes else target.unit_range
    means = sums / pixels
    return {"tile_mismatch": float(means.mean()), "tile_mismatch_percent": float(100 * (means / span).mean())}


def _tags(mosaic: Mosaic) -> dict[str, str]:
    """What the output says of its making."""
    card, lattice = mosaic.translator.card, mosaic.lattice
    return {
        "GEOP2P_SYNTHETIC": "YES",
        "TIFFTAG_IMAGEDESCRIPTION": "Generated by a model (geop2p), not observed",
        "TIFFTAG_SOFTWARE": f"geop2p {importlib.metadata.version('geop2p')}",
        "GEOP2P_MODEL_SHA256": mosaic.translator.digest,
        "GEOP2P_RECIPE": card.recipe,
        "GEOP2P_KIND": card.target.kind,
        "GEOP2P_MODE": mosaic.tiles.mode,
        "GEOP2P_NORM_STATS": card.statistics,
        "GEOP2P_TILE_SIZE": str(lattice.network_size),
        "GEOP2P_OVERLAP": str(lattice.overlap),
        "GEOP2P_HALO": str(lattice.halo),
    }


def mosaic_lattice(path: str | Path) -> Lattice | None:
    """The tiles that a mosaic of geop2p was made of, from its tags; None for any other raster."""
    with opened(path) as dataset:
        tags = dataset.tags()
    if "GEOP2P_TILE_SIZE" not in tags:
        return None
    halo = int(tags["GEOP2P_HALO"])
    return Lattice(int(tags["GEOP2P_TILE_SIZE"]) - 2 * halo, int(tags["GEOP2P_OVERLAP"]), halo)
