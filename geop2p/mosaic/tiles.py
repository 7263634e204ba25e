"""Which tiles a mosaic is made of: exact ones, whose margin is thrown away, or ones that are blended."""

import logging
import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from geop2p.config import PredictConfig
from geop2p.errors import ConfigError
from geop2p.models.memory import activation_bytes, telling_when_full
from geop2p.mosaic.plan import PART_MULTIPLE, Lattice, column_bytes, part_side
from geop2p.mosaic.uncertainty import variant_bytes
from geop2p.translator import Card, Translator

log = logging.getLogger(__name__)

Mode = Literal["exact", "blend"]
NormStatistics = Literal["none", "tile", "global", "field"]

NORM_STATS: NormStatistics = "tile"  # where nothing was asked for
BLEND_OVERLAP = 0.5  # where nothing was asked for
LARGEST = 2048  # pixels of ground a tile is good for; beyond, halos cost next to nothing
GOOD_COST = 1.5  # network pixels for each pixel of the raster that exact tiles should not exceed
WORST_COST = 2.5  # above which exact tiles are given up: blending halves costs 4, a quarter 1.8
NETWORK_SHARE = 0.5  # of the memory
FIELD_SHARE = 4  # what a field of statistics multiplies the activations by: maps in double precision
WORKSPACE = 1.75  # what convolutions hold beside the activations, measured on CPUs: 1.2 to 1.7 times these
KEPT = 150 * 10**6  # bytes, at most as many as activations, that the heap keeps after tiles of other shapes; measured
BASE = 130 * 10**6  # bytes that a prediction adds whatever it does: GDAL's cache, libraries, heaps of threads; measured
BATCH = 4  # blended tiles at once; exact ones are large
PARTS_SHARE = 0.25  # of the memory
PROBE = 128  # pixels of the side that the activations are measured on, at least


@dataclass(frozen=True)
class Tiles:
    """How a mosaic is put together.

    Attributes:
        lattice: Where the tiles lie.
        mode: `exact` if every pixel is what the network makes of the whole raster at once, else `blend`.
        reason: Why, in words.
        batch_size: Tiles per pass through the network.
        network_bytes: Of the machine's memory that a pass takes, about.
    """

    lattice: Lattice
    mode: Mode
    reason: str
    batch_size: int
    network_bytes: int

    def describe(self) -> str:
        """A line for people."""
        size, lattice = self.lattice.network_size, self.lattice
        if self.mode == "exact":
            return f"exact: tiles of {size} pixels, of which {lattice.halo} on each side are thrown away; {self.reason}"
        return f"blended: tiles of {size} pixels that overlap by {lattice.overlap}, because {self.reason}"


def explaining_memory(tiles: Tiles, config: PredictConfig) -> AbstractContextManager[None]:
    """Say what to try when memory is not enough.

    Raises:
        ConfigError: Memory was not enough.
    """
    told = (
        f"out of memory with tiles of {tiles.lattice.network_size} pixels, {tiles.batch_size} at a time; give "
        f"smaller ones (--tile-size), fewer (--batch-size), or less --memory (now {config.memory})"
    )
    return telling_when_full(ConfigError(told))


def norm_statistics(card: Card, config: PredictConfig) -> NormStatistics:
    """Where the norms of a network take their statistics from: `none` if they need none of the input."""
    asked = config.norm_stats
    if card.statistics == "none":
        if asked in ("global", "field"):
            log.info("norm-stats %s: the network uses no statistics of its input; nothing to do", asked)
        return "none"
    return NORM_STATS if asked == "auto" else asked


def choose_tiles(translator: Translator, config: PredictConfig, statistics: NormStatistics, longest: int) -> Tiles:
    """Exact tiles where the network allows them and the memory suffices, else blended ones.

    Args:
        translator: Whose network is asked.
        config: Overlap, tile size and memory.
        statistics: Where its norms take their statistics from.
        longest: Longer side of the raster in pixels.

    Raises:
        ConfigError: The tile size does not fit the network.
    """
    card, blended = translator.card, partial(_blended, translator, config, statistics)
    if config.tile_side is not None and config.tile_side % card.stride:
        raise ConfigError(
            f"tile_size is {config.tile_side}, expected a multiple of {card.stride}, the stride of the network"
        )
    if config.overlap is not None:
        return blended(config.overlap, "an overlap was given")
    if statistics == "tile":
        return blended(BLEND_OVERLAP, "the network normalises every tile by its own statistics")
    if card.field is None:
        return blended(BLEND_OVERLAP, "the network's field is unbounded")
    halo = math.ceil(card.field / card.stride) * card.stride
    needs = f"the receptive field of {card.field} pixels needs a margin of {halo}"
    if config.tile_side is None:
        core = _largest_core(translator, config, statistics, halo, longest)
        if core is None:
            return blended(BLEND_OVERLAP, f"{needs}, too much for tiles that fit into {config.memory}")
    else:
        core = min(config.tile_side - 2 * halo, math.ceil(longest / card.stride) * card.stride)
        if core <= 0:
            return blended(BLEND_OVERLAP, f"{needs}, a tile has {config.tile_side}")
    cost = _cost(core, halo)
    if config.tile_side is None and cost > GOOD_COST and core < longest:
        log.info("exact tiles of %d pixels cost %.2g times the network; more --memory makes them larger", core, cost)
    batch_size = config.batch_size or 1
    lattice = Lattice(core, 0, halo, stride=card.stride)
    network = _with_kept(batch_size * _host_bytes(translator, config, statistics, lattice))
    return Tiles(lattice, "exact", needs, batch_size, network)


