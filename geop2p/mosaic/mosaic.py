"""`Mosaic`: a translator spread over a grid."""

import contextlib
import dataclasses
import importlib.metadata
import itertools
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rasterio.windows import Window

from geop2p.config import PredictConfig
from geop2p.models.hardware import repeatable_convolutions
from geop2p.mosaic.blend import Blend, Floats
from geop2p.mosaic.engine import choose_engine, tells_few_apart, with_engine
from geop2p.mosaic.extras import Extras
from geop2p.mosaic.masks import Masks
from geop2p.mosaic.plan import column_bytes
from geop2p.mosaic.quantised import QuantisedNetwork
from geop2p.mosaic.statistics import GroundStatistics, ReadWindow
from geop2p.mosaic.strips import NetworkInput, grown
from geop2p.mosaic.tiles import choose_part_side, choose_tiles, norm_statistics
from geop2p.mosaic.uncertainty import Spread
from geop2p.raster.aligned import Reader
from geop2p.raster.encoding import Array, Encoding, Mask
from geop2p.raster.features import vector_parts
from geop2p.raster.fingerprints import fingerprint
from geop2p.raster.grid import Grid
from geop2p.raster.vectors import Area
from geop2p.translator import Translator

Translated = tuple[Window, torch.Tensor, torch.Tensor | None]  # a tile, its values, and what it adds to the spread


