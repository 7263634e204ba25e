"""The judge: a segmenter that learned real imagery of the training ground, then is asked what generated imagery shows.

The FCN-score of Isola et al. (CVPR 2017, section 4) for any chip set whose source is a map: what the judge reads in
real imagery of the same ground is the most that imagery as rich can reach; flat, clear pictures may be read better.
Where the source is imagery, backscatter or heights, the judge learns to read its values instead of classes: that gives
no score, as many values fit one picture, but features that know the target (`FeatureDistance`).
"""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from geop2p.config import Device, JudgeName, ScoringConfig
from geop2p.errors import CheckpointError, ConfigError
from geop2p.evaluation.judge_training import forget, making, train_judge
from geop2p.metrics import BlockScores
from geop2p.metrics.blocks import interval
from geop2p.models.hardware import resolve_device
from geop2p.raster.atomic import make_folder
from geop2p.tiling.chips import ChipSet, description_digest
from geop2p.training.exclusive import exclusive_training
from geop2p.translator import Translator

log = logging.getLogger(__name__)


def judge_of(chipset: ChipSet, config: ScoringConfig, report: Path, progress: bool = False) -> Translator | None:
    """The judge that the settings ask for; None if they ask for none, or where a map is made, which is scored itself.

    Raises:
        ConfigError: The source is a map of one class, or there are no training chips to learn from.
    """
    if config.judge is None or not judge_fits(chipset):
        return None
    folder = config.judge_folder or report.parent / "judges"
    return find_judge(chipset, config.judge, config.judge_steps, folder, config.device, progress)


def find_judge(
    chipset: ChipSet,
    architecture: JudgeName,
    steps: int,
    folder: Path,
    device: Device,
    progress: bool = False,
) -> Translator:
    """The judge of a chip set: read from a folder of judges, or trained on its training chips and kept there.

    A training that was interrupted goes on where it was.

    Args:
        chipset: Its target is what the judge sees, its source what the judge learns to tell: classes, or values.
        architecture: Network of the judge.
        steps: Steps that it learns for.
        folder: Where judges lie, a file each; its name tells chips and settings.
        device: Where to train and to run it.
        progress: Show a progress bar.

    Raises:
        ConfigError: The device is not there.
        CheckpointError: The file of the judge is damaged.
    """
    settings = [description_digest(chipset.folder), *making(architecture, steps)]
    settings += [] if chipset.source.is_classes else ["values"]
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
    file = folder / f"{architecture}-{key}.safetensors"
    begun = file.with_suffix(".begun")
    if not file.is_file():
        make_folder(folder)
        what = "classes" if chipset.source.is_classes else "source's values"
        log.info("judge: %s learns the %s of real chips for %d steps, once: %s", architecture, what, steps, file)
        with exclusive_training():
            train_judge(chipset, architecture, steps, resolve_device(device), begun, progress).save(file)
    forget(begun)
    try:
        judge = Translator.load(file, device)
    except CheckpointError as error:
        raise CheckpointError(
            f"{file}: a damaged judge ({error.__cause__ or error}); delete it, and it is made again"
        ) from error
    card = judge.card
    sides = [side.to_dict() for side in (card.source, card.target, chipset.target, chipset.source)]  # nan is not nan
    if card.recipe != "judge" or sides[:2] != sides[2:]:
        raise CheckpointError(f"{file}: no judge of {chipset.folder}; delete it, and one is made")
    return judge


def judge_fits(chipset: ChipSet) -> bool:
    """Whether there is anything to judge: imagery that was made. A map that was made is scored itself.

    Raises:
        ConfigError: The source is a map of one class, or there are no training chips to learn from.
    """
    if chipset.target.is_classes:
        return False
    if not chipset.counts["train"]:
        raise ConfigError(f"{chipset.folder}: a judge learns from training chips, it has none; leave --judge out")
    if chipset.source.is_classes and len(chipset.source.classes) < 2:
        raise ConfigError(
            f"{chipset.folder}: a judge tells the classes of the source, which has one class; leave --judge out"
        )
    return True


def verdict(judge: Translator, real: BlockScores, made: BlockScores) -> dict[str, Any]:
    """What a judge reads in real and in generated imagery of the same ground.

    Args:
        judge: Who reads.
        real: Its scores on real imagery, the ceiling of imagery as rich.
        made: Its scores on generated imagery.

    Returns:
        `architecture`, `steps`, `sha256` of the judge; `real` and `generated`, each scores and `intervals`; `chance`,
        the mIoU of calling everything the most frequent class, None without a pixel of a class. `generated` is None
        with a `reason` where the judge is not surely better than that on real imagery.
    """
    ceiling = real.result()
    result = _told_of(judge) | {"reason": None}
    result |= {"real": _with_intervals(real), "chance": _chance(ceiling), "generated": None}
    result["reason"] = _blindness(real, ceiling)
    return result if result["reason"] else result | {"generated": _with_intervals(made)}


def reading(judge: Translator, real: BlockScores) -> dict[str, Any]:
    """What a judge that has no classes reads in real imagery.

    Args:
        judge: Who reads.
        real: Its scores on real imagery.

    Returns:
        `architecture`, `steps`, `sha256` of the judge; `l1` of the source's values that it reads, on the scale of their
        encoding; `constant_l1`, that of the best value of each band everywhere; a `reason` where the judge is not
        surely better than that, so that its features mean nothing, else None.
    """
    found = real.result()
    return _told_of(judge) | {name: found[name] for name in ("l1", "constant_l1")} | {"reason": _blindness(real, found)}


def _told_of(judge: Translator) -> dict[str, Any]:
    architecture, steps = judge.card.arguments["architecture"], judge.card.provenance["steps"]
    return {"architecture": architecture, "steps": steps, "sha256": judge.digest}


def _blindness(real: BlockScores, ceiling: dict[str, Any]) -> str | None:
    """Why a judge with these scores on real imagery, and these over all of it, judges nothing; None where it may."""
    if (above := _margin(ceiling)) is None:
        return "no pixel of the chips belongs to a class" if "miou" in ceiling else "no pixel of the chips is valid"
    if not real.is_tested:
        return (
            "the chips lie in one block of ground: nothing tests that the judge is better than chance; score more chips"
        )
    margin = interval(_margin(draw) for draw in real.draws())
    if above > 0 and margin is not None and margin[0] > 0:
        return None
    if "miou" in ceiling:
        found = f"mIoU {ceiling['miou']:.3g}, the most frequent class everywhere has {_chance(ceiling):.3g}"
    else:
        found = f"L1 {ceiling['l1']:.3g} of the encoded source, its median everywhere has {ceiling['constant_l1']:.3g}"
    return (
        f"the judge is not surely better than chance on real imagery ({found}); raise --judge-steps or give more chips"
    )


def _with_intervals(scores: BlockScores) -> dict[str, Any]:
    return scores.result() | {"intervals": scores.intervals(("accuracy", "class_accuracy", "miou", "f1"))}


def _chance(scores: dict[str, Any]) -> float | None:
    """The mIoU of calling everything the class that is most frequent in the real map; None of no pixels."""
    shares = [entry["share"] for entry in scores["classes"].values() if entry["share"]]
    return float(max(shares) / len(shares)) if shares else None


def _margin(scores: dict[str, Any]) -> float | None:
    """By how much a judge with these scores is better than one that has learned nothing; None of no pixels."""
    if "constant_l1" in scores:
        return None if scores["l1"] is None else float(scores["constant_l1"] - scores["l1"])
    chance = _chance(scores)
    return None if chance is None else float(scores["miou"]) - chance
