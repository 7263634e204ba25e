"""Parts of a mosaic on disk: each is made once, by whichever process gets to it, and is never there by half."""

import contextlib
import glob
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.windows import Window
from tqdm import tqdm

from geop2p.errors import ConfigError, RasterError
from geop2p.mosaic.mosaic import Mosaic
from geop2p.raster.aligned import Reader
from geop2p.raster.atomic import write_json, writing
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
    if manifest.exists() or _has_work(folder):  # without a manifest it is of an unknown making
        apart = differences(_read_json(manifest), claim)
        if apart and (shared or not overwrite):
            hint = "delete the folder" if shared else "delete the folder or give --overwrite"
            raise ConfigError(
                f"{folder}: left by a run with another {', '.join(apart)}; repeat that run to finish it, or "
                f"{hint} to begin again"
            )
        if not apart:
            return
        remove_parts(folder)
    write_json(manifest, claim)


def remove_parts(folder: Path) -> None:
    """Remove the folder of the parts; killed meanwhile, it leaves nothing under the folder's name."""
    with writing(folder):
        folder.rename(folder.with_name(f"{_removed(folder)}{uuid.uuid4().hex}"))
    discard_removed(folder)


def discard_removed(folder: Path) -> None:
    """Remove what is left of a folder of parts that was being removed, by this process or one that was killed."""
    for away in folder.parent.glob(f"{glob.escape(_removed(folder))}*"):
        shutil.rmtree(away, ignore_errors=True)  # another process may be at it


def _removed(folder: Path) -> str:
    """How the names begin that a folder takes while it is removed."""
    return f".{folder.name}.removed-"


def _foreign(folder: Path) -> bool:
    """Whether a folder holds anything that is not of a mosaic's making."""
    ours = ("part_", "parts.", "seams", "mosaic.", "norm_", ".")
    return folder.exists() and not all(entry.name.startswith(ours) for entry in folder.iterdir())


def _has_work(folder: Path) -> bool:
    """Whether a folder holds parts or statistics, which a process that came too late may have left."""
    return any(entry.name.startswith(("part_", "norm_")) for entry in folder.glob("*"))


def _read_json(path: Path) -> dict[str, Any]:
    """What a file says; nothing if it is not there, or if the power went while it was written."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return found


def differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
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

    Raises:
        ConfigError: The folder was removed meanwhile, or begun again in another way.
    """
    claim, todo = _read_json(folder / MANIFEST), unfinished_parts(folder, windows)
    total = sum(len(mosaic.lattice.tiles(window)) for window in todo)
    with tqdm(total=total, unit="tile", desc="predict", disable=not (progress and todo)) as bar:
        for window in todo:
            _check_claim(folder, claim)
            before = mosaic.network_pixels
            path, some_valid = folder / f"{_name(window)}.tif", False
            with (
                part_writer(path, mosaic.grid.window(window), mosaic.translator.card.target) as write,
                contextlib.closing(mosaic.rows(reader, window, bar=bar)) as rows,
            ):
                for is_valid in in_order(_in_bands(rows), partial(_writing, write), 1):
                    some_valid |= is_valid
                _check_claim(folder, claim)
            if not some_valid:
                path.unlink(missing_ok=True)  # another process may have made the same
            entry = {"empty": not some_valid, "network_pixels": mosaic.network_pixels - before}
            write_json(_finished(folder, window), entry | {"bytes": _on_disk(path) if some_valid else 0})


def unfinished_parts(folder: Path, windows: Sequence[Window]) -> list[Window]:
    """The parts that are not there yet."""
    todo = [window for window in windows if not _entry(folder, window)]
    if todo and len(todo) < len(windows):
        log.info("%s: %d of %d parts are there", folder, len(windows) - len(todo), len(windows))
    return todo


def _check_claim(folder: Path, claim: dict[str, Any]) -> None:
    """Refuse to add a part to those of another run."""
    if _read_json(folder / MANIFEST) != claim:
        raise ConfigError(
            f"{folder}: was removed meanwhile, by the run that put the parts together or with --overwrite; repeat the "
            "command if there is no mosaic yet"
        )


def _on_disk(path: Path) -> int:
    """Size of a file in bytes, all of which have reached the disk."""
    with writing(path), path.open("r+b") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


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


def finished_parts(folder: Path, windows: Sequence[Window], frame: Window) -> tuple[list[Part], int]:
    """The parts with valid ground, and the pixels that went through the network for all of them.

    Args:
        folder: Where they lie.
        windows: All parts, finished, in pixels of the grid.
        frame: What the mosaic shows of the grid.
    """
    made, network_pixels = [], 0
    for window in windows:
        entry = _entry(folder, window)
        network_pixels += entry["network_pixels"]
        if not entry["empty"]:
            row, col = window.row_off - frame.row_off, window.col_off - frame.col_off
            made.append(Part(f"{_name(window)}.tif", Window(col, row, window.width, window.height)))
    return made, network_pixels


def _name(window: Window) -> str:
    return f"part_r{window.row_off:07d}_c{window.col_off:07d}"


def _finished(folder: Path, window: Window) -> Path:
    return folder / f"{_name(window)}.json"


def _entry(folder: Path, window: Window) -> dict[str, Any]:
    """What stands beside a finished part; nothing if it is not finished, or has another size than when it was."""
    entry = _read_json(_finished(folder, window))
    if entry and not entry["empty"]:
        path = folder / f"{_name(window)}.tif"
        if not path.exists() or path.stat().st_size != entry.get("bytes"):
            return {}
    return entry
