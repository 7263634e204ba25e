"""`train`: fit a generator to a chip set."""

import dataclasses
import hashlib
import logging
import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from geop2p.config import Kind, TrainConfig
from geop2p.errors import ChipSetError, GeoP2PError
from geop2p.tiling.chips import DESCRIPTION, ChipSet
from geop2p.training.calibration import batch_norms, estimate_statistics
from geop2p.training.checkpoint import (
    CONFIG,
    append_metrics,
    claim_run,
    load_state,
    read_metrics,
    rewind_metrics,
    save_state,
)
from geop2p.training.data import Batch, ChipArrays, Indices, augment, batches, encode_batch, epoch_order
from geop2p.training.networks import Networks, build_networks
from geop2p.training.recipes import recipe_of
from geop2p.training.schedule import decay
from geop2p.training.step import TrainingStep
from geop2p.training.validation import validate, write_samples
from geop2p.translator import FILE_NAME, Card, Translator

log = logging.getLogger(__name__)

SAMPLE_TIMES = 40  # sample pictures a training leaves at most
STATISTICS_BATCH = 8  # chips whose variance is taken together
LOOKING: set[Kind] = {"sar", "elevation"}  # seen from one side or lit from one: turning a chip changes what it shows


@dataclass(frozen=True)
class TrainResult:
    """What a training made.

    Attributes:
        path: Folder of the run.
        steps: Optimisation steps done in all.
        seconds: Time of all calls for this run, validation included.
        images_per_s: Training chips a second of this call, validation and reading left out; None if none ran.
        best: Metric, value and epoch of the best validation; None without validation chips.
    """

    path: str
    steps: int
    seconds: float
    images_per_s: float | None
    best: dict[str, Any] | None


def train(
    chips: str | Path,
    run: str | Path,
    config: TrainConfig | None = None,
    *,
    overwrite: bool = False,
    progress: bool = False,
) -> TrainResult:
    """Train a translator on a chip set; repeated, it continues an interrupted run.

    Args:
        chips: Folder of the chip set.
        run: Folder of the run: config, metrics, samples, checkpoint and `model.safetensors`.
        config: Settings.
        overwrite: Begin again if the run exists.
        progress: Show a progress bar.

    Raises:
        ChipSetError: The chip set is missing, damaged or has no training chips.
        ConfigError: The settings do not fit the chips or the run.
        CheckpointError: The run's checkpoint is damaged, or the folder is something else.
        GeoP2PError: The losses are no longer finite.
    """
    config, run = config or TrainConfig(), Path(run)
    chipset = ChipSet.open(chips)
    if not chipset.counts["train"]:
        raise ChipSetError(f"{chips}: has no training chips; tile with another --split")
    networks = build_networks(chipset, config)  # refuses what does not fit before the run begins
    if overwrite and (run / CONFIG).exists():
        shutil.rmtree(run)
    settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    settings["set"] = list(config.set)  # as JSON gives it back
    claim_run(run, settings | {"chips": hashlib.sha256((chipset.folder / DESCRIPTION).read_bytes()).hexdigest()[:16]})
    return _Training(chipset, networks, run, config, progress).run()


