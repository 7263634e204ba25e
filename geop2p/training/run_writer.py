"""The end of an epoch: the network is scored, checked, drawn, logged and kept."""

import dataclasses
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from geop2p.config import BestBy, TrainConfig
from geop2p.errors import CheckpointError, ConfigError
from geop2p.models.positional_noise import on_ground_of_its_own
from geop2p.raster.atomic import discard_leftovers
from geop2p.tiling.chips import ChipSet
from geop2p.tiling.unseen import unseen_classes, with_classes
from geop2p.training.board import FOLDER, Board
from geop2p.training.calibration import batch_norms, estimate_statistics
from geop2p.training.checkpoint import LAST, save_state
from geop2p.training.data import ChipArrays
from geop2p.training.detectors import check_outputs, warnings_now
from geop2p.training.feeding import encode_batch
from geop2p.training.history import METRICS, append_metrics, best_epoch, epochs_without_gain, is_scored, rewind_metrics
from geop2p.training.networks import Networks
from geop2p.training.recipes import Recipe
from geop2p.training.report import write_report
from geop2p.training.validation import validate, write_samples
from geop2p.translator import FILE_NAME, Card, Translator, read_card

log = logging.getLogger(__name__)

BEST = "best.safetensors"
SAMPLES = "samples"
SAMPLE_TIMES = 40  # sample pictures a training leaves at most
STATISTICS_BATCH = 8  # chips whose variance is taken together


