"""Parts of a mosaic on disk: each is made once, by whichever process gets to it, and is never there by half."""

import contextlib
import logging
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.windows import Window
from tqdm import tqdm

from geop2p.errors import ConfigError
from geop2p.mosaic.blend import Floats
from geop2p.mosaic.kept import COGS, keep_part
from geop2p.mosaic.manifest import check_claim, while_claimed
from geop2p.mosaic.mosaic import Mosaic
from geop2p.mosaic.part_notes import finished_files, note_finished
from geop2p.mosaic.tiles import explaining_memory
from geop2p.raster.aligned import Reader
from geop2p.raster.encoding import Array, Encoding, Mask
from geop2p.raster.threads import in_order
from geop2p.raster.vrt import Part
from geop2p.raster.writing import BLOCK, part_writer

log = logging.getLogger(__name__)

Band = tuple[int, list[Array], Mask]  # first row, values (bands, rows, cols) of each raster, valid pixels (rows, cols)


def make_parts(
    mosaic: Mosaic, reader: Reader, folder: Path, windows: Sequence[Window], claim: dict[str, Any], progress: bool
) -> None:
    """Write every part that is not there yet; a JSON file beside a part says that it is finished.

    Parts that are to stay become COGs in another thread, while the next part is predicted.

    Args:
        mosaic: What they are of.
        reader: The input on the grid.
        folder: Where they go.
        windows: Their places in pixels of the grid.
        claim: All that decides their pixels, as the folder has it.
        progress: Show a progress bar.

    Raises:
        ConfigError: The folder was removed meanwhile, or begun again in another way; or memory is not enough.
    """
    todo = unfinished_parts(folder, windows)
    total = sum(len(mosaic.lattice.tiles(window)) for window in todo)
    with (
        while_claimed(folder, claim),
        explaining_memory(mosaic.tiles, mosaic.config),
        tqdm(total=total, unit="tile", desc="predict", disable=not (progress and todo)) as bar,
        contextlib.closing(_predicted(mosaic, reader, folder, todo, claim, bar)) as made,
    ):
        for _ in in_order(made, partial(_finishing, mosaic, folder), 1):
            pass


def unfinished_parts(folder: Path, windows: Sequence[Window]) -> list[Window]:
    """The parts that are not there yet."""
    todo = [window for window in windows if not finished_files(folder, _name(window))]
    if todo and len(todo) < len(windows):
        log.info("%s: %d of %d parts are there", folder, len(windows) - len(todo), len(windows))
    return todo


def _predicted(
    mosaic: Mosaic, reader: Reader, folder: Path, windows: Sequence[Window], claim: dict[str, Any], bar: Any
) -> Generator[tuple[Window, list[Path], int], None, None]:
    """Write parts: the place of each, its files unless no pixel of it is valid, and its network pixels."""
    for window in windows:
        check_claim(folder, claim)
        before = mosaic.network_pixels
        files, some_valid = _files(mosaic, folder, window), False
        with contextlib.ExitStack() as stack:
            grid = mosaic.grid.window(window)
            writers = [stack.enter_context(part_writer(path, grid, held)) for path, held in files.items()]
            rows = stack.enter_context(
                contextlib.closing(mosaic.rows(reader, window, bar=bar, with_extras=len(writers) > 1))
            )
            for is_valid in in_order(_in_bands(rows), partial(_writing, writers), 1):
                some_valid |= is_valid
            check_claim(folder, claim)
        if not some_valid:
            for path in files:
                path.unlink(missing_ok=True)  # another process may have made the same
        try:
            yield window, list(files) if some_valid else [], mosaic.network_pixels - before
        except GeneratorExit:  # an earlier part could not be finished
            if mosaic.config.keep_parts:
                next(iter(files)).unlink(missing_ok=True)  # whose name is of this try alone
            raise


