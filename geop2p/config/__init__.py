"""The settings of the jobs: one frozen dataclass each, the only place where a default stands.

Every field carries a sentence (`help` in its metadata) with its unit and the meaning of None; the command line
builds its options from these fields.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from geop2p.config.evaluation import CompareConfig, EvaluateConfig, ScoringConfig
from geop2p.config.fields import (
    LEAST_SIZE,
    SPLITS,
    Ablation,
    Backscatter,
    BestBy,
    ChipFormat,
    Device,
    Direction,
    Engine,
    FormatChoice,
    JudgeName,
    Kind,
    KindChoice,
    LossPreset,
    NormStats,
    Precision,
    RecipeName,
    Scaling,
    ScalingChoice,
    Split,
    SplitRule,
    UncertaintyBy,
    documented,
    names,
    option,
)
from geop2p.config.fields import at_least as _at_least
from geop2p.config.fields import changed as _changed
from geop2p.config.fields import check_list as _check_list
from geop2p.config.fields import check_seed as _check_seed
from geop2p.config.hints import coerce_fields as _coerce_fields
from geop2p.config.prediction import PredictConfig
from geop2p.errors import ConfigError

__all__ = [
    "SPLITS",
    "Ablation",
    "Backscatter",
    "BestBy",
    "ChipFormat",
    "CompareConfig",
    "Device",
    "Direction",
    "Engine",
    "EvaluateConfig",
    "FormatChoice",
    "JudgeName",
    "Kind",
    "KindChoice",
    "LossPreset",
    "NormStats",
    "Precision",
    "PredictConfig",
    "RecipeName",
    "Scaling",
    "ScalingChoice",
    "ScoringConfig",
    "Split",
    "SplitRule",
    "TileConfig",
    "TrainConfig",
    "UncertaintyBy",
    "names",
]


@documented
@dataclass(frozen=True)
class TileConfig:
    """How two layers are cut into paired chips.

    Raises:
        ConfigError: A value is of another type or out of its range, or two fields contradict each other.
    """

    size: int = option(256, "Side of a chip in pixels.")
    stride: int | None = option(None, "Distance between chips in pixels; none: the size, so that chips do not overlap.")
    grid: str = option(
        "target",
        "Grid of the chips: target, source, or EPSG:CODE@RESOLUTION in units of that CRS, any that GDAL knows.",
    )
    source_kind: KindChoice = option("auto", "What the source holds; auto decides from its type and values.")
    target_kind: KindChoice = option("auto", "What the target holds; auto decides from its type and values.")
    pixel_grid: bool = option(False, "Pair two rasters of one size and without CRS pixel by pixel.")
    classes: Path | None = option(
        None, "CSV with the columns value, name and color: the classes of a map, also of one drawn in colours (RGB)."
    )
    ignore_class: str | None = option(
        None, "Classes that mean unlabelled, by name or value, separated by commas: their ground is not valid."
    )
    source_field: str | None = option(None, "Attribute of a vector SOURCE that gives the class; none: one class.")
    target_field: str | None = option(None, "Attribute of a vector TARGET that gives the class; none: one class.")
    line_width: float | None = option(
        None, "Width in metres of the lines of a vector layer, diameter of its points; none: one pixel."
    )
    draw_order: str | None = option(
        None,
        "Classes of a vector layer from bottom to top, separated by commas; unlisted classes are drawn first, in file "
        "order.",
    )
    image_scaling: ScalingChoice = option(
        "auto",
        "Interval of an image's values that the network sees: all of its integer type (exact), or from the 0.1 to the "
        "99.9 percentile of the training chips; auto: the type for 8-bit unsigned integers, else percentiles.",
    )
    relief: float | None = option(
        None,
        "Radius in metres, for an elevation SOURCE: its values are heights above the mean height of the ground within "
        "it; none: plain heights.",
    )
    aoi: Path | None = option(None, "Vector layer of polygons, any CRS; only ground inside them is valid.")
    min_valid: float = option(0.95, "Smallest share of a chip that both layers cover with valid ground, above 0 to 1.")
    max_shift: float | None = option(
        None, "Largest shift in pixels of the target against the source; chips that show more are dropped; none: any."
    )
    max_share: float = option(1.0, "Largest share of one class in a chip, above 0 to 1; chips above it are dropped.")
    split: str = option("8:1:1", "Shares of training, validation and test ground.")
    split_by: SplitRule = option(
        "block",
        "Rule of the split: blocks, whole scenes, polygons of --aoi, single chips at random, or --split-file.",
    )
    split_file: Path | None = option(None, "CSV with the columns scene, split and optionally group.")
    split_field: str = option("split", "Attribute of --aoi that says train, val or test, for --split-by polygon.")
    buffer: int = option(0, "Least distance in pixels between the ground of two splits.")
    format: FormatChoice = option(
        "geotiff",
        "How chips are stored: a GeoTIFF each, packed into one array per split and side, virtual (the index alone; "
        "pixels are read from the layers), or, with --from, A|B images side by side.",
    )
    direction: Direction = option(
        "AtoB", "Which half of A|B images, or which of ArcGIS' images (A) and images2 (B), is the source, with --from."
    )
    seed: int = option(0, "Seed of the split.")

    def __post_init__(self) -> None:
        _coerce_fields(self)
        _check_list("ignore_class", self.ignore_class)
        _check_list("draw_order", self.draw_order)
        _at_least("size", self.size, LEAST_SIZE)
        if self.stride is not None:
            _at_least("stride", self.stride, 1)
        _at_least("buffer", self.buffer, 0)
        _check_seed(self.seed)
        if not 0 < self.min_valid <= 1:
            raise ConfigError(f"min_valid is {self.min_valid}, expected above 0 and at most 1")
        if self.max_shift is not None and not 0 <= self.max_shift <= self.size / 2:
            raise ConfigError(f"max_shift is {self.max_shift:g}, expected 0 to {self.size / 2:g}, half a chip")
        if self.relief is not None and self.relief <= 0:
            raise ConfigError(f"relief is {self.relief}, expected metres above 0")
        if not 0 < self.max_share <= 1:
            raise ConfigError(f"max_share is {self.max_share}, expected above 0 and at most 1")
        if self.line_width is not None and self.line_width <= 0:
            raise ConfigError(f"line_width is {self.line_width}, expected above 0")
        if self.pixel_grid and self.grid not in ("source", "target"):
            raise ConfigError(f"pixel_grid pairs pixel by pixel, so grid cannot be '{self.grid}'; give one of the two")
        if (self.split_by == "file") != (self.split_file is not None):
            raise ConfigError("split_by 'file' and split_file go together: give both or neither")
        if self.split_by == "polygon" and self.aoi is None:
            raise ConfigError("split_by 'polygon' needs aoi, polygons whose split_field says train, val or test")
        _ = self.split_shares

    @property
    def step(self) -> int:
        """Distance between chips in pixels."""
        return self.stride or self.size

    @property
    def layout(self) -> ChipFormat:
        """How a chip set is stored.

        Raises:
            ConfigError: A|B images are asked for, which are no chip set.
        """
        if self.format == "side-by-side":
            raise ConfigError(
                "format 'side-by-side' keeps neither ground nor values: tile into another one, then export it with "
                "geop2p tile --from CHIPS FOLDER --format side-by-side"
            )
        return self.format

    @property
    def ignored_classes(self) -> list[str]:
        """Names or values of the classes that mean unlabelled."""
        return names(self.ignore_class)

    @property
    def drawing_order(self) -> list[str]:
        """Names of classes from bottom to top."""
        return names(self.draw_order)

    @property
    def split_shares(self) -> dict[Split, float]:
        """Share of the ground for each split, summing to 1."""
        parts = self.split.split(":")
        try:
            numbers = [float(part) for part in parts]
        except ValueError:
            numbers = []
        if len(numbers) != 3 or min(numbers) < 0 or not sum(numbers) < math.inf:
            raise ConfigError(f"split is '{self.split}', expected three shares such as 8:1:1")
        if numbers[0] == 0:
            raise ConfigError(
                f"split is '{self.split}', expected a first share, that of training, above 0; scenes for testing only "
                "get their split with --split-by file --split-file CSV"
            )
        return {name: number / sum(numbers) for name, number in zip(SPLITS, numbers, strict=True)}


@documented
@dataclass(frozen=True)
class TrainConfig:
    """How a translator is trained.

    Raises:
        ConfigError: A value is of another type or out of its range.
    """

    recipe: RecipeName = option("pix2pix-geo", "Named set of networks, losses and optimiser.")
    epochs: int = option(200, "Passes over the training chips; the second half decays the learning rate to 0.")
    steps: int | None = option(None, "Optimisation steps instead of epochs; none: as --epochs says.")
    batch_size: int | None = option(None, "Chips per step; none: as the recipe says.")
    width: int = option(64, "Channels of the first layer of generator and discriminator.")
    downs: int | None = option(None, "Times the U-Net halves its input, as --set downs=N; none: as the recipe says.")
    loss: LossPreset | None = option(
        None, "Keep only these terms of the loss, as in the paper's ablation; imagery only; none: as the recipe says."
    )
    set: tuple[str, ...] = option((), "KEY=VALUE: change one field of the recipe; may be repeated.")
    lr: float = option(2e-4, "Learning rate of both optimisers.")
    init_from: Path | None = option(
        None, "Run or model whose weights training begins with, of the same architecture; none: with random ones."
    )
    balance: bool = option(False, "Draw chips with rare classes more often, by the column weight of the index.")
    best_by: BestBy | None = option(
        None,
        "Validation score whose best epoch is kept as best.safetensors next to the last; none: only the last is kept.",
    )
    patience: int | None = option(None, "Epochs without a better --best-by after which training stops; none: never.")
    skip_bad: bool = option(False, "Leave out chips that cannot be read, and list them, instead of stopping.")
    precision: Precision = option(
        "auto", "Number format of the networks; auto: bf16 where the hardware has it, else fp32."
    )
    device: Device = option("auto", "Where the networks run; auto: a GPU if there is one.")
    tensorboard: bool = option(False, "Also write losses, scores and samples for TensorBoard, into RUN/tensorboard.")
    seed: int = option(0, "Seed of weights, order, augmentation and dropout.")

    def __post_init__(self) -> None:
        _coerce_fields(self)
        for name in ("epochs", "width"):
            _at_least(name, getattr(self, name), 1)
        for name in ("steps", "batch_size", "patience"):
            if getattr(self, name) is not None:
                _at_least(name, getattr(self, name), 1)
        if self.steps is not None and "epochs" in _changed(self):
            raise ConfigError("epochs and steps both say how long to train; leave one of them out")
        if self.patience is not None and self.best_by is None:
            raise ConfigError("patience counts epochs without a better score; say which with best_by")
        if self.downs is not None:
            _at_least("downs", self.downs, 2)
        _check_seed(self.seed)
        if self.lr <= 0:
            raise ConfigError(f"lr is {self.lr}, expected above 0")
