"""`ModelInput`: the raster, folder of rasters or vector layer that is translated, and the grid that it is read on."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rasterio.crs import CRS
from rasterio.windows import Window

from geop2p.config import PredictConfig, names
from geop2p.errors import ConfigError, RasterError
from geop2p.mosaic.aoi import grown, outside_share
from geop2p.mosaic.checks import check_input, check_values
from geop2p.mosaic.classes import Codes, RecodedReader, match_classes
from geop2p.mosaic.grids import framed, grid_like, output_grid, vector_grid
from geop2p.raster.aligned import HidingReader, Reader, aligned_reader
from geop2p.raster.class_table import ClassTable
from geop2p.raster.damaged import DamagedReader
from geop2p.raster.drawing import drawn
from geop2p.raster.encoding import Encoding
from geop2p.raster.features import is_vector, vector_parts
from geop2p.raster.folder import SPARSE
from geop2p.raster.grid import Grid, local_crs
from geop2p.raster.pixels import in_metres, range_in_metres
from geop2p.raster.reading import RasterInfo, describe_raster, has_colors, read_sample
from geop2p.raster.relief import relief_reader
from geop2p.raster.vectors import BACKGROUND_NAME, VectorLayer, VectorReader, read_vector
from geop2p.translator import Card

log = logging.getLogger(__name__)

OUTSIDE = 0.01  # share of the area of interest beyond the input that is worth telling


@dataclass(frozen=True)
class ModelInput:
    """What is translated.

    Attributes:
        path: File or GDAL name, or a folder of rasters.
        grid: Where it is read.
        source: What the model takes it for.
        frame: What of the grid was asked for; None: all.
        valid_share: Share of its ground that holds data, about.
        block: (rows, cols) that are stored together; None: of a vector layer.
        skip_bad: Whether blocks that cannot be read are left without data; else they are errors.
        vector: Its features, if it is a vector layer.
        background: Code of the ground that no feature covers.
        colors: What its colours stand for, if it is a map drawn in colours.
        codes: The model's codes of its classes, where they differ.
        parts: Further files that its pixels come from.
        nodata: Its nodata value in words, as programs may change it in another file.
    """

    path: str
    grid: Grid
    source: Encoding
    frame: Window | None = None
    valid_share: float = 1.0
    block: tuple[int, int] | None = None
    skip_bad: bool = False
    vector: VectorLayer | None = None
    background: int | None = None
    colors: ClassTable | None = None
    codes: Codes = field(default_factory=dict)
    parts: Sequence[str] = ()
    nodata: str = ""

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        """Windows of it, as the model's source was read for its training."""
        with self._as_it_is() as reader:
            if self.block is None:
                yield reader
            else:
                yield DamagedReader(reader, self.block, self._as_it_is, skip=self.skip_bad)

    @contextmanager
    def _as_it_is(self) -> Iterator[Reader]:
        source = self.source
        if self.vector is not None:
            if self.background is not None:
                yield VectorReader(self.vector, self.grid, self.background)
            else:
                unused = max(entry.value for entry in self.vector.classes) + 1
                yield HidingReader(VectorReader(self.vector, self.grid, unused), [unused])
        elif source.relief is not None:
            with relief_reader(self.path, self.grid, source.relief) as reader:
                yield reader
        else:
            with aligned_reader(
                self.path, self.grid, source.kind, colors=self.colors, backscatter=source.backscatter
            ) as reader:
                yield RecodedReader(reader, self.codes) if self.codes else reader


def open_input(path: str | Path, card: Card, config: PredictConfig) -> ModelInput:
    """Look at what is to be translated.

    Raises:
        RasterError: It is missing, unreadable, or nothing that the model can read.
        ConfigError: The settings do not fit it.
        GridMismatchError: The grid to be used has other pixels than the training.
    """
    like = None if config.like is None else grid_like(config.like, card, config.no_resample)
    if is_vector(path):
        return _open_vector(str(path), card, config, like)
    info = describe_raster(path)
    if config.source_field or config.line_width or config.draw_order:
        raise ConfigError(f"{path}: is a raster; --source-field, --line-width and --draw-order are for vector layers")
    check_input(info, card, config.no_resample)
    colors = _color_table(info, card)
    codes: Codes = {}
    if card.source.is_classes and colors is None:
        codes = match_classes(str(path), info.categories, card.source.classes)
    valid_share = 1.0
    try:
        sample = read_sample(path, as_colors=colors is not None)
    except RasterError as error:  # of a block that may not be needed
        log.warning("a sample cannot be read, so the values are not checked: %s", error)
    else:
        check_values(path, card.source, colors, codes, sample)
        valid_share = float(sample[1].mean())
    frame = None
    if like is None:
        grid = output_grid(info.grid.unmirrored, card, config.no_resample)
        if grid != info.grid.unmirrored:
            log.info(
                "pixels of %s, the model was trained on %s: reading through a warp onto %s",
                in_metres(info.grid.pixel_size), range_in_metres(card.trained_pixels), grid.describe(),
            )  # fmt: skip
    else:
        whole = None
        if like.crs == info.grid.crs or (info.grid.crs is not None and like.crs == local_crs(info.grid)):
            whole = output_grid(info.grid.unmirrored, card, config.no_resample)
        grid, frame = framed(str(path), like, whole, info.grid.crs, info.grid.bounds)
    _tell_of_outside(str(path), grid, config)
    return ModelInput(
        str(path),
        grid,
        card.source,
        frame,
        valid_share,
        info.block,
        config.skip_bad,
        colors=colors,
        codes=codes,
        parts=info.parts,
        nodata=str(info.nodata),
    )