class _Training:
    """Networks, optimisers and chips of one run."""

    def __init__(self, chipset: ChipSet, networks: Networks, run: Path, config: TrainConfig, progress: bool) -> None:
        self.chipset, self.folder, self.config, self.progress = chipset, run, config, progress
        self.recipe, self.device, self.card = recipe_of(config), networks.device, networks.card
        self.batch_size = self.recipe.batch_size
        self.chips = ChipArrays.load(chipset, "train", progress)
        self.validation = ChipArrays.load(chipset, "val", progress)
        self.steps_per_epoch = math.ceil(len(self.chips) / self.batch_size)
        self.total = config.steps or config.epochs * self.steps_per_epoch
        self.update = TrainingStep(networks, self.recipe, config, self.total)
        self.step, self.images, self.seconds = 0, 0, 0.0
        self._restore()

    def _restore(self) -> None:
        state = load_state(self.folder, self.device)
        if state is None:
            rewind_metrics(self.folder, 0)
            return
        self.update.load_state(state)
        self.step, self.seconds = state["step"], state["seconds"]
        rewind_metrics(self.folder, self.step)

    def run(self) -> TrainResult:
        """Train from the last checkpoint to the end."""
        log.info("%d training and %d validation chips on %s", len(self.chips), len(self.validation), self.device)
        if not len(self.validation):
            log.warning("no validation chips: nothing tells whether the training helps")
        if self.config.balance and (self.chips.weights == self.chips.weights[0]).all():
            log.warning("all chips weigh the same (no side holds classes, or one): --balance changes nothing")
        busy = 0.0
        with tqdm(
            total=self.total, initial=self.step, unit="step", desc="train", disable=not self.progress, smoothing=0.05
        ) as bar:
            while self.step < self.total:
                start = time.monotonic()
                epoch = self.step // self.steps_per_epoch
                losses = self._train_epoch(epoch, bar)
                busy += time.monotonic() - start
                self._finish_epoch(epoch, losses, start)
        history = [entry for entry in read_metrics(self.folder) if entry["val"] is not None]
        return TrainResult(
            path=str(self.folder),
            steps=self.step,
            seconds=round(self.seconds, 1),
            images_per_s=round(self.images / busy, 2) if busy else None,
            best=_best(history),
        )

    def _train_epoch(self, epoch: int, bar: Any) -> dict[str, float]:
        """Run the steps of an epoch; the mean of each loss."""
        self.update.generator.train()
        weights = self.chips.weights if self.config.balance else None
        order = epoch_order(self.config.seed, epoch, len(self.chips), weights)
        sums: dict[str, Tensor] = {}
        count = 0
        for rows in batches(order, self.batch_size):
            losses = self.update(self._batch(rows, epoch), self.step)
            for name, value in losses.items():
                sums[name] = sums.get(name, torch.zeros((), device=self.device)) + value
            self.step, self.images, count = self.step + 1, self.images + len(rows), count + 1
            bar.update()
            if count % 25 == 0 or self.step == self.total or count == self.steps_per_epoch:
                means = {name: float(value) / count for name, value in sums.items()}
                self._check_finite(means)
                bar.set_postfix({name: f"{value:.3f}" for name, value in means.items()})
            if self.step == self.total:
                break
        return means

    def _batch(self, rows: Indices, epoch: int) -> Batch:
        source, target = self.chipset.source, self.chipset.target
        batch = encode_batch(self.chips, rows, source, target).to(self.device)
        classes, recipe = (source.is_classes, target.is_classes), self.recipe
        d4 = recipe.d4 and not {source.kind, target.kind} & LOOKING
        return augment(batch, rows, self.config.seed, epoch, recipe.jitter, recipe.flip, classes, d4)

    def _check_finite(self, losses: dict[str, float]) -> None:
        bad = [name for name, value in losses.items() if not math.isfinite(value)]
        if bad:
            raise GeoP2PError(
                f"{self.folder}: loss {' and '.join(bad)} is not finite at step {self.step}; lower --lr (now "
                f"{self.config.lr}) or use --precision fp32, and repeat with --overwrite"
            )

    def _finish_epoch(self, epoch: int, losses: dict[str, float], start: float) -> None:
        """Validate, draw, log and save: a repeated command goes on from here."""
        if batch_norms(self.update.result):
            estimate_statistics(self.update.result, self._some_sources())
        translator = Translator(self.update.result, self._card_now())
        scores = validate(translator, self.validation, self.batch_size) if len(self.validation) else None
        epochs = math.ceil(self.total / self.steps_per_epoch)
        every = math.ceil(epochs / SAMPLE_TIMES)
        if (epoch + 1) % every == 0 or self.step == self.total:
            chips = self.validation if len(self.validation) else self.chips
            write_samples(self.folder / "samples" / f"epoch_{epoch + 1:04d}.png", translator, chips)
        self.seconds += time.monotonic() - start
        entry = {"epoch": epoch + 1, "step": self.step, "lr": self.config.lr * decay(self.step, self.total)}
        append_metrics(self.folder, entry | {"losses": losses, "val": scores, "seconds": round(self.seconds, 2)})
        translator.save(self.folder / FILE_NAME)
        save_state(self.folder, {"step": self.step, "seconds": self.seconds} | self.update.state())

    def _some_sources(self) -> Iterator[Tensor]:
        """Chips as they are, spread over the training ground, in batches of nearly one size."""
        count = min(self.recipe.statistics_chips, len(self.chips))
        rows = np.linspace(0, len(self.chips) - 1, count).round().astype(np.int64)
        for some in np.array_split(rows, math.ceil(count / STATISTICS_BATCH)):
            yield encode_batch(self.chips, some, self.chipset.source, self.chipset.target).to(self.device).source

    def _card_now(self) -> Card:
        counts = {"train_chips": len(self.chips), "steps": self.step, "of_steps": self.total}
        return dataclasses.replace(self.card, provenance=self.card.provenance | counts)


def _best(history: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The epoch of the best validation: lowest L1, or highest mIoU for classes."""
    if not history:
        return None
    metric = "l1" if "l1" in history[0]["val"] else "miou"
    entry = (min if metric == "l1" else max)(history, key=lambda item: item["val"][metric] or 0.0)
    return {"metric": metric, "value": entry["val"][metric], "epoch": entry["epoch"]}
