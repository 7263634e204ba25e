"""Parts of a mosaic on disk: each is made once, by whichever process gets to it, and is never there by half."""

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rasterio.windows import Window
from tqdm import tqdm

from geop2p.errors import ConfigError, RasterError
from geop2p.mosaic.mosaic import Mosaic
from geop2p.raster.aligned import Reader
from geop2p.raster.atomic import write_json
from geop2p.raster.vrt import Part
from geop2p.raster.writing import fill_value, write_part

log = logging.getLogger(__name__)

MANIFEST = "parts.json"


def claim_folder(folder: Path, claim: dict[str, Any], overwrite: bool) -> None:
    """Begin the parts of a mosaic, or go on with those that were begun in the same way.

    Args:
        folder: Where they lie.
        claim: All that decides their pixels: model, input, grid, settings.
        overwrite: Whether to begin again if they were made in another way.

    Raises:
        ConfigError: They were made in another way.
        RasterError: The folder holds something else.
    """
    manifest = folder / MANIFEST
    if folder.exists() and not manifest.exists() and any(folder.iterdir()):
        raise RasterError(f"{folder}: is where the parts go, but holds something else; move it or name another output")
    if manifest.exists():
        differences = _differences(json.loads(manifest.read_text(encoding="utf-8")), claim)
        if differences and not overwrite:
            raise ConfigError(
                f"{folder}: left by a run with another {', '.join(differences)}; repeat that run to finish it, or "
                "delete the folder or give --overwrite to begin again"
            )
        if not differences:
            return
        shutil.rmtree(folder)
    write_json(manifest, claim)


def _differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """What differs between two claims, in words."""
    found = [name for name in ("model", "input", "grid") if there.get(name) != here[name]]
    settings = there.get("settings", {})
    for name in sorted({*settings, *here["settings"]}):
        old, new = settings.get(name), here["settings"].get(name)
        if old != new:
            found.append(f"{name} ({old}, now {new})")
    return found


def make_parts(mosaic: Mosaic, reader: Reader, folder: Path, windows: Sequence[Window], progress: bool) -> None:
    """Write every part that is not there yet; a JSON file beside a part says that it is finished."""
    todo = [window for window in windows if not _finished(folder, window).exists()]
    if todo and len(todo) < len(windows):
        log.info("%s: %d of %d parts are there", folder, len(windows) - len(todo), len(windows))
    total = sum(len(mosaic.lattice.tiles(window)) for window in todo)
    with tqdm(total=total, unit="tile", desc="predict", disable=not progress) as bar:
        for window in todo:
            before = mosaic.network_pixels
            values, valid = mosaic.window(reader, window, bar=bar)
            if valid.any():
                nodata = fill_value(mosaic.translator.card.target)
                write_part(folder / f"{_name(window)}.tif", values, valid, mosaic.grid.window(window), nodata)
            entry = {"empty": not valid.any(), "network_pixels": mosaic.network_pixels - before}
            write_json(_finished(folder, window), entry)


def finished_parts(folder: Path, windows: Sequence[Window], frame: Window) -> tuple[list[Part], int]:
    """The parts with valid ground, and the pixels that went through the network for all of them.

    Args:
        folder: Where they lie.
        windows: All parts, finished, in pixels of the grid.
        frame: What the mosaic shows of the grid.
    """
    made, network_pixels = [], 0
    for window in windows:
        entry = json.loads(_finished(folder, window).read_text(encoding="utf-8"))
        network_pixels += entry["network_pixels"]
        if not entry["empty"]:
            row, col = window.row_off - frame.row_off, window.col_off - frame.col_off
            made.append(Part(f"{_name(window)}.tif", Window(col, row, window.width, window.height)))
    return made, network_pixels


def _name(window: Window) -> str:
    return f"part_r{window.row_off:07d}_c{window.col_off:07d}"


def _finished(folder: Path, window: Window) -> Path:
    return folder / f"{_name(window)}.json"
