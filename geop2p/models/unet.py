"""The U-Net generator of pix2pix (Isola et al., CVPR 2017, arXiv 1611.07004, section 6.1.1)."""

import torch
from torch import Tensor, nn

from geop2p.models.layers import Generator, Head, Norm, Padding, Up, convolution, has_own_shift, norm_layer, upsampling

MAX_FACTOR = 8  # channels grow from `width` to at most 8 times it
DROPOUT_FROM = 4  # level; the widest decoder levels but the innermost have dropout: three of eight


def has_dropout(downs: int | None) -> bool:
    """Whether a U-Net that halves its input so often has levels with dropout; None: as often as it can, maybe."""
    return downs is None or downs - 1 > DROPOUT_FROM


class UNet(Generator):
    """Encoder and decoder of 4x4 convolutions with stride 2, joined by skips at every level.

    No norm follows the first convolution or the innermost one, where one pixel has no variance. Dropout sits on
    the decoder levels between the innermost and the fourth, as in the PyTorch port of pix2pix.

    Args:
        in_channels: Channels of the source, and of its noise.
        out_channels: Channels of the target.
        downs: Times the side is halved; sides of the input must be multiples of 2**downs.
        width: Channels after the first convolution.
        norm: Normalisation layer.
        dropout: Probability on the levels that have it, while training.
        head: tanh for values in [-1, 1], logits for class scores.
        skips: Whether the levels are joined; without it is the paper's encoder-decoder.
        up: How the decoder doubles the side.
        padding: What the convolutions see beyond the border.
        noise: Channels of the input that are noise.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        downs: int = 8,
        width: int = 64,
        norm: Norm = "instance",
        dropout: float = 0.5,
        head: Head = "tanh",
        skips: bool = True,
        up: Up = "transposed",
        padding: Padding = "zero",
        noise: int = 0,
    ) -> None:
        super().__init__(in_channels, noise)
        if downs < 2:
            raise ValueError(f"downs is {downs}, expected at least 2")
        self.stride = self.smallest = 2**downs
        self.skips = skips
        bias = not has_own_shift(norm)
        outs = [width * min(2**level, MAX_FACTOR) for level in range(downs)]
        ins = [in_channels, *outs[:-1]]
        self.encoder = nn.ModuleList()
        self.decoder = nn.ModuleList()  # outermost first, like the encoder
        for level, (before, after) in enumerate(zip(ins, outs, strict=True)):
            outermost, innermost = level == 0, level == downs - 1
            down: list[nn.Module] = [] if outermost else [nn.LeakyReLU(0.2)]
            down.append(convolution(before, after, 4, 2, padding, bias=bias))
            if not (outermost or innermost):
                down.append(norm_layer(norm, after))
            self.encoder.append(nn.Sequential(*down))

            deep = 2 * after if skips and not innermost else after
            rise: list[nn.Module] = [nn.ReLU(inplace=True)]  # of what nobody else reads
            if outermost:
                rise.append(upsampling(up, deep, out_channels, 4, padding))
                rise += [nn.Tanh()] if head == "tanh" else []
            else:
                rise += [upsampling(up, deep, before, 4, padding, bias=bias), norm_layer(norm, before)]
                if DROPOUT_FROM <= level < downs - 1:
                    rise.append(nn.Dropout(dropout))
            self.decoder.append(nn.Sequential(*rise))

    def forward(self, source: Tensor) -> Tensor:
        """Translate a batch.

        Args:
            source: (batch, in_channels, rows, cols), with or without its noise, rows and cols multiples of 2**downs.

        Returns:
            (batch, out_channels, rows, cols).
        """
        levels: list[Tensor] = []
        features = self.with_noise(source)
        for layer in self.encoder:
            features = layer(features)
            levels.append(features)
        levels.pop()
        for layer in reversed(self.decoder):
            features = layer(features)
            if levels:
                skip = levels.pop()
                features = torch.cat([skip, features], dim=1) if self.skips else features
        return features
