"""Recipes: named, frozen sets of networks, losses and optimiser."""

from dataclasses import dataclass

from geop2p.config import RecipeName
from geop2p.models.layers import Norm


@dataclass(frozen=True)
class Recipe:
    """What a training is made of, sizes and durations left to `TrainConfig`.

    Attributes:
        generator: Name in the registry of generators.
        norm: Normalisation of generator and discriminator.
        dropout: Of the generator.
        discriminator: Name in the registry of discriminators.
        layers: Convolutions with stride 2 in the discriminator.
        l1_weight: Of the L1 term beside the adversarial term.
        discriminator_weight: Of the sum of the real and the fake loss.
        betas: Of Adam.
        jitter: Chips are enlarged by this factor, then cropped to their size at random.
        flip: Whether half of the chips are mirrored left to right.
    """

    generator: str
    norm: Norm
    dropout: float
    discriminator: str
    layers: int
    l1_weight: float
    discriminator_weight: float
    betas: tuple[float, float]
    jitter: float
    flip: bool


RECIPES: dict[RecipeName, Recipe] = {
    "pix2pix": Recipe(
        generator="unet",
        norm="instance",
        dropout=0.5,
        discriminator="patchgan",
        layers=3,
        l1_weight=100.0,
        discriminator_weight=0.5,
        betas=(0.5, 0.999),
        jitter=286 / 256,
        flip=True,
    )
}