def _open_vector(path: str, card: Card, config: PredictConfig, like: Grid | None) -> ModelInput:
    """A vector layer drawn in the classes of the model, on the pixels of the training."""
    if not card.source.is_classes:
        raise RasterError(f"{path}: is a vector layer, the model expects {card.source.kind}")
    layer = read_vector(path, config.source_field, known=card.source.classes)
    layer = drawn(layer, config.line_width, names(config.draw_order))
    ours = {entry.value: entry.name for entry in card.source.classes}
    counts = Counter(layer.features["code"].tolist())
    strange = [entry for entry in layer.classes if counts[entry.value] and entry.value not in ours]
    unknown = {entry.name: counts[entry.value] for entry in strange}
    if counts and not set(counts) & set(ours):
        expected = ", ".join(f"{value} {name}" for value, name in ours.items())
        raise RasterError(
            f"{path}: has the classes {', '.join(unknown)}, the model knows {expected}; choose the attribute with "
            "--source-field, or rename them"
        )
    if unknown:
        told = ", ".join(f"{name} ({count} features)" for name, count in unknown.items())
        log.warning("%s: the model never saw the classes %s; their ground is a guess", path, told)
    background = next((value for value, name in ours.items() if name == BACKGROUND_NAME), None)
    if layer.is_empty:
        _check_background(layer, background, like)
    if background is None:
        log.info("%s: ground without features is left out, as the model has no class %s", path, BACKGROUND_NAME)
    frame = None
    if like is None:
        grid = vector_grid(layer, card)
        if config.aoi is not None and background is not None:
            drawn_on, grid = grid, grown(grid, config.aoi, card.stride)
            _tell_of_background(path, drawn_on, grid, config.aoi)
        else:
            _tell_of_outside(path, grid, config)
    else:
        whole = None if card.pixel_size is None or layer.is_empty else vector_grid(layer, card)
        own = layer.features.crs
        grid, frame = framed(path, like, whole, CRS.from_user_input(own), layer.bounds_in(own))
    parts = vector_parts(path)
    return ModelInput(path, grid, card.source, frame, vector=layer, background=background, parts=parts)


def _tell_of_outside(path: str, grid: Grid, config: PredictConfig) -> None:
    """Tell how much of the area of interest is not translated, as the input ends within it."""
    if config.aoi is None or config.like is not None:  # which is told where it shall end
        return
    share = outside_share(grid, config.aoi)
    if OUTSIDE < share < 1:  # of which nothing lies on it is an error
        log.warning("%s: ends within the area of %s: %.3g %% of that is left out", path, config.aoi, 100 * share)


def _tell_of_background(path: str, own: Grid, grid: Grid, aoi: Path) -> None:
    """Tell how large a mosaic is that an area of interest makes of a layer, if nearly all of it is background."""
    covered = own.width * own.height / (grid.width * grid.height)
    if covered < SPARSE:
        log.warning(
            "%s: covers %.3g %% of the %d x %d pixels that %s reaches to, the rest is background; if that is not "
            "meant, give a smaller area",
            path, 100 * covered, grid.width, grid.height, aoi,
        )  # fmt: skip


def _check_background(layer: VectorLayer, background: int | None, like: Grid | None) -> None:
    """Refuse a layer without features unless it is background on a grid of its own.

    Raises:
        RasterError: Nothing says where it lies, or the model has no class for it.
    """
    if background is None or like is None:
        way_out = "give a grid with --like" if background is not None else f"the model has no class {BACKGROUND_NAME}"
        raise RasterError(f"{layer.path}: has no features with a geometry, so there is nothing to translate; {way_out}")
    log.warning("%s: has no features with a geometry, so all of its ground is background", layer.path)


def _color_table(info: RasterInfo, card: Card) -> ClassTable | None:
    """What the colours of an input stand for if the model reads a map and the input is drawn in colours; else None.

    Raises:
        ConfigError: Two classes of the model have one colour.
    """
    if not card.source.is_classes or not has_colors(info):
        return None
    table = ClassTable("the model", (*card.source.classes, *card.source.ignored))
    table.check_colors()
    return table
