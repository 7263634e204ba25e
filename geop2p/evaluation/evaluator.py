"""`evaluate`: score a model on chips, or a mosaic against a reference."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.windows import Window
from tqdm import tqdm

from geop2p.config import EvaluateConfig
from geop2p.errors import ChipSetError, ConfigError, GridMismatchError
from geop2p.evaluation.baseline import LinearBaseline
from geop2p.evaluation.position import PositionError
from geop2p.evaluation.report import Page, Strip, curve_data, heat_picture, mosaic_picture, write_page
from geop2p.metrics import scores_for
from geop2p.mosaic.assembly import mosaic_lattice
from geop2p.mosaic.seams import survey
from geop2p.raster.aligned import aligned_reader
from geop2p.raster.encoding import Array, Encoding, Mask
from geop2p.raster.grid import Grid
from geop2p.raster.layers import Layer, needs_statistics, open_layer, with_statistics
from geop2p.raster.reading import describe_raster, opened
from geop2p.raster.render import render
from geop2p.raster.statistics import BandStatistics
from geop2p.tiling.chips import ChipSet
from geop2p.training.checkpoint import read_metrics
from geop2p.training.data import ChipArrays
from geop2p.training.validation import predict_chips
from geop2p.translator import Translator, model_file

PLACES = 6  # chips or windows that the page shows
PLACE_SIDE = 256
STRIP = 512
SCORE_NAMES = ("l1", "rmse", "psnr", "ssim", "accuracy", "class_accuracy", "miou")


def evaluate(
    model: str | Path,
    chips: str | Path,
    report: str | Path,
    config: EvaluateConfig | None = None,
    *,
    commands: Sequence[str] = (),
    overwrite: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Score a model on a split of a chip set beside the linear baseline, and write a page.

    Args:
        model: Run folder or `model.safetensors`.
        chips: Folder of the chip set.
        report: HTML file to write.
        config: Settings.
        commands: Shown on the page as how to repeat it.
        overwrite: Replace an existing report.
        progress: Show a progress bar.

    Returns:
        path, split, chips, the scores in physical units (l1, rmse, psnr, ssim, or accuracy, class_accuracy, miou),
        bands or classes, baseline (the same scores), corner_ratio with its 95 % interval corner_ratio_interval,
        and seam_index if a mosaic of geop2p was given.

    Raises:
        CheckpointError: The model is missing or damaged.
        ChipSetError: The chip set is missing or damaged, lacks chips, or holds something else than the model's.
        ConfigError: The report exists.
    """
    start = time.monotonic()
    config, report = config or EvaluateConfig(), Path(report)
    _refuse_existing(report, overwrite)
    translator, chipset = Translator.load(model, config.device), ChipSet.open(chips)
    source, target = translator.card.source, translator.card.target
    _check_same_sides(translator, chipset)
    arrays = ChipArrays.load(chipset, config.split, progress)
    training = ChipArrays.load(chipset, "train", progress)
    if not len(arrays):
        there = ", ".join(f"{split} has {count}" for split, count in chipset.counts.items() if count)
        raise ChipSetError(f"{chips}: has no {config.split} chips ({there}); choose with --split")
    baseline = LinearBaseline(training, source, target)
    blocks = _blocks(chipset)

    scores, baseline_scores = scores_for(target), scores_for(target)
    position, errors = PositionError(chipset.size), np.zeros(len(arrays))
    for row in tqdm(range(len(arrays)), desc="evaluate", unit="chip", disable=not progress):
        real, valid = arrays.target[row], arrays.valid[row]
        predicted = predict_chips(translator, arrays, np.array([row]))[0]
        scores.add(predicted, real, valid)
        baseline_scores.add(baseline.predict(arrays.source[row], valid), real, valid)
        error = pixel_error(predicted, real, target)
        position.add(error, valid, blocks[arrays.ids[row]])
        errors[row] = error[valid].mean()

    ratio = position.corner_ratio()
    result = {"path": str(report), "split": config.split, "chips": len(arrays), **scores.result()}
    result |= {"baseline": {name: baseline_scores.result().get(name) for name in SCORE_NAMES if name in result}}
    result |= {"corner_ratio": ratio.value, "corner_ratio_interval": [ratio.low, ratio.high]}

    page = Page(
        title=f"{model_file(model).parent.name} on {config.split} chips of {chipset.folder.name}", result=result
    )
    ranked = np.argsort(errors)
    for place in np.unique(np.linspace(0, len(arrays) - 1, PLACES).astype(int)):
        row = int(ranked[place])
        valid = arrays.valid[row]
        page.strips.append(
            Strip(
                caption=f"{arrays.ids[row]}: mean error {errors[row]:.3g}, rank {place + 1} of {len(arrays)}",
                pictures={
                    "source": render(arrays.source[row], valid, source),
                    "prediction": render(predict_chips(translator, arrays, np.array([row]))[0], valid, target),
                    "truth": render(arrays.target[row], valid, target),
                    "baseline": render(baseline.predict(arrays.source[row], valid), valid, target),
                },
            )
        )
    page.position = heat_picture(position.map())
    page.curves = curve_data(read_metrics(model_file(model).parent))
    page.provenance = {
        "model": translator.card.provenance | {"recipe": translator.card.recipe},
        "sha256": translator.digest,
    }
    page.commands = list(commands)
    if config.mosaic is not None:
        page.mosaic = mosaic_picture(config.mosaic, target)
        page.mosaic_figures = mosaic_tags(config.mosaic)
        result["seam_index"] = _seam_index(config.mosaic, target)
    result["seconds"] = round(time.monotonic() - start, 2)
    write_page(report, page)
    return result


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
    _refuse_existing(report, overwrite)
    layer = open_layer(prediction)
    truth = open_layer(reference, layer.kind)
    grid = layer.grid
    assert grid is not None
    encoding = _common_encoding(layer, truth)
    with ExitStack() as stack:
        made = stack.enter_context(aligned_reader(prediction, grid, layer.kind))
        real = stack.enter_context(truth.reader(grid))
        if needs_statistics(encoding):
            encoding = with_statistics(encoding, _statistics(real, grid, len(encoding.bands)))
        scores = scores_for(encoding)
        for row in range(0, grid.height, STRIP):
            window = Window(0, row, grid.width, min(STRIP, grid.height - row))
            (first, valid), (second, there) = made.read(window), real.read(window)
            scores.add(first, second, valid & there)
        result: dict[str, Any] = {"path": str(report), **scores.result()}
        if not result["pixels"]:
            raise GridMismatchError(f"{prediction} and {reference} have no valid ground in common")
        page = Page(title=f"{Path(prediction).name} against {Path(reference).name}", result=result)
        page.strips = _place_strips(made, real, grid, encoding)
    result["seam_index"] = _seam_index(Path(prediction), encoding)
    page.mosaic, page.mosaic_figures = mosaic_picture(prediction, encoding), mosaic_tags(prediction)
    page.commands = list(commands)
    result["seconds"] = round(time.monotonic() - start, 2)
    write_page(report, page)
    return result


