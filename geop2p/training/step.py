"""One step of the training: an update of discriminator and generator, or of the generator alone."""

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from geop2p.config import TrainConfig
from geop2p.models.layers import normed_once
from geop2p.models.perceptual import TAP_WEIGHTS
from geop2p.training.calibration import batch_norms
from geop2p.training.data import Batch
from geop2p.training.distributed import dropout_seed, mean_over_all, synchronised, wrapped
from geop2p.training.hardware import prepare, uses_bf16
from geop2p.training.networks import Networks
from geop2p.training.objectives import (
    PIXEL_LOSSES,
    adversarial,
    feature_matching,
    fill,
    gradient_penalty,
    lpips_loss,
    masked_cross_entropy,
    masked_dice,
    perceptual_loss,
)
from geop2p.training.recipes import Recipe
from geop2p.training.schedule import decay

Judged = list[list[Tensor]]


class TrainingStep:
    """Networks and optimisers of a training.

    Args:
        networks: What is trained.
        recipe: Losses and optimiser.
        config: Learning rate, precision and seed.
        total: Steps of the whole training.
    """

    def __init__(self, networks: Networks, recipe: Recipe, config: TrainConfig, total: int) -> None:
        self.recipe, self.config, self.total, self.device = recipe, config, total, networks.device
        self.generator, self.discriminator, self.vgg = networks.generator, networks.discriminator, networks.vgg
        self.lpips = networks.lpips
        self.generator = synchronised(networks.generator, recipe.batch_size, self.device)
        if networks.discriminator is not None:
            self.discriminator = synchronised(networks.discriminator, recipe.batch_size, self.device)
        self._layout = prepare(self.device, [part for part in (self.generator, self.discriminator) if part is not None])
        self.makes_classes = networks.card.target.is_classes
        self.mean = copy.deepcopy(self.generator).eval().requires_grad_(False) if recipe.ema else None
        self.optimizers = {"optimizer_g": self._optimizer(self.generator)}
        self.rates = {"optimizer_g": config.lr, "optimizer_d": config.lr * recipe.discriminator_lr}
        self.uses_bf16 = uses_bf16(config.precision, self.device)
        self.judges_together = self.may_judge_together()
        if self.discriminator is not None:
            self.optimizers["optimizer_d"] = self._optimizer(self.discriminator)

        self._translate = wrapped(self.generator)
        self._learn_to_judge = None if self.discriminator is None else wrapped(self.discriminator)

    def _optimizer(self, network: nn.Module) -> torch.optim.Adam:
        fused = self.device.type in ("cpu", "cuda")
        return torch.optim.Adam(network.parameters(), self.config.lr, self.recipe.betas, fused=fused)

    def may_judge_together(self) -> bool:
        """Whether one pass shows the discriminator real and fake: half the kernels, which is what a GPU waits for.

        Batch norm would mix the two; a CPU gains nothing from it.
        """
        return self.device.type == "cuda" and self.discriminator is not None and not batch_norms(self.discriminator)

    @property
    def result(self) -> nn.Module:
        """The generator to validate and to keep: the running mean of the weights where the recipe has one."""
        return self.generator if self.mean is None else self.mean

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, as tensors and plain values."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        for optimizer in self.optimizers.values():
            _lay_out(optimizer)

    def _parts(self) -> dict[str, Any]:
        networks = {"generator": self.generator, "discriminator": self.discriminator, "ema": self.mean}
        return {name: part for name, part in networks.items() if part is not None} | self.optimizers

    def __call__(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Update the networks.

        Args:
            batch: Encoded chips.
            step: Steps done before.

        Returns:
            Each loss, without gradient.
        """
        if self.device.type != "meta":  # where it is planned, which another thread may do meanwhile
            torch.manual_seed(dropout_seed(self.config.seed, step))
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.rates[name] * decay(step, self.total)
        target = fill(batch.target, batch.valid).contiguous(memory_format=self._layout)
        batch = Batch(batch.source.contiguous(memory_format=self._layout), target, batch.valid)
        with self._autocast():
            output = self._translate(batch.source)
        if self.makes_classes:
            losses = self._learn_classes(output.float(), batch)
        else:
            losses = self._learn_values(fill(output.float(), batch.valid), batch, step)
        if self.mean is not None:
            self._follow(self.mean, step)
        return dict(zip(losses, mean_over_all(torch.stack([*losses.values()])).detach(), strict=True))

    def _learn_classes(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        losses = {"cross_entropy": masked_cross_entropy(logits, batch.target, batch.valid)}
        loss = losses["cross_entropy"]
        if self.recipe.dice_weight:
            losses["dice"] = masked_dice(logits, batch.target, batch.valid)
            loss = loss + self.recipe.dice_weight * losses["dice"]
        _update(self.optimizers["optimizer_g"], loss)
        return losses

    def _learn_values(self, fake: Tensor, batch: Batch, step: int) -> dict[str, Tensor]:
        """Section 3 of arXiv 1611.07004: the discriminator learns first, then the generator against it."""
        recipe = self.recipe
        of_discriminator: dict[str, Tensor] = {}
        losses: dict[str, Tensor] = {}
        terms: list[Tensor] = []
        if self.discriminator is not None and recipe.adversarial != "none":
            of_discriminator = self._teach_discriminator(fake.detach(), batch, step)
            self.discriminator.requires_grad_(False)
            with normed_once(self.discriminator):
                judged = self._judge(batch.source, fake)
                with torch.no_grad():
                    real = self._judge(batch.source, batch.target) if recipe.feature_weight else None
            scales = [adversarial(one[-1].float(), True, batch.valid, recipe.adversarial, True) for one in judged]
            losses["gan"] = _mean(scales)
            terms.append(losses["gan"])
            if real is not None:
                losses["features"] = feature_matching(judged, real, batch.valid)
                terms.append(recipe.feature_weight * losses["features"])
        if self.vgg is not None:
            with self._autocast():
                fake_features, real_features = self.vgg(fake), self.vgg(batch.target)
            losses["perceptual"] = perceptual_loss(fake_features, real_features, TAP_WEIGHTS, batch.valid)
            terms.append(recipe.perceptual_weight * losses["perceptual"])
        if self.lpips is not None:
            with self._autocast():
                maps = self.lpips(fake, batch.target)
            losses["lpips"] = lpips_loss(maps, batch.valid)
            terms.append(recipe.lpips_weight * losses["lpips"])
        if recipe.pixel_weight:
            losses[recipe.pixel_loss] = PIXEL_LOSSES[recipe.pixel_loss](fake, batch.target, batch.valid)
            terms.append(recipe.pixel_weight * losses[recipe.pixel_loss])
        _update(self.optimizers["optimizer_g"], _sum(terms))
        return losses | of_discriminator

    def _teach_discriminator(self, fake: Tensor, batch: Batch, step: int) -> dict[str, Tensor]:
        recipe, valid = self.recipe, batch.valid
        assert self.discriminator is not None and recipe.adversarial != "none"
        self.discriminator.requires_grad_(True)
        with normed_once(self.discriminator):
            fakes, reals = (
                _mean([adversarial(logits.float(), is_real, valid, recipe.adversarial) for logits in answers])
                for is_real, answers in zip((False, True), self._answers(batch.source, fake, batch.target), strict=True)
            )
            losses = {"d": recipe.discriminator_weight * (fakes + reals)}
            loss = losses["d"]
            if recipe.r1_weight and step % recipe.r1_every == 0:
                losses["r1"] = gradient_penalty(
                    lambda image: self._judged(batch.source, image, self.discriminator), batch.target, valid
                )
                loss = loss + recipe.r1_every * recipe.r1_weight * losses["r1"]
        _update(self.optimizers["optimizer_d"], loss)
        return losses

    def _answers(self, source: Tensor, fake: Tensor, real: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Logits of every scale for fake and real: in one pass where no norm would mix the two."""
        if not self.judges_together:
            fakes, reals = ([one[-1] for one in self._judge(source, image, True)] for image in (fake, real))
            return fakes, reals
        both = [one[-1].chunk(2) for one in self._judge(torch.cat([source, source]), torch.cat([fake, real]), True)]
        return [fakes for fakes, _ in both], [reals for _, reals in both]

    def _judge(self, source: Tensor, image: Tensor, learns: bool = False) -> Judged:
        """What the discriminator finds; gradients of several processes are brought together where it learns."""
        with self._autocast():
            return self._judged(source, image, self._learn_to_judge if learns else self.discriminator)

    def _judged(self, source: Tensor, image: Tensor, discriminator: nn.Module | None) -> Judged:
        assert discriminator is not None
        judged: Judged = discriminator(torch.cat([source, image], dim=1) if self.recipe.conditional else image)
        return judged

    def _follow(self, mean: nn.Module, step: int) -> None:
        """Move the running mean; early on it is shorter, so that it forgets the first weights."""
        keep = min(self.recipe.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            weights = [*mean.parameters()], [*self.generator.parameters()]
            get_ema_multi_avg_fn(keep)(*weights, None)  # type: ignore[no-untyped-call]  # a few kernels for all
            for state, current in zip(mean.buffers(), self.generator.buffers(), strict=True):
                state.copy_(current)

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.uses_bf16 else nullcontext()


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Give Adam's moments the memory layout of their weights, which fused Adam takes for granted.

    They are loaded in the one they were saved in, which on another device may have been another.
    """
    for weight, kept in optimizer.state.items():
        for name, moment in kept.items():
            if moment.shape == weight.shape:
                kept[name] = torch.empty_like(weight).copy_(moment)


def _update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _sum(terms: list[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _mean(values: list[Tensor]) -> Tensor:
    return _sum(values) / len(values)
