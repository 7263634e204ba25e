"""`evaluate_mosaic`: score a mosaic against a raster of the same ground, and what a mosaic says of itself."""

import time
import typing
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.windows import Window
from tqdm import tqdm

from geop2p.config import EvaluateConfig, Kind, KindChoice
from geop2p.config.fields import changed, config_or_default
from geop2p.errors import ConfigError, GridMismatchError
from geop2p.evaluation.calibration import Calibration, calibration_reader
from geop2p.evaluation.error_breakdown import REACH, ErrorBreakdown, boundary_bins
from geop2p.evaluation.error_raster import ErrorRaster, check_error_raster, collected_errors
from geop2p.evaluation.legend import PART, legend_of
from geop2p.evaluation.pair import check_pixels, check_rasters, common_encoding, contradictions, is_warped, opened_alike
from geop2p.evaluation.pictures import mosaic_picture, slider_of
from geop2p.evaluation.position import pixel_error
from geop2p.evaluation.report import Page, Strip, check_report, even_ranks, write_page
from geop2p.evaluation.scoring import CLASS_SCORES, IMAGE_SCORES, OF_IMAGERY, notes_on, say_missing
from geop2p.metrics import BlockScores, error_unit, scores_for
from geop2p.mosaic.plan import part_windows
from geop2p.mosaic.seams import survey
from geop2p.mosaic.tags import mosaic_lattice
from geop2p.raster.aligned import Reader, aligned_reader
from geop2p.raster.atomic import replacing
from geop2p.raster.encoding import Encoding, Mask
from geop2p.raster.folder import RASTER_SUFFIXES, folder_files
from geop2p.raster.reading import describe_raster, opened
from geop2p.raster.rendering import render
from geop2p.raster.scaling import NO_MEASURE, undeclared_fill
from geop2p.raster.source_files import files_of

BLOCK = 512  # side of the squares that are blocks of the intervals, and that the page shows
LITTLE = 0.5  # share of the prediction's ground below which a note says how little is scored
OF_RASTERS = ("error_raster", "uncertainty", "strict", "ignore_class")  # settings for two rasters alone
NO_SEAMS = {
    "seam_index": "no line between tiles: one tile, or no mosaic of geop2p",
    **dict.fromkeys(("tile_mismatch", "tile_mismatch_percent"), "the raster does not tell it, as mosaics of geop2p do"),
}
NO_CHIPS = {"corner_ratio": "rasters have no corners of chips"}


