"""`train`: fit a generator to a chip set."""

import dataclasses
import hashlib
import importlib.metadata
import logging
import math
import shutil
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from geop2p.config import TrainConfig
from geop2p.errors import ChipSetError, ConfigError, GeoP2PError
from geop2p.metrics import scores_for
from geop2p.models import DISCRIMINATORS, GENERATORS
from geop2p.models.field import one_sided_field
from geop2p.models.layers import init_weights
from geop2p.raster.atomic import replacing
from geop2p.raster.render import render
from geop2p.tiling.chips import DESCRIPTION, ChipSet
from geop2p.training.checkpoint import (
    CONFIG,
    append_metrics,
    claim_run,
    load_state,
    read_metrics,
    rewind_metrics,
    save_state,
)
from geop2p.training.data import Batch, ChipArrays, Indices, augment, encode_batch, epoch_order
from geop2p.training.objectives import adversarial, fill, masked_cross_entropy, masked_l1
from geop2p.training.recipes import RECIPES, Recipe
from geop2p.training.schedule import decay
from geop2p.translator import FILE_NAME, Card, Translator, resolve_device

log = logging.getLogger(__name__)

SAMPLES = 6  # chips shown in a sample picture
SAMPLE_TIMES = 40  # sample pictures a training leaves at most


