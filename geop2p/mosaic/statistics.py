"""Norm statistics of a raster: one set for all of it, or a field over its ground, so that tiles agree."""

import math
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rasterio.windows import Window

from geop2p.errors import ConfigError, RasterError
from geop2p.models.moments import Field, GivenNorms, with_float64
from geop2p.mosaic.blend import Floats
from geop2p.raster.atomic import make_folder, replacing
from geop2p.raster.encoding import Mask
from geop2p.raster.grid import Grid
from geop2p.translator import Translator

SAMPLES = 32  # cells that the statistics of a whole raster are pooled over
KEPT = 1024  # cells in memory
MOST_LOOKS = 4096  # cells that are looked at to find so many with ground
LISTED = 2**22  # cells that may be drawn from a list of all
ENOUGH = 0.25  # share of a cell that must be valid to say something

Moments = npt.NDArray[np.float64]
ReadWindow = Callable[[Window], tuple[Floats, Mask]]


class GroundStatistics:
    """Where the norms of a generator take their statistics from.

    A cell is a window of the training's chip size, which is what the network learned to normalise; its moments depend
    on its ground alone. Cells are measured when they are first asked for and kept in memory-mapped files, which other
    processes may fill at the same time: all write the same.

    Args:
        translator: Its generator's norms are replaced.
        grid: Grid of the input.
        by_place: A field over the ground; else the same statistics everywhere.
        folder: Where the files go.

    Raises:
        ConfigError: The generator takes statistics of its input in other ways than by instance norm.
    """

    def __init__(self, translator: Translator, grid: Grid, by_place: bool, folder: Path) -> None:
        try:
            self._norms = GivenNorms(translator.generator)
        except ValueError as error:
            raise ConfigError(f"--norm-stats global and field are for instance norm: {error}; leave it out") from error
        self._translator = translator
        self._device, self._by_place, self._folder = with_float64(translator.device), by_place, folder
        self._side = translator.card.chip_size
        self._shape = (math.ceil(grid.height / self._side), math.ceil(grid.width / self._side))
        self._everywhere: Moments | None = None
        self._cells: OrderedDict[tuple[int, int], Moments] = OrderedDict()  # the last ones that were asked for

    def translate(self, sources: torch.Tensor, places: list[Window], look: ReadWindow) -> torch.Tensor:
        """Translate inputs whose statistics are those of their ground.

        Args:
            sources: (batch, channels, rows, cols).
            places: Where on the grid each of them lies, all of one size.
            look: Network input (channels, rows, cols) of any window and its valid pixels (rows, cols).
        """
        field = self._field(places, look) if self._by_place else self._constant(places, look)
        with self._norms.given(field):
            return self._translator.translate(sources)

    def _constant(self, tiles: list[Window], look: ReadWindow) -> Field:
        moments = torch.from_numpy(self._of_all(look)).to(self._device)
        zero = torch.zeros(len(tiles), dtype=torch.float64, device=self._device)
        table = moments[None, :, :, None, None].expand(len(tiles), -1, -1, 1, 1)
        return Field(table, zero, zero, 1.0, (int(tiles[0].height), int(tiles[0].width)))

    def _field(self, tiles: list[Window], look: ReadWindow) -> Field:
        side, size = self._side, (int(tiles[0].height), int(tiles[0].width))
        down, along = (math.ceil(length / side) + 2 for length in size)
        tables, tops, lefts = [], [], []
        for tile in tiles:
            row, col = (math.floor(offset / side - 0.5) for offset in (tile.row_off, tile.col_off))
            cells = [[self._cell(row + i, col + j, look) for j in range(along)] for i in range(down)]
            tables.append(torch.from_numpy(np.array(cells)).permute(2, 3, 0, 1))
            tops.append((row + 0.5) * side - tile.row_off)
            lefts.append((col + 0.5) * side - tile.col_off)
        top, left = (torch.tensor(places, dtype=torch.float64, device=self._device) for places in (tops, lefts))
        return Field(torch.stack(tables).to(self._device), top, left, side, size)

    def _cell(self, row: int, col: int, look: ReadWindow) -> Moments:
        """Moments (2, channels) of a cell; beyond the raster those of its outermost one."""
        row, col = min(max(row, 0), self._shape[0] - 1), min(max(col, 0), self._shape[1] - 1)
        if (row, col) not in self._cells:
            path = self._folder / "norm_cells" / f"r{row:05d}" / f"c{col:05d}.f64"
            found = _load(path, self._norms.channels)
            if found is None:
                measured = self._measured(row, col, look)
                found = self._of_all(look) if measured is None else measured[0]
                _save(path, found)
            while len(self._cells) >= KEPT:
                self._cells.popitem(last=False)
            self._cells[row, col] = found
        self._cells.move_to_end((row, col))
        return self._cells[row, col]

    def _of_all(self, look: ReadWindow) -> Moments:
        """Moments (2, channels) of the raster: those that a process found first, else found now."""
        if self._everywhere is None:
            path = self._folder / "norm_cells" / "all.f64"
            found = _load(path, self._norms.channels)
            if found is None:
                found = self._pooled(look)
                _save(path, found)
            self._everywhere = found
        return self._everywhere

    def _pooled(self, look: ReadWindow) -> Moments:
        """Moments (2, channels) of cells drawn at random, weighed by their valid ground."""
        drawn = drawn_cells(self._shape)
        pooled, weight, count = np.zeros((2, self._norms.channels)), 0.0, 0
        for row, col in drawn:
            measured = self._measured(row, col, look)
            if measured is None:
                continue
            moments, share = measured
            pooled, weight, count = pooled + share * moments, weight + share, count + 1
            if count == SAMPLES:
                break
        if not count:
            looked = f" out of {len(drawn)}" if len(drawn) < math.prod(self._shape) else ""
            raise RasterError(
                f"no window of {self._side} pixels{looked} has {100 * ENOUGH:.0f} % valid ground: nothing to take "
                "norm statistics from; use --norm-stats tile"
            )
        return pooled / weight

    def _measured(self, row: int, col: int, look: ReadWindow) -> tuple[Moments, float] | None:
        """Moments of a cell and its valid share; None where that is too small."""
        encoded, valid = look(Window(col * self._side, row * self._side, self._side, self._side))
        share = float(valid.mean())
        if share < ENOUGH:
            return None
        parts = torch.from_numpy(encoded)[None], torch.from_numpy(valid).float()[None, None]
        moments = self._norms.measure(*(part.to(self._translator.device) for part in parts))
        return moments.cpu().numpy(), share


def drawn_cells(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """(row, column) of the cells of a raster that are looked at for ground, in an order that is drawn at random."""
    numbers, generator = math.prod(shape), np.random.default_rng(0)
    if numbers <= LISTED:
        drawn = generator.permutation(numbers)[:MOST_LOOKS]
    else:
        drawn = generator.choice(numbers, MOST_LOOKS, replace=False)  # in memory for these alone
    return [divmod(number, shape[1]) for number in drawn.tolist()]


def _load(path: Path, channels: int) -> Moments | None:
    """Moments (2, channels) that a file holds; None if there is none, or if the power went while it was written."""
    if not path.exists() or path.stat().st_size != 16 * channels:
        return None
    return np.fromfile(path, np.float64).reshape(2, channels)


def _save(path: Path, moments: Moments) -> None:
    make_folder(path.parent)
    with replacing(path) as temporary:
        moments.tofile(temporary)
