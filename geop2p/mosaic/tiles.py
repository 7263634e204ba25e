"""Which tiles a mosaic is made of: exact ones, whose margin is thrown away, or ones that are blended."""

import logging
import math
from dataclasses import dataclass
from typing import Literal

import torch

from geop2p.config import PredictConfig
from geop2p.errors import ConfigError
from geop2p.models.memory import activation_bytes
from geop2p.mosaic.plan import PART_MULTIPLE, Lattice
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
PROBE = 128  # pixels of the side that the activations are measured on, at least


@dataclass(frozen=True)
class Tiles:
    """How a mosaic is put together.

    Attributes:
        lattice: Where the tiles lie.
        mode: `exact` if every pixel is what the network makes of the whole raster at once, else `blend`.
        reason: Why, in words.
    """

    lattice: Lattice
    mode: Mode
    reason: str

    def describe(self) -> str:
        """A line for people."""
        size, lattice = self.lattice.network_size, self.lattice
        if self.mode == "exact":
            return f"exact: tiles of {size} pixels, of which {lattice.halo} on each side are thrown away; {self.reason}"
        return f"blended: tiles of {size} pixels that overlap by {lattice.overlap}, because {self.reason}"


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
    card = translator.card
    if config.tile_size is not None and config.tile_size % card.stride:
        raise ConfigError(
            f"tile_size is {config.tile_size}, expected a multiple of {card.stride}, the stride of the network"
        )
    if config.overlap is not None:
        return _blended(config, card, config.overlap, "an overlap was given")
    if statistics == "tile":
        return _blended(config, card, BLEND_OVERLAP, "the network normalises every tile by its own statistics")
    if card.field is None:
        return _blended(config, card, BLEND_OVERLAP, "the network's field is unbounded")
    halo = math.ceil(card.field / card.stride) * card.stride
    needs = f"the field of {card.field} pixels needs a margin of {halo}"
    if config.tile_size is None:
        core = _largest_core(translator, config, statistics, halo, longest)
        if core is None:
            return _blended(config, card, BLEND_OVERLAP, f"{needs}, too much for tiles that fit into {config.memory}")
    else:
        core = config.tile_size - 2 * halo
        if core <= 0:
            return _blended(config, card, BLEND_OVERLAP, f"{needs}, a tile has {config.tile_size}")
    cost = _cost(core, halo)
    if config.tile_size is None and cost > GOOD_COST and core < longest:
        log.info("exact tiles of %d pixels cost %.2g times the network; more --memory makes them larger", core, cost)
    return Tiles(Lattice(core, 0, halo), "exact", needs)


def _blended(config: PredictConfig, card: Card, overlap: float, reason: str) -> Tiles:
    size = config.tile_size or card.chip_size
    return Tiles(Lattice(size, round(size * overlap)), "blend", reason)


def _largest_core(
    translator: Translator, config: PredictConfig, statistics: NormStatistics, halo: int, longest: int
) -> int | None:
    """The largest square of ground for which a tile with its margin fits the memory; None if no such tile pays.

    A multiple of 512 where that is good enough, so that parts and the blocks of the file end where tiles do.
    """
    card = translator.card
    side = math.ceil(PROBE / card.stride) * card.stride
    a_pixel = activation_bytes(translator.generator, card.source.channels, side) * (config.batch_size or 1)
    room = NETWORK_SHARE * config.memory_bytes / WORKSPACE
    if translator.device.type == "cuda":
        room = NETWORK_SHARE * torch.cuda.get_device_properties(translator.device).total_memory
    if statistics == "field":
        room /= FIELD_SHARE
    widest = min(math.isqrt(int(room / a_pixel)), LARGEST + 2 * halo) - 2 * halo
    for unit, enough in ((math.lcm(PART_MULTIPLE, card.stride), GOOD_COST), (card.stride, WORST_COST)):
        core = widest // unit * unit
        if core > 0 and _cost(core, halo) <= enough:
            return min(core, math.ceil(longest / unit) * unit)
    return None


def _cost(core: int, halo: int) -> float:
    """Network pixels for each pixel of the raster."""
    return ((core + 2 * halo) / core) ** 2