def pixel_error(predicted: Array, real: Array, encoding: Encoding) -> Array:
    """Error of each pixel (rows, cols): wrong or right for classes, else the mean over bands in physical units."""
    if encoding.is_classes:
        wrong: Array = (predicted[0] != real[0]).astype(np.float64)
        return wrong
    scale = np.array([abs(band.scale) for band in encoding.bands]).reshape(-1, 1, 1)
    error: Array = (np.abs(predicted.astype(np.float64) - real.astype(np.float64)) * scale).mean(axis=0)
    return np.asarray(np.nan_to_num(error))


def mosaic_tags(path: str | Path) -> dict[str, str]:
    """What a mosaic of geop2p says of its making, keys in lower case without the prefix."""
    with opened(path) as dataset:
        tags = dataset.tags()
    prefix = "GEOP2P_"
    return {key[len(prefix) :].lower(): value for key, value in tags.items() if key.startswith(prefix)}


def _seam_index(mosaic: Path, encoding: Encoding) -> float | None:
    """The seam index of a mosaic of geop2p, measured on the file; None for other rasters."""
    lattice, grid = mosaic_lattice(mosaic), describe_raster(mosaic).grid
    if lattice is None:
        return None
    with aligned_reader(mosaic, grid, encoding.kind) as reader:
        return survey(reader, encoding, lattice)[1]


def _refuse_existing(report: Path, overwrite: bool) -> None:
    if report.exists() and not overwrite:
        raise ConfigError(f"{report}: exists; give another name or --overwrite")


def _check_same_sides(translator: Translator, chipset: ChipSet) -> None:
    for side in ("source", "target"):
        trained: Encoding = getattr(translator.card, side)
        found: Encoding = getattr(chipset, side)
        if (trained.kind, len(trained.bands)) != (found.kind, len(found.bands)):
            raise ChipSetError(
                f"{chipset.folder}: {side} is {found.kind} with {len(found.bands)} bands, the model was trained on "
                f"{trained.kind} with {len(trained.bands)}"
            )


def _blocks(chipset: ChipSet) -> dict[str, str]:
    """Scene and block of every chip."""
    index = chipset.index()
    names = index["scene"] + ":" + index["block"]
    return dict(zip(index["id"], names, strict=True))


def _common_encoding(layer: Layer, truth: Layer) -> Encoding:
    """The encoding of both rasters: the prediction's, with the classes of either."""
    made, real = layer.draft_encoding(), truth.draft_encoding()
    if made.kind != real.kind or len(made.bands) != len(real.bands):
        raise ConfigError(
            f"{layer.path} holds {made.kind} with {len(made.bands)} bands, {truth.path} {real.kind} with "
            f"{len(real.bands)}; expected the same"
        )
    return real if real.is_classes and real.classes else made


def _statistics(reader: Any, grid: Grid, bands: int) -> list[BandStatistics]:
    statistics = [BandStatistics() for _ in range(bands)]
    for row in range(0, grid.height, STRIP):
        values, valid = reader.read(Window(0, row, grid.width, min(STRIP, grid.height - row)))
        for band, plane in zip(statistics, values, strict=True):
            band.add(plane[valid])
    return statistics


def _place_strips(made: Any, real: Any, grid: Grid, encoding: Encoding) -> list[Strip]:
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
