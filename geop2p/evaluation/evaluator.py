"""`evaluate`: score a model on chips."""

import dataclasses
import logging
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from geop2p.config import EvaluateConfig, Split
from geop2p.config.fields import changed, config_or_default
from geop2p.errors import CheckpointError, ChipSetError, ConfigError, RasterError
from geop2p.evaluation.baseline import NO_TRAINING, fit_baseline
from geop2p.evaluation.checks import check_mosaic, check_same_sides
from geop2p.evaluation.example_chips import place_strip, ranked_rows
from geop2p.evaluation.judge import judge_of
from geop2p.evaluation.mosaics import NO_SEAMS, OF_RASTERS, mosaic_tags, seam_figures
from geop2p.evaluation.offsets import corners_in_mosaic
from geop2p.evaluation.pictures import Slider, heat_picture, mosaic_picture, slider_of
from geop2p.evaluation.pretrained_scores import PretrainedScores
from geop2p.evaluation.provenance import leakage_warning, starts_of, trained_on
from geop2p.evaluation.report import Curve, Page, check_report, curve_data, write_page
from geop2p.evaluation.scored_chips import ScoredChips, load_scored_chips
from geop2p.evaluation.scoring import OF_IMAGERY, Predict, Scorer, say_missing
from geop2p.metrics import error_unit
from geop2p.raster.encoding import Encoding
from geop2p.tiling.chips import ChipSet
from geop2p.tiling.opening import reopen
from geop2p.training.history import METRICS, read_metrics
from geop2p.training.validation import predict_chips
from geop2p.translator import Translator, model_file

log = logging.getLogger(__name__)