class Mosaic:
    """A translator spread over a grid: any window of the result, always the same.

    Args:
        translator: What translates a tile.
        grid: Grid that the input is read on.
        config: Settings; its area of interest says what is shown of the grid.
        folder: For files on the way.
        part_side: Of the parts, as another process chose it; None: as the memory allows here.
        input_name: Of what is translated.
        frame: What may be shown of the grid; None: all.

    Attributes:
        frame: What the result shows of the grid, in pixels of it.
        shown: Grid of the result.
        engine: What runs the network.
        extras: Rasters that are made with the result.
    """

    def __init__(
        self,
        translator: Translator,
        grid: Grid,
        config: PredictConfig,
        folder: Path,
        part_side: int | None = None,
        input_name: str = "",
        frame: Window | None = None,
    ) -> None:
        self.translator, self.grid, self.config, self.input_name = translator, grid, config, input_name
        self.area = None if config.aoi is None else Area(config.aoi, grid)
        self.frame = frame or Window(0, 0, grid.width, grid.height)
        if self.area is not None:
            self.frame = self.area.window(self.frame)
        self.shown = grid.window(self.frame)
        self.norm_stats = norm_statistics(translator.card, config)
        self._ground: GroundStatistics | QuantisedNetwork | None = None
        if self.norm_stats in ("global", "field"):
            self._ground = GroundStatistics(translator, grid, self.norm_stats == "field", folder)
        self.tiles = choose_tiles(translator, config, self.norm_stats, max(grid.height, grid.width))
        self.lattice = self.tiles.lattice
        self.batch_size = self.tiles.batch_size
        self.extras = Extras(translator, config, self.lattice, self._ground is not None)
        encodings, spread = [extra.encoding for extra in self.extras.rasters], self.extras.spread
        card, sums = translator.card, spread.pixel_bytes if spread else 0
        a_column = column_bytes(self.lattice, card.source, card.target, encodings, sums, card.noise)
        own_side = choose_part_side(self.tiles, config, a_column)  # warns of too little memory, whoever cut the parts
        self.part_side = part_side or own_side
        self.network_pixels = 0
        self._batch = torch.empty(0, 0, 0, 0)
        self.engine = choose_engine(translator, config.engine, self._ground is not None)
        self.translator = with_engine(translator, self.engine)
        if self.engine == "openvino-int8":
            self._ground = QuantisedNetwork(translator, grid, folder, self.lattice.network_size)

    @property
    def int8_psnr(self) -> float | None:
        """PSNR in dB of 8-bit integers against float32; None without them, or where they change nothing."""
        return self._ground.psnr if isinstance(self._ground, QuantisedNetwork) else None

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
        for values, valid, _ in self.rows(reader, window, shift):
            here = slice(row, row + len(valid))
            made[:, here], there[here] = values, valid
            row += len(valid)
        return made, there

    def rows(
        self,
        reader: Reader,
        window: Window,
        shift: tuple[int, int] = (0, 0),
        bar: Any = None,
        with_extras: bool = False,
    ) -> Generator[tuple[Array, Mask, list[Floats]], None, None]:
        """Predict a window of the grid, some rows at a time from top to bottom, the input read by another thread.

        Args:
            reader: See `window`.
            window: See `window`.
            shift: See `window`.
            bar: Progress bar, moved by one for each tile.
            with_extras: Whether the pixels of `extras` are made, too.

        Yields:
            Values and valid pixels as of `window`, and those of the extras (bands, rows, cols).
        """
        card, lattice = self.translator.card, dataclasses.replace(self.lattice, shift=shift)
        target, tiles = card.target, lattice.tiles(window)
        ground = NetworkInput(reader, card.source, card.noise)
        if self.is_exact:
            tiles = [self._needed(tile, window) for tile in tiles]
        blend = Blend(window, target.channels, lattice.size, lattice.overlap, self.translator.device)
        spread = self.extras.spread if with_extras else None
        apart = spread.blend(window, lattice, self.translator.device) if spread else None
        masks, row = Masks(window, self.area), int(window.row_off)

        def finished(end: int) -> Iterator[tuple[Array, Mask, list[Floats]]]:
            nonlocal row
            blended = blend.until(end)
            rows = (
                ((values, None) for values in blended) if apart is None else zip(blended, apart.until(end), strict=True)
            )
            for values, summed in rows:
                valid = masks.take(values.shape[1])
                made = target.decode(values) if valid.any() else _nothing(target, valid)
                yield made, valid, self.extras.of(values, summed) if with_extras else []
            row = end

        with contextlib.closing(self._inputs(ground, tiles, masks, bar)) as inputs:
            for tile, made, measured in self._translated(inputs, ground.look, spread):
                if tile.row_off > row:
                    yield from finished(int(tile.row_off))
                blend.add(tile, made)
                if apart is not None and measured is not None:
                    apart.add(tile, measured)
        yield from finished(int(window.row_off + window.height))

    def shifts(self, count: int) -> list[int]:
        """`count` even shares of the distance between tiles, on the network's stride.

        Blended tiles nearer to each other than that lie off it as they are, and are moved off it.
        """
        stride, step = self.translator.card.stride, self.lattice.step
        unit = stride if self.is_exact or step >= count * stride else 1
        return [step * number // count // unit * unit for number in range(count)]

    def _inputs(
        self, ground: NetworkInput, tiles: list[Window], masks: Masks, bar: Any
    ) -> Generator[tuple[Window, torch.Tensor], None, None]:
        """Tiles and their network inputs, each good until the next; those without valid ground are left out.

        `masks` gets the valid pixels.
        """
        halo, by_row = self.lattice.halo, [list(row) for _, row in itertools.groupby(tiles, lambda tile: tile.row_off)]
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
        self, inputs: Iterator[tuple[Window, torch.Tensor]], look: ReadWindow, spread: Spread | None
    ) -> Iterator[Translated]:
        """Tiles and their translations.

        A batch holds tiles of one shape and is filled up with copies, so that a tile always meets the network in the
        same shape.
        """
        batch: list[Window] = []
        for tile, encoded in inputs:
            if batch and (encoded.shape != self._batch.shape[1:] or len(batch) == self.batch_size):
                yield from self._run(batch, look, spread)
                batch = []
            if self._batch.shape[1:] != encoded.shape:  # new memory for each batch costs more than blending it
                pinned = self.translator.device.type == "cuda"
                self._batch = torch.empty((self.batch_size, *encoded.shape), pin_memory=pinned)
            self._batch[len(batch)] = encoded
            batch.append(tile)
        if batch:
            yield from self._run(batch, look, spread)

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

    def _run(self, batch: list[Window], look: ReadWindow, spread: Spread | None) -> Iterator[Translated]:
        """Translate tiles of one shape, and throw their halos away. What is given is good until the next batch."""
        halo, count = self.lattice.halo, len(batch)
        self._batch[count:] = self._batch[count - 1]
        sources = self._batch.to(self.translator.device)  # waited for: the next tiles take the same memory
        places = [grown(tile, halo) for tile in batch + batch[-1:] * (len(sources) - count)]
        inner = slice(halo, -halo or None)

        def translate(sources: torch.Tensor) -> torch.Tensor:
            self.network_pixels += len(sources) * sources.shape[2] * sources.shape[3]
            with repeatable_convolutions(tf32=tells_few_apart(self.translator.card.target)):
                if self._ground is None:
                    made = self.translator.translate(sources)
                else:
                    made = self._ground.translate(sources, places, look)
            return made[:, :, inner, inner]

        made = translate(sources)
        apart = spread.measure(made, sources, places, translate) if spread else itertools.repeat(None)
        yield from zip(batch, made, apart, strict=False)

    def claim(self, model: str, input: dict[str, Any], codes: Mapping[int, int]) -> dict[str, Any]:
        """All that decides the pixels of a part, for the manifest; `codes` are those that the input is recoded by."""
        lattice = self.lattice
        settings: dict[str, Any] = {"tile_size": lattice.network_size, "overlap": lattice.overlap, "halo": lattice.halo}
        settings |= {"batch_size": self.batch_size, "part_side": self.part_side, "norm_stats": self.norm_stats}
        settings |= {"engine": self.engine} | self.extras.claim
        aoi = None if self.config.aoi is None else fingerprint(self.config.aoi, vector_parts(self.config.aoi))
        drawing = ("source_field", "line_width", "draw_order", "skip_bad")
        settings |= {name: getattr(self.config, name) for name in drawing}
        settings["classes"] = {str(code): value for code, value in codes.items()}
        settings["version"] = importlib.metadata.version("geop2p")
        settings |= {"frame": list(self.frame.flatten()), "aoi": aoi}
        return {"model": model, "input": input, "grid": self.grid.to_dict(), "settings": settings}


def _hull(tiles: list[Window]) -> Window:
    """The window that a row of tiles covers."""
    last = tiles[-1]
    return Window(tiles[0].col_off, last.row_off, last.col_off + last.width - tiles[0].col_off, last.height)


def _nothing(target: Encoding, valid: Mask) -> Array:
    return np.zeros((len(target.bands), *valid.shape), target.dtype)
