"""What generators and discriminators share: the normalisation layers and the initial weights."""

from typing import Literal

from torch import nn

Norm = Literal["instance", "batch"]


def norm_layer(norm: Norm, channels: int) -> nn.Module:
    """A normalisation layer: instance norm without weights, or batch norm with them.

    Raises:
        ValueError: The name is not known.
    """
    if norm == "instance":
        return nn.InstanceNorm2d(channels)
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    raise ValueError(f"norm is '{norm}', expected instance or batch")


def has_own_shift(norm: Norm) -> bool:
    """Whether the norm adds its own bias, so that the convolution before it needs none."""
    return norm == "batch"


def init_weights(network: nn.Module, std: float = 0.02) -> None:
    """Draw convolution weights from N(0, std) and batch-norm gains from N(1, std); biases are 0 (pix2pix, 6.2)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, std)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, std)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
