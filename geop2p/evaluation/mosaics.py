"""`evaluate_mosaic`: score a mosaic against a raster of the same ground, and what a mosaic says of itself."""

import dataclasses
import time
import typing
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.windows import Window

from geop2p.config import Kind, KindChoice
from geop2p.errors import ConfigError, GridMismatchError
from geop2p.evaluation.position import pixel_error
from geop2p.evaluation.report import PLACES, Page, Strip, check_report, mosaic_picture, write_page
from geop2p.metrics import scores_for
from geop2p.mosaic.assembly import mosaic_lattice
from geop2p.mosaic.seams import survey
from geop2p.raster.agreement import difference
from geop2p.raster.aligned import Reader, aligned_reader
from geop2p.raster.encoding import Encoding, Mask
from geop2p.raster.grid import Grid
from geop2p.raster.layers import Layer, open_layer
from geop2p.raster.reading import describe_raster, opened
from geop2p.raster.render import render
from geop2p.raster.scaling import add_values, needs_statistics, with_statistics
from geop2p.raster.statistics import BandStatistics

PLACE_SIDE = 256
STRIP = 512


def evaluate_mosaic(
    prediction: str | Path,
    reference: str | Path,
    report: str | Path,
    *,
    commands: Sequence[str] = (),
    overwrite: bool = False,
) -> dict[str, Any]:
    """Score a mosaic against a raster of the same ground, read onto the mosaic's grid, and write a page.

    Args:
        prediction: Raster to score, usually a mosaic of geop2p.
        reference: What should have come out.
        report: HTML file to write.
        commands: Shown on the page as how to repeat it.
        overwrite: Replace an existing report.

    Returns:
        path, the scores in physical units, and seam_index (None for rasters that geop2p did not make).

    Raises:
        RasterError: A raster is missing or unreadable.
        GridMismatchError: They have no valid ground in common.
        ConfigError: They do not hold the same, or the report exists.
    """
    start, report = time.monotonic(), Path(report)
    check_report(report, overwrite)
    layer = open_layer(prediction, _kind_of(prediction))
    truth = open_layer(reference, layer.kind)
    grid = layer.grid
    assert grid is not None
    _check_pixels(layer, truth)
    encoding = _common_encoding(layer, truth)
    with ExitStack() as stack:
        made = stack.enter_context(aligned_reader(prediction, grid, layer.kind))
        real = stack.enter_context(truth.reader(grid))
        if encoding.is_classes:
            encoding = _with_all_classes(encoding, (layer, truth), (made, real))
        elif needs_statistics(encoding):
            encoding = with_statistics(encoding, _statistics(real, grid, encoding))
        scores = scores_for(encoding)
        for window in _strips(grid):
            (first, valid), (second, there) = made.read(window), real.read(window)
            scores.add(first, second, valid & there)
        result: dict[str, Any] = {"path": str(report), **scores.result()}
        if not result["pixels"]:
            raise GridMismatchError(f"{prediction} and {reference} have no valid ground in common")
        page = Page(title=f"{Path(prediction).name} against {Path(reference).name}", result=result)
        page.strips = _place_strips(made, real, grid, encoding)
    result["seam_index"] = seam_index(Path(prediction), encoding)
    page.mosaic, page.mosaic_figures = mosaic_picture(prediction, encoding), mosaic_tags(prediction)
    page.commands = list(commands)
    result["seconds"] = round(time.monotonic() - start, 2)
    write_page(report, page)
    return result


def mosaic_tags(path: str | Path) -> dict[str, str]:
    """What a mosaic of geop2p says of its making, keys in lower case without the prefix."""
    with opened(path) as dataset:
        tags = dataset.tags()
    prefix = "GEOP2P_"
    return {key[len(prefix) :].lower(): value for key, value in tags.items() if key.startswith(prefix)}


