"""`Mosaic`: a translator spread over a grid."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from rasterio.windows import Window

from geop2p.config import PredictConfig
from geop2p.errors import ConfigError
from geop2p.mosaic.blend import Blend, Floats
from geop2p.mosaic.plan import Lattice, part_side
from geop2p.raster.aligned import Reader
from geop2p.raster.borders import reflect_indices
from geop2p.raster.encoding import Array, Mask
from geop2p.raster.grid import Grid
from geop2p.translator import Translator


class Mosaic:
    """A translator spread over a grid: any window of the result, always the same.

    Args:
        translator: What translates a tile.
        grid: Grid of input and output.
        config: Settings.
    """

    def __init__(self, translator: Translator, grid: Grid, config: PredictConfig) -> None:
        card = translator.card
        self.translator, self.grid, self.config = translator, grid, config
        size = config.tile_size or card.chip_size
        if size % card.stride:
            raise ConfigError(f"tile_size is {size}, expected a multiple of {card.stride}, the stride of the network")
        self.lattice = Lattice(size, round(size * config.overlap))
        channels = card.target.channels
        self.part_side = part_side(config.memory_bytes, channels, len(card.target.bands), size, config.batch_size)
        self.network_pixels = 0

    def window(self, reader: Reader, window: Window, shift: int = 0, bar: Any = None) -> tuple[Array, Mask]:
        """Predict a window of the grid.

        Args:
            reader: The input on the grid.
            window: Where.
            shift: Pixels by which the lattice is moved, to see what depends on it.
            bar: Progress bar, moved by one for each tile.

        Returns:
            Stored target values (bands, rows, cols), and the valid pixels (rows, cols) of the input.
        """
        target, lattice = self.translator.card.target, dataclasses.replace(self.lattice, shift=shift)
        blend = Blend(window, target.channels, lattice.size, lattice.overlap)
        for tiles, values in self._translated(reader, lattice.tiles(window), bar):
            for tile, one in zip(tiles, values, strict=False):
                blend.add(tile, one)
        _, valid = reader.read(window)
        return target.decode(blend.result()), valid

    def _translated(self, reader: Reader, tiles: list[Window], bar: Any) -> Iterator[tuple[list[Window], Floats]]:
        """Batches of tiles and their translations; tiles without valid ground are left out.

        The last batch is filled up with copies, so that every tile meets the network in the same shape.
        """
        batch: list[tuple[Window, Floats]] = []
        for tile in tiles:
            if bar is not None:
                bar.update()
            encoded = self._encoded(reader, tile)
            if encoded is not None:
                batch.append((tile, encoded))
            if batch and (len(batch) == self.config.batch_size or tile is tiles[-1]):
                inputs = [encoded for _, encoded in batch]
                inputs += inputs[-1:] * (self.config.batch_size - len(inputs))
                yield [tile for tile, _ in batch], self._run(np.stack(inputs))
                batch = []

    def _encoded(self, reader: Reader, tile: Window) -> Floats | None:
        """Network input of a tile, continued by reflection beyond the raster; None if no pixel of it is valid."""
        rows = reflect_indices(int(tile.row_off), int(tile.row_off + tile.height), self.grid.height)
        cols = reflect_indices(int(tile.col_off), int(tile.col_off + tile.width), self.grid.width)
        top, left = int(rows.min()), int(cols.min())
        window = Window(left, top, int(cols.max()) - left + 1, int(rows.max()) - top + 1)
        values, valid = reader.read(window)
        if not valid.any():
            return None
        at = np.ix_(rows - top, cols - left)
        return self.translator.card.source.encode(values[:, at[0], at[1]], valid[at])

    def _run(self, encoded: Floats) -> Floats:
        self.network_pixels += encoded.shape[0] * encoded.shape[2] * encoded.shape[3]
        with torch.backends.cudnn.flags(deterministic=True, benchmark=False):
            result: Floats = self.translator.translate(torch.from_numpy(encoded)).cpu().numpy()
        return result

    def claim(self, model: str, input: dict[str, Any]) -> dict[str, Any]:
        """All that decides the pixels of a part, for the manifest."""
        names = ("overlap", "batch_size")
        settings = {name: getattr(self.config, name) for name in names}
        settings |= {"tile_size": self.lattice.size, "part_side": self.part_side}
        return {"model": model, "input": input, "grid": self.grid.to_dict(), "settings": settings}