def evaluate_mosaic(
    prediction: str | Path,
    reference: str | Path,
    report: str | Path,
    config: EvaluateConfig | None = None,
    *,
    commands: Sequence[str] = (),
    overwrite: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Score a mosaic against a raster of the same ground, read onto the mosaic's grid, and write a page.

    Args:
        prediction: Raster to score, usually a mosaic of geop2p.
        reference: What should have come out.
        report: HTML file to write.
        config: Settings; those of models and chips must be left as they are.
        commands: Shown on the page as how to repeat it.
        overwrite: Replace an existing report and error raster.
        progress: Show a progress bar.

    Returns:
        path, unit (of L1 and RMSE), the scores with their `intervals` (95 % over squares of 512 pixels), `range` (of
        every band for PSNR and SSIM, in the unit: the model's encoded interval where the mosaic tells it), `share` (of
        the prediction's valid ground that was scored), `warped` (whether the reference had to be read through a warp),
        `notes` on what to beware of, under `reasons` why scores are None, `error_raster` (its path, if one was asked
        for), `calibration` (see `Calibration.result`, if an uncertainty was given), seam_index (measured),
        tile_mismatch and tile_mismatch_percent (as the mosaic says; see `PredictResult`); None for rasters that
        geop2p did not make.

    Raises:
        RasterError: A raster is missing or unreadable.
        GridMismatchError: They have no valid ground in common, or with `strict` not one grid, or the uncertainty lies
            elsewhere.
        ConfigError: They do not hold the same, or a setting is for models.
        OutputError: The report or the error raster exists.
    """
    start, report = time.monotonic(), Path(report)
    config = config_or_default(config, EvaluateConfig)
    _check_settings(config)
    given = (prediction, reference, config.uncertainty)
    inputs = [file for layer in given if layer is not None for file in files_of(layer)]
    check_report(report, overwrite, inputs)
    check_error_raster(config.error_raster, overwrite, inputs)
    check_rasters(prediction, reference)
    layer, truth, doubts = opened_alike(prediction, _kind_of(prediction), reference)
    grid = layer.grid
    assert grid is not None
    check_pixels(layer, truth)
    if config.ignore_class is not None and layer.kind != "classes":
        raise ConfigError(f"ignore_class is for maps of classes, {prediction} holds {layer.kind}; leave it out")
    common, tags = common_encoding(layer, truth), mosaic_tags(prediction)
    warped = is_warped(layer, truth, config.strict)
    with ExitStack() as stack:
        calibrated = stack.enter_context(calibration_reader(config.uncertainty, grid, len(common.bands)))
        made = stack.enter_context(aligned_reader(prediction, grid, layer.kind))
        real = stack.enter_context(truth.reader(grid))
        encoding, ignored = legend_of(common, (layer, truth), (made, real), tags, config.ignored_classes)
        errors = stack.enter_context(collected_errors(config.error_raster, grid, encoding))
        found = _Scored(encoding, ignored, errors, calibrated)
        windows = part_windows(Window(0, 0, grid.width, grid.height), PART)
        for window in tqdm(windows, desc="evaluate", unit="part", disable=not progress):
            found.add(made, real, window)
        if not found.places:
            besides = " but that of classes in --ignore-class" if config.ignored_classes else ""
            raise GridMismatchError(f"{prediction} and {reference} have no valid ground in common{besides}")
        result = {"path": str(report), "unit": error_unit(encoding)} | found.result() | {"warped": warped}
        result["notes"] = doubts + notes_on(result) + found.notes() + contradictions(layer, truth)
        if warped:
            lies = truth.grid.describe() if truth.grid else "no grid"
            result["notes"].append(f"The reference lies on {lies}: read by a warp.")
        say_missing(result, NO_CHIPS)
        if encoding.is_classes:
            say_missing(result, OF_IMAGERY | {"judge": "the map itself is scored"})
        if "calibration" in result and result["calibration"] is None:
            result["notes"].append(f"{config.uncertainty}: has no valid pixel on the ground that both rasters show.")
        if config.error_raster is not None:
            result["error_raster"] = str(config.error_raster)
        result |= seam_figures(Path(prediction), encoding)
        say_missing(result, NO_SEAMS)

        page = Page(title=f"{Path(prediction).name} against {Path(reference).name}", result=result)
        page.strips = found.strips(made, real)
        page.choice = "Squares from the best to the worst by mean error, at even ranks; not picked by eye."
        page.slider = slider_of(prediction, truth, encoding)
        page.mosaic = None if page.slider else mosaic_picture(prediction, encoding)
        page.mosaic_figures = tags
        page.provenance = {"prediction": str(prediction), "reference": str(reference), "tags": page.mosaic_figures}
        page.commands = list(commands)
        if errors is not None:
            errors.put_together(f"Error of {Path(prediction).name} against {Path(str(reference)).name}")
        result["seconds"] = round(time.monotonic() - start, 2)
        with replacing(report) as written:
            write_page(written, page)
            if errors is not None:
                errors.place()
    return result


class _Scored:
    """What is summed over the windows of a mosaic.

    Args:
        encoding: Of both rasters.
        ignored: Codes of the reference's unlabelled ground.
        errors: Takes the error of every pixel.
        calibrated: Takes it with the uncertainty that the reader tells.
    """

    def __init__(
        self,
        encoding: Encoding,
        ignored: Sequence[int],
        errors: ErrorRaster | None,
        calibrated: tuple[Calibration, Reader] | None,
    ) -> None:
        self._encoding, self._ignored, self._errors, self._calibrated = encoding, ignored, errors, calibrated
        self._ground, self._scored, self._unlabelled = 0, 0, 0  # pixels
        self._largest = 0.0  # error of a pixel
        self._scores = BlockScores(partial(scores_for, encoding, True))
        self._by_ground = ErrorBreakdown(encoding)
        self.places: list[tuple[float, Window]] = []  # mean error of squares worth a look

    def add(self, made: Reader, real: Reader, window: Window) -> None:
        """Score a window by squares."""
        around = REACH if self._encoding.is_classes else 0  # where a border may lie to which ground is near
        wider = Window(
            window.col_off - around, window.row_off - around, window.width + 2 * around, window.height + 2 * around
        )
        inside = np.s_[around : around + window.height, around : around + window.width]
        (first, here), (second, there) = made.read(wider), real.read(wider)
        valid: Mask = here & there
        unlabelled = np.zeros_like(valid)
        if self._ignored:
            unlabelled = valid & np.isin(second[0], self._ignored)
            valid &= ~unlabelled
        bins = boundary_bins(second[0], valid)[inside] if self._encoding.is_classes else None
        first, second, valid = first[:, *inside], second[:, *inside], valid[inside]
        self._ground += int(here[inside].sum())
        self._unlabelled += int(unlabelled[inside].sum())
        self._scored += int(valid.sum())
        error = pixel_error(first, second, self._encoding)
        for inner in part_windows(Window(0, 0, window.width, window.height), BLOCK):
            at = inner.toslices()
            if not valid[at].any():
                continue
            place = Window(window.col_off + inner.col_off, window.row_off + inner.row_off, inner.width, inner.height)
            self._scores.add(first[:, *at], second[:, *at], valid[at], f"{place.row_off} {place.col_off}")
            if bins is not None:
                self._by_ground.add(error[at], second[0][at], valid[at], bins[at])
            if valid[at].sum() > BLOCK**2 / 4 or not self.places:
                with np.errstate(over="ignore"):
                    self.places.append((float(error[at][valid[at]].mean()), place))
            self._largest = max(self._largest, float(error[at][valid[at]].max()))
        if self._errors is not None:
            with np.errstate(over="ignore"):  # of fill values, which a note names
                self._errors.add(error, valid, window)
        if self._calibrated is not None:
            calibration, doubts = self._calibrated
            spread, known = doubts.read(window)
            calibration.add(error, spread, valid & known)

    def result(self) -> dict[str, Any]:
        """The figures of all windows, as `evaluate_mosaic` returns them."""
        is_classes = self._encoding.is_classes
        found: dict[str, Any] = self._scores.result()
        found["intervals"] = self._scores.intervals(CLASS_SCORES if is_classes else IMAGE_SCORES)
        widths = zip(self._encoding.bands, self._encoding.unit_range.tolist(), strict=True)
        ranges = [width if band.low < band.high else 0.0 for band, width in widths]
        found |= {"range": None if is_classes else ranges, "share": self.share}
        if is_classes:
            found["where"] = self._by_ground.result()
        if self._calibrated is not None:
            found["calibration"] = self._calibrated[0].result()
        return found

    @property
    def share(self) -> float:
        """Of the prediction's valid ground that was scored."""
        return self._scored / max(1, self._ground)

    def notes(self) -> list[str]:
        """What to beware of in what was scored."""
        notes = []
        value = undeclared_fill(self._encoding) or self._largest
        if abs(value) > NO_MEASURE:
            notes.append(
                f"There are values, or differences of values, like {value:.9g}: if such values mean no data, tag them "
                "so (gdal_edit.py -a_nodata VALUE FILE); no score means anything while they count."
            )
        if self._unlabelled:
            codes, part = ", ".join(map(str, self._ignored)), self._unlabelled / (self._unlabelled + self._scored)
            notes.append(f"{100 * part:.3g} % of the ground is unlabelled (code {codes}) and not scored.")
        if self._scored + self._unlabelled < LITTLE * self._ground:
            notes.append(
                f"Only {100 * self.share:.3g} % of the prediction's ground is scored: the reference ends there."
            )
        return notes

    def strips(self, made: Reader, real: Reader) -> list[Strip]:
        """Squares from the best to the worst at even ranks."""
        ranked = sorted(self.places, key=lambda entry: entry[0])
        found = []
        for rank, name in even_ranks(len(ranked)):
            error, window = ranked[rank]
            (first, here), (second, there) = made.read(window), real.read(window)
            pictures = {"prediction": render(first, here, self._encoding)}
            pictures["truth"] = render(second, there, self._encoding)
            said = f"row {window.row_off}, column {window.col_off}: mean error {error:.3g}, {name}"
            found.append(Strip(said, pictures))
        return found


def mosaic_tags(path: str | Path) -> dict[str, str]:
    """What a mosaic of geop2p says of its making, or all rasters of a folder; keys in lower case without the prefix."""
    files, found = list[str](), list[set[tuple[str, str]]]()
    if Path(path).is_dir():
        files = [str(file) for file in folder_files(path) if file.suffix.lower() in RASTER_SUFFIXES]
    for file in files or [str(path)]:
        with opened(file) as dataset:
            found.append(set(dataset.tags().items()))
    prefix = "GEOP2P_"
    tags = sorted(set.intersection(*found))
    return {key[len(prefix) :].lower(): value for key, value in tags if key.startswith(prefix)}


def _kind_of(prediction: str | Path) -> KindChoice:
    """What a mosaic of geop2p holds, as it says; of other rasters it has to be concluded."""
    said = mosaic_tags(prediction).get("kind")
    return next((kind for kind in typing.get_args(Kind) if kind == said), "auto")


def seam_figures(mosaic: Path, encoding: Encoding) -> dict[str, float | None]:
    """The seam index of a mosaic of geop2p, measured on the file, and the mismatch that it tells; else None."""
    lattice, tags, index = mosaic_lattice(mosaic), mosaic_tags(mosaic), None
    if lattice is not None:
        with aligned_reader(mosaic, describe_raster(mosaic).grid, encoding.kind) as reader:
            index = survey(reader, encoding, lattice)[1]
    names = ("tile_mismatch", "tile_mismatch_percent")
    return {"seam_index": index} | {name: float(tags[name]) if name in tags else None for name in names}


def _check_settings(config: EvaluateConfig) -> None:
    """Refuse settings that mean nothing for two rasters."""
    for name in changed(config):
        if name not in OF_RASTERS:
            words = name.replace("_", "-")
            raise ConfigError(f"{name} is for MODEL CHIPS, not for PREDICTION REFERENCE; leave --{words} out")
