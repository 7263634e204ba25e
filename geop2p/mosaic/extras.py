"""Rasters that are made with a mosaic, of the same tiles: how sure the model is, pixel by pixel."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from geop2p.config import PredictConfig, UncertaintyBy
from geop2p.config.fields import changed
from geop2p.errors import ConfigError
from geop2p.models.dropout import GroundDropout
from geop2p.mosaic.blend import Floats
from geop2p.mosaic.plan import Lattice
from geop2p.mosaic.uncertainty import (
    Spread,
    TileSpread,
    VariantSpread,
    dropout_samples,
    spread_encoding,
    turned_tiles,
)
from geop2p.raster.encoding import Array, Band, Encoding
from geop2p.raster.styles import Ramp
from geop2p.translator import Card, Translator

log = logging.getLogger(__name__)

Measure = Literal["probability", "entropy", "standard deviation"]

WAYS: dict[str, str] = {
    "d4": "the eight turns and mirror images of each tile",
    "tiles": "the tiles that overlap at a pixel",
    "dropout": "samples with dropout",
}


@dataclass(frozen=True)
class Extra:
    """A raster that is made with a mosaic.

    Attributes:
        name: What it is called among the parts.
        path: GeoTIFF to write.
        encoding: What it holds.
        measure: What its values are.
        description: In words.
        way: Which predictions it compares, if it compares any.
    """

    name: str
    path: Path
    encoding: Encoding
    measure: Measure
    description: str
    way: str | None = None

    def part(self, file: str) -> str:
        """Name of its part that goes with a part of the mosaic."""
        return f"{Path(file).stem}_{self.name}.tif"

    @property
    def ramp(self) -> Ramp:
        """How its style draws it."""
        return "amount" if self.measure == "standard deviation" else "share"

    @property
    def tags(self) -> dict[str, str]:
        """What its file says of it."""
        said = {"TIFFTAG_IMAGEDESCRIPTION": f"{self.description} (geop2p)", "GEOP2P_MEASURE": self.measure}
        return said if self.way is None else said | {"GEOP2P_UNCERTAINTY_BY": self.way}


class Extras:
    """The rasters that are made with a mosaic.

    Args:
        translator: With the network as it was trained, whatever runs it.
        config: Which rasters, and how the spread is found.
        lattice: The tiles of the mosaic.
        by_place: Whether norms take their statistics from outside the tile.

    Attributes:
        rasters: Those that were asked for.
        spread: How the spread is summed; None where none was asked for.
    """

    def __init__(self, translator: Translator, config: PredictConfig, lattice: Lattice, by_place: bool) -> None:
        target, found = translator.card.target, list[Extra]()
        self.spread: Spread | None = None
        if config.confidence is not None:
            encoding = Encoding("image", "float32", (Band("probability of the class", low=0, high=1),))
            said = "Probability of the class that the map shows"
            found.append(Extra("confidence", config.confidence, encoding, "probability", said))
        if config.uncertainty is not None:
            way, self.spread = _choose(translator, config, lattice, by_place)
            measure: Measure = "entropy" if target.is_classes else "standard deviation"
            said = f"Uncertainty of the prediction: {measure} over {WAYS[way]}"
            told = f"{way} {config.dropout_samples}" if way == "dropout" else way
            found.append(Extra("uncertainty", config.uncertainty, spread_encoding(target), measure, said, told))
        self.rasters: Sequence[Extra] = tuple(found)

    @property
    def claim(self) -> dict[str, Any]:
        """What decides their pixels, and which there are."""
        return {extra.name: extra.way or "made" for extra in self.rasters}

    def of(self, values: Floats, sums: Array | None) -> list[Floats]:
        """Their pixels (bands, rows, cols) in the order of `rasters`.

        Args:
            values: Blended network output (channels, rows, cols).
            sums: Those of the spread (channels, rows, cols), if there is one.
        """
        found = []
        for extra in self.rasters:
            if extra.name == "confidence":
                found.append(np.clip(values.max(axis=0, keepdims=True), 0, 1))
            else:
                assert self.spread is not None and sums is not None
                found.append(self.spread.finish(sums))
        return found


def check_extras(card: Card, config: PredictConfig) -> None:
    """Refuse rasters that the model cannot give.

    Raises:
        ConfigError: It makes no classes, and their probability is asked for.
    """
    if config.confidence is not None and not card.target.is_classes:
        raise ConfigError(
            f"{config.confidence}: confidence is the probability of a class, the model makes {card.target.kind}; leave "
            "--confidence out, --uncertainty is for any model"
        )


def _choose(
    translator: Translator, config: PredictConfig, lattice: Lattice, by_place: bool
) -> tuple[UncertaintyBy, Spread]:
    """How the spread is found.

    `auto` is the turned tile, whose spread told errors best (docs/benchmarks.md); where norms are given the statistics
    of the ground as it lies, dropout, or for want of it the tiles.

    Raises:
        ConfigError: What is asked for cannot be had here.
    """
    card, asked = translator.card, config.uncertainty_by
    if asked == "auto":
        asked = "d4" if not by_place else "dropout" if _dropout(translator) else "tiles"
        log.info("uncertainty: over %s (--uncertainty-by %s)", WAYS[asked], asked)
    if asked != "dropout" and "dropout_samples" in changed(config):
        raise ConfigError(f"dropout_samples is for --uncertainty-by dropout, which would be {asked} here; leave it out")
    if asked == "tiles":
        _check_overlap(lattice)
        return asked, TileSpread(card.target)
    if asked == "d4":
        if by_place:
            raise ConfigError(
                f"uncertainty_by is d4, but --norm-stats {config.norm_stats} measures the ground as it lies, not "
                "turned; give --uncertainty-by dropout or tiles, or --norm-stats tile"
            )
        return asked, VariantSpread(card.target, turned_tiles)
    if config.engine not in ("auto", "torch"):
        raise ConfigError(f"uncertainty_by is dropout, which engine {config.engine} leaves out; use torch, or d4")
    dropout = _dropout(translator)
    if not dropout:
        raise ConfigError("uncertainty_by is dropout, but the network has none; give --uncertainty-by d4")
    return asked, VariantSpread(card.target, dropout_samples(dropout, config.dropout_samples))


def _dropout(translator: Translator) -> GroundDropout:
    return GroundDropout(translator.generator, translator.card.in_channels, translator.card.chip_size)


def _check_overlap(lattice: Lattice) -> None:
    """Refuse tiles between which some pixels lie in one alone: nothing would be known of these.

    Raises:
        ConfigError: The overlap is not half a tile.
    """
    if 2 * lattice.overlap != lattice.size:
        why = f"tiles of {lattice.size} pixels overlap by {lattice.overlap}" if lattice.overlap else "none overlap"
        raise ConfigError(
            f"uncertainty_by is tiles, but {why}, expected half, so that each pixel lies in several that may disagree; "
            "give --overlap 0.5, or --uncertainty-by d4"
        )
