"""Recipes: named, frozen sets of networks, losses and optimiser, and the changes that a user makes to one."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from geop2p.config import LossPreset, RecipeName, TrainConfig
from geop2p.config.hints import NO_MATCH, Exactly, alternatives, described
from geop2p.errors import ConfigError
from geop2p.models.layers import Norm, Padding, Up
from geop2p.models.patchgan import Patch
from geop2p.raster.encoding import Encoding
from geop2p.training.objectives import AdversarialLoss, PixelLoss
from geop2p.training.recipe_checks import refuse_unused_keys


@dataclass(frozen=True)
class Recipe:
    """What a training is made of, width and duration left to `TrainConfig`.

    Attributes:
        generator: Name in the registry of generators.
        norm: Normalisation of the generator.
        dropout: Of the U-Net and the residual network.
        up: How they double the side.
        padding: What they see beyond the border.
        downs: Times the U-Net halves its input; None: down to 1x1, at most 8.
        skips: Whether the U-Net's levels are joined.
        blocks: Of the residual network.
        architecture: Of segmentation-models-pytorch.
        encoder: Of segmentation-models-pytorch.
        noise: Channels of noise that the generator sees beside the source, each twice as coarse as the one before.
        discriminator: Name in the registry of discriminators.
        patch: Side in pixels of what one answer of the discriminator sees.
        scales: Discriminators, each at half the resolution of the one before.
        conditional: Whether they see the source beside the target.
        discriminator_norm: Their normalisation.
        spectral_norm: Whether their weights are divided by their spectral norm.
        adversarial: Their loss; none: no discriminator.
        pixel_loss: The difference to the truth.
        pixel_weight: Its weight beside the adversarial term.
        feature_weight: Of the difference between the discriminator's features of real and fake.
        perceptual_weight: Of the difference between VGG-19's features of real and fake; three-band targets only.
        perceptual_file: VGG-19's weights.
        lpips_weight: Of LPIPS between real and fake; three-band targets only.
        lpips_file: VGG-16's weights for it.
        lpips_heads: Weights of its linear layers for VGG.
        dice_weight: Of the Dice term beside the cross entropy, for maps as targets.
        r1_weight: Of the gradient penalty on real pairs.
        r1_every: Steps from one gradient penalty to the next, which counts as often.
        discriminator_weight: Of the sum of the real and the fake loss.
        discriminator_lr: Learning rate of the discriminator, as a factor of the generator's.
        betas: Of Adam.
        batch_size: Chips per step.
        ema: Decay of the running mean of the generator's weights, which is what is kept; 0: the last weights are.
        statistics_chips: Training chips that batch-norm statistics are estimated on before they are used.
        jitter: Chips are enlarged by this factor, then cropped to their size at random.
        flip: Whether half of the chips are mirrored left to right.
        d4: Whether chips are turned and mirrored; never where a side is SAR or elevation.
    """

    generator: Literal["unet", "resnet", "smp"] = "unet"
    norm: Norm = "instance"
    dropout: float = 0.5
    up: Up = "transposed"
    padding: Padding = "zero"
    downs: int | None = None
    skips: bool = True
    blocks: Literal[6, 9] = 9
    architecture: str = "unet"
    encoder: str = "resnet34"
    noise: int = 0
    discriminator: Literal["patchgan"] = "patchgan"
    patch: Patch = 70
    scales: int = 1
    conditional: bool = True
    discriminator_norm: Norm = "instance"
    spectral_norm: bool = False
    adversarial: AdversarialLoss | Literal["none"] = "bce"
    pixel_loss: PixelLoss = "l1"
    pixel_weight: float = 100.0
    feature_weight: float = 0.0
    perceptual_weight: float = 0.0
    perceptual_file: str = ""
    lpips_weight: float = 0.0
    lpips_file: str = ""
    lpips_heads: str = ""
    dice_weight: float = 0.0
    r1_weight: float = 0.0
    r1_every: int = 16
    discriminator_weight: float = 0.5
    discriminator_lr: float = 1.0
    betas: tuple[float, float] = (0.5, 0.999)
    batch_size: int = 1
    ema: float = 0.0
    statistics_chips: int = 256
    jitter: float = 286 / 256
    flip: bool = True
    d4: bool = False

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ConfigError(f"{name} is {value}, expected {low} to {high}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas are {self.betas}, expected two numbers from 0 to below 1")
        if self.adversarial == "none" and (self.feature_weight or self.r1_weight):
            raise ConfigError("adversarial is none: without a discriminator feature_weight and r1_weight must be 0")
        if self.adversarial == "none" and not (self.pixel_weight or self.perceptual_weight or self.lpips_weight):
            raise ConfigError("adversarial is none and pixel_weight is 0: nothing is left to learn from")
        if bool(self.perceptual_weight) != bool(self.perceptual_file):
            raise ConfigError("perceptual_weight and perceptual_file go together: set both or neither")
        if len({bool(self.lpips_weight), bool(self.lpips_file), bool(self.lpips_heads)}) > 1:
            raise ConfigError("lpips_weight, lpips_file and lpips_heads go together: set all or none")


_LARGE = 10**6
_RANGES: tuple[tuple[str, float, float], ...] = (
    ("dropout", 0, 0.95),
    ("downs", 2, 10),
    ("noise", 0, 8),
    ("scales", 1, 4),
    ("pixel_weight", 0, _LARGE),
    ("feature_weight", 0, _LARGE),
    ("perceptual_weight", 0, _LARGE),
    ("lpips_weight", 0, _LARGE),
    ("dice_weight", 0, _LARGE),
    ("r1_weight", 0, _LARGE),
    ("r1_every", 1, _LARGE),
    ("discriminator_weight", 0, _LARGE),
    ("discriminator_lr", 0, 100),
    ("batch_size", 1, _LARGE),
    ("ema", 0, 0.99999),
    ("statistics_chips", 2, _LARGE),
    ("jitter", 1, 2),
)

RECIPES: dict[RecipeName, Recipe] = {
    # the network and losses of the slides: the PyTorch port with instance norm
    "pix2pix": Recipe(),
    # arXiv 1611.07004: batch norm; its statistics are re-estimated, so that prediction does not depend on the tile
    "pix2pix-paper": Recipe(norm="batch", discriminator_norm="batch"),
    # ours: tile-independent statistics, a finite field, and nothing that resamples the ground
    "pix2pix-geo": Recipe(
        norm="batch",
        dropout=0.0,
        up="resize",
        padding="reflect",
        downs=5,
        scales=2,
        spectral_norm=True,
        adversarial="hinge",
        pixel_weight=50.0,  # at 100 ground of one class is flat, at 10 edges have halos (docs/recipes.md)
        feature_weight=3.0,  # at 10 ground is flatter, without it edges glitter
        batch_size=4,
        ema=0.999,
        jitter=1.0,
        flip=False,
        d4=True,
    ),
}

# Table 1 of arXiv 1611.07004: these terms and no other.
_PRESETS: dict[LossPreset, dict[str, Any]] = {
    "l1": {"adversarial": "none", "pixel_loss": "l1", "r1_weight": 0.0},
    "gan": {"conditional": False, "pixel_weight": 0.0},
    "cgan": {"conditional": True, "pixel_weight": 0.0},
    "l1+gan": {"conditional": False, "pixel_loss": "l1"},
    "l1+cgan": {"conditional": True, "pixel_loss": "l1"},
}


def recipe_of(config: TrainConfig, target: Encoding | None = None) -> Recipe:
    """The recipe that is named, with the loss preset and the single values that were set.

    Args:
        config: Settings.
        target: What is to be made; None: not known, so that keys which it has no use for pass.

    Raises:
        ConfigError: A key is unknown, set in two ways or without effect, or a value is not of its type or out of its
            range.
    """
    preset: dict[str, Any] = {}
    if config.loss is not None:
        preset = _PRESETS[config.loss] | {"feature_weight": 0.0, "perceptual_weight": 0.0, "lpips_weight": 0.0}
    asked = _asked(config)
    for key, (value, how) in asked.items():
        if key in preset and preset[key] != value:
            raise ConfigError(f"{key} is set in two ways, by --loss {config.loss} and by {how}; leave one of them out")
    changes = preset | {key: value for key, (value, _) in asked.items()}
    if config.loss is not None:
        _check_terms(config.loss, dataclasses.asdict(RECIPES[config.recipe]) | changes, asked)
    refuse_unused_keys(asked, dataclasses.asdict(RECIPES[config.recipe]) | changes, target)
    return dataclasses.replace(RECIPES[config.recipe], **changes)


def _check_terms(loss: LossPreset, recipe: Mapping[str, Any], asked: Mapping[str, tuple[Any, str]]) -> None:
    """Refuse a preset that something else takes a term from.

    Raises:
        ConfigError: It does.
    """
    for key, term, off in (("adversarial", "gan", "none"), ("pixel_weight", "l1", 0)):
        if term in loss and recipe[key] == off:
            how = asked[key][1] if key in asked else f"--recipe, which has {key} {recipe[key]}"
            raise ConfigError(f"--loss {loss} has a term that {how} takes away; leave one of them out")


def _asked(config: TrainConfig) -> dict[str, tuple[Any, str]]:
    """The keys that somebody set, each with its value and how it was given."""
    hints = typing.get_type_hints(Recipe)
    given: list[tuple[str, Any, str]] = []
    for entry in config.set:
        key, equals, text = entry.partition("=")
        if key not in hints and key in {field.name for field in dataclasses.fields(TrainConfig)}:
            option = f"--{key.replace('_', '-')}"
            raise ConfigError(f"set is '{entry}', but {key} is no key of the recipe, it is an option; give {option}")
        if not equals or key not in hints:
            raise ConfigError(f"set is '{entry}', expected KEY=VALUE with one of the keys {', '.join(sorted(hints))}")
        given.append((key, _parse(key, text, hints[key]), f"--set {entry}"))
    for key in ("downs", "batch_size"):
        value = getattr(config, key)
        if value is not None:
            given.append((key, value, f"--{key.replace('_', '-')} {value}"))
    asked: dict[str, tuple[Any, str]] = {}
    for key, value, how in given:
        if key in asked and asked[key][0] != value:
            raise ConfigError(f"{key} is set in two ways, by {asked[key][1]} and by {how}; leave one of them out")
        asked[key] = (value, how)
    return asked


def _parse(key: str, text: str, hint: Any) -> Any:
    """The value that a text means for a field annotated so."""
    for choice in alternatives(hint):
        found = _match(text, choice)
        if found is not NO_MATCH:
            return found
    raise ConfigError(f"{key} is '{text}', expected {described(hint)}")


def _match(text: str, hint: Any) -> Any:
    if isinstance(hint, Exactly):
        return hint.value if text == str(hint.value) else NO_MATCH
    if typing.get_origin(hint) is tuple:
        parts = [_match(part.strip(), kind) for part, kind in zip(text.split(","), typing.get_args(hint), strict=False)]
        fits = len(text.split(",")) == len(typing.get_args(hint)) and NO_MATCH not in parts
        return tuple(parts) if fits else NO_MATCH
    if hint is types.NoneType:
        return None if text == "none" else NO_MATCH
    if hint is bool:
        return {"true": True, "false": False}.get(text.lower(), NO_MATCH)
    if hint is str:
        return text
    try:
        return hint(text)
    except ValueError:
        return NO_MATCH
