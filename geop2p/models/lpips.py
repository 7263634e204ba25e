"""LPIPS (Zhang et al., CVPR 2018, arXiv 1801.03924): how far two images are apart for features of VGG-16.

The weights come from two files that the user names, nothing is fetched: the network's, and those of the five linear
layers that were learnt on people's judgements.
"""

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from geop2p.models.perceptual import activations, read_weights, vgg_layers

# Channels of the convolutions up to conv5_3; 0 is a pooling that halves the side.
_LAYERS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)
_TAPS = (3, 8, 15, 22, 29)  # relu1_2, relu2_2, relu3_3, relu4_3, relu5_3
_WIDTHS = (64, 128, 256, 512, 512)
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of images in [-1, 1]
_LEAST = 1e-8  # under the root of a length, whose slope at 0 is no number


class LPIPS(nn.Module):
    """Differences of VGG-16's features, each weighed as people see it; its weights stay as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.features = vgg_layers(_LAYERS)
        self.heads = nn.ParameterList(torch.zeros(1, width, 1, 1) for width in _WIDTHS)
        self.register_buffer("shift", torch.tensor(_SHIFT)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE)[:, None, None], persistent=False)

    def forward(self, one: Tensor, other: Tensor) -> list[Tensor]:
        """Maps of differences, one a layer.

        Args:
            one: (batch, 3, rows, cols), red, green and blue in [-1, 1], sides at least 16.
            other: The same.

        Returns:
            (batch, 1, rows, cols) at full, half, ... and a sixteenth of the side; LPIPS is the sum of their means.
        """
        pairs = zip(self._unit_features(one), self._unit_features(other), self.heads, strict=True)
        return [((first - second).square() * head).sum(dim=1, keepdim=True) for first, second, head in pairs]

    def _unit_features(self, image: Tensor) -> list[Tensor]:
        """Features of the five layers, each pixel's of length 1."""
        scaled = (image - cast(Tensor, self.shift)) / cast(Tensor, self.scale)
        found = activations(self.features, scaled, _TAPS)
        return [one * (one.square().sum(dim=1, keepdim=True) + _LEAST).rsqrt() for one in found]


def load_lpips(network: str | Path, heads: str | Path) -> LPIPS:
    """Read the weights from safetensors or tensor-only pickles.

    Args:
        network: torchvision's VGG-16.
        heads: The linear layers of LPIPS 0.1 for VGG.

    Raises:
        CheckpointError: A file is missing, damaged, or holds other weights.
    """
    found = LPIPS()
    names = {name: one for name, one in found.state_dict().items() if name.startswith("features")}
    state = read_weights(network, "torchvision's VGG-16 weights (vgg16-397923af.pth)", names)
    lines = {f"lin{number}.model.1.weight": head for number, head in enumerate(found.heads)}
    learnt = read_weights(heads, "the linear layers of LPIPS for VGG (lpips/weights/v0.1/vgg.pth)", lines)
    state |= {f"heads.{number}": one for number, one in enumerate(learnt.values())}
    found.load_state_dict(state)
    return found.eval().requires_grad_(False)
