"""The networks that a recipe makes for a chip set, and the card of the generator."""

import copy
import dataclasses
import importlib.metadata
import json
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from geop2p.config import TrainConfig
from geop2p.errors import ConfigError
from geop2p.models import DISCRIMINATORS, GENERATORS
from geop2p.models.field import one_sided_field
from geop2p.models.hardware import resolve_device
from geop2p.models.layers import Generator, init_weights, uses_input_statistics
from geop2p.models.lpips import LPIPS, load_lpips
from geop2p.models.perceptual import VGGFeatures, load_vgg
from geop2p.models.randomness import OwnDraws
from geop2p.raster.pixels import PixelRange, PixelSize, pixel_range
from geop2p.tiling.chips import ChipSet
from geop2p.training.checkpoint import chips_digest
from geop2p.training.distributed import seen_by_norms
from geop2p.training.finetuning import Start, begin_with
from geop2p.training.recipes import Recipe, recipe_of
from geop2p.translator import Card


@dataclass(frozen=True)
class Networks:
    """What is trained.

    Attributes:
        generator: From encoded source to encoded target.
        discriminator: Judges pairs; None where the target is a map of classes or the recipe has no adversarial loss.
        card: Of the generator.
        device: Where they are.
        vgg: Compares fake and real for the perceptual loss; None without.
        lpips: The same for LPIPS.
    """

    generator: nn.Module
    discriminator: nn.Module | None
    card: Card
    device: torch.device
    vgg: VGGFeatures | None = None
    lpips: LPIPS | None = None


def build_networks(chipset: ChipSet, config: TrainConfig, start: Start | None = None) -> Networks:
    """Make generator and discriminator for a chip set; the seed decides their weights.

    Args:
        chipset: What they are for.
        config: Settings.
        start: Model that a run which goes on began with, as the card names it; its weights are not looked for.

    Raises:
        ConfigError: The chips are too small for the networks, the settings do not fit, or the device is not there.
    """
    if chipset.target.is_classes and config.loss is not None:
        raise ConfigError(
            f"loss is '{config.loss}', but the target of {chipset.folder} is a map of classes, which is trained by "
            "cross entropy; leave --loss out (--set dice_weight=1 adds a Dice term)"
        )
    recipe, device = recipe_of(config, chipset.target), resolve_device(config.device)
    arguments = _generator_arguments(chipset, config, recipe)
    draws = OwnDraws(config.seed)
    try:
        with draws:
            generator = GENERATORS[recipe.generator](**arguments)
            if generator.std is not None:
                init_weights(generator, generator.std)
    except ValueError as error:
        raise ConfigError(f"generator '{recipe.generator}': {error}") from error
    _check_size(chipset, generator)
    with OwnDraws():
        check_norms(chipset, config, generator, device, chipset.counts["train"])
        others = _vgg(chipset, recipe, device), _lpips(chipset, recipe, device)
    discriminator = None
    if not chipset.target.is_classes and recipe.adversarial != "none":
        with draws:
            discriminator = _discriminator(chipset, config, recipe)
        discriminator.to(device)
    pixel_size, pixels = _training_pixels(chipset)
    card = Card(
        generator=recipe.generator,
        arguments=arguments,
        source=chipset.source,
        target=chipset.target,
        pixel_size=pixel_size,
        chip_size=chipset.size,
        stride=generator.stride,
        field=_field(recipe.generator, arguments),
        statistics="tile" if uses_input_statistics(generator) else "none",
        recipe=config.recipe,
        provenance={
            "geop2p": importlib.metadata.version("geop2p"),
            "torch": torch.__version__,
            "chips": chipset.folder.name,
            "chips_digest": chips_digest(chipset.folder),
            "scenes": [scene.id for scene in chipset.scenes],
            "seed": config.seed,
            "loss": config.loss,
            "set": list(config.set),
            "recipe_values": _noted(recipe),
        },
        pixel_range=pixels,
    )
    if start is None and config.init_from is not None:
        start = begin_with(generator, card, config.init_from)
    if start is not None:
        card = dataclasses.replace(card, provenance=card.provenance | {"init_from": start})
    return Networks(generator.to(device), discriminator, card, device, *others)


def _noted(recipe: Recipe) -> dict[str, Any]:
    """The values of a recipe as JSON holds them."""
    noted: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(recipe)))
    return noted


def _training_pixels(chipset: ChipSet) -> tuple[PixelSize | None, PixelRange | None]:
    """Pixel size of the first scene that is trained on, and the range of them all."""
    trained = {entry.scene for entry in chipset.entries("train")}
    sizes = [scene.pixel_size for scene in chipset.scenes if scene.id in trained] or [chipset.pixel_size]
    first = sizes[0]
    return None if first is None else (first[0], first[1]), pixel_range(sizes)


def _discriminator(chipset: ChipSet, config: TrainConfig, recipe: Recipe) -> nn.Module:
    discriminator = DISCRIMINATORS[recipe.discriminator](
        in_channels=chipset.target.channels + (chipset.source.channels if recipe.conditional else 0),
        patch=recipe.patch,
        scales=recipe.scales,
        width=config.width,
        norm=recipe.discriminator_norm,
        with_spectral_norm=recipe.spectral_norm,
    )
    if chipset.size < discriminator.smallest:
        raise ConfigError(
            f"{chipset.folder}: chips of {chipset.size} pixels are too small for a discriminator of {recipe.patch} "
            f"pixels at {recipe.scales} scales, which needs {discriminator.smallest}; use --set patch=... or --set "
            "scales=... with less, or tile with a larger --size"
        )
    init_weights(discriminator)
    return discriminator