@contextlib.contextmanager
def _finishing(mosaic: Mosaic, folder: Path) -> Iterator[Callable[[tuple[Window, list[Path], int]], None]]:
    """A function that finishes a part and says so."""

    def job(part: tuple[Window, list[Path], int]) -> None:
        window, files, network_pixels = part
        if files and mosaic.config.keep_parts:
            files = [keep_part(mosaic, window, files[0], folder / COGS / f"{_name(window)}.tif"), *files[1:]]
        note_finished(folder, _name(window), files, network_pixels=network_pixels)

    yield job


def _files(mosaic: Mosaic, folder: Path, window: Window) -> dict[Path, Encoding]:
    """The files of a part and what they hold: the mosaic's first, then those of the rasters made with it."""
    own = folder / f"{_name(window)}.tif"
    extras = {folder / extra.part(own.name): extra.encoding for extra in mosaic.extras.rasters}
    if mosaic.config.keep_parts:  # made into another and removed, while another process may make the same part
        own = own.with_name(f".{own.stem}.{uuid.uuid4().hex}.tif")
    return {own: mosaic.translator.card.target} | extras


def _in_bands(rows: Iterator[tuple[Array, Mask, list[Floats]]]) -> Iterator[Band]:
    """First row, values and valid pixels of bands of `BLOCK` rows, which files store together."""
    start, held, pieces = 0, 0, list[tuple[list[Array], Mask]]()
    for values, valid, extras in rows:
        pieces.append(([values, *extras], valid))
        held += len(valid)
        while held >= BLOCK:
            found, there = _joined(pieces)
            yield start, [one[:, :BLOCK] for one in found], there[:BLOCK]
            start, held = start + BLOCK, held - BLOCK
            pieces = [([one[:, BLOCK:] for one in found], there[BLOCK:])]
    if held:
        yield start, *_joined(pieces)


def _joined(pieces: list[tuple[list[Array], Mask]]) -> tuple[list[Array], Mask]:
    values, valid = zip(*pieces, strict=True)
    return [np.concatenate(one, axis=1) for one in zip(*values, strict=True)], np.concatenate(valid)


@contextlib.contextmanager
def _writing(writers: Sequence[Callable[[int, Array, Mask], None]]) -> Iterator[Callable[[Band], bool]]:
    """A function that writes a band and says whether it has valid pixels."""

    def job(band: Band) -> bool:
        row, values, valid = band
        for write, one in zip(writers, values, strict=True):
            write(row, one, valid)
        return bool(valid.any())

    yield job


def discard_damaged(folder: Path, windows: Sequence[Window]) -> bool:
    """Read all parts, and forget those that do not hold what was written, which are to be made again.

    They may come from many machines over disks that they share, and have waited for days.

    Returns:
        Whether there are such.
    """
    damaged = [_name(window) for window in windows if not finished_files(folder, _name(window), thorough=True)]
    for name in damaged:
        log.warning("%s: %s does not hold what was written; it is made again", folder, name)
        (folder / f"{name}.json").unlink(missing_ok=True)
    return bool(damaged)


def finished_parts(mosaic: Mosaic, folder: Path, windows: Sequence[Window]) -> tuple[list[Part], int]:
    """The parts with valid ground, and the pixels that went through the network for all of them.

    Args:
        mosaic: What they are of.
        folder: Where they lie.
        windows: All parts, finished, in pixels of the grid.
    """
    made, network_pixels, frame = [], 0, mosaic.frame
    for window in windows:
        entry = finished_files(folder, _name(window))
        if not entry:
            raise ConfigError(f"{folder}: {_name(window)} was changed or removed meanwhile; repeat the command")
        network_pixels += entry.network_pixels
        if entry.files:
            row, col = window.row_off - frame.row_off, window.col_off - frame.col_off
            made.append(Part(entry.files[0], Window(col, row, window.width, window.height)))
    return made, network_pixels


def _name(window: Window) -> str:
    return f"part_r{window.row_off:07d}_c{window.col_off:07d}"
