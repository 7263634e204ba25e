"""Layout `geotiff`: a file a chip and side, which opens in QGIS."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rasterio.windows import Window

from geop2p.config import SPLITS, Split
from geop2p.errors import ChipSetError
from geop2p.raster.atomic import make_folder, reporting_write_errors
from geop2p.raster.categories import categories_text
from geop2p.raster.chip_metadata import ChipMetadata
from geop2p.raster.chipfile import ChipFiles
from geop2p.raster.class_table import class_name
from geop2p.raster.encoding import Array, Mask
from geop2p.raster.grid import Grid
from geop2p.raster.reading import read_whole
from geop2p.tiling.chips import SIDES, ChipSet
from geop2p.tiling.layouts import Chip, SplitReader

if TYPE_CHECKING:
    from geop2p.tiling.slots import Slots
    from geop2p.tiling.table import ChipTable


class _Reader:
    def __init__(self, chipset: ChipSet, split: Split) -> None:
        self._chipset, self._split, self._entries = chipset, split, chipset.entries(split)

    def read(self, row: int) -> Chip:
        name = self._entries[row].id
        (source, _), (target, valid) = (self._side(side, name) for side in SIDES)
        return Chip(source, target, valid)

    def _side(self, side: str, name: str) -> tuple[Array, Mask]:
        path = chip_path(self._chipset.folder, side, self._split, name)
        values, valid = read_whole(path)
        encoding, size = self._chipset.encoding(side), self._chipset.size
        expected = ((len(encoding.bands), size, size), encoding.dtype)
        if (values.shape, values.dtype.name) != expected:
            raise ChipSetError(
                f"{path}: (bands, rows, columns), type are {values.shape}, {values.dtype}, expected {expected[0]}, "
                f"{expected[1]}; tile again"
            )
        return values, valid


class _Writer:
    """Writes every chip into a folder of the split that it is expected in."""

    def __init__(self, staging: Path, grid: Grid, metadata: tuple[ChipMetadata, ChipMetadata], slots: "Slots") -> None:
        self._staging, self._grid, self._metadata, self._slots = staging, grid, metadata, slots
        self._files: list[ChipFiles] = []
        for side in SIDES:
            for code in slots.codes:
                make_folder(_staged(staging, side, code))

    def add(self, name: str, row: int, col: int, read: Callable[[], Chip]) -> None:
        chip = read()
        sides = (chip.source, chip.target)
        grid = self._grid.window(Window(col, row, *chip.valid.shape[::-1]))
        if not self._files:
            self._files = [
                ChipFiles(grid, len(values), values.dtype.name, own)
                for values, own in zip(sides, self._metadata, strict=True)
            ]
        code = self._slots.find(np.array([row]), np.array([col]))[0][0]
        for side, files, values in zip(SIDES, self._files, sides, strict=True):
            files.write(_staged(self._staging, side, code) / f"{name}.tif", values, chip.valid, grid)

    def close(self) -> None:
        pass


def _staged(staging: Path, side: str, code: int) -> Path:
    """Folder in which the chips expected in a split, by its place in `SPLITS`, are staged."""
    return staging / side / str(code)


def chip_path(folder: Path, side: str, split: str, name: str) -> Path:
    """File of one side of a chip."""
    return folder / side / split / f"{name}.tif"


@contextmanager
def open_split(chipset: ChipSet, split: Split) -> Iterator[SplitReader]:
    """See `Layout`."""
    yield _Reader(chipset, split)


def open_writer(staging: Path, grid: Grid, metadata: tuple[ChipMetadata, ChipMetadata], slots: "Slots") -> _Writer:
    """See `Layout`."""
    return _Writer(staging, grid, metadata, slots)


def place(staging: Path, chipset: ChipSet, table: "ChipTable", slots: "Slots") -> None:
    """See `Layout`: chips are moved, as a folder where it holds a whole new split, and class names written beside."""
    for split in SPLITS:
        own = table.of_split(split)
        codes, _ = slots.find(own["row_off"], own["col_off"])
        for side in SIDES if len(own) else ():
            folder, staged = chipset.folder / side / split, _staged(staging, side, codes[0])
            if not folder.exists() and len(set(codes)) == 1 and len(list(staged.iterdir())) == len(own):
                make_folder(folder.parent)
                with reporting_write_errors(folder):
                    staged.replace(folder)
            else:
                _move(staging, side, zip(own["id"], codes, strict=True), folder)
            encoding = chipset.encoding(side)
            if any(entry.name != class_name(entry.value) for entry in encoding.classes):
                with reporting_write_errors(folder):
                    for name in own["id"]:
                        (folder / f"{name}.tif.aux.xml").write_text(categories_text(encoding), encoding="utf-8")


def _move(staging: Path, side: str, chips: Iterable[tuple[str, int]], folder: Path) -> None:
    """Move staged chips, unless an interrupted run has done so."""
    make_folder(folder)
    with reporting_write_errors(folder):
        for name, code in chips:
            staged = _staged(staging, side, code) / f"{name}.tif"
            if staged.exists():
                staged.replace(folder / staged.name)
