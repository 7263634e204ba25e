"""How a judge is trained to read real imagery."""

import contextlib
import logging
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from geop2p.config import JudgeName
from geop2p.errors import CheckpointError
from geop2p.models import GENERATORS
from geop2p.models.randomness import own_random_numbers
from geop2p.raster.atomic import make_folder
from geop2p.tiling.chips import ChipSet
from geop2p.training.augmentation import Augmentation, one_sided
from geop2p.training.calibration import estimate_statistics
from geop2p.training.checkpoint import LAST, fitting_state, load_state, save_state
from geop2p.training.data import Batch, ChipArrays, Indices, batches, epoch_order
from geop2p.training.feeding import Feed
from geop2p.training.interruption import Interruption
from geop2p.training.objectives import masked_cross_entropy, masked_dice, masked_l1
from geop2p.training.schedule import decay
from geop2p.translator import Card, Translator

log = logging.getLogger(__name__)

VERSION = 1  # of what follows: judges made in another way are not taken for these
ENCODER = "resnet18"
BATCH = 8
RATE = 1e-3
STATISTICS_CHIPS = 256
SEED = 0
CHECKPOINT_SECONDS = 60.0  # of work that a kill can cost


def making(architecture: JudgeName, steps: int) -> list[Any]:
    """All that decides what a judge learns from given chips."""
    return [architecture, ENCODER, BATCH, RATE, STATISTICS_CHIPS, SEED, steps, VERSION]


class _Pupil:
    """A judge that learns, and what it needs to go on: weights, optimiser and the random numbers of dropout."""

    def __init__(self, arguments: dict[str, Any], device: torch.device, begun: Path) -> None:
        torch.manual_seed(SEED)
        self.network = GENERATORS["smp"](**arguments).to(device).train()
        self.optimizer = torch.optim.Adam(self.network.parameters(), RATE)
        self.step, self._begun, self._device = 0, begun, device
        self._earlier, self._start = 0.0, time.monotonic()

    def restore(self) -> None:
        """Go on where an interrupted training was, if there is one."""
        try:
            state = load_state(self._begun, self._device)
            if state is None:
                return
            with fitting_state(self._begun):
                self.network.load_state_dict(state["network"])
                self.optimizer.load_state_dict(state["optimizer"])
                torch.set_rng_state(state["random"].cpu())
                if self._device.type == "cuda" and "random_cuda" in state:  # it may have been begun elsewhere
                    torch.cuda.set_rng_state(state["random_cuda"].cpu(), self._device)
                self.step, self._earlier = state["step"], state["seconds"]
        except CheckpointError as error:
            raise CheckpointError(f"{self._begun}: a damaged beginning of a judge; delete it") from error
        log.info("judge: goes on after step %d", self.step)

    def save(self) -> None:
        """Keep what was learned so far."""
        make_folder(self._begun)
        state: dict[str, Any] = {"step": self.step, "seconds": self._earlier + time.monotonic() - self._start}
        state |= {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
        state |= {"random": torch.get_rng_state()}
        if self._device.type == "cuda":
            state |= {"random_cuda": torch.cuda.get_rng_state(self._device)}
        save_state(self._begun, state)


def forget(begun: Path) -> None:
    """Remove what a training that is finished had kept; another process that is at the same keeps its own again."""
    with contextlib.suppress(OSError):
        (begun / LAST).unlink(missing_ok=True)
        begun.rmdir()


@own_random_numbers()
def train_judge(
    chipset: ChipSet, architecture: JudgeName, steps: int, device: torch.device, begun: Path, progress: bool
) -> Translator:
    """Train a segmenter on the training chips of a chip set: from its target to its source.

    Args:
        chipset: What to learn.
        architecture: Network of the judge.
        steps: Steps that it learns for.
        device: Where.
        begun: Folder for what an interrupted training goes on from, bit by bit on a processor.
        progress: Show a progress bar.

    Raises:
        CheckpointError: The folder holds something damaged.
    """
    chips = ChipArrays.load(chipset, "train", progress)
    arguments: dict[str, Any] = {"in_channels": chipset.target.channels, "out_channels": chipset.source.channels}
    arguments |= {"architecture": architecture, "encoder": ENCODER, "norm": "batch", "head": "logits"}
    pupil = _Pupil(arguments, device, begun)
    network, optimizer = pupil.network, pupil.optimizer
    pupil.restore()
    per_epoch = math.ceil(len(chips) / BATCH)
    feed = Feed(chips, chipset.source, chipset.target, device, Augmentation(SEED, d4=not one_sided(chipset)))
    saved, interruption = time.monotonic(), Interruption(True)
    steps_left = tqdm(range(pupil.step, steps), "judge", steps, initial=pupil.step, unit="step", disable=not progress)
    with interruption, steps_left:
        for step in steps_left:
            epoch, part = divmod(step, per_epoch)
            rows = np.resize(batches(epoch_order(SEED, epoch, len(chips)), BATCH)[part], BATCH)  # a short one repeats
            batch = _batch(feed, rows, epoch, network.stride)
            for group in optimizer.param_groups:
                group["lr"] = RATE * decay(step, steps)
            loss = _loss(network(batch.source), batch, chipset.source.is_classes)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            pupil.step = step + 1
            if interruption.is_waiting or time.monotonic() - saved > CHECKPOINT_SECONDS:
                pupil.save()
                saved = time.monotonic()
            if interruption.is_waiting:
                log.warning(
                    "judge: interrupted after step %d of %d; the same command goes on from there", step + 1, steps
                )
                interruption.act()
        if interruption.is_waiting:  # since the last look
            pupil.save()
            interruption.act()
    spread = np.linspace(0, len(chips) - 1, min(STATISTICS_CHIPS, len(chips))).astype(np.int64)
    parts = [np.resize(rows, BATCH) for rows in batches(spread, BATCH)]
    still = Feed(chips, chipset.source, chipset.target, device)
    plain = (_batch(still, rows, 0, network.stride).source for rows in parts)
    estimate_statistics(network, plain)
    provenance = {"chips": chipset.folder.name, "train_chips": len(chips), "steps": steps, "torch": torch.__version__}
    card = Card(
        generator="smp",
        arguments=arguments,
        source=chipset.target,
        target=chipset.source,
        pixel_size=chipset.pixel_size,
        chip_size=chipset.size,
        stride=network.stride,
        field=None,
        statistics="none",
        recipe="judge",
        provenance=provenance,
    )
    return Translator(network, card)


def _loss(answers: Tensor, batch: Batch, is_classes: bool) -> Tensor:
    if not is_classes:
        return masked_l1(answers, batch.target, batch.valid)
    return masked_cross_entropy(answers, batch.target, batch.valid) + masked_dice(answers, batch.target, batch.valid)


def _batch(feed: Feed, rows: Indices, epoch: int, stride: int) -> Batch:
    """Imagery and its classes or values; sides fit the network."""
    found = feed.batch(rows, rows, epoch)
    room = -found.valid.shape[-1] % stride
    return Batch(
        *(torch.nn.functional.pad(side, (0, room, 0, room)) for side in (found.target, found.source, found.valid))
    )
