"""Parts on disk, and the one raster that is made of them."""

import importlib.metadata
import json
import logging
import shutil
from contextlib import ExitStack
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


def make_parts(mosaic: Mosaic, reader: Reader, folder: Path, claim: dict[str, Any], progress: bool) -> list[Part]:
    """Write every part that is not there yet; the parts with valid ground."""
    manifest = folder / MANIFEST
    if manifest.exists() and json.loads(manifest.read_text()) != claim:
        log.warning("%s: left by a run with another model, input or settings; beginning again", folder)
        shutil.rmtree(folder)
    write_json(manifest, claim)
    windows = parts(mosaic.grid.height, mosaic.grid.width, mosaic.part_side)
    nodata = fill_value(mosaic.translator.card.target)
    total = sum(len(mosaic.lattice.tiles(window)) for window in windows)
    done = []
    with tqdm(total=total, unit="tile", desc="predict", disable=not progress) as bar:
        for window in windows:
            name = f"part_r{window.row_off:07d}_c{window.col_off:07d}"
            empty = folder / f"{name}.empty"
            if empty.exists() or (folder / f"{name}.tif").exists():
                bar.update(len(mosaic.lattice.tiles(window)))
            else:
                values, valid = mosaic.window(reader, window, bar=bar)
                if valid.any():
                    write_part(folder / f"{name}.tif", values, valid, mosaic.grid.window(window), nodata)
                else:
                    write_text(empty, "")
            if not empty.exists():
                done.append(Part(f"{name}.tif", window))
    return done


def assemble(
    mosaic: Mosaic, reader: Reader, folder: Path, done: list[Part], output: Path, tags: dict[str, str]
) -> dict[str, Any]:
    """Make the COG and its style from the parts; the seam figures."""
    target, grid = mosaic.translator.card.target, mosaic.grid
    vrt = folder / "mosaic.vrt"
    blank = [BandSummary(None, None, None, None, 0.0)] * len(target.bands)
    write_text(vrt, vrt_xml(grid, target, done, blank, {}))
    with ExitStack() as stack:
        finished = stack.enter_context(aligned_reader(vrt, grid, target.kind))
        summaries, seam_index = survey(finished, target, mosaic.lattice)
        difference = _tile_mismatch(mosaic, reader, finished)
    span = 1.0 if target.is_classes else float(target.data_range.mean())
    figures = {
        "seam_index": seam_index,
        "tile_mismatch": difference,
        "tile_mismatch_percent": None if difference is None else 100 * difference / span,
    }
    described = tags | _tags(mosaic) | {f"GEOP2P_{name.upper()}": f"{value}" for name, value in figures.items()}
    write_text(vrt, vrt_xml(grid, target, done, summaries, described))
    write_cog(vrt, output, target)
    write_style(output, target, summaries)
    if target.is_classes:
        write_categories(output, target)
    return figures


def _tile_mismatch(mosaic: Mosaic, reader: Reader, finished: Reader) -> float | None:
    """Mean difference between the mosaic and predictions on a shifted lattice, in seeded windows.

    The shift is half the distance between tiles, rounded down to the network's stride where that leaves any; half a
    tile would be the lattice itself at an overlap of a half.
    """
    grid, target = mosaic.grid, mosaic.translator.card.target
    stride, half = mosaic.translator.card.stride, mosaic.lattice.step // 2
    shift = half // stride * stride or half
    height, width = min(MISMATCH_SIDE, grid.height), min(MISMATCH_SIDE, grid.width)
    count = int(np.clip(grid.height * grid.width // (8 * MISMATCH_SIDE**2), 1, MISMATCH_WINDOWS))
    generator = np.random.default_rng(0)
    total, values = 0.0, 0
    for _ in range(count):
        row = int(generator.integers(0, grid.height - height + 1))
        col = int(generator.integers(0, grid.width - width + 1))
        window = Window(col, row, width, height)
        first, valid = finished.read(window)
        if valid.any():
            second, _ = mosaic.window(reader, window, shift)
            differences = mismatch(first, second, valid, target.is_classes)
            total, values = total + float(differences.sum()), values + differences.size
    return total / values if values else None


def _tags(mosaic: Mosaic) -> dict[str, str]:
    """What the output says of its making."""
    card, lattice = mosaic.translator.card, mosaic.lattice
    return {
        "GEOP2P_SYNTHETIC": "YES",
        "TIFFTAG_IMAGEDESCRIPTION": "Generated by a model (geop2p), not observed",
        "TIFFTAG_SOFTWARE": f"geop2p {importlib.metadata.version('geop2p')}",
        "GEOP2P_MODEL_SHA256": mosaic.translator.digest,
        "GEOP2P_RECIPE": card.recipe,
        "GEOP2P_MODE": "blend",
        "GEOP2P_NORM_STATS": card.statistics,
        "GEOP2P_TILE_SIZE": str(lattice.size),
        "GEOP2P_OVERLAP": str(lattice.overlap),
    }


def mosaic_lattice(path: str | Path) -> Lattice | None:
    """The tiles that a mosaic of geop2p was made of, from its tags; None for any other raster."""
    with opened(path) as dataset:
        tags = dataset.tags()
    if "GEOP2P_TILE_SIZE" not in tags:
        return None
    return Lattice(int(tags["GEOP2P_TILE_SIZE"]), int(tags["GEOP2P_OVERLAP"]))
