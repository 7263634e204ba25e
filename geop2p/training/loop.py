"""The training loop: epochs of steps, from the last checkpoint to the end."""

import logging
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from geop2p.config import Kind, TrainConfig
from geop2p.errors import GeoP2PError
from geop2p.tiling.chips import ChipSet
from geop2p.training.augmentation import Augmentation
from geop2p.training.checkpoint import load_state, save_state
from geop2p.training.data import ChipArrays, batches, epoch_order
from geop2p.training.feeding import Feed
from geop2p.training.history import rewind_metrics
from geop2p.training.keeper import Keeper
from geop2p.training.networks import Networks
from geop2p.training.recipes import recipe_of
from geop2p.training.schedule import decay
from geop2p.training.step import TrainingStep

log = logging.getLogger(__name__)

LOOKING: set[Kind] = {"sar", "elevation"}  # seen from one side or lit from one: turning a chip changes what it shows


class Training:
    """Chips, networks and optimisers of one run, and how far it has come.

    Args:
        chipset: What to train on.
        networks: What to train.
        run: Folder of the run.
        config: Settings.
        progress: Show a progress bar.

    Attributes:
        step: Steps done, those before an interruption included.
        seconds: Time of all calls for this run, validation included.
        images: Chips trained on in this call.
        busy: Seconds of this call that went into steps.
    """

    def __init__(self, chipset: ChipSet, networks: Networks, run: Path, config: TrainConfig, progress: bool) -> None:
        self.chipset, self.folder, self.config, self.progress = chipset, run, config, progress
        self.recipe, self.device = recipe_of(config), networks.device
        self.batch_size = self.recipe.batch_size
        self.chips = ChipArrays.load(chipset, "train", progress)
        self.validation = ChipArrays.load(chipset, "val", progress)
        self.feed = Feed(self.chips, chipset.source, chipset.target, self.device, self._augmentation())
        self.steps_per_epoch = math.ceil(len(self.chips) / self.batch_size)
        self.total = config.steps or config.epochs * self.steps_per_epoch
        self.update = TrainingStep(networks, self.recipe, config, self.total)
        self.keeper = Keeper(run, chipset, self.chips, self.validation, networks, self.recipe)
        self.step, self.images, self.seconds, self.busy = 0, 0, 0.0, 0.0
        self._restore()

    def _restore(self) -> None:
        state = load_state(self.folder, self.device)
        if state is None:
            rewind_metrics(self.folder, 0)
            return
        self.update.load_state(state)
        self.step, self.seconds = state["step"], state["seconds"]
        rewind_metrics(self.folder, self.step)

    def run(self) -> None:
        """Train from the last checkpoint to the end."""
        log.info("%d training and %d validation chips on %s", len(self.chips), len(self.validation), self.device)
        if not len(self.validation):
            log.warning("no validation chips: nothing tells whether the training helps")
        if self.config.balance and (self.chips.weights == self.chips.weights[0]).all():
            log.warning("all chips weigh the same (no side holds classes, or one): --balance changes nothing")
        with tqdm(
            total=self.total, initial=self.step, unit="step", desc="train", disable=not self.progress, smoothing=0.05
        ) as bar:
            while self.step < self.total:
                start = time.monotonic()
                epoch = self.step // self.steps_per_epoch
                losses = self._train_epoch(epoch, bar)
                self.busy += time.monotonic() - start
                self._finish_epoch(epoch, losses, start)

    def _train_epoch(self, epoch: int, bar: Any) -> dict[str, float]:
        """Run the steps of an epoch; the mean of each loss."""
        self.update.generator.train()
        weights = self.chips.weights if self.config.balance else None
        order = epoch_order(self.config.seed, epoch, len(self.chips), weights)
        sums: dict[str, Tensor] = {}
        count = 0
        pieces = batches(np.arange(len(order)), self.batch_size)
        stream = self.feed.stream(((order[places], places) for places in pieces), epoch)
        for places, batch in zip(pieces, stream, strict=True):
            losses = self.update(batch, self.step)
            for name, value in losses.items():
                sums[name] = sums.get(name, torch.zeros((), device=self.device)) + value
            self.step, self.images, count = self.step + 1, self.images + len(places), count + 1
            bar.update()
            if count % 25 == 0 or self.step == self.total or count == self.steps_per_epoch:
                means = {name: float(value) / count for name, value in sums.items()}
                self._check_finite(means)
                bar.set_postfix({name: f"{value:.3f}" for name, value in means.items()})
            if self.step == self.total:
                break
        return means

    def _augmentation(self) -> Augmentation:
        kinds, recipe = {self.chipset.source.kind, self.chipset.target.kind}, self.recipe
        return Augmentation(self.config.seed, recipe.jitter, recipe.flip, recipe.d4 and not kinds & LOOKING)

    def _check_finite(self, losses: dict[str, float]) -> None:
        bad = [name for name, value in losses.items() if not math.isfinite(value)]
        if bad:
            raise GeoP2PError(
                f"{self.folder}: loss {' and '.join(bad)} is not finite at step {self.step}; lower --lr (now "
                f"{self.config.lr}) or use --precision fp32, and repeat with --overwrite"
            )

    def _finish_epoch(self, epoch: int, losses: dict[str, float], start: float) -> None:
        """Validate, draw, log and save: a repeated command goes on from here."""
        translator = self.keeper.translator(self.update.result, self.step, self.total)
        scores = self.keeper.score(translator)
        epochs = math.ceil(self.total / self.steps_per_epoch)
        self.keeper.draw(translator, epoch + 1, epochs, self.step == self.total)
        self.seconds += time.monotonic() - start
        entry = {"epoch": epoch + 1, "step": self.step, "lr": self.config.lr * decay(self.step, self.total)}
        self.keeper.keep(translator, entry | {"losses": losses, "val": scores, "seconds": round(self.seconds, 2)})
        save_state(self.folder, {"step": self.step, "seconds": self.seconds} | self.update.state())
