"""`Mosaic`: a translator spread over a grid."""

import contextlib
import dataclasses
import importlib.metadata
from collections.abc import Generator, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rasterio.windows import Window

from geop2p.config import PredictConfig
from geop2p.mosaic.blend import Blend
from geop2p.mosaic.engine import choose_engine, with_engine
from geop2p.mosaic.statistics import GroundStatistics, Look
from geop2p.mosaic.strips import Ground, grown
from geop2p.mosaic.tiles import choose_part_side, choose_tiles, norm_statistics
from geop2p.raster.aligned import Reader
from geop2p.raster.encoding import Array, Encoding, Mask
from geop2p.raster.grid import Grid
from geop2p.raster.reading import fingerprint
from geop2p.raster.vectors import Area
from geop2p.translator import Translator


class Mosaic:
    """A translator spread over a grid: any window of the result, always the same.

    Args:
        translator: What translates a tile.
        grid: Grid of the input.
        config: Settings; its area of interest says what is shown of the grid.
        folder: For files on the way.

    Attributes:
        frame: What the result shows of the grid, in pixels of it.
        shown: Grid of the result.
        engine: What runs the network.
    """

    def __init__(self, translator: Translator, grid: Grid, config: PredictConfig, folder: Path) -> None:
        self.translator, self.grid, self.config = translator, grid, config
        self.area = None if config.aoi is None else Area(config.aoi, grid)
        self.frame = Window(0, 0, grid.width, grid.height) if self.area is None else self.area.window()
        self.shown = grid.window(self.frame)
        self.norm_stats = norm_statistics(translator.card, config)
        self._ground = None
        if self.norm_stats in ("global", "field"):
            self._ground = GroundStatistics(translator, grid, self.norm_stats == "field", folder)
        self.tiles = choose_tiles(translator, config, self.norm_stats, max(grid.height, grid.width))
        self.lattice = self.tiles.lattice
        self.batch_size = self.tiles.batch_size
        self.part_side = choose_part_side(self.tiles, config, translator.card)
        self.network_pixels = 0
        self._batch = torch.empty(0, 0, 0, 0)
        self.engine = choose_engine(translator, config.engine, self._ground is not None)
        self.translator = with_engine(translator, self.engine)

    @property
    def is_exact(self) -> bool:
        """Whether every pixel is what the network makes of the whole raster at once."""
        return self.tiles.mode == "exact"

    def window(self, reader: Reader, window: Window, shift: tuple[int, int] = (0, 0)) -> tuple[Array, Mask]:
        """Predict a window of the grid.

        Args:
            reader: The input on the grid.
            window: Where.
            shift: (rows, columns) by which the lattice is moved, to see what depends on it.

        Returns:
            Stored target values (bands, rows, cols), and the valid pixels (rows, cols) of the input.
        """
        target, size, row = self.translator.card.target, (int(window.height), int(window.width)), 0
        made, there = np.empty((len(target.bands), *size), target.dtype), np.empty(size, bool)
        for values, valid in self.rows(reader, window, shift):
            here = slice(row, row + len(valid))
            made[:, here], there[here] = values, valid
            row += len(valid)
        return made, there

    def rows(
        self, reader: Reader, window: Window, shift: tuple[int, int] = (0, 0), bar: Any = None
    ) -> Generator[tuple[Array, Mask], None, None]:
        """Predict a window of the grid, some rows at a time from top to bottom; for the arguments see `window`.

        The input is read by another thread meanwhile. `bar` is a progress bar, moved by one for each tile.
        """
        target, lattice = self.translator.card.target, dataclasses.replace(self.lattice, shift=shift)
        ground, tiles = Ground(reader, self.translator.card.source), lattice.tiles(window)
        if self.is_exact:
            tiles = [self._needed(tile, window) for tile in tiles]
        blend = Blend(window, target.channels, lattice.size, lattice.overlap, self.translator.device)
        masks, row = _Rows(window, self.area), int(window.row_off)

        def finished(end: int) -> Iterator[tuple[Array, Mask]]:
            nonlocal row
            for values in blend.until(end):
                valid = masks.take(values.shape[1])
                yield target.decode(values) if valid.any() else _nothing(target, valid), valid
            row = end

        with contextlib.closing(self._inputs(ground, tiles, masks, bar)) as inputs:
            for tile, made in self._translated(inputs, ground.look):
                if tile.row_off > row:
                    yield from finished(int(tile.row_off))
                blend.add(tile, made)
        yield from finished(int(window.row_off + window.height))

    def shifts(self, count: int) -> list[int]:
        """`count` even shares of the distance between tiles, on the network's stride.

        Blended tiles nearer to each other than that lie off it as they are, and are moved off it.
        """
        stride, step = self.translator.card.stride, self.lattice.step
        unit = stride if self.is_exact or step >= count * stride else 1
        return [step * number // count // unit * unit for number in range(count)]

    def _inputs(
        self, ground: Ground, tiles: list[Window], masks: "_Rows", bar: Any
    ) -> Generator[tuple[Window, torch.Tensor], None, None]:
        """Tiles and their network inputs, each good until the next; those without valid ground are left out.

        `masks` gets the valid pixels.
        """
        halo, by_row = self.lattice.halo, [list(row) for _, row in groupby(tiles, lambda tile: tile.row_off)]
        windows = [grown(_hull(row), halo) for row in by_row]
        with contextlib.closing(ground.strips(windows)) as strips:
            for row, strip in zip(by_row, strips, strict=True):
                inside = grown(strip.window, -halo)
                masks.add(inside, strip.cut(inside)[1])
                encoded = torch.from_numpy(strip.encoded)
                for tile in row:
                    if bar is not None:
                        bar.update()
                    if strip.cut(tile)[1].any() and (self.area is None or self.area.mask(tile).any()):
                        top, left = int(tile.row_off - inside.row_off), int(tile.col_off - inside.col_off)
                        rows, cols = int(tile.height) + 2 * halo, int(tile.width) + 2 * halo
                        yield tile, encoded[:, top : top + rows, left : left + cols]

    def _translated(
        self, inputs: Iterator[tuple[Window, torch.Tensor]], look: Look
    ) -> Iterator[tuple[Window, torch.Tensor]]:
        """Tiles and their translations.

        A batch holds tiles of one shape and is filled up with copies, so that a tile always meets the network in the
        same shape.
        """
        batch: list[Window] = []
        for tile, encoded in inputs:
            if batch and (encoded.shape != self._batch.shape[1:] or len(batch) == self.batch_size):
                yield from self._run(batch, look)
                batch = []
            if self._batch.shape[1:] != encoded.shape:  # new memory for each batch costs more than blending it
                pinned = self.translator.device.type == "cuda"
                self._batch = torch.empty((self.batch_size, *encoded.shape), pin_memory=pinned)
            self._batch[len(batch)] = encoded
            batch.append(tile)
        if batch:
            yield from self._run(batch, look)

    def _needed(self, tile: Window, window: Window) -> Window:
        """The part of an exact tile that touches a window, on the network's stride."""
        stride = self.translator.card.stride
        row, col = (
            max(tile.row_off, window.row_off // stride * stride),
            max(tile.col_off, window.col_off // stride * stride),
        )
        bottom = min(tile.row_off + tile.height, -(-(window.row_off + window.height) // stride) * stride)
        right = min(tile.col_off + tile.width, -(-(window.col_off + window.width) // stride) * stride)
        return Window(col, row, right - col, bottom - row)

    def _run(self, batch: list[Window], look: Look) -> Iterator[tuple[Window, torch.Tensor]]:
        """Translate tiles of one shape, and throw their halos away. What is given is good until the next batch."""
        halo, sources, count = self.lattice.halo, self._batch, len(batch)
        sources[count:] = sources[count - 1]
        self.network_pixels += len(sources) * sources.shape[2] * sources.shape[3]
        with torch.backends.cudnn.flags(deterministic=True, benchmark=False):
            if self._ground is None:
                made = self.translator.translate(sources)
            else:
                full = batch + batch[-1:] * (len(sources) - count)
                made = self._ground.translate(sources, [grown(tile, halo) for tile in full], look)
        inner = slice(halo, -halo or None)
        for tile, one in zip(batch, made, strict=False):
            yield tile, one[:, inner, inner]

    def claim(self, model: str, input: dict[str, Any], codes: Mapping[int, int]) -> dict[str, Any]:
        """All that decides the pixels of a part, for the manifest; `codes` are those that the input is recoded by."""
        lattice = self.lattice
        settings: dict[str, Any] = {"tile_size": lattice.network_size, "overlap": lattice.overlap, "halo": lattice.halo}
        settings |= {"batch_size": self.batch_size, "part_side": self.part_side, "norm_stats": self.norm_stats}
        settings |= {"engine": self.engine}
        aoi = None if self.config.aoi is None else fingerprint(self.config.aoi)
        drawing = ("source_field", "line_width", "draw_order", "skip_bad")
        settings |= {name: getattr(self.config, name) for name in drawing}
        settings["classes"] = {str(code): value for code, value in codes.items()}
        settings["version"] = importlib.metadata.version("geop2p")
        settings |= {"frame": list(self.frame.flatten()), "aoi": aoi}
        return {"model": model, "input": input, "grid": self.grid.to_dict(), "settings": settings}


class _Rows:
    """Which pixels of a window are valid and wanted, row by row from the top.

    Args:
        window: Where.
        area: What is wanted; None: all.
    """

    def __init__(self, window: Window, area: Area | None) -> None:
        self._window, self._area = window, area
        self._next = int(window.row_off)  # first row that `add` does not know
        self._masks: list[Mask] = []

    def add(self, place: Window, valid: Mask) -> None:
        """Take in the valid pixels of a place that covers the columns of the window; rows it knows are left out."""
        stop = min(int(place.row_off + place.height), int(self._window.row_off + self._window.height))
        if stop <= self._next:
            return
        col = int(self._window.col_off - place.col_off)
        cols = slice(col, col + int(self._window.width))
        mask = valid[self._next - int(place.row_off) : stop - int(place.row_off), cols]
        if self._area is not None:
            there = Window(self._window.col_off, self._next, self._window.width, stop - self._next)
            mask = mask & self._area.mask(there)
        self._masks.append(mask)
        self._next = stop

    def take(self, count: int) -> Mask:
        """The next rows (count, cols)."""
        pieces, missing = [], count
        while missing:
            first = self._masks.pop(0)
            if len(first) > missing:
                self._masks.insert(0, first[missing:])
            pieces.append(first[:missing])
            missing -= len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _hull(tiles: list[Window]) -> Window:
    """The window that a row of tiles covers."""
    last = tiles[-1]
    return Window(tiles[0].col_off, last.row_off, last.col_off + last.width - tiles[0].col_off, last.height)


def _nothing(target: Encoding, valid: Mask) -> Array:
    return np.zeros((len(target.bands), *valid.shape), target.dtype)
