"""Which settings of a recipe require which others: one that is set and would have no effect is refused."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from geop2p.errors import ConfigError
from geop2p.models.unet import has_dropout
from geop2p.raster.encoding import Encoding

Values = dict[str, Any]  # the recipe that would be used, by key


@dataclass(frozen=True)
class _Need:
    """What must be so for some keys to count.

    Attributes:
        keys: Of the recipe.
        is_met: By the recipe, and the target where it is known.
        what: They are for, and what is there instead; fields in braces are keys of the recipe.
    """

    keys: tuple[str, ...]
    is_met: Callable[[Values, Encoding | None], bool]
    what: str


def _generator(keys: tuple[str, ...], *names: str) -> _Need:
    what = f"the generator {' and '.join(names)}, the generator is {{generator}}"
    return _Need(keys, lambda recipe, _: recipe["generator"] in names, what)


_OF_DISCRIMINATOR = (
    "discriminator", "patch", "scales", "conditional", "discriminator_norm", "spectral_norm", "feature_weight",
    "r1_weight", "r1_every", "discriminator_weight", "discriminator_lr",
)  # fmt: skip
_OF_IMAGERY = (
    "adversarial", "pixel_loss", "pixel_weight", "perceptual_weight", "perceptual_file", "lpips_weight", "lpips_file",
    "lpips_heads", *_OF_DISCRIMINATOR,
)  # fmt: skip

_NEEDS = (
    _Need(
        _OF_IMAGERY,
        lambda _, target: target is None or not target.is_classes,
        "targets of imagery, the target is a map of classes, which is trained by cross entropy",
    ),
    _Need(
        ("dice_weight",),
        lambda _, target: target is None or target.is_classes,
        "maps of classes as targets, which this target is not",
    ),
    _generator(("dropout", "up", "padding"), "unet", "resnet"),
    _Need(
        ("dropout",),
        lambda recipe, _: not recipe["dropout"] or recipe["generator"] != "unet" or has_dropout(recipe["downs"]),
        "a U-Net that halves its input at least six times (--downs 6), its downs is {downs}",
    ),
    _generator(("downs", "skips"), "unet"),
    _generator(("blocks",), "resnet"),
    _generator(("architecture", "encoder"), "smp"),
    _Need(
        _OF_DISCRIMINATOR,
        lambda recipe, _: recipe["adversarial"] != "none",
        "the discriminator, of which adversarial none (or --loss l1) leaves none",
    ),
    _Need(
        ("r1_every",),
        lambda recipe, _: bool(recipe["r1_weight"]),
        "the gradient penalty, whose r1_weight is 0",
    ),
    _Need(
        ("pixel_loss",),
        lambda recipe, _: bool(recipe["pixel_weight"]),
        "the difference of pixels, whose pixel_weight is 0",
    ),
    _Need(
        ("statistics_chips",),
        lambda recipe, _: recipe["norm"] == "batch",
        "batch norm in the generator, its norm is {norm}",
    ),
)


def refuse_unused_keys(asked: Collection[str], recipe: Values, target: Encoding | None) -> None:
    """Refuse keys that somebody set and that have no effect; a weight of 0 says that a term is off, which it is.

    Args:
        asked: Keys that were set.
        recipe: The values of all keys.
        target: What is to be made; None: not known, so that every key may be for it.

    Raises:
        ConfigError: A key needs something that is not there.
    """
    for need in _NEEDS:
        off = {key for key in need.keys if key.endswith("_weight") and recipe[key] == 0}
        idle = [key for key in asked if key in need.keys and key not in off]
        if idle and not need.is_met(recipe, target):
            verb, them = ("is", "it") if len(idle) == 1 else ("are", "them")
            raise ConfigError(f"{', '.join(idle)} {verb} for {need.what.format(**recipe)}; leave {them} out")
