"""The training loop: epochs of steps, from the last checkpoint to the end."""

import dataclasses
import logging
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from geop2p.config import TrainConfig
from geop2p.tiling.chips import ChipSet
from geop2p.tiling.rows import digest_of
from geop2p.training.augmentation import augmentation_of
from geop2p.training.caching import pack_if_large
from geop2p.training.calibration import batch_norms
from geop2p.training.checkpoint import check_chips_are_those, check_same_to_all, fitting_state, load_state, save_state
from geop2p.training.data import Batch, ChipArrays, Indices, epoch_order
from geop2p.training.diagnosis import explain_losses, explain_weights, is_finite
from geop2p.training.distributed import World
from geop2p.training.feeding import Feed
from geop2p.training.history import METRICS
from geop2p.training.interruption import Interruption
from geop2p.training.loss_meter import LossMeter
from geop2p.training.networks import Networks, check_norms
from geop2p.training.recipes import recipe_of
from geop2p.training.run_folder import check_claimed
from geop2p.training.run_writer import RunWriter
from geop2p.training.schedule import decay
from geop2p.training.step import TrainingStep
from geop2p.translator import Translator

log = logging.getLogger(__name__)

CHECK_EVERY = 25  # steps between two looks at the losses, which wait for the device
CHECKPOINT_SECONDS = 600.0  # of work that a kill can cost at most, where epochs are longer
SMALL_BATCH = 4  # chips a step below which batch norm knows little