def _blended(
    translator: Translator, config: PredictConfig, statistics: NormStatistics, overlap: float, reason: str
) -> Tiles:
    """Tiles of the size that was asked for, or of the chips; as many at once as the memory allows, up to `BATCH`."""
    card = translator.card
    size = config.tile_side or card.chip_size
    lattice = Lattice(size, min(round(size * overlap), size // 2))  # half of an odd side may be rounded up
    a_tile = _host_bytes(translator, config, statistics, lattice)
    a_column = column_bytes(lattice, card.source, card.target, noise=card.noise)
    room = config.memory_bytes - BASE - PART_MULTIPLE * a_column
    batch_size = config.batch_size or min(max(room // max(a_tile, 1), 1), BATCH)
    return Tiles(lattice, "blend", reason, batch_size, batch_size * a_tile)


def _pixel_bytes(translator: Translator, config: PredictConfig, statistics: NormStatistics) -> float:
    """What the network holds on its device for each pixel of a tile, about, and what its spread does meanwhile."""
    card = translator.card
    side = math.ceil(PROBE / card.stride) * card.stride
    held = activation_bytes(translator.generator, card.in_channels, side)
    held *= 1 if translator.device.type == "cuda" else WORKSPACE
    held *= FIELD_SHARE if statistics == "field" else 1
    return held if config.uncertainty is None else held + variant_bytes(card.in_channels, card.target)


def _host_bytes(translator: Translator, config: PredictConfig, statistics: NormStatistics, lattice: Lattice) -> int:
    """What a tile in the network takes of the machine's memory, about: nothing where a GPU has memory of its own."""
    if translator.device.type == "cuda":
        return 0
    return int(_pixel_bytes(translator, config, statistics) * lattice.network_size**2)


def _with_kept(network: float) -> int:
    """What the activations of exact tiles take, which borders of the raster and of parts cut to several shapes."""
    return int(network + min(network, KEPT))


def choose_part_side(tiles: Tiles, config: PredictConfig, a_column: int) -> int:
    """The side of a part beside whose tiles its buffers fit the memory; a warning where even the least does not fit.

    A warning, since the figures are estimates from above: what is refused on them might fit.
    """
    unit = _part_unit(tiles.lattice, tiles.mode)
    taken = BASE + tiles.network_bytes
    if taken + unit * a_column > config.memory_bytes:
        least = math.ceil((taken + unit * a_column) / 1e6)
        log.warning(
            "memory %s is not kept: tiles and parts of the least size take up to %d MB; give --memory %dMB, or smaller "
            "tiles (--tile-size)", config.memory, least, least,
        )  # fmt: skip
    return part_side(int(min(PARTS_SHARE * config.memory_bytes, config.memory_bytes - taken)), a_column, unit)


def _part_unit(lattice: Lattice, mode: Mode) -> int:
    """Sides of parts are multiples of this: exact tiles are never cut by a part."""
    unit = lattice.step if mode == "exact" else PART_MULTIPLE
    return unit * math.ceil(PART_MULTIPLE / unit)


def _largest_core(
    translator: Translator, config: PredictConfig, statistics: NormStatistics, halo: int, longest: int
) -> int | None:
    """The largest square of ground for which a tile with its margin fits the memory; None if no such tile pays.

    A multiple of 512 where that is good enough, so that parts and the blocks of the file end where tiles do.
    """
    card, on_gpu = translator.card, translator.device.type == "cuda"
    a_pixel = _pixel_bytes(translator, config, statistics) * (config.batch_size or 1)
    room = NETWORK_SHARE * config.memory_bytes
    if on_gpu:
        room = NETWORK_SHARE * torch.cuda.get_device_properties(translator.device).total_memory
    widest = min(math.isqrt(int(room / a_pixel)), LARGEST + 2 * halo) - 2 * halo

    def fits(core: int) -> bool:
        lattice = Lattice(core, 0, halo)
        network = 0 if on_gpu else _with_kept(a_pixel * lattice.network_size**2)
        part = _part_unit(lattice, "exact") * column_bytes(lattice, card.source, card.target, noise=card.noise)
        return BASE + network + part <= config.memory_bytes

    for unit, enough in ((math.lcm(PART_MULTIPLE, card.stride), GOOD_COST), (card.stride, WORST_COST)):
        core = next((core for core in range(widest // unit * unit, 0, -unit) if fits(core)), 0)
        if core > 0 and _cost(core, halo) <= enough:
            return min(core, math.ceil(longest / unit) * unit)
    return None


def _cost(core: int, halo: int) -> float:
    """Network pixels for each pixel of the raster."""
    return ((core + 2 * halo) / core) ** 2
