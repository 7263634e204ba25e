"""The systems that can be trained, their parts and sizes."""

from typing import Any, get_args

import torch
from torch import nn

from geop2p.models import DISCRIMINATORS, GENERATORS
from geop2p.models.field import one_sided_field
from geop2p.models.layers import uses_input_statistics
from geop2p.models.patchgan import Patch
from geop2p.models.randomness import OwnDraws
from geop2p.training.recipes import RECIPES, Recipe

BANDS = 3  # of source and target, for the sizes
CHIP = 256

# The variants that are shown of a generator; of the library one stands for all.
VARIANTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    *((f"unet, {downs} downs", "unet", {"downs": downs}) for downs in (5, 6, 7, 8)),
    *((f"resnet, {blocks} blocks", "resnet", {"blocks": blocks}) for blocks in (6, 9)),
    ("smp, unet of resnet34", "smp", {"architecture": "unet", "encoder": "resnet34"}),
)


def list_systems() -> dict[str, list[dict[str, Any]]]:
    """The systems (recipes), generators and discriminators, with sizes for three bands to three at width 64.

    Returns:
        `systems`, `generators` and `discriminators`, each a list of entries. `parameters` are counts; `stride` and
        `field` (one-sided, None where unbounded) are pixels; `statistics` as on a model's card.
    """
    with OwnDraws():
        return {
            "systems": [_system(name, recipe) for name, recipe in RECIPES.items()],
            "generators": [{"name": name} | _generator(key, arguments) for name, key, arguments in VARIANTS],
            "discriminators": [
                {"name": "patchgan", "patch": patch, "parameters": _discriminator(patch, 1, True, "instance")}
                for patch in get_args(Patch)
            ],
        }


def _system(name: str, recipe: Recipe) -> dict[str, Any]:
    arguments: dict[str, Any] = {"norm": recipe.norm, "up": recipe.up, "padding": recipe.padding}
    arguments |= {"downs": recipe.downs or CHIP.bit_length() - 1, "skips": recipe.skips}
    scales = f"{recipe.scales} scales of " if recipe.scales > 1 else ""
    terms = [recipe.adversarial, f"{recipe.pixel_weight:g} {recipe.pixel_loss}"]
    terms += [f"{recipe.feature_weight:g} features"] if recipe.feature_weight else []
    sizes = _generator(recipe.generator, arguments)
    judge = _discriminator(recipe.patch, recipe.scales, recipe.conditional, recipe.discriminator_norm)
    return {
        "name": name,
        "generator": f"{recipe.generator}, {arguments['downs']} downs, {recipe.norm} norm, {recipe.up}",
        "discriminator": f"{scales}patchgan {recipe.patch}",
        "loss": " + ".join(terms),
        **sizes,
        "discriminator_parameters": judge,
    }


def _generator(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    build, bands = GENERATORS[name], {"in_channels": BANDS, "out_channels": BANDS}
    with torch.device("meta"):
        network = build(**bands | arguments)
    narrow = build(**bands | arguments | ({} if name == "smp" else {"width": 1}))
    return {
        "parameters": _count(network),
        "stride": network.stride,
        "field": one_sided_field(narrow, BANDS, network.stride),
        "statistics": "tile" if uses_input_statistics(network) else "none",
    }


def _discriminator(patch: Patch, scales: int, conditional: bool, norm: str) -> int:
    with torch.device("meta"):
        return _count(
            DISCRIMINATORS["patchgan"](
                in_channels=2 * BANDS if conditional else BANDS, patch=patch, scales=scales, norm=norm
            )
        )


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
