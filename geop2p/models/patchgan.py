"""The PatchGAN discriminator of pix2pix (Isola et al., CVPR 2017, arXiv 1611.07004, section 6.1.2)."""

from typing import Literal, cast

from torch import Tensor, nn
from torch.nn import functional

from geop2p.models.layers import Norm, has_own_shift, norm_layer, spectral

MAX_FACTOR = 8

Patch = Literal[1, 16, 34, 70, 142, 286]
LAYERS: dict[Patch, int] = {1: 0, 16: 1, 34: 2, 70: 3, 142: 4, 286: 5}


class PatchGAN(nn.Module):
    """Judges every patch of a pair as real or fake; 3 layers see patches of 70x70.

    Args:
        in_channels: Channels of source and target together.
        layers: Convolutions with stride 2; 1, 2, 3, 4, 5 see 16, 34, 70, 142, 286 pixels, 0 is 1x1 convolutions
            that see single pixels.
        width: Channels after the first convolution.
        norm: Normalisation layer.
    """

    def __init__(self, in_channels: int, layers: int = 3, width: int = 64, norm: Norm = "instance") -> None:
        super().__init__()
        bias = not has_own_shift(norm)
        modules: list[nn.Module]
        if layers == 0:
            modules = [nn.Conv2d(in_channels, width, 1), _activation()]
            modules += [nn.Conv2d(width, 2 * width, 1, bias=bias), norm_layer(norm, 2 * width), _activation()]
            modules.append(nn.Conv2d(2 * width, 1, 1, bias=bias))
        else:
            outs = [width * min(2**level, MAX_FACTOR) for level in range(layers + 1)]
            modules = [nn.Conv2d(in_channels, outs[0], 4, 2, 1), _activation()]
            for level in range(1, layers + 1):
                stride = 2 if level < layers else 1
                modules.append(nn.Conv2d(outs[level - 1], outs[level], 4, stride, 1, bias=bias))
                modules += [norm_layer(norm, outs[level]), _activation()]
            modules.append(nn.Conv2d(outs[-1], 1, 4, 1, 1))
        self.layers = nn.Sequential(*modules)

    def forward(self, pair: Tensor) -> Tensor:
        """Logits of the patches.

        Args:
            pair: Source and target stacked, (batch, in_channels, rows, cols).

        Returns:
            (batch, 1, patch rows, patch cols); 30x30 patches for 256x256 pixels and 3 layers.
        """
        return cast(Tensor, self.layers(pair))

    def features(self, pair: Tensor) -> list[Tensor]:
        """What the layers see: the features after every activation, and the logits last."""
        found: list[Tensor] = []
        current = pair
        for module in self.layers:
            current = module(current)
            if isinstance(module, nn.LeakyReLU):
                found.append(current)
        return [*found, current]


def _activation() -> nn.Module:
    return nn.LeakyReLU(0.2, inplace=True)  # of what nobody else reads


class MultiScale(nn.Module):
    """PatchGANs that each look at the pair at half the resolution of the one before (pix2pixHD, arXiv 1711.11585).

    Args:
        in_channels: Channels of source and target together, or of the target alone.
        patch: Pixels that a patch covers at full resolution.
        scales: Discriminators.
        width: Channels after the first convolution.
        norm: Normalisation layer.
        with_spectral_norm: Divide weights by their spectral norm (Miyato et al., arXiv 1802.05957).
    """

    def __init__(
        self,
        in_channels: int,
        patch: Patch = 70,
        scales: int = 1,
        width: int = 64,
        norm: Norm = "instance",
        with_spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        layers = LAYERS[patch]
        self.scales = nn.ModuleList(PatchGAN(in_channels, layers, width, norm) for _ in range(scales))
        self.smallest = (3 * 2**layers if layers else 2) * 2 ** (scales - 1)
        if with_spectral_norm:
            spectral(self)

    def forward(self, pair: Tensor) -> list[list[Tensor]]:
        """Judge a pair.

        Args:
            pair: (batch, in_channels, rows, cols), sides at least `smallest`.

        Returns:
            For each scale, finest first, the features of its layers and its logits last.
        """
        found: list[list[Tensor]] = []
        for discriminator in self.scales:
            if found:
                pair = functional.avg_pool2d(pair, 3, 2, 1, count_include_pad=False)
            found.append(cast(PatchGAN, discriminator).features(pair))
        return found
