"""`evaluate`: score a model on chips."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from geop2p.config import EvaluateConfig
from geop2p.errors import ChipSetError, ConfigError
from geop2p.evaluation.baseline import LinearBaseline
from geop2p.evaluation.mosaics import mosaic_tags, seam_index
from geop2p.evaluation.position import PositionError, pixel_error
from geop2p.evaluation.report import (
    PLACES,
    Page,
    Strip,
    check_report,
    curve_data,
    heat_picture,
    mosaic_picture,
    write_page,
)
from geop2p.metrics import scores_for
from geop2p.raster.agreement import difference
from geop2p.raster.encoding import Encoding
from geop2p.raster.reading import describe_raster
from geop2p.raster.render import render
from geop2p.tiling.chips import ChipSet
from geop2p.training.data import ChipArrays
from geop2p.training.history import read_metrics
from geop2p.training.validation import predict_chips
from geop2p.translator import Translator, model_file

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
        bands or classes, baseline (the same scores), clipped_share (of real values that the model cannot reach),
        corner_ratio with its 95 % interval corner_ratio_interval, and seam_index if a mosaic of geop2p was given.

    Raises:
        CheckpointError: The model is missing or damaged.
        ChipSetError: The chip set is missing or damaged, lacks chips, or holds something else than the model's.
        ConfigError: The report exists.
    """
    start = time.monotonic()
    config, report = config or EvaluateConfig(), Path(report)
    check_report(report, overwrite)
    translator, chipset = Translator.load(model, config.device), ChipSet.open(chips)
    source, target = translator.card.source, translator.card.target
    _check_same_sides(translator, chipset)
    _check_mosaic(config.mosaic, target)
    arrays = ChipArrays.load(chipset, config.split, progress)
    if not len(arrays):
        there = ", ".join(f"{split} has {count}" for split, count in chipset.counts.items() if count)
        raise ChipSetError(f"{chips}: has no {config.split} chips ({there}); choose with --split")
    baseline = LinearBaseline(ChipArrays.load(chipset, "train", progress), source, target)
    blocks = _blocks(chipset)

    scores, baseline_scores = scores_for(target), scores_for(target)
    position, errors = PositionError(chipset.size), np.zeros(len(arrays))
    clipped = np.zeros(len(arrays))
    for row in tqdm(range(len(arrays)), desc="evaluate", unit="chip", disable=not progress):
        real, valid = arrays.target[row], arrays.valid[row]
        predicted = predict_chips(translator, arrays, np.array([row]))[0]
        scores.add(predicted, real, valid)
        baseline_scores.add(baseline.predict(arrays.source[row], valid), real, valid)
        error = pixel_error(predicted, real, target)
        position.add(error, valid, blocks[arrays.ids[row]])
        errors[row] = error[valid].mean()
        clipped[row] = target.clipped_share(real, valid)

    ratio = position.corner_ratio()
    result = {"path": str(report), "split": config.split, "chips": len(arrays), **scores.result()}
    result |= {"baseline": {name: baseline_scores.result().get(name) for name in SCORE_NAMES if name in result}}
    result |= {"clipped_share": float(clipped.mean())}
    result |= {"corner_ratio": ratio.value, "corner_ratio_interval": [ratio.low, ratio.high]}

    page = Page(
        title=f"{model_file(model).parent.name} on {config.split} chips of {chipset.folder.name}", result=result
    )
    page.strips = _strips(translator, baseline, arrays, errors)
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
        result["seam_index"] = seam_index(config.mosaic, target)
    result["seconds"] = round(time.monotonic() - start, 2)
    write_page(report, page)
    return result


def _strips(
    translator: Translator, baseline: LinearBaseline, chips: ChipArrays, errors: npt.NDArray[np.float64]
) -> list[Strip]:
    """Chips from the best to the worst by their mean error, at even ranks."""
    source, target = translator.card.source, translator.card.target
    ranked, strips = np.argsort(errors), []
    for place in np.unique(np.linspace(0, len(chips) - 1, PLACES).astype(int)):
        row = int(ranked[place])
        valid, predicted = chips.valid[row], predict_chips(translator, chips, np.array([row]))[0]
        pictures = {
            "source": render(chips.source[row], valid, source),
            "prediction": render(predicted, valid, target),
            "truth": render(chips.target[row], valid, target),
            "baseline": render(baseline.predict(chips.source[row], valid), valid, target),
        }
        caption = f"{chips.ids[row]}: mean error {errors[row]:.3g}, rank {place + 1} of {len(chips)}"
        strips.append(Strip(caption, pictures))
    return strips


def _check_mosaic(mosaic: Path | None, target: Encoding) -> None:
    """Refuse a mosaic that the model cannot have made."""
    if mosaic is not None and (found := describe_raster(mosaic).count) != len(target.bands):
        raise ConfigError(f"{mosaic}: has {found} bands, the model makes {len(target.bands)}")


def _check_same_sides(translator: Translator, chipset: ChipSet) -> None:
    for side in ("source", "target"):
        trained: Encoding = getattr(translator.card, side)
        found: Encoding = getattr(chipset, side)
        if (trained.kind, len(trained.bands)) != (found.kind, len(found.bands)):
            raise ChipSetError(
                f"{chipset.folder}: {side} is {found.kind} with {len(found.bands)} bands, the model was trained on "
                f"{trained.kind} with {len(trained.bands)}"
            )
        if (apart := difference(found, trained)) is not None:
            raise ChipSetError(f"{chipset.folder}: {side}: {apart} as in the model's training; give other chips")


def _blocks(chipset: ChipSet) -> dict[str, str]:
    """Scene and block of every chip."""
    index = chipset.index()
    names = index["scene"] + ":" + index["block"]
    return dict(zip(index["id"], names, strict=True))