@dataclass(frozen=True)
class TrainResult:
    """What a training made.

    Attributes:
        path: Folder of the run.
        steps: Optimisation steps done in all.
        seconds: Time of all its sessions, validation included.
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
    if overwrite and (run / CONFIG).exists():
        shutil.rmtree(run)
    settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    claim_run(run, settings | {"chips": hashlib.sha256((chipset.folder / DESCRIPTION).read_bytes()).hexdigest()[:16]})
    return _Training(chipset, run, config, progress).run()


class _Training:
    """Networks, optimisers and chips of one run."""

    def __init__(self, chipset: ChipSet, run: Path, config: TrainConfig, progress: bool) -> None:
        self.chipset, self.folder, self.config, self.progress = chipset, run, config, progress
        self.recipe: Recipe = RECIPES[config.recipe]
        self.device = resolve_device(config.device)
        self.chips = ChipArrays.load(chipset, "train", progress)
        self.validation = ChipArrays.load(chipset, "val", progress)
        self.steps_per_epoch = math.ceil(len(self.chips) / config.batch_size)
        self.total = config.steps or config.epochs * self.steps_per_epoch
        self.step, self.seconds = 0, 0.0
        self._build()
        self._restore()

    def _build(self) -> None:
        """Make networks and optimisers; the seed decides the weights."""
        config, recipe, chipset = self.config, self.recipe, self.chipset
        self.arguments = generator_arguments(chipset, config, recipe)
        torch.manual_seed(config.seed)
        generator = GENERATORS[recipe.generator](**self.arguments)
        init_weights(generator)
        self.generator = generator.to(self.device)
        fused = self.device.type in ("cpu", "cuda")
        self.optimizer_g = torch.optim.Adam(generator.parameters(), config.lr, recipe.betas, fused=fused)
        self.discriminator: nn.Module | None = None
        if not chipset.target.is_classes:
            both = chipset.source.channels + chipset.target.channels
            discriminator = DISCRIMINATORS[recipe.discriminator](
                in_channels=both, layers=recipe.layers, width=config.width, norm=recipe.norm
            )
            init_weights(discriminator)
            self.discriminator = discriminator.to(self.device)
            self.optimizer_d = torch.optim.Adam(discriminator.parameters(), config.lr, recipe.betas, fused=fused)
        self.card = Card(
            generator=recipe.generator,
            arguments=self.arguments,
            source=chipset.source,
            target=chipset.target,
            pixel_size=chipset.pixel_size,
            chip_size=chipset.size,
            stride=generator.stride,
            field=_field(recipe, self.arguments, generator.stride),
            statistics="tile" if recipe.norm == "instance" else "none",
            recipe=config.recipe,
            provenance={},
        )

    def _restore(self) -> None:
        state = load_state(self.folder, self.device)
        if state is None:
            rewind_metrics(self.folder, 0)
            return
        self.generator.load_state_dict(state["generator"])
        self.optimizer_g.load_state_dict(state["optimizer_g"])
        if self.discriminator is not None:
            self.discriminator.load_state_dict(state["discriminator"])
            self.optimizer_d.load_state_dict(state["optimizer_d"])
        self.step, self.seconds = state["step"], state["seconds"]
        rewind_metrics(self.folder, self.step)

    def run(self) -> TrainResult:
        """Train from the last checkpoint to the end."""
        log.info("%d training and %d validation chips on %s", len(self.chips), len(self.validation), self.device)
        if not len(self.validation):
            log.warning("no validation chips: nothing tells whether the training helps")
        busy, first_step = 0.0, self.step
        with tqdm(
            total=self.total, initial=self.step, unit="step", desc="train", disable=not self.progress, smoothing=0.05
        ) as bar:
            while self.step < self.total:
                start = time.monotonic()
                epoch = self.step // self.steps_per_epoch
                losses = self._train_epoch(epoch, bar)
                busy += time.monotonic() - start
                self._finish_epoch(epoch, losses, start)
        images = min(self.total - first_step, self.total) * self.config.batch_size
        history = [entry for entry in read_metrics(self.folder) if entry["val"] is not None]
        return TrainResult(
            path=str(self.folder),
            steps=self.step,
            seconds=round(self.seconds, 1),
            images_per_s=round(images / busy, 2) if busy else None,
            best=_best(history),
        )

    def _train_epoch(self, epoch: int, bar: Any) -> dict[str, float]:
        """Run the steps of an epoch; the mean of each loss."""
        self.generator.train()
        order = epoch_order(self.config.seed, epoch, len(self.chips))
        sums: dict[str, Tensor] = {}
        count = 0
        for rows in _batches(order, self.config.batch_size):
            losses = self._train_step(self._batch(rows, epoch), self.step)
            for name, value in losses.items():
                sums[name] = sums.get(name, torch.zeros((), device=self.device)) + value
            self.step, count = self.step + 1, count + 1
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
        classes = (source.is_classes, target.is_classes)
        return augment(batch, rows, self.config.seed, epoch, self.recipe.jitter, self.recipe.flip, classes)

    def _train_step(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """One update of discriminator and generator (arXiv 1611.07004, section 3), or of the generator alone."""
        torch.manual_seed((self.config.seed << 40) + step)  # dropout: a function of seed and step, so runs resume
        for optimizer in [self.optimizer_g] + ([self.optimizer_d] if self.discriminator is not None else []):
            for group in optimizer.param_groups:
                group["lr"] = self.config.lr * decay(step, self.total)
        with self._autocast():
            output = self.generator(batch.source)
        if self.discriminator is None:
            loss = masked_cross_entropy(output.float(), batch.target, batch.valid)
            _update(self.optimizer_g, loss)
            return {"cross_entropy": loss.detach()}

        discriminator, recipe, valid = self.discriminator, self.recipe, batch.valid
        fake = fill(output.float(), valid)
        discriminator.requires_grad_(True)
        with self._autocast():
            on_fake = discriminator(torch.cat([batch.source, fake.detach()], dim=1))
            on_real = discriminator(torch.cat([batch.source, batch.target], dim=1))
        loss_fake, loss_real = adversarial(on_fake.float(), False, valid), adversarial(on_real.float(), True, valid)
        loss_d = recipe.discriminator_weight * (loss_fake + loss_real)
        _update(self.optimizer_d, loss_d)

        discriminator.requires_grad_(False)
        with self._autocast():
            judged = discriminator(torch.cat([batch.source, fake], dim=1))
        loss_gan = adversarial(judged.float(), True, valid)
        loss_l1 = masked_l1(fake, batch.target, valid)
        _update(self.optimizer_g, loss_gan + recipe.l1_weight * loss_l1)
        return {"gan": loss_gan.detach(), "l1": loss_l1.detach(), "d": loss_d.detach()}

    def _autocast(self) -> AbstractContextManager[Any]:
        wanted = self.config.precision
        has_bf16 = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        if wanted == "bf16" or (wanted == "auto" and has_bf16):
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    def _check_finite(self, losses: dict[str, float]) -> None:
        bad = [name for name, value in losses.items() if not math.isfinite(value)]
        if bad:
            raise GeoP2PError(
                f"{self.folder}: loss {' and '.join(bad)} is not finite at step {self.step}; lower --lr (now "
                f"{self.config.lr}) or use --precision fp32, and repeat with --overwrite"
            )

    def _finish_epoch(self, epoch: int, losses: dict[str, float], start: float) -> None:
        """Validate, draw, log and save: a repeated command goes on from here."""
        translator = Translator(self.generator, self._card_now())
        scores = validate(translator, self.validation, self.config.batch_size) if len(self.validation) else None
        epochs = math.ceil(self.total / self.steps_per_epoch)
        every = math.ceil(epochs / SAMPLE_TIMES)
        if (epoch + 1) % every == 0 or self.step == self.total:
            self._draw(translator, self.folder / "samples" / f"epoch_{epoch + 1:04d}.png")
        self.seconds += time.monotonic() - start
        entry = {"epoch": epoch + 1, "step": self.step, "lr": self.config.lr * decay(self.step, self.total)}
        append_metrics(self.folder, entry | {"losses": losses, "val": scores, "seconds": round(self.seconds, 2)})
        translator.save(self.folder / FILE_NAME)
        state = {"step": self.step, "seconds": self.seconds, "generator": self.generator.state_dict()}
        state["optimizer_g"] = self.optimizer_g.state_dict()
        if self.discriminator is not None:
            state |= {"discriminator": self.discriminator.state_dict(), "optimizer_d": self.optimizer_d.state_dict()}
        save_state(self.folder, state)

    def _card_now(self) -> Card:
        provenance = {
            "geop2p": importlib.metadata.version("geop2p"),
            "torch": torch.__version__,
            "chips": self.chipset.folder.name,
            "scenes": [scene.id for scene in self.chipset.scenes],
            "train_chips": len(self.chips),
            "steps": self.step,
            "of_steps": self.total,
            "seed": self.config.seed,
        }
        return dataclasses.replace(self.card, provenance=provenance)

    def _draw(self, translator: Translator, path: Path) -> None:
        """Save source, prediction and truth of some validation chips side by side."""
        chips = self.validation if len(self.validation) else self.chips
        shown = np.unique(np.linspace(0, len(chips) - 1, SAMPLES).astype(np.int64))
        predicted = predict_chips(translator, chips, shown)
        rows = []
        for place, row in enumerate(shown):
            valid = chips.valid[row]
            pictures = [
                render(chips.source[row], valid, self.card.source),
                render(predicted[place], valid, self.card.target),
                render(chips.target[row], valid, self.card.target),
            ]
            rows.append(np.concatenate([np.pad(p, ((2, 2), (2, 2), (0, 0)), constant_values=255) for p in pictures], 1))
        with replacing(path) as temporary:
            Image.fromarray(np.concatenate(rows)).save(temporary)


def generator_arguments(chipset: ChipSet, config: TrainConfig, recipe: Recipe) -> dict[str, Any]:
    """What the generator is built with for these chips.

    Raises:
        ConfigError: The chip size cannot be halved as often as asked.
    """
    halvings = (chipset.size & -chipset.size).bit_length() - 1
    downs = min(8, halvings) if config.downs is None else config.downs
    if chipset.size % 2**downs or downs < 2:
        raise ConfigError(
            f"{chipset.folder}: chips of {chipset.size} pixels cannot be halved {downs} times; use --downs "
            f"{min(8, halvings)} or less, or tile with a --size that is a power of 2"
        )
    return {
        "in_channels": chipset.source.channels,
        "out_channels": chipset.target.channels,
        "downs": downs,
        "width": config.width,
        "norm": recipe.norm,
        "dropout": recipe.dropout,
        "head": "logits" if chipset.target.is_classes else "tanh",
    }


def validate(translator: Translator, chips: ChipArrays, batch_size: int) -> dict[str, Any]:
    """Scores of a translator on chips, in the target's units."""
    scores = scores_for(translator.card.target)
    for rows in _batches(np.arange(len(chips)), batch_size):
        for row, predicted in zip(rows, predict_chips(translator, chips, rows), strict=True):
            scores.add(predicted, chips.target[row], chips.valid[row])
    return scores.result()


def predict_chips(translator: Translator, chips: ChipArrays, rows: Indices) -> list[Any]:
    """Stored target values (bands, rows, cols) that a translator predicts for some chips."""
    batch = encode_batch(chips, rows, translator.card.source, translator.card.target)
    output = translator.translate(batch.source).cpu().numpy()
    return [translator.card.target.decode(one) for one in output]


def _field(recipe: Recipe, arguments: dict[str, Any], stride: int) -> int | None:
    """The one-sided field of the generator, measured on a twin of width 1: width does not change it."""
    twin = GENERATORS[recipe.generator](**arguments | {"width": 1})
    return one_sided_field(twin, arguments["in_channels"], stride)


def _batches(order: Indices, size: int) -> list[Indices]:
    return [order[start : start + size] for start in range(0, len(order), size)]


def _update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _best(history: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The epoch of the best validation: lowest L1, or highest mIoU for classes."""
    if not history:
        return None
    metric = "l1" if "l1" in history[0]["val"] else "miou"
    entry = (min if metric == "l1" else max)(history, key=lambda item: item["val"][metric] or 0.0)
    return {"metric": metric, "value": entry["val"][metric], "epoch": entry["epoch"]}