def _vgg(chipset: ChipSet, recipe: Recipe, device: torch.device) -> VGGFeatures | None:
    if not recipe.perceptual_weight:
        return None
    _check_picture(chipset, "the perceptual loss", "perceptual_weight")
    return load_vgg(recipe.perceptual_file).to(device)


def _lpips(chipset: ChipSet, recipe: Recipe, device: torch.device) -> LPIPS | None:
    if not recipe.lpips_weight:
        return None
    _check_picture(chipset, "LPIPS", "lpips_weight")
    return load_lpips(recipe.lpips_file, recipe.lpips_heads).to(device)


def _check_picture(chipset: ChipSet, loss: str, field: str) -> None:
    if chipset.target.channels != 3:
        raise ConfigError(
            f"{chipset.folder}: {loss} compares pictures of red, green and blue, the target is "
            f"{chipset.target.channels} bands; leave {field} out"
        )


def _check_size(chipset: ChipSet, generator: Generator) -> None:
    size, least = chipset.size, generator.smallest
    if size % generator.stride or size < least:
        raise ConfigError(
            f"{chipset.folder}: chips of {size} pixels do not fit the generator, which needs multiples of "
            f"{generator.stride} from {least} on; tile with such a --size"
        )


def check_norms(chipset: ChipSet, config: TrainConfig, generator: nn.Module, device: torch.device, chips: int) -> None:
    """Refuse norms that would see one value, of which there is no variance: those of an image pooled to a pixel.

    Args:
        chipset: What is trained on.
        config: Settings.
        generator: With those norms.
        device: Where it is trained.
        chips: How many chips an epoch has.

    Raises:
        ConfigError: They would.
    """
    recipe, meta = recipe_of(config), torch.device("meta")
    size = recipe.batch_size
    ends_early = config.steps is not None and config.steps < math.ceil(chips / size)

    def last(batch_size: int) -> int:
        return batch_size if ends_early else chips % batch_size or batch_size

    def seen(batch_size: int) -> int:
        return seen_by_norms(last(batch_size), batch_size, device)

    channels, smallest = chipset.source.channels + recipe.noise, seen(size)
    try:
        copy.deepcopy(generator).to(meta).train()(torch.zeros(smallest, channels, *[chipset.size] * 2, device=meta))
    except ValueError as error:
        if "Expected more than 1" not in str(error):
            raise
        found, what = f"a norm of the generator '{recipe.generator}'", "--set norm=group or another architecture"
        if smallest > 1:
            raise ConfigError(f"{found} would see one value of each chip; use {what}") from error
        other = next((more for more in range(size + 1, chips + 1) if seen(more) > 1), None)
        what = f"--batch-size {other}, {what}" if other and recipe.norm == "batch" else what
        raise ConfigError(
            f"{chipset.folder}: {chips} training chips in batches of {size} leave "
            f"{'a batch of one' if last(size) == 1 else 'a process one chip'}, of which {found} would see one value; "
            f"use {what}"
        ) from error


def _field(name: str, arguments: dict[str, Any]) -> int | None:
    """The field, measured on a twin of width 1 where there is a width, which does not change the field."""
    narrow = {key: 1 for key in ("width",) if key in arguments}
    with OwnDraws():
        twin = GENERATORS[name](**arguments | narrow)
    return one_sided_field(twin, arguments["in_channels"], twin.stride, rows=max(twin.stride, twin.smallest // 2))


def _generator_arguments(chipset: ChipSet, config: TrainConfig, recipe: Recipe) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "in_channels": chipset.source.channels + recipe.noise,
        "out_channels": chipset.target.channels,
        "norm": recipe.norm,
        "head": "logits" if chipset.target.is_classes else "tanh",
    }
    if recipe.noise:
        arguments["noise"] = recipe.noise
    if recipe.generator == "smp":
        return arguments | {"architecture": recipe.architecture, "encoder": recipe.encoder}
    arguments |= {"width": config.width, "dropout": recipe.dropout, "up": recipe.up, "padding": recipe.padding}
    if recipe.generator == "resnet":
        return arguments | {"blocks": recipe.blocks}
    return arguments | {"downs": _downs(chipset, recipe), "skips": recipe.skips}


def _downs(chipset: ChipSet, recipe: Recipe) -> int:
    halvings = (chipset.size & -chipset.size).bit_length() - 1
    downs = min(8, halvings) if recipe.downs is None else recipe.downs
    if chipset.size % 2**downs or downs < 2:
        hint = f"use --downs {min(8, halvings)} or less, or " if halvings >= 2 else ""
        raise ConfigError(
            f"{chipset.folder}: chips of {chipset.size} pixels cannot be halved {max(downs, 2)} times; {hint}tile with "
            f"a --size that is a multiple of {2 ** max(downs, 2)}"
        )
    return downs
