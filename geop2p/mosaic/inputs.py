"""`ModelInput`: the raster, folder of rasters or vector layer that is translated, and the grid that it is read on."""

import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from geop2p.config import PredictConfig, names
from geop2p.errors import ConfigError, GridMismatchError, RasterError
from geop2p.mosaic.checks import check_input, check_values
from geop2p.mosaic.classes import Codes, RecodedReader, match_classes
from geop2p.mosaic.framing import framed
from geop2p.mosaic.reach import grown, outside_share
from geop2p.raster.aligned import HidingReader, Reader, aligned_reader
from geop2p.raster.class_table import ClassTable
from geop2p.raster.damaged import DamagedReader
from geop2p.raster.drawing import drawn
from geop2p.raster.encoding import Encoding
from geop2p.raster.features import is_vector, vector_parts
from geop2p.raster.folder import SPARSE
from geop2p.raster.grid import Bounds, Grid, local_crs
from geop2p.raster.pixels import PixelSize, has_size, in_metres, nearest_size, range_in_metres
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
    like = None if config.like is None else _grid_like(config.like, card, config.no_resample)
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
        grid = _output_grid(info.grid.unmirrored, card, config.no_resample)
        if grid != info.grid.unmirrored:
            log.info(
                "pixels of %s, the model was trained on %s: reading through a warp onto %s",
                in_metres(info.grid.pixel_size), range_in_metres(card.trained_pixels), grid.describe(),
            )  # fmt: skip
    else:
        whole = None
        if like.crs == info.grid.crs or (info.grid.crs is not None and like.crs == local_crs(info.grid)):
            whole = _output_grid(info.grid.unmirrored, card, config.no_resample)
        grid, frame = _framed(str(path), like, whole, info.grid.crs, info.grid.bounds)
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
        grid = _vector_grid(layer, card)
        if config.aoi is not None and background is not None:
            drawn_on, grid = grid, grown(grid, config.aoi, card.stride)
            _tell_of_background(path, drawn_on, grid, config.aoi)
        else:
            _tell_of_outside(path, grid, config)
    else:
        whole = None if card.pixel_size is None or layer.is_empty else _vector_grid(layer, card)
        own = layer.features.crs
        grid, frame = _framed(path, like, whole, CRS.from_user_input(own), layer.bounds_in(own))
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


def _framed(path: str, like: Grid, whole: Grid | None, crs: CRS | None, bounds: Bounds) -> tuple[Grid, Window]:
    """See `framed`.

    Raises:
        GridMismatchError: The input lies elsewhere, or one of both has no CRS.
    """
    if (crs is None) != (like.crs is None):
        lacks = "has no CRS, the raster of --like" if crs is None else "has a CRS, the raster of --like none"
        raise GridMismatchError(f"{path}: {lacks}{' has one' * (crs is None)}; assign one (gdal_edit -a_srs)")
    found = framed(like, whole, crs, bounds)
    if found is None:
        raise GridMismatchError(f"{path}: lies elsewhere than the grid that --like gives, {like.describe()}")
    return found


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


def _grid_like(path: Path, card: Card, no_resample: bool) -> Grid:
    """The grid of another raster, whose pixels must have a size of the training."""
    grid = describe_raster(path).grid.unmirrored
    if not no_resample and not has_size(grid.pixel_size, card.trained_pixels):
        found, trained = in_metres(grid.pixel_size), range_in_metres(card.trained_pixels)
        raise GridMismatchError(
            f"{path}: has pixels of {found}, the model was trained on {trained}; give a grid of such pixels, or insist "
            "with --no-resample"
        )
    return grid


def _output_grid(grid: Grid, card: Card, no_resample: bool) -> Grid:
    """The grid of the mosaic: the input's where its pixels have a size of the training within 5 %, else a new one.

    The new grid is north-up from the input's first corner, in the input's CRS or, if that is geographic, in the UTM
    zone of the input's centre. Of several sizes of the training it has the one that is nearest to the input's.
    """
    found, known = grid.pixel_size, card.trained_pixels
    if no_resample or found is None or known is None or has_size(found, known):
        return grid
    crs = local_crs(grid)
    return _trained_grid(grid.bounds_in(crs), crs, nearest_size(found, known))


def _vector_grid(layer: VectorLayer, card: Card) -> Grid:
    if card.pixel_size is None:
        raise GridMismatchError(f"{layer.path}: the model has no pixel size to draw it with; give a grid with --like")
    left, bottom, right, top = layer.features.total_bounds
    crs = local_crs(
        Grid(CRS.from_user_input(layer.features.crs), Affine(right - left, 0, left, 0, bottom - top, top), 1, 1)
    )
    # the pixels of lines and points on the layer's bounds lie half beyond
    return _trained_grid(layer.bounds_in(crs), crs, card.pixel_size, margin=0.5 if layer.thin.any() else 0.0)


def _trained_grid(bounds: Bounds, crs: CRS, size: PixelSize, margin: float = 0.0) -> Grid:
    """The north-up grid over bounds, and a margin in pixels, whose pixels have a size in metres in the middle."""
    left, bottom, right, top = bounds
    metres = Grid(crs, Affine(1, 0, (left + right) / 2, 0, -1, (bottom + top) / 2), 1, 1).pixel_size
    assert metres is not None
    down, along = (float(f"{side / metre:.6g}") for side, metre in zip(size, metres, strict=True))
    height, width = (top - bottom) / down + 2 * margin, (right - left) / along + 2 * margin
    rows, cols = (max(1, math.floor(length + 0.5)) for length in (height, width))
    return Grid(crs, Affine(along, 0, left - margin * along, 0, -down, top + margin * down), rows, cols)
