"""`Mosaic`: a translator spread over a grid."""

import dataclasses
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rasterio.windows import Window

from geop2p.config import PredictConfig
from geop2p.mosaic.blend import Blend, Floats
from geop2p.mosaic.plan import PART_MULTIPLE, part_side
from geop2p.mosaic.statistics import GroundStatistics, Look
from geop2p.mosaic.tiles import Mode, choose_tiles, norm_statistics
from geop2p.raster.aligned import Reader
from geop2p.raster.borders import reflect_indices
from geop2p.raster.encoding import Array, Mask
from geop2p.raster.filling import fill_from_nearest
from geop2p.raster.grid import Grid
from geop2p.raster.reading import fingerprint
from geop2p.raster.vectors import Area
from geop2p.translator import Translator

BATCH: dict[Mode, int] = {"exact": 1, "blend": 4}  # exact tiles are large
FILL_DEPTH = 64  # pixels into ground without data
PARTS_SHARE = 0.25  # of the memory


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
    """

    def __init__(self, translator: Translator, grid: Grid, config: PredictConfig, folder: Path) -> None:
        target = translator.card.target
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
        self.batch_size = config.batch_size or BATCH[self.tiles.mode]
        unit = self.lattice.step if self.is_exact else PART_MULTIPLE  # exact tiles are never cut by a part
        unit *= math.ceil(PART_MULTIPLE / unit)
        self.part_side = part_side(int(PARTS_SHARE * config.memory_bytes), target.channels, len(target.bands), unit)
        self.network_pixels = 0

    @property
    def is_exact(self) -> bool:
        """Whether every pixel is what the network makes of the whole raster at once."""
        return self.tiles.mode == "exact"

    def window(
        self, reader: Reader, window: Window, shift: tuple[int, int] = (0, 0), bar: Any = None
    ) -> tuple[Array, Mask]:
        """Predict a window of the grid.

        Args:
            reader: The input on the grid.
            window: Where.
            shift: (rows, columns) by which the lattice is moved, to see what depends on it.
            bar: Progress bar, moved by one for each tile.

        Returns:
            Stored target values (bands, rows, cols), and the valid pixels (rows, cols) of the input.
        """
        target, lattice = self.translator.card.target, dataclasses.replace(self.lattice, shift=shift)
        blend = Blend(window, target.channels, lattice.size, lattice.overlap)
        tiles = lattice.tiles(window)
        if self.is_exact:
            tiles = [self._needed(tile, window) for tile in tiles]
        for batch, values in self._translated(partial(self._encoded, reader), tiles, bar):
            for tile, one in zip(batch, values, strict=False):
                blend.add(tile, one)
        _, valid = reader.read(window)
        return target.decode(blend.result()), valid if self.area is None else valid & self.area.mask(window)

    def shifts(self, count: int) -> list[int]:
        """`count` even shares of the distance between tiles, on the network's stride.

        Blended tiles nearer to each other than that lie off it as they are, and are moved off it.
        """
        stride, step = self.translator.card.stride, self.lattice.step
        unit = stride if self.is_exact or step >= count * stride else 1
        return [step * number // count // unit * unit for number in range(count)]

    def _translated(self, look: Look, tiles: list[Window], bar: Any) -> Iterator[tuple[list[Window], Floats]]:
        """Batches of tiles and their translations; tiles without valid ground are left out.

        A batch holds tiles of one shape and is filled up with copies, so that a tile always meets the network in the
        same shape.
        """
        batch: list[tuple[Window, Floats]] = []
        for tile in tiles:
            if bar is not None:
                bar.update()
            encoded = self._needed_input(look, tile)
            if encoded is None:
                continue
            if batch and encoded.shape != batch[-1][1].shape:
                yield self._run(batch, look)
                batch = []
            batch.append((tile, encoded))
            if len(batch) == self.batch_size:
                yield self._run(batch, look)
                batch = []
        if batch:
            yield self._run(batch, look)

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

    def _needed_input(self, look: Look, tile: Window) -> Floats | None:
        """Network input of a tile and its halo; None if no pixel of the tile is valid and wanted."""
        if self.area is not None and not self.area.mask(tile).any():
            return None
        encoded, valid = look(_grown(tile, self.lattice.halo))
        inner = slice(self.lattice.halo, -self.lattice.halo or None)
        return encoded if valid[inner, inner].any() else None

    def _encoded(self, reader: Reader, window: Window) -> tuple[Floats, Mask]:
        """Network input of a window (channels, rows, cols), and its valid pixels (rows, cols).

        Beyond the raster the ground is reflected. Ground without data takes what lies nearest, as far as
        `FILL_DEPTH`: the network would paint the rim of a hole darker otherwise.
        """
        source, (values, valid) = self.translator.card.source, self._extended(reader, window)
        if valid.all() or not valid.any():
            return source.encode(values, valid), valid
        values, known = self._extended(reader, _grown(window, FILL_DEPTH))
        inner = slice(FILL_DEPTH, -FILL_DEPTH)
        return fill_from_nearest(source.encode(values, known), known, FILL_DEPTH)[:, inner, inner], valid

    def _extended(self, reader: Reader, window: Window) -> tuple[Array, Mask]:
        """Stored values of a window and its valid pixels, reflected at the borders of the raster."""
        rows = reflect_indices(int(window.row_off), int(window.row_off + window.height), self.grid.height)
        cols = reflect_indices(int(window.col_off), int(window.col_off + window.width), self.grid.width)
        top, left = int(rows.min()), int(cols.min())
        inside = Window(left, top, int(cols.max()) - left + 1, int(rows.max()) - top + 1)
        values, valid = reader.read(inside)
        at = np.ix_(rows - top, cols - left)
        return values[:, at[0], at[1]], valid[at]

    def _run(self, batch: list[tuple[Window, Floats]], look: Look) -> tuple[list[Window], Floats]:
        """Translate tiles of one shape, and throw their halos away."""
        full, halo = batch + batch[-1:] * (self.batch_size - len(batch)), self.lattice.halo
        sources = torch.from_numpy(np.stack([encoded for _, encoded in full]))
        self.network_pixels += len(full) * sources.shape[2] * sources.shape[3]
        with torch.backends.cudnn.flags(deterministic=True, benchmark=False):
            if self._ground is None:
                made = self.translator.translate(sources)
            else:
                made = self._ground.translate(sources, [_grown(tile, halo) for tile, _ in full], look)
        inner = slice(halo, -halo or None)
        result: Floats = made[:, :, inner, inner].cpu().numpy()
        return [tile for tile, _ in batch], result

    def claim(self, model: str, input: dict[str, Any]) -> dict[str, Any]:
        """All that decides the pixels of a part, for the manifest."""
        lattice = self.lattice
        settings: dict[str, Any] = {"tile_size": lattice.network_size, "overlap": lattice.overlap, "halo": lattice.halo}
        settings |= {"batch_size": self.batch_size, "part_side": self.part_side, "norm_stats": self.norm_stats}
        aoi = None if self.config.aoi is None else fingerprint(self.config.aoi)
        drawing = ("source_field", "line_width", "draw_order")
        settings |= {name: getattr(self.config, name) for name in drawing}
        settings |= {"frame": list(self.frame.flatten()), "aoi": aoi}
        return {"model": model, "input": input, "grid": self.grid.to_dict(), "settings": settings}


def _grown(window: Window, margin: int) -> Window:
    return Window(
        window.col_off - margin, window.row_off - margin, window.width + 2 * margin, window.height + 2 * margin
    )
