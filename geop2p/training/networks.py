"""The networks that a recipe makes for a chip set, and the card of the generator."""

import importlib.metadata
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from geop2p.config import TrainConfig
from geop2p.errors import ConfigError
from geop2p.models import DISCRIMINATORS, GENERATORS
from geop2p.models.field import one_sided_field
from geop2p.models.layers import init_weights
from geop2p.tiling.chips import ChipSet
from geop2p.training.recipes import RECIPES, Recipe
from geop2p.translator import Card, resolve_device


@dataclass(frozen=True)
class Networks:
    """What is trained.

    Attributes:
        generator: From encoded source to encoded target.
        discriminator: Judges pairs; None where the target is a map of classes.
        card: Of the generator.
        device: Where both are.
    """

    generator: nn.Module
    discriminator: nn.Module | None
    card: Card
    device: torch.device


def build_networks(chipset: ChipSet, config: TrainConfig) -> Networks:
    """Make generator and discriminator for a chip set; the seed decides their weights.

    Raises:
        ConfigError: The chip size cannot be halved as often as asked, or the device is not there.
    """
    recipe, device = RECIPES[config.recipe], resolve_device(config.device)
    arguments = _generator_arguments(chipset, config, recipe)
    torch.manual_seed(config.seed)
    generator = GENERATORS[recipe.generator](**arguments)
    init_weights(generator)
    discriminator = None
    if not chipset.target.is_classes:
        discriminator = DISCRIMINATORS[recipe.discriminator](
            in_channels=chipset.source.channels + chipset.target.channels,
            layers=recipe.layers,
            width=config.width,
            norm=recipe.norm,
        )
        init_weights(discriminator)
        discriminator = discriminator.to(device)
    twin = GENERATORS[recipe.generator](**arguments | {"width": 1})  # the width does not change the field
    card = Card(
        generator=recipe.generator,
        arguments=arguments,
        source=chipset.source,
        target=chipset.target,
        pixel_size=chipset.pixel_size,
        chip_size=chipset.size,
        stride=generator.stride,
        field=one_sided_field(twin, chipset.source.channels, generator.stride),
        statistics="tile" if recipe.norm == "instance" else "none",
        recipe=config.recipe,
        provenance={
            "geop2p": importlib.metadata.version("geop2p"),
            "torch": torch.__version__,
            "chips": chipset.folder.name,
            "scenes": [scene.id for scene in chipset.scenes],
            "seed": config.seed,
        },
    )
    return Networks(generator.to(device), discriminator, card, device)


def _generator_arguments(chipset: ChipSet, config: TrainConfig, recipe: Recipe) -> dict[str, Any]:
    halvings = (chipset.size & -chipset.size).bit_length() - 1
    downs = min(8, halvings) if config.downs is None else config.downs
    if chipset.size % 2**downs or downs < 2:
        hint = f"use --downs {min(8, halvings)} or less, or " if halvings >= 2 else ""
        raise ConfigError(
            f"{chipset.folder}: chips of {chipset.size} pixels cannot be halved {max(downs, 2)} times; {hint}tile with "
            "a --size that is a power of 2"
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
