"""The residual generator of CycleGAN (Zhu et al., ICCV 2017, arXiv 1703.10593, after Johnson et al., ECCV 2016)."""

from typing import cast

from torch import Tensor, nn

from geop2p.models.layers import Generator, Head, Norm, Padding, Up, convolution, has_own_shift, norm_layer, upsampling

DOWNS = 2


class ResNet(Generator):
    """Two halvings, residual blocks at a quarter of the side, two doublings.

    Args:
        in_channels: Channels of the source, and of its noise.
        out_channels: Channels of the target.
        blocks: Residual blocks: 9, or 6 for chips of 128 pixels.
        width: Channels after the first convolution.
        norm: Normalisation layer.
        dropout: Probability inside the blocks, while training.
        head: tanh for values in [-1, 1], logits for class scores.
        up: How the side is doubled.
        padding: What the convolutions see beyond the border.
        noise: Channels of the input that are noise.
    """

    stride = 2**DOWNS
    smallest = 2 * stride  # a single pixel between the halvings has no variance

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        blocks: int = 9,
        width: int = 64,
        norm: Norm = "instance",
        dropout: float = 0.0,
        head: Head = "tanh",
        up: Up = "transposed",
        padding: Padding = "reflect",
        noise: int = 0,
    ) -> None:
        super().__init__(in_channels, noise)
        bias = not has_own_shift(norm)
        layers: list[nn.Module] = []

        def then(layer: nn.Module, channels: int) -> None:
            layers.extend([layer, norm_layer(norm, channels), nn.ReLU(inplace=True)])

        then(convolution(in_channels, width, 7, 1, padding, bias), width)
        for factor in (1, 2):
            then(convolution(factor * width, 2 * factor * width, 3, 2, padding, bias), 2 * factor * width)
        deep = width * 2**DOWNS
        layers += [Residual(deep, norm, dropout, padding) for _ in range(blocks)]
        for factor in (2, 1):
            then(upsampling(up, 2 * factor * width, factor * width, 3, padding, bias), factor * width)
        layers.append(convolution(width, out_channels, 7, 1, padding))
        layers += [nn.Tanh()] if head == "tanh" else []
        self.layers = nn.Sequential(*layers)

    def forward(self, source: Tensor) -> Tensor:
        """Translate a batch.

        Args:
            source: (batch, in_channels, rows, cols), with or without its noise, rows and cols multiples of 4.

        Returns:
            (batch, out_channels, rows, cols).
        """
        return cast(Tensor, self.layers(self.with_noise(source)))


class Residual(nn.Module):
    """Two 3x3 convolutions whose result is added to what went in."""

    def __init__(self, channels: int, norm: Norm, dropout: float, padding: Padding) -> None:
        super().__init__()
        bias = not has_own_shift(norm)
        layers: list[nn.Module] = [convolution(channels, channels, 3, 1, padding, bias), norm_layer(norm, channels)]
        layers += [nn.ReLU(inplace=True), nn.Dropout(dropout)]
        layers += [convolution(channels, channels, 3, 1, padding, bias), norm_layer(norm, channels)]
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Add what the block finds."""
        return features + cast(Tensor, self.layers(features))
