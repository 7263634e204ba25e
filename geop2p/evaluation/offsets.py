"""Whether a mosaic errs more where its tiles meet: its error by place in the tile, over many lattices."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rasterio.windows import Window
from tqdm import tqdm

from geop2p.config import PredictConfig
from geop2p.evaluation.position import CornerRatio, PositionError, Sums, corner_ratio, pixel_error
from geop2p.mosaic.mosaic import Mosaic
from geop2p.mosaic.plan import Lattice
from geop2p.raster.aligned import Reader
from geop2p.raster.encoding import Array, Mask
from geop2p.tiling.chips import ChipSet, Entry
from geop2p.tiling.opening import reopen
from geop2p.translator import Translator

SHIFTS = 4  # on each axis: every pixel of the ground lies once near a corner of a tile and once in its centre


def corners_in_mosaic(
    translator: Translator, chipset: ChipSet, entries: Sequence[Entry], progress: bool
) -> CornerRatio:
    """Corners over centre of tiles, in mosaics as `predict` makes them of the ground of some chips.

    Args:
        translator: What predicts.
        chipset: Whose layers are read.
        entries: The chips; each is a block of the bootstrap.
        progress: Show a progress bar.

    Raises:
        ChipSetError: A layer has changed since it was tiled.
        RasterError: A layer is missing.
    """
    found: list[Sums] = []
    with tqdm(total=len(entries), desc="lattices", unit="chip", disable=not progress) as bar:
        for scene in chipset.scenes:
            mine = [entry for entry in entries if entry.scene == scene.id]
            if not mine:
                continue
            layers, _ = reopen(chipset, scene)
            with (
                layers[0].reader(scene.grid) as reader,
                layers[1].reader(scene.grid) as truth,
                TemporaryDirectory() as folder,
            ):
                mosaic = Mosaic(translator, scene.grid, PredictConfig(), Path(folder))
                for entry in mine:
                    window = Window(entry.col_off, entry.row_off, chipset.size, chipset.size)
                    found += error_by_position(mosaic, reader, truth, [window]).blocks
                    bar.update()
    return corner_ratio(found)


def error_by_position(mosaic: Mosaic, reader: Reader, truth: Reader, windows: Iterable[Window]) -> PositionError:
    """Predict ground on 16 lattices and sum the error by its place between the lines where tiles hand over.

    Args:
        mosaic: What predicts.
        reader: Its input.
        truth: What should come out, on the same grid.
        windows: Ground to look at; each is a block of the bootstrap.

    Returns:
        The error over all lattices; its side is the distance between tiles.
    """
    target, shifts = mosaic.translator.card.target, mosaic.shifts(SHIFTS)
    result = PositionError(mosaic.lattice.step)
    for window in windows:
        real, there = truth.read(window)
        for shift in ((down, right) for down in shifts for right in shifts):
            made, valid = mosaic.window(reader, window, shift)
            error = pixel_error(made, real, target)
            for cell, known in _cells(error, valid & there, window, mosaic.lattice, shift):
                result.add(cell, known, f"{window.row_off} {window.col_off}")
    return result


def _cells(
    error: Array, valid: Mask, window: Window, lattice: Lattice, shift: tuple[int, int]
) -> Iterator[tuple[Array, Mask]]:
    """A window cut at the lines where tiles hand over, each piece in its place in a square of `step` pixels."""
    step, before = lattice.step, lattice.overlap - lattice.overlap // 2
    first = [int(at + before + by) % step for at, by in zip((window.row_off, window.col_off), shift, strict=True)]
    edges = [(start, -(start + length) % step) for start, length in zip(first, error.shape, strict=True)]
    error, valid = np.pad(error, edges), np.pad(valid, edges)
    for row in range(0, len(error), step):
        for col in range(0, error.shape[1], step):
            place = np.s_[row : row + step, col : col + step]
            yield error[place], valid[place]
