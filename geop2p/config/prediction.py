"""The settings of `predict`."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from geop2p.config.fields import (
    Device,
    Engine,
    NormStats,
    UncertaintyBy,
    at_least,
    changed,
    check_list,
    documented,
    option,
)
from geop2p.config.hints import coerce_fields
from geop2p.errors import ConfigError

MOST_OVERLAP = 0.5  # of a tile's side: more would make three tiles meet


@documented
@dataclass(frozen=True)
class PredictConfig:
    """How a raster is translated into a mosaic.

    Raises:
        ConfigError: A value is of another type or out of its range, or has no effect.
    """

    overlap: float | None = option(
        None,
        "Share of a tile's side that is blended into the next tile, 0 to 0.5; none: tiles that need no blending where "
        "the network allows it, else 0.5.",
    )
    tile_size: int | Literal["auto"] = option(
        "auto",
        "Side in pixels of what the network sees at once, a multiple of its stride; auto: as --memory allows for exact "
        "tiles, the chip size of the training for blended ones.",
    )
    norm_stats: NormStats = option(
        "auto", "Statistics of instance norms: of each tile, of the raster (global), or a field over it; auto: tile."
    )
    batch_size: int | None = option(
        None, "Tiles per pass through the network; none: 1 if they are exact, else up to 4, as --memory allows."
    )
    memory: str = option(
        "2GB", "Memory that prediction may add, in MB, GB, MiB or GiB, such as 500MB; sets the size of tiles and parts."
    )
    aoi: Path | None = option(None, "Layer of polygons in any CRS; only ground inside them is predicted.")
    shard: str | None = option(
        None, "I/N: make the I-th of N shares of the parts and stop; without it the finished parts are put together."
    )
    keep_parts: bool = option(
        False, "Leave a VRT (OUTPUT.vrt) over the parts, each a COG, and a STAC item, instead of one GeoTIFF."
    )
    dask: str | None = option(
        None, "Address of a Dask scheduler, such as tcp://HOST:8786: its workers make the parts, on their --device."
    )
    seam_map: Path | None = option(None, "GeoTIFF to write of the tile mismatch of every pixel; takes as long again.")
    confidence: Path | None = option(
        None, "GeoTIFF to write of the probability of the class that the mosaic shows, 0 to 1; for maps only."
    )
    uncertainty: Path | None = option(
        None,
        "GeoTIFF to write of how far predictions of the same ground lie apart: standard deviation in the target's "
        "units; for maps entropy, 0 to 1.",
    )
    uncertainty_by: UncertaintyBy = option(
        "auto",
        "Which predictions --uncertainty compares: of each tile in its eight turns and mirror images (d4), of the "
        "tiles that overlap, or samples with dropout; auto: d4, but with --norm-stats global or field dropout if the "
        "network has it, else tiles.",
    )
    dropout_samples: int = option(8, "Predictions with dropout that --uncertainty-by dropout compares.")
    max_mismatch: float | None = option(
        None, "Largest tile mismatch in percent of the encoded range (of classes: of the pixels); above it no mosaic."
    )
    like: Path | None = option(
        None,
        "Raster whose grid the mosaic gets, instead of the input's; its pixels must have the training's size, unless "
        "--no-resample is given.",
    )
    source_field: str | None = option(None, "Attribute that names the class, for a vector layer as the input.")
    line_width: float | None = option(
        None, "Width in metres of the lines of a vector layer, diameter of its points; none: one pixel."
    )
    draw_order: str | None = option(
        None, "Classes of a vector layer from bottom to top, separated by commas; unlisted classes are drawn first."
    )
    skip_bad: bool = option(
        False, "Treat blocks of the input that cannot be read as ground without data, instead of stopping."
    )
    no_resample: bool = option(False, "Keep the grid of the input, even if its pixel size is not the training's.")
    engine: Engine = option(
        "auto",
        "What runs the network: torch, or on processors onnx and openvino (extras of these names); torch-bf16 and "
        "openvino-int8 compute in 16-bit floats and in 8-bit integers, calibrated on the input, which change values a "
        "little; auto: torch.",
    )
    device: Device = option("auto", "Where the network runs; auto: a GPU if there is one.")

    def __post_init__(self) -> None:
        coerce_fields(self)
        check_list("draw_order", self.draw_order)
        if self.overlap is not None and not 0 <= self.overlap <= MOST_OVERLAP:
            raise ConfigError(f"overlap is {self.overlap}, expected 0 to {MOST_OVERLAP}")
        if isinstance(self.tile_size, int):
            at_least("tile_size", self.tile_size, 16)
        if self.batch_size is not None:
            at_least("batch_size", self.batch_size, 1)
        if self.line_width is not None and self.line_width <= 0:
            raise ConfigError(f"line_width is {self.line_width}, expected metres above 0")
        if self.max_mismatch is not None and not 0 <= self.max_mismatch <= 100:
            raise ConfigError(f"max_mismatch is {self.max_mismatch}, expected 0 to 100 percent")
        if self.dask is not None and self.shard is not None:
            raise ConfigError("--dask and --shard are two ways to share the parts out; give one of them")
        if self.dask is not None and not re.fullmatch(r"\w+://\S+:\d+", self.dask):
            raise ConfigError(f"dask is '{self.dask}', expected the address of a scheduler, such as tcp://HOST:8786")
        if self.uncertainty is None and self.uncertainty_by != "auto":
            raise ConfigError(f"uncertainty_by is {self.uncertainty_by}, but there is no --uncertainty FILE; give one")
        at_least("dropout_samples", self.dropout_samples, 2)
        if "dropout_samples" in changed(self) and (self.uncertainty is None or self.uncertainty_by in ("d4", "tiles")):
            raise ConfigError("dropout_samples is for --uncertainty FILE over dropout; leave it out")
        _ = self.memory_bytes, self.share_of_parts

    @property
    def tile_side(self) -> int | None:
        """The side of tiles that was asked for; None: as fits."""
        return None if self.tile_size == "auto" else self.tile_size

    @property
    def share_of_parts(self) -> slice:
        """Which of the parts are to be made.

        Raises:
            ConfigError: `shard` is not I/N with I from 1 to N.
        """
        if self.shard is None:
            return slice(None)
        match = re.fullmatch(r"(\d+)/(\d+)", self.shard)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise ConfigError(f"shard is '{self.shard}', expected I/N with I from 1 to N, such as 2/8")
        return slice(int(match[1]) - 1, None, int(match[2]))

    @property
    def memory_bytes(self) -> int:
        """The memory bound in bytes."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(MB|GB|MiB|GiB)", self.memory)
        if match is None:
            raise ConfigError(f"memory is '{self.memory}', expected a number with MB, GB, MiB or GiB, such as 2GB")
        factor = {"MB": 10**6, "GB": 10**9, "MiB": 2**20, "GiB": 2**30}[match[2]]
        return int(float(match[1]) * factor)