class RunWriter:
    """Writes into the folder of a run; of several processes one has it.

    Args:
        folder: Of the run.
        chipset: What is trained on.
        chips: Its training chips.
        validation: Its validation chips.
        networks: The discriminator, card and device.
        recipe: As these chips are trained by it.
        config: What is best, and how long to wait for better.

    Attributes:
        history: The lines of `metrics.jsonl`.
    """

    def __init__(
        self,
        folder: Path,
        chipset: ChipSet,
        chips: ChipArrays,
        validation: ChipArrays,
        networks: Networks,
        recipe: Recipe,
        config: TrainConfig,
    ) -> None:
        self.folder, self.chipset, self.chips, self.validation = folder, chipset, chips, validation
        self.card, self.device, self.discriminator = networks.card, networks.device, networks.discriminator
        self.recipe, self.config, self.best_by = recipe, config, score_to_keep(chipset, config)
        unseen = unseen_classes(chipset, self.card.target, "val")
        self._scored = with_classes(self.card.target, (entry for entry, _ in unseen))
        self.history: list[dict[str, Any]] = []
        self._board: Board | None = None

    def rewind(self, step: int) -> None:
        """Go back to a step, as a run does that was killed after it."""
        for name in (METRICS, LAST, FILE_NAME, BEST):
            discard_leftovers(self.folder / name)
        self.history = rewind_metrics(self.folder, step)

    def catch_up(self, generator: nn.Module, step: int, total: int) -> None:
        """Save the models that a kill between checkpoint and model has kept from being saved."""
        if self.history and self.history[-1]["step"] == step:
            translator = Translator(generator, self._card(step, total))
            for file in self._models(step):
                if not _is_of_step(file, step):
                    translator.save(file)

    def translator(self, generator: nn.Module, step: int, total: int) -> Translator:
        """The generator as it predicts: batch-norm statistics estimated anew, and a card that tells the step."""
        if batch_norms(generator):
            estimate_statistics(generator, self._some_sources())
        return Translator(generator, self._card(step, total))

    def look(self, translator: Translator) -> dict[str, Any]:
        """Validation scores, None without validation chips, and the figures of the detectors."""
        scores, chips = None, self.validation
        if len(chips):
            scores = validate(translator, chips, self.recipe.batch_size, self._scored)
        return {"val": scores, "checks": check_outputs(translator, self.discriminator, self.recipe, self._shown)}

    def draw(self, translator: Translator, epoch: int, epochs: int, is_last: bool) -> bool:
        """Save a sample picture, at most `SAMPLE_TIMES` in a training; whether it is its turn."""
        is_due = epoch % math.ceil(epochs / SAMPLE_TIMES) == 0 or is_last
        if is_due:
            write_samples(self._sample(epoch), translator, self._shown)
        return is_due

    def keep(self, translator: Translator, entry: dict[str, Any], state: dict[str, Any]) -> None:
        """Log an epoch and save: a run that is killed in between goes on from the checkpoint, old or new."""
        append_metrics(self.folder, entry)
        self.history.append(entry)
        save_state(self.folder, state)
        for file in self._models(entry["step"]):
            translator.save(file)
        if len(self.history) == 1 and entry["val"] is not None and not is_scored(entry, self.best_by):
            log.warning(
                "epoch %d: the validation has no %s to tell the best epoch by%s",
                entry["epoch"],
                self.best_by,
                "; no window of 11 pixels is wholly valid, give --best-by l1" if self.best_by == "ssim" else "",
            )
        for text in warnings_now(self.history):
            log.warning("epoch %d: %s", entry["epoch"], text)
        if self.config.tensorboard:
            self._show(entry)

    def _show(self, entry: dict[str, Any]) -> None:
        """Put a line on the board; on the first one of the run those before it, too."""
        lines = [entry]
        if self._board is None:
            lines = lines if (self.folder / FOLDER).exists() else self.history
            self._board = Board(self.folder, lines[0]["step"])
        for line in lines:
            self._board.add(line, self._sample(line["epoch"]))

    def _sample(self, epoch: int) -> Path:
        return self.folder / SAMPLES / f"epoch_{epoch:04d}.png"

    def report(self, total: int) -> None:
        """Write the page of the run as it stands; nothing before the first epoch has ended."""
        if self.history:
            best = self.best()
            write_report(self.folder, self.history, self.config, self.recipe, self.card, self.device, total, best)

    def close(self) -> None:
        """Let go of files."""
        if self._board is not None:
            self._board.close()

    def best(self) -> dict[str, Any] | None:
        """Metric, value and epoch of the best epoch, and the file that holds it if it is kept."""
        best = best_epoch(self.history, self.best_by)
        if best is None:
            return None
        found = {name: best[name] for name in ("metric", "value", "epoch")}
        return found | ({"file": BEST} if self.config.best_by else {})

    def has_lost_patience(self) -> bool:
        """Whether the best epoch lies so far back that the training is to stop."""
        wait = self.config.patience
        return wait is not None and epochs_without_gain(self.history, self.best_by) >= wait

    def _models(self, step: int) -> list[Path]:
        """The files of the models that a step makes: the last, and the best where it is this one."""
        best = best_epoch(self.history, self.best_by)
        is_best = self.config.best_by and best is not None and best["step"] == step
        return [self.folder / name for name in ([FILE_NAME, BEST] if is_best else [FILE_NAME])]

    def _card(self, step: int, total: int) -> Card:
        counts = {"train_chips": len(self.chips), "steps": step, "of_steps": total}
        return dataclasses.replace(self.card, provenance=self.card.provenance | counts)

    @property
    def _shown(self) -> ChipArrays:
        return self.validation if len(self.validation) else self.chips

    def _some_sources(self) -> Iterator[Tensor]:
        """Chips as they are, spread over the training ground, in batches of nearly one size, mixed as in steps."""
        count = min(self.recipe.statistics_chips, len(self.chips))
        rows = np.linspace(0, len(self.chips) - 1, count).round().astype(np.int64)
        mixed = np.random.default_rng(0).permutation(rows)  # neighbours are more alike than chips are
        for some in np.array_split(mixed, math.ceil(count / STATISTICS_BATCH)):
            batch = encode_batch(self.chips, some, self.chipset.source, self.chipset.target)
            yield on_ground_of_its_own(batch.source, some.tolist(), self.card.noise).to(self.device)


def _is_of_step(file: Path, step: int) -> bool:
    """Whether a file is a whole model of a step."""
    try:
        return bool(read_card(file).provenance.get("steps") == step)
    except CheckpointError:
        return False


def score_to_keep(chipset: ChipSet, config: TrainConfig) -> BestBy:
    """The validation score that tells the best epoch: as asked for, else L1, or mIoU for classes.

    Raises:
        ConfigError: The target has no such score, or nothing is there to validate on.
    """
    scores: tuple[BestBy, ...] = ("l1", "rmse", "psnr", "ssim")
    if chipset.target.is_classes:
        scores = ("miou", "accuracy", "class_accuracy")
    if config.best_by is None:
        return scores[0]
    if config.best_by not in scores:
        raise ConfigError(
            f"best_by is '{config.best_by}', the target of {chipset.folder} is scored by {', '.join(scores)}"
        )
    if not chipset.counts["val"]:
        raise ConfigError(f"best_by needs validation chips, {chipset.folder} has none; tile with another --split")
    return config.best_by
