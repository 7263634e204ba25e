"""Predictors of imagery or maps on the same chips: figures, intervals, a judge's reading, and where they err."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from geop2p.evaluation.error_breakdown import ErrorBreakdown, boundary_bins, by_training_distance
from geop2p.evaluation.features import FeatureDistance
from geop2p.evaluation.judge import reading, verdict
from geop2p.evaluation.position import PositionError, pixel_error
from geop2p.evaluation.pretrained_scores import PretrainedScores
from geop2p.evaluation.scored_chips import ScoredChips
from geop2p.evaluation.value_scores import ValueScores
from geop2p.metrics import BlockScores, ClassScores, scores_for
from geop2p.raster.encoding import Array
from geop2p.training.data import Indices, batches
from geop2p.translator import Translator

IMAGE_SCORES = ("l1", "rmse", "psnr", "ssim", "ms_ssim", "correlation", "sam", "ergas")
CLASS_SCORES = ("accuracy", "class_accuracy", "miou", "f1")
NO_CLASSES = "the source is no map of classes: the judge reads source values, it has no classes"

OF_IMAGERY = dict.fromkeys(("l1", "rmse", "psnr", "ssim"), "codes of classes are no measures")  # why no map has them

Predict = Callable[[Indices], Sequence[Array]]


class ChipScores:
    """What is summed over the chips for one predictor.

    Args:
        ground: The chips.
    """

    def __init__(self, ground: ScoredChips) -> None:
        self.scores = BlockScores(partial(scores_for, ground.scored, True))
        self.judged = BlockScores(partial(ClassScores, ground.source, True))
        self.position = PositionError(ground.size)
        self.by_ground = ErrorBreakdown(ground.source if ground.source.is_classes else ground.scored)
        self.errors = np.full(len(ground.arrays), np.nan)  # mean error of each chip of the split


class Scorer:
    """Chips, and a judge that has read their real imagery.

    Args:
        ground: The chips.
        judge: Reads classes in imagery, or values where the source is no map; None without.
        pretrained: Scores by pretrained networks.
        progress: Show progress bars.
    """

    def __init__(
        self, ground: ScoredChips, judge: Translator | None, pretrained: PretrainedScores, progress: bool = False
    ) -> None:
        self.ground, self.judge, self._pretrained, self._progress = ground, judge, pretrained, progress
        self._reads_classes = ground.source.is_classes
        make = partial(ClassScores, full=True) if self._reads_classes else ValueScores
        self._real = BlockScores(partial(make, ground.source))
        self._features = None if judge is None else FeatureDistance(judge, [ground.blocks[row] for row in ground.rows])
        if judge is not None:
            for row in tqdm(ground.rows, desc="judge real chips", unit="chip", disable=not progress):
                self._look(None, int(row), ground.arrays.target[row])
                self._read(self._real, int(row), ground.arrays.target[row])

    def score(self, name: str, predict: Predict, batch_size: int) -> ChipScores:
        """Score under a name what a predictor makes of the chips of the rows it is given: stored values."""
        found = ChipScores(self.ground)
        with tqdm(total=len(self.ground.rows), desc=name, unit="chip", disable=not self._progress) as bar:
            for rows in batches(self.ground.rows, batch_size):
                for row, predicted in zip(rows, predict(rows), strict=True):
                    self._add(found, name, int(row), predicted)
                bar.update(len(rows))
        return found

    def _add(self, found: ChipScores, name: str, row: int, predicted: Array) -> None:
        ground = self.ground
        real, valid, block = ground.arrays.target[row], ground.arrays.valid[row], ground.blocks[row]
        found.scores.add(predicted, real, valid, block)
        error = pixel_error(predicted, real, ground.target)
        found.position.add(error, valid, block)
        found.errors[row] = error[valid].mean()
        if ground.source.is_classes or ground.target.is_classes:
            codes = ground.arrays.source[row] if ground.source.is_classes else real
            found.by_ground.add(error, codes[0], valid, boundary_bins(codes[0], valid))
        self._pretrained.add(name, row, predicted, real, valid)
        if self.judge is not None:
            self._look(name, row, predicted)
            if self._reads_classes:  # values have no score that imagery could be told by
                self._read(found.judged, row, predicted)

    def _look(self, name: str | None, row: int, imagery: Array) -> None:
        assert self._features is not None
        self._features.add(name, imagery, self.ground.arrays.valid[row], self.ground.blocks[row])

    def _read(self, scores: BlockScores, row: int, imagery: Array) -> None:
        assert self.judge is not None
        valid, block = self.ground.arrays.valid[row], self.ground.blocks[row]
        scores.add(self.judge(imagery, valid), self.ground.arrays.source[row], valid, block)

    def figures(self, name: str, found: ChipScores) -> dict[str, Any]:
        """All figures of a predictor.

        Returns:
            The scores, `intervals` of them (95 % over blocks), `judge` and `frechet` (None without a judge, the latter
            also where the judge is withheld; where it reads values, `judge` is None and `frechet` tells of it under
            `judge`), `corner_ratio` with its interval, `where` (error by class, by distance to
            a class boundary, by distance from the training), `notes` on what to beware of, and under `reasons` why
            figures are None.
        """
        ground, result = self.ground, found.scores.result()
        names = CLASS_SCORES if ground.target.is_classes else IMAGE_SCORES
        result["intervals"] = found.scores.intervals(names)
        reasons: dict[str, str] = result.setdefault("reasons", {})
        seen = self._pretrained.result(name)
        reasons |= seen.pop("reasons")
        result |= seen
        told, why = self._by_judge(name, found)
        result |= told
        reasons |= why
        ratio = found.position.corner_ratio()
        result |= {"corner_ratio": ratio.value, "corner_ratio_interval": [ratio.low, ratio.high]}
        result["notes"] = notes_on(result) + ground.notes
        result["where"] = found.by_ground.result() | {"by_training_distance": []}
        if ground.doubt is None:
            apart = result["where"]["by_training_distance"] = by_training_distance(found.errors, ground.distances)
            if not apart:
                reasons["distance_from_the_training"] = "no training chip lies in the scenes of these"
        else:
            reasons["distance_from_the_training"] = "the ground may be known"
        return result

    def _by_judge(self, name: str, found: ChipScores) -> tuple[dict[str, Any], dict[str, str]]:
        """What the judge says of a predictor, `judge` and `frechet`, and why they are None."""
        if self.judge is None or self._features is None:
            unasked = dict.fromkeys(("judge", "frechet"), "none was asked for (--judge)")
            why = {"judge": "the map itself is scored"} if self.ground.target.is_classes else unasked
            return {"judge": None, "frechet": None}, why
        classes = self._reads_classes
        seen = verdict(self.judge, self._real, found.judged) if classes else reading(self.judge, self._real)
        apart = None
        if seen["reason"] is None:  # else its features are no better than its answers
            apart = self._features.distance(name) | ({} if classes else {"judge": seen})
        reasons = {"judge": seen["reason"] if classes else NO_CLASSES}
        reasons["frechet"] = seen["reason"] if apart is None else apart["reason"]
        told = {"judge": seen if classes else None, "frechet": apart}
        return told, {what: why for what, why in reasons.items() if why is not None}


def say_missing(result: dict[str, Any], why: dict[str, str]) -> None:
    """Give scores that a result should have and has not as None, with the reason unless it has one."""
    for name, reason in why.items():
        if result.setdefault(name, None) is None:
            result.setdefault("reasons", {}).setdefault(name, reason)


def notes_on(result: dict[str, Any]) -> list[str]:
    """What a reader of the scores should beware of."""
    return _on_judge(result.get("judge")) + _on_classes(result)


def _on_judge(judge: dict[str, Any] | None) -> list[str]:
    if judge is None or judge["generated"] is None or judge["generated"]["miou"] <= judge["real"]["miou"]:
        return []
    return [
        "The judge reads generated imagery better than real imagery: flat, clear pictures are easy to read; its "
        "figures have no ceiling here."
    ]


def _on_classes(result: dict[str, Any]) -> list[str]:
    if not result.get("classes"):
        return []
    shown = dict(zip(result["confusion_classes"], np.sum(result["confusion"], axis=0).tolist(), strict=True))
    made = [name for name, pixels in shown.items() if pixels]
    real = [name for name, entry in result["classes"].items() if entry["share"]]
    if real == made and len(real) == 1:
        return [f"Only one class ({real[0]}) occurs: no score can tell a good map from a bad one."]
    notes = []
    if len(real) == 1:
        notes.append(f"The reference shows only one class ({real[0]}): mIoU, F1 and class accuracy are of it alone.")
    if len(made) == 1:
        notes.append(f"The prediction shows only one class ({made[0]}), the reference {', '.join(real)}.")
    if min(len(made), len(real)) > 1 and not set(made) & set(real):
        notes.append(
            f"No class occurs in both: the prediction shows {', '.join(made)}, the reference {', '.join(real)}; "
            "classes are compared by their codes."
        )
    return notes
