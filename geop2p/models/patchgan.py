"""The PatchGAN discriminator of pix2pix (Isola et al., CVPR 2017, arXiv 1611.07004, section 6.1.2)."""

from typing import cast

from torch import Tensor, nn

from geop2p.models.layers import Norm, has_own_shift, norm_layer

MAX_FACTOR = 8


class PatchGAN(nn.Module):
    """Judges every patch of a pair as real or fake; 3 layers see patches of 70x70.

    Args:
        in_channels: Channels of source and target together.
        layers: Convolutions with stride 2; 1, 2, 3, 4, 5 see 16, 34, 70, 142, 286 pixels.
        width: Channels after the first convolution.
        norm: Normalisation layer.
    """

    def __init__(self, in_channels: int, layers: int = 3, width: int = 64, norm: Norm = "instance") -> None:
        super().__init__()
        bias = not has_own_shift(norm)
        outs = [width * min(2**level, MAX_FACTOR) for level in range(layers + 1)]
        modules: list[nn.Module] = [nn.Conv2d(in_channels, outs[0], 4, 2, 1), nn.LeakyReLU(0.2)]
        for level in range(1, layers + 1):
            stride = 2 if level < layers else 1
            modules.append(nn.Conv2d(outs[level - 1], outs[level], 4, stride, 1, bias=bias))
            modules += [norm_layer(norm, outs[level]), nn.LeakyReLU(0.2)]
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
