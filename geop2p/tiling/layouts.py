"""How chips lie on disk: what every layout offers, each a module of this package."""

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from geop2p.config import ChipFormat, Split
from geop2p.raster.encoding import Array, Mask

if TYPE_CHECKING:
    from geop2p.raster.chip_metadata import ChipMetadata
    from geop2p.raster.grid import Grid
    from geop2p.tiling.chips import ChipSet
    from geop2p.tiling.slots import Slots
    from geop2p.tiling.table import ChipTable


@dataclass(frozen=True)
class Chip:
    """One pair: stored values (bands, rows, cols) of both sides, and where both are valid (rows, cols); read-only."""

    source: Array
    target: Array
    valid: Mask


class SplitReader(Protocol):
    """The chips of one split."""

    def read(self, row: int) -> Chip:
        """The chip of an entry, counted from 0.

        Raises:
            ChipSetError: It does not have the size or the bands that the chip set promises.
            RasterError: A file of it is missing or damaged.
        """


class Writer(Protocol):
    """Stages chips of a scene; several may do so at the same time, and after a kill some are staged again."""

    def add(self, name: str, row: int, col: int, read: Callable[[], Chip]) -> None:
        """Stage the chip at a place of the scene's grid, so that a kill of this process does not lose it."""

    def close(self) -> None:
        """Let go of files, also after an error."""


class Layout(Protocol):
    """A way to store chips: a module of this package."""

    def open_split(self, chipset: "ChipSet", split: Split) -> AbstractContextManager[SplitReader]:
        """Open the chips of a split."""

    def open_writer(
        self, staging: Path, grid: "Grid", metadata: "tuple[ChipMetadata, ChipMetadata]", slots: "Slots"
    ) -> Writer:
        """Begin to stage the chips of a scene that has a grid, and that are expected in slots."""

    def place(self, staging: Path, chipset: "ChipSet", table: "ChipTable", slots: "Slots") -> None:
        """Put staged chips where they belong; repeated after a kill it ends in the same.

        Args:
            staging: Folder of the writer.
            chipset: That they become part of; its folder and encodings.
            table: The scene's part of the index, with the column split.
            slots: That the writers were given.
        """


def layout_of(name: ChipFormat) -> Layout:
    """The module of a layout, imported when it is asked for."""
    return cast(Layout, importlib.import_module(f"geop2p.tiling.{name}"))
