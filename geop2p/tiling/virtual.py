"""Layout `virtual`: the index alone; pixels are read from the layers when they are asked for."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from geop2p.config import Split
from geop2p.raster.chip_metadata import ChipMetadata
from geop2p.raster.grid import Grid
from geop2p.tiling.chips import ChipSet, Scene
from geop2p.tiling.cutting import Region, RegionPair, open_ground
from geop2p.tiling.layouts import Chip, SplitReader
from geop2p.tiling.opening import reopen

if TYPE_CHECKING:
    from geop2p.tiling.slots import Slots
    from geop2p.tiling.table import ChipTable


class _Reader:
    """Holds the layers of one scene open at a time: chips come scene by scene."""

    def __init__(self, chipset: ChipSet, split: Split, stack: ExitStack) -> None:
        self._chipset, self._entries, self._stack = chipset, chipset.entries(split), stack
        self._scenes = {scene.id: scene for scene in chipset.scenes}
        self._open: tuple[str, Callable[[Region], RegionPair]] | None = None

    def read(self, row: int) -> Chip:
        entry = self._entries[row]
        if self._open is None or self._open[0] != entry.scene:
            self._stack.close()
            self._open = (
                entry.scene,
                self._stack.enter_context(_open_scene(self._chipset, self._scenes[entry.scene])),
            )
        ground = self._open[1](Region((entry.row_off,), (entry.col_off,), self._chipset.size))
        return ground.chip(entry.row_off, entry.col_off)


@contextmanager
def _open_scene(chipset: ChipSet, scene: Scene) -> Iterator[Callable[[Region], RegionPair]]:
    """Open the layers of a scene as they were when it was tiled; see `reopen`."""
    layers, aoi = reopen(chipset, scene)
    with open_ground(scene.grid, layers, aoi) as read:
        yield read


class _Writer:
    """Stages nothing."""

    def add(self, name: str, row: int, col: int, read: Callable[[], Chip]) -> None:
        pass

    def close(self) -> None:
        pass


@contextmanager
def open_split(chipset: ChipSet, split: Split) -> Iterator[SplitReader]:
    """See `Layout`."""
    with ExitStack() as stack:
        yield _Reader(chipset, split, stack)


def open_writer(staging: Path, grid: Grid, metadata: tuple[ChipMetadata, ChipMetadata], slots: "Slots") -> _Writer:
    """See `Layout`."""
    return _Writer()


def place(staging: Path, chipset: ChipSet, table: "ChipTable", slots: "Slots") -> None:
    """See `Layout`: there is nothing to place."""
