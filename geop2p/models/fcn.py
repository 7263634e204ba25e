"""The fully convolutional network FCN-8s (Long et al., CVPR 2015, arXiv 1411.4038) on any encoder of the library."""

from typing import cast

from torch import Tensor, nn
from torch.nn import functional


class FCN(nn.Module):
    """Class scores at strides 32, 16 and 8, added from coarse to fine and enlarged bilinearly.

    The two wide layers that the paper keeps of VGG-16's classifier are left out; the encoder need not be VGG-16.

    Args:
        encoder: Name of the encoder in segmentation-models-pytorch, such as resnet18 or vgg16_bn.
        in_channels: Channels of the image.
        classes: Channels of the result.

    Raises:
        KeyError: The encoder is unknown.
    """

    def __init__(self, encoder: str, in_channels: int, classes: int) -> None:
        super().__init__()
        from segmentation_models_pytorch.encoders import get_encoder  # slow: seconds

        self.encoder: nn.Module = get_encoder(encoder, in_channels=in_channels, depth=5, weights=None)
        channels = cast(list[int], self.encoder.out_channels)[3:6]
        self.scores = nn.ModuleList(nn.Conv2d(width, classes, 1) for width in channels)

    def forward(self, image: Tensor) -> Tensor:
        """Class scores (batch, classes, rows, cols) of (batch, in_channels, rows, cols), sides multiples of 32."""
        features = self.encoder(image)[3:6]
        eighth, sixteenth, coarse = (score(level) for score, level in zip(self.scores, features, strict=True))
        total = sixteenth + functional.interpolate(coarse, scale_factor=2.0, mode="bilinear")
        total = eighth + functional.interpolate(total, scale_factor=2.0, mode="bilinear")
        return functional.interpolate(total, scale_factor=8.0, mode="bilinear")