NO_CORNERS = {"corner_ratio": "the corners or the centre of the chips have no valid ground, or the centre no error"}


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
        path, split, chips, unseen (whether they share no ground with the training, as the run tells), unit (of L1 and
        RMSE), range (of every band for PSNR and SSIM, in the unit), the scores (l1, rmse, psnr, ssim, None of maps,
        which have accuracy, class_accuracy, miou; `reasons` says why scores are None), bands or classes, baseline (the
        same scores; None without training chips), clipped_share (of real values that the model cannot reach),
        corner_ratio with its 95 % interval corner_ratio_interval, with `lattices` mosaic_corner_ratio with
        mosaic_corner_ratio_interval (over 16 lattices of tiles), and if a mosaic was given its
        seam_index, tile_mismatch and tile_mismatch_percent (see `evaluate_mosaic`).

    Raises:
        CheckpointError: The model is missing or damaged.
        ChipSetError: The chip set is missing or damaged, lacks chips, or holds something else than the model's.
        ConfigError: A setting is for rasters, or does not fit the chips.
        OutputError: The report exists.
    """
    start = time.monotonic()
    config, report = config_or_default(config, EvaluateConfig), Path(report)
    weights = (config.lpips_file, config.lpips_heads, config.inception_file)
    check_report(report, overwrite, (model, chips, config.mosaic, *weights))
    if idle := [name for name in changed(config) if name in OF_RASTERS]:
        words = ", ".join(f"--{name.replace('_', '-')}" for name in idle)
        raise ConfigError(f"{words}: for PREDICTION REFERENCE, not for MODEL CHIPS; leave it out")
    translator, chipset = Translator.load(model, config.device), ChipSet.open(chips)
    source, target = translator.card.source, translator.card.target
    check_same_sides(translator.card, chipset)
    if config.lattices:
        _check_layers(chipset, config.split)
    of_mosaic = [] if config.mosaic is None else check_mosaic(config.mosaic, translator, chipset)
    known = leakage_warning(
        chipset.folder, config.split, _training_of(model_file(model).parent), starts_of([translator.card])
    )
    ground = load_scored_chips(chipset, (source, target), config.split, config.sample, known, progress)
    pretrained = PretrainedScores(target, config)  # before the judge learns: files may be missing
    scorer = Scorer(ground, judge_of(chipset, config, report, progress), pretrained, progress)
    arrays, baseline = ground.arrays, fit_baseline(chipset, source, target, progress)
    predictors: dict[str, Predict] = {"prediction": partial(predict_chips, translator, arrays)}
    model_scores = scorer.score("model", predictors["prediction"], config.batch_size)

    result: dict[str, Any] = {"path": str(report), "split": config.split, "chips": len(ground.rows)}
    result |= {"unseen": known is None, "unit": error_unit(target)}
    result["range"] = None if target.is_classes else target.unit_range.tolist()
    result |= scorer.figures("model", model_scores)
    say_missing(result, NO_CORNERS | (OF_IMAGERY if target.is_classes else {}))
    if baseline is None:
        result["baseline"], result["reasons"]["baseline"] = None, NO_TRAINING
    else:
        predictors["baseline"] = partial(baseline.predict_rows, arrays)
        straight = scorer.score("baseline", predictors["baseline"], config.batch_size)
        result["baseline"] = scorer.figures("baseline", straight)
    pixels = [int(arrays.valid[row].sum()) for row in ground.rows]
    clipped = [target.clipped_share(arrays.target[row], arrays.valid[row]) for row in ground.rows]
    result["clipped_share"] = float(np.dot(clipped, pixels)) / max(1, sum(pixels))

    if config.lattices:
        result |= _in_mosaic(translator, chipset, ground, config.lattices, progress)
    page = Page(
        title=f"{model_file(model).parent.name} on {config.split} chips of {chipset.folder.name}", result=result
    )
    page.strips = [place_strip(ground, row, said, predictors) for row, said in ranked_rows(ground, model_scores.errors)]
    page.choice = "From the best to the worst by mean error, at even ranks; not picked by eye."
    page.position = heat_picture(model_scores.position.map())
    page.curves = _curves(model_file(model).parent)
    page.provenance = {
        "model": translator.card.provenance | {"recipe": translator.card.recipe},
        "sha256": translator.digest,
        "evaluation": {key: str(value) for key, value in dataclasses.asdict(config).items() if value is not None},
    }
    page.commands = list(commands)
    if config.mosaic is not None:
        page.slider = _slider(config.mosaic, chipset, target)
        page.mosaic = None if page.slider else mosaic_picture(config.mosaic, target)
        page.mosaic_figures = mosaic_tags(config.mosaic)
        result |= seam_figures(config.mosaic, target)
        say_missing(result, NO_SEAMS)
        result["notes"] += of_mosaic
    result["seconds"] = round(time.monotonic() - start, 2)
    write_page(report, page)
    return result


def _check_layers(chipset: ChipSet, split: Split) -> None:
    """Refuse chips of a split whose layers cannot be read again.

    Raises:
        ConfigError: They were imported, or a layer is missing or has changed since they were tiled.
    """
    try:
        used = {entry.scene for entry in chipset.entries(split)}
        for scene in chipset.scenes:
            if scene.id in used:
                reopen(chipset, scene)
    except (ChipSetError, RasterError) as error:
        raise ConfigError(f"--lattices reads the layers of the chips again: {error}") from error


def _in_mosaic(
    translator: Translator, chipset: ChipSet, ground: ScoredChips, count: int, progress: bool
) -> dict[str, Any]:
    """Corners over centre in mosaics, on the ground of some chips at even ranks."""
    entries = chipset.entries(ground.split)
    chosen = np.unique(np.linspace(0, len(ground.rows) - 1, min(count, len(ground.rows))).round().astype(int))
    found = corners_in_mosaic(translator, chipset, [entries[row] for row in ground.rows[chosen]], progress)
    return {"mosaic_corner_ratio": found.value, "mosaic_corner_ratio_interval": [found.low, found.high]}


def _slider(mosaic: Path, chipset: ChipSet, target: Encoding) -> Slider | None:
    """The mosaic and the truth of the first scene that has any there; None where no layer is left to read it from."""
    for scene in chipset.scenes:
        try:
            layers, _ = reopen(chipset, scene)
        except (ChipSetError, RasterError) as error:
            log.warning("the page shows the mosaic without the truth: %s", error)
            continue
        if (found := slider_of(mosaic, layers[1], target)) is not None:
            return found
    return None


def _training_of(run: Path) -> str | None:
    """The digest of the chip set that a model was trained on; None where nothing beside it tells."""
    try:
        return trained_on(run)
    except CheckpointError:
        return None


def _curves(run: Path) -> list[Curve]:
    """The curves of the training; none where its metrics are damaged, which is no reason to lose the scores."""
    try:
        return curve_data(read_metrics(run))
    except (CheckpointError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s: damaged (%s); the page has no curves of the training", run / METRICS, error)
        return []
