"""Parts of a mosaic on disk: each is made once, by whichever process gets to it, and is never there by half."""

import contextlib
import json
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.windows import Window
from tqdm import tqdm

from geop2p.errors import ConfigError, RasterError
from geop2p.mosaic.kept import COGS, keep_part
from geop2p.mosaic.mosaic import Mosaic
from geop2p.raster.aligned import Reader
from geop2p.raster.atomic import remove_folder, write_json
from geop2p.raster.encoding import Array, Mask
from geop2p.raster.threads import in_order
from geop2p.raster.vrt import Part
from geop2p.raster.writing import BLOCK, part_writer

log = logging.getLogger(__name__)

MANIFEST = "parts.json"
_OPTIONS = {"part_side": "--memory, so that the side of a part differs", "version": "version of geop2p"}

Band = tuple[int, Array, Mask]  # first row, values (bands, rows, cols), valid pixels (rows, cols)


def claim_folder(folder: Path, claim: dict[str, Any], overwrite: bool, shared: bool) -> None:
    """Begin the parts of a mosaic, or go on with those that were begun in the same way.

    Args:
        folder: Where they lie.
        claim: All that decides their pixels: model, input, grid, settings.
        overwrite: Whether to begin again if they were made in another way.
        shared: Whether other processes may be at work on them: then they are never removed.

    Raises:
        ConfigError: They were made in another way.
        RasterError: The folder holds something else.
    """
    manifest = folder / MANIFEST
    if not manifest.exists() and _foreign(folder) and not manifest.exists():  # another process may have begun
        raise RasterError(f"{folder}: is where the parts go, but holds something else; move it or name another output")
    if manifest.exists():
        differences = _differences(_read_json(manifest), claim)
        if differences and (shared or not overwrite):
            hint = "delete the folder" if shared else "delete the folder or give --overwrite"
            raise ConfigError(
                f"{folder}: left by a run with another {', '.join(differences)}; repeat that run to finish it, or "
                f"{hint} to begin again"
            )
        if not differences:
            return
        remove_folder(folder)
    write_json(manifest, claim)


def _foreign(folder: Path) -> bool:
    """Whether a folder holds anything that is not of a mosaic's making."""
    ours = ("part_", "parts.", "seams", "mosaic.", "norm_", "int8", COGS, ".")
    return folder.exists() and not all(entry.name.startswith(ours) for entry in folder.iterdir())


def _read_json(path: Path) -> dict[str, Any]:
    """What a file says; nothing if the power went while it was written."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        return {}
    return found


def _differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """What differs between two claims, in words."""
    found = [name for name in ("model", "input", "grid") if there.get(name) != here[name]]
    settings = there.get("settings", {})
    for name in sorted({*settings, *here["settings"]}):
        old, new = settings.get(name), here["settings"].get(name)
        if old != new:
            found.append(f"{_OPTIONS.get(name, name)} ({old}, now {new})")
    return found


def make_parts(mosaic: Mosaic, reader: Reader, folder: Path, windows: Sequence[Window], progress: bool) -> None:
    """Write every part that is not there yet; a JSON file beside a part says that it is finished.

    Parts that are to stay become COGs in another thread, while the next part is predicted.
    """
    todo = [window for window in windows if not _entry(folder, window)]
    if todo and len(todo) < len(windows):
        log.info("%s: %d of %d parts are there", folder, len(windows) - len(todo), len(windows))
    total = sum(len(mosaic.lattice.tiles(window)) for window in todo)
    with (
        tqdm(total=total, unit="tile", desc="predict", disable=not progress) as bar,
        contextlib.closing(_predicted(mosaic, reader, folder, todo, bar)) as made,
    ):
        for _ in in_order(made, partial(_finishing, mosaic, folder), 1):
            pass


def _predicted(
    mosaic: Mosaic, reader: Reader, folder: Path, windows: Sequence[Window], bar: Any
) -> Generator[tuple[Window, dict[str, Any]], None, None]:
    """Write parts; the place of each and what is to be said of it."""
    for window in windows:
        before = mosaic.network_pixels
        path, some_valid = _part(folder, window), False
        with (
            part_writer(path, mosaic.grid.window(window), mosaic.translator.card.target) as write,
            contextlib.closing(mosaic.rows(reader, window, bar=bar)) as rows,
        ):
            for is_valid in in_order(_in_bands(rows), partial(_writing, write), 1):
                some_valid |= is_valid
        if not some_valid:
            path.unlink()
        yield window, {"empty": not some_valid, "network_pixels": mosaic.network_pixels - before}


@contextlib.contextmanager
def _finishing(mosaic: Mosaic, folder: Path) -> Iterator[Callable[[tuple[Window, dict[str, Any]]], None]]:
    """A function that finishes a part and says so."""

    def job(part: tuple[Window, dict[str, Any]]) -> None:
        window, entry = part
        if mosaic.config.keep_parts and not entry["empty"]:
            keep_part(mosaic, window, _part(folder, window))
        write_json(_finished(folder, window), entry)

    yield job


def _in_bands(rows: Iterator[tuple[Array, Mask]]) -> Iterator[Band]:
    """First row, values and valid pixels of bands of `BLOCK` rows, which files store together."""
    start, held, pieces = 0, 0, []
    for piece in rows:
        pieces.append(piece)
        held += len(piece[1])
        while held >= BLOCK:
            values, valid = _joined(pieces)
            yield start, values[:, :BLOCK], valid[:BLOCK]
            start, held, pieces = start + BLOCK, held - BLOCK, [(values[:, BLOCK:], valid[BLOCK:])]
    if held:
        yield start, *_joined(pieces)


def _joined(pieces: list[tuple[Array, Mask]]) -> tuple[Array, Mask]:
    values, valid = zip(*pieces, strict=True)
    return np.concatenate(values, axis=1), np.concatenate(valid)


@contextlib.contextmanager
def _writing(write: Callable[[int, Array, Mask], None]) -> Iterator[Callable[[Band], bool]]:
    """A function that writes a band and says whether it has valid pixels."""

    def job(band: Band) -> bool:
        write(*band)
        return bool(band[2].any())

    yield job


def finished_parts(mosaic: Mosaic, folder: Path, windows: Sequence[Window]) -> tuple[list[Part], int]:
    """The parts with valid ground, and the pixels that went through the network for all of them.

    Args:
        mosaic: What they are of.
        folder: Where they lie.
        windows: All parts, finished, in pixels of the grid.
    """
    made, network_pixels, frame = [], 0, mosaic.frame
    inside = f"{COGS}/" if mosaic.config.keep_parts else ""
    for window in windows:
        entry = _entry(folder, window)
        network_pixels += entry["network_pixels"]
        if not entry["empty"]:
            row, col = window.row_off - frame.row_off, window.col_off - frame.col_off
            made.append(Part(f"{inside}{_part(folder, window).name}", Window(col, row, window.width, window.height)))
    return made, network_pixels


def _part(folder: Path, window: Window) -> Path:
    return folder / f"part_r{window.row_off:07d}_c{window.col_off:07d}.tif"


def _finished(folder: Path, window: Window) -> Path:
    return _part(folder, window).with_suffix(".json")


def _entry(folder: Path, window: Window) -> dict[str, Any]:
    """What stands beside a finished part; nothing if it is not finished."""
    path = _finished(folder, window)
    return _read_json(path) if path.exists() else {}