class Training:
    """Chips, networks and optimisers of one run, and how far it has come.

    It begins at the first step; `restore` goes on from the checkpoint of the run.

    Args:
        chipset: What to train on.
        networks: What to train.
        run: Folder of the run.
        config: Settings.
        progress: Show a progress bar.
        world: The processes that train together; the first one writes.

    Attributes:
        cache: Folder of the chips that were packed for it; None: they come from the chip set.
        step: Steps done, those before an interruption included.
        seconds: Time of all calls for this run, validation included.
        images: Chips trained on in this call.
        busy: Seconds of this call that went into steps.
    """

    def __init__(
        self, chipset: ChipSet, networks: Networks, run: Path, config: TrainConfig, progress: bool, world: World
    ) -> None:
        self.chipset, self.folder, self.config, self.world = chipset, run, config, world
        self.progress = progress = progress and world.leads
        self.networks, self.recipe, self.device = networks, recipe_of(config), networks.device
        self.batch_size = self.recipe.batch_size
        self.cache = world.lead(lambda: pack_if_large(chipset, run, config.skip_bad, world.neighbours, progress))
        self.chips = ChipArrays.load(chipset, "train", progress, config.skip_bad, self.cache)
        if len(self.chips) < chipset.counts["train"]:  # the others could not be read
            check_norms(chipset, config, networks.generator, self.device, len(self.chips))
        self.validation = ChipArrays.load(chipset, "val", progress, config.skip_bad, self.cache)
        augmentation = augmentation_of(chipset, self.recipe, config.seed)
        self.feed = Feed(self.chips, chipset.source, chipset.target, self.device, augmentation)
        self.steps_per_epoch = math.ceil(len(self.chips) / self.batch_size)
        self.total = config.steps or config.epochs * self.steps_per_epoch
        self.update = TrainingStep(networks, self.recipe, config, self.total)
        drawn = dataclasses.replace(self.recipe, flip=augmentation.flip, d4=augmentation.d4)
        self.writer = RunWriter(run, chipset, self.chips, self.validation, networks, drawn, config)
        self.step, self.images, self.seconds, self.busy = 0, 0, 0.0, 0.0
        self.losses = LossMeter(self.device)
        self._ordered = -1, np.zeros(0, np.int64)
        self._counted = self._saved = time.monotonic()
        self._interruption = Interruption(world.size == 1)  # several processes would not stop after the same step

    def restore(self) -> None:
        """Go on from the checkpoint of the run, if it has one.

        Raises:
            CheckpointError: It or the metrics beside it are damaged, it is of another training, or not all see it.
        """
        state = load_state(self.folder, self.device)
        check_same_to_all(self.folder, self.world.known_to_all(0 if state is None else state["step"]))
        if state is not None:
            with fitting_state(self.folder):
                check_chips_are_those(self.folder, state["chips"], self.chips.ids)
                self.update.load_state(state)
                self.losses.load_state(state["losses"])
                self.step, self.seconds = state["step"], state["seconds"]
            if self.world.leads:
                self._say_where(state.get("device"))
        self.writer.history = self.world.lead(self._rewind)

    def _say_where(self, earlier: str | None) -> None:
        if earlier not in (None, self.device.type):
            log.info(
                "%s: trained on %s so far, goes on on %s; the rest is not equal bit by bit to what %s would have made",
                self.folder,
                earlier,
                self.device.type,
                earlier,
            )

    def _rewind(self) -> list[dict[str, Any]]:
        self.writer.rewind(self.step)
        lost = self.step // self.steps_per_epoch - len(self.writer.history)
        if lost > 0:
            log.warning(
                "%s: %d epochs before the checkpoint are missing in it; curves, the best epoch and patience know only "
                "the others",
                self.folder / METRICS,
                lost,
            )
        self.writer.catch_up(self.update.result, self.step, self.total)
        return self.writer.history

    def _state(self) -> dict[str, Any]:
        """Everything that decides the rest: order, augmentation and dropout are functions of seed and step."""
        plain = {"step": self.step, "seconds": self.seconds, "losses": self.losses.state()}
        plain |= {"chips": digest_of(self.chips.ids), "device": self.device.type}
        return plain | self.update.state()

    def run(self) -> None:
        """Train from the last checkpoint to the end, or until no epoch has been better for long.

        Interrupted (Ctrl-C, SIGTERM), one process finishes its step and saves before it ends.
        """
        if self.world.leads:
            self._say_what_is_odd()
        self._counted = self._saved = time.monotonic()
        with (
            self._interruption,
            tqdm(
                total=self.total,
                initial=self.step,
                unit="step",
                desc="train",
                disable=not self.progress,
                smoothing=0.05,
            ) as bar,
        ):
            while self.step < self.total and not self.writer.has_lost_patience():
                epoch, start = self.step // self.steps_per_epoch, time.monotonic()
                self._train_epoch(epoch, bar)
                self.busy += time.monotonic() - start
                self._finish_epoch(epoch)
                self._give_way()
        if self.world.leads:
            self._conclude()

    def _conclude(self) -> None:
        check_claimed(self.folder)
        self.writer.report(self.total)
        self.writer.close()
        best = self.writer.best()
        if self.step < self.total:
            log.info("stopped at step %d of %d: no better %s for long", self.step, self.total, self.writer.best_by)
        if best is not None and "file" in best:
            metric, value, epoch, file = best.values()
            shown = "of no error" if value is None else f"{value:.4g}"
            log.info("the best %s, %s, is epoch %d: %s", metric, shown, epoch, file)

    def _say_what_is_odd(self) -> None:
        log.info("%d training and %d validation chips on %s", len(self.chips), len(self.validation), self.device)
        if not len(self.validation):
            log.warning("no validation chips: nothing tells whether the training helps")
        if self.config.balance and (self.chips.weights == self.chips.weights[0]).all():
            log.warning("all chips weigh the same (no side holds classes, or one): --balance changes nothing")
        networks = {"generator": self.networks.generator, "discriminator": self.networks.discriminator}
        normed = [name for name, network in networks.items() if network is not None and batch_norms(network)]
        if normed and self.batch_size < SMALL_BATCH:
            log.warning(
                "batch norm in the %s trains with %d chips a step, whose statistics are far from those that prediction "
                "uses; give --batch-size %d or more, or another norm",
                " and the ".join(normed),
                self.batch_size,
                SMALL_BATCH,
            )

    def _train_epoch(self, epoch: int, bar: Any) -> None:
        """Run the steps of an epoch that are left, and save the state now and then."""
        self.update.generator.train()
        last = min((epoch + 1) * self.steps_per_epoch, self.total)
        order, places = self._order(epoch), [self._places(step) for step in range(self.step, last)]
        shares = [self.world.part(some) for some in places]
        stream = self.feed.stream(((order[share], share) for share in shares), epoch)
        for some, batch in zip(places, stream, strict=True):
            self.losses.add(self.update(batch.blinded() if self.world.is_idle(some) else batch, self.step))
            self.step, self.images = self.step + 1, self.images + len(some)
            bar.update()
            if self.step % CHECK_EVERY == 0 or self.step == last:
                self._check_losses()
                bar.set_postfix(self._shown_of(bar))
            is_due = self._interruption.is_waiting or time.monotonic() - self._saved > CHECKPOINT_SECONDS
            if self.world.leads and self.step < last and is_due:
                self._save()
                self._give_way()

    def _save(self) -> None:
        """Save the state within an epoch."""
        check_claimed(self.folder)
        self._check_losses()
        self._check_weights()
        self._count_seconds()
        save_state(self.folder, self._state())
        self._saved = time.monotonic()

    def _give_way(self) -> None:
        """End if a signal asks for it; what was done so far is saved."""
        if self._interruption.is_waiting:
            log.warning(
                "%s: interrupted and saved after step %d of %d; the same command goes on from there",
                self.folder,
                self.step,
                self.total,
            )
            self._interruption.act()

    def _shown_of(self, bar: Any) -> dict[str, str]:
        shown = {name: f"{value:.3f}" for name, value in self.losses.means().items()}
        rate = bar.format_dict["rate"]
        return shown | ({"images/s": f"{rate * self.batch_size:.1f}"} if rate else {})

    def batch(self, step: int) -> tuple[Batch, list[str]]:
        """The chips of a step, a function of the seed and the step alone, and their names."""
        epoch, places = step // self.steps_per_epoch, self._places(step)
        rows = self._order(epoch)[places]
        return self.feed.batch(rows, places, epoch), [self.chips.ids[row] for row in rows]

    def _places(self, step: int) -> Indices:
        """Where the chips of a step stand in the order of its epoch."""
        first = step % self.steps_per_epoch * self.batch_size
        return np.arange(first, min(first + self.batch_size, len(self.chips)))

    def _order(self, epoch: int) -> Indices:
        """Rows of the chips in the order of an epoch."""
        if self._ordered[0] != epoch:
            weights = self.chips.weights if self.config.balance else None
            self._ordered = epoch, epoch_order(self.config.seed, epoch, len(self.chips), weights)
        return self._ordered[1]

    def _check_losses(self) -> None:
        since = self.losses.not_finite()
        if since:
            batch, ids = self.batch(self.step - max(since.values()))
            raise explain_losses(self.folder, since, self.step, batch, ids, self.config, self.update.uses_bf16)

    def _check_weights(self) -> None:
        networks = {"generator": self.networks.generator, "discriminator": self.networks.discriminator}
        broken = [name for name, network in networks.items() if not is_finite(network)]
        if broken:
            raise explain_weights(self.folder, broken, self.step, self.config)

    def _count_seconds(self) -> None:
        now = time.monotonic()
        self.seconds, self._counted = self.seconds + now - self._counted, now

    def _finish_epoch(self, epoch: int) -> None:
        """Validate, draw, log and save: a repeated command goes on from here."""
        self._check_weights()
        losses, self.losses = self.losses.means(), LossMeter(self.device)
        translator = self.writer.translator(self.update.result, self.step, self.total)
        self.writer.history = self.world.lead(lambda: self._keep(epoch, translator, losses))
        self._saved = time.monotonic()

    def _keep(self, epoch: int, translator: Translator, losses: dict[str, float]) -> list[dict[str, Any]]:
        """What the leading process does at the end of an epoch; the history of the run."""
        figures = self.writer.look(translator)
        check_claimed(self.folder)
        epochs = math.ceil(self.total / self.steps_per_epoch)
        is_drawn = self.writer.draw(translator, epoch + 1, epochs, self.step == self.total)
        self._count_seconds()
        entry = {"epoch": epoch + 1, "step": self.step, "lr": self.config.lr * decay(self.step - 1, self.total)}
        entry |= {"losses": losses} | figures | {"seconds": round(self.seconds, 2)}
        self.writer.keep(translator, entry, self._state())
        if is_drawn:
            check_claimed(self.folder)
            self.writer.report(self.total)
        return self.writer.history
