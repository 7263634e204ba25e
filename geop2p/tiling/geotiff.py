"""Layout `geotiff`: a file a chip and side, which opens in QGIS."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rasterio.windows import Window

from geop2p.config import Split
from geop2p.errors import ChipSetError
from geop2p.raster.atomic import make_folder, writing
from geop2p.raster.chipfile import ChipFiles
from geop2p.raster.encoding import Array, Mask
from geop2p.raster.grid import Grid
from geop2p.raster.reading import read_whole
from geop2p.raster.writing import categories_text
from geop2p.tiling.chips import SIDES, Chip, ChipSet, Palette, SplitReader

if TYPE_CHECKING:
    import geopandas

    from geop2p.tiling.slots import Slots


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
    def __init__(self, staging: Path, grid: Grid, palettes: tuple[Palette, Palette]) -> None:
        self._staging, self._grid, self._palettes = staging, grid, palettes
        self._files: list[ChipFiles] = []
        for side in SIDES:
            make_folder(staging / side)

    def add(self, name: str, row: int, col: int, chip: Chip) -> None:
        sides = (chip.source, chip.target)
        grid = self._grid.window(Window(col, row, *chip.valid.shape[::-1]))
        if not self._files:
            self._files = [
                ChipFiles(grid, len(values), values.dtype.name, palette)
                for values, palette in zip(sides, self._palettes, strict=True)
            ]
        for side, files, values in zip(SIDES, self._files, sides, strict=True):
            files.write(self._staging / side / f"{name}.tif", values, chip.valid, grid)

    def close(self) -> None:
        pass


def chip_path(folder: Path, side: str, split: str, name: str) -> Path:
    """File of one side of a chip."""
    return folder / side / split / f"{name}.tif"


@contextmanager
def open_split(chipset: ChipSet, split: Split) -> Iterator[SplitReader]:
    """See `Layout`."""
    yield _Reader(chipset, split)


def open_writer(staging: Path, grid: Grid, palettes: tuple[Palette, Palette], slots: "Slots") -> _Writer:
    """See `Layout`."""
    return _Writer(staging, grid, palettes)


def place(staging: Path, chipset: ChipSet, table: "geopandas.GeoDataFrame", slots: "Slots") -> None:
    """See `Layout`: chips are moved, class names that layers gave are written beside them."""
    for side in SIDES:
        encoding = chipset.encoding(side)
        names = categories_text(encoding) if any(entry.is_named for entry in encoding.classes) else ""
        for split in sorted(set(table["split"])):
            make_folder(chipset.folder / side / split)
        for name, split in zip(table["id"], table["split"], strict=True):
            staged, file = staging / side / f"{name}.tif", chip_path(chipset.folder, side, split, name)
            with writing(file):
                if staged.exists():  # else an interrupted run has moved it already
                    staged.replace(file)
                if names:
                    Path(f"{file}.aux.xml").write_text(names, encoding="utf-8")