def _kind_of(prediction: str | Path) -> KindChoice:
    """What a mosaic of geop2p holds, as it says; of other rasters it has to be concluded."""
    said = mosaic_tags(prediction).get("kind")
    return next((kind for kind in typing.get_args(Kind) if kind == said), "auto")


def seam_index(mosaic: Path, encoding: Encoding) -> float | None:
    """The seam index of a mosaic of geop2p, measured on the file; None for other rasters."""
    lattice, grid = mosaic_lattice(mosaic), describe_raster(mosaic).grid
    if lattice is None:
        return None
    with aligned_reader(mosaic, grid, encoding.kind) as reader:
        return survey(reader, encoding, lattice)[1]


def _common_encoding(layer: Layer, truth: Layer) -> Encoding:
    """The encoding of both rasters, as far as the files tell it.

    Raises:
        ConfigError: They do not hold the same.
    """
    made, real = layer.draft_encoding(), truth.draft_encoding()
    if made.kind != real.kind or len(made.bands) != len(real.bands):
        raise ConfigError(
            f"{layer.path} holds {made.kind} with {len(made.bands)} bands, {truth.path} {real.kind} with "
            f"{len(real.bands)}; expected the same"
        )
    if (apart := difference(made, real)) is not None:
        raise ConfigError(f"{layer.path}: {apart} as in {truth.path}; convert the values of one of them")
    return made


def _check_pixels(layer: Layer, truth: Layer) -> None:
    """Refuse rasters without CRS of two sizes: their pixels do not lie on each other."""
    here, there = layer.grid, truth.grid
    if here is None or there is None or here.crs is not None or there.crs is not None:
        return
    if (here.height, here.width) != (there.height, there.width):
        raise GridMismatchError(
            f"{layer.path} has {here.height} rows and {here.width} columns, {truth.path} {there.height} and "
            f"{there.width}; without CRS both need one size"
        )


def _with_all_classes(encoding: Encoding, layers: Sequence[Layer], readers: Sequence[Reader]) -> Encoding:
    """The encoding with every class that either raster holds."""
    classes = {entry.value: entry for entry in encoding.classes}
    for layer, reader in zip(layers, readers, strict=True):
        named = {entry.value: entry for entry in layer.draft_encoding().classes}
        for window in _strips(reader.grid):
            values, valid = reader.read(window)
            for value in np.unique(values[0][valid]).tolist():
                classes.setdefault(value, named.get(value) or layer.map_class(value))
    return dataclasses.replace(encoding, classes=tuple(classes[value] for value in sorted(classes)))


def _strips(grid: Grid) -> list[Window]:
    return [Window(0, row, grid.width, min(STRIP, grid.height - row)) for row in range(0, grid.height, STRIP)]


def _statistics(reader: Reader, grid: Grid, encoding: Encoding) -> list[BandStatistics]:
    statistics = [BandStatistics() for _ in encoding.bands]
    for window in _strips(grid):
        add_values(statistics, encoding, *reader.read(window))
    return statistics


def _place_strips(made: Reader, real: Reader, grid: Grid, encoding: Encoding) -> list[Strip]:
    """Seeded places of the mosaic beside the truth, those with valid ground."""
    generator = np.random.default_rng(0)
    strips: list[Strip] = []
    for _ in range(10 * PLACES):
        row = int(generator.integers(0, max(1, grid.height - PLACE_SIDE + 1)))
        col = int(generator.integers(0, max(1, grid.width - PLACE_SIDE + 1)))
        window = Window(col, row, min(PLACE_SIDE, grid.width), min(PLACE_SIDE, grid.height))
        (first, valid), (second, there) = made.read(window), real.read(window)
        both: Mask = valid & there
        if both.mean() > 0.5 and len(strips) < PLACES:
            error = float(pixel_error(first, second, encoding)[both].mean())
            pictures = {"prediction": render(first, valid, encoding), "truth": render(second, there, encoding)}
            strips.append(Strip(f"row {row}, column {col}: mean error {error:.3g}", pictures))
    return strips
