"""Any architecture and encoder of segmentation-models-pytorch as a generator, without pretrained weights."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from geop2p.models.fcn import FCN
from geop2p.models.layers import Generator, Head, Norm, norm_layer

PAN_SIDE = 128  # its attention halves a sixteenth of the side three times


class Smp(Generator):
    """A segmentation network that ends in values instead of classes; the library draws the initial weights.

    Args:
        in_channels: Channels of the source, and of its noise.
        out_channels: Channels of the target.
        architecture: Name as in `segmentation_models_pytorch.create_model`, such as unet, fpn or deeplabv3plus, or fcn.
        encoder: Name of the encoder, such as resnet34, vgg16_bn or, from timm, tu-convnext_tiny.
        norm: What takes the place of the batch norms of encoder and decoder.
        head: tanh for values in [-1, 1], logits for class scores.
        noise: Channels of the input that are noise.

    Raises:
        ValueError: The architecture or encoder is unknown or cannot be built so.
    """

    std = None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        architecture: str = "unet",
        encoder: str = "resnet34",
        norm: Norm = "batch",
        head: Head = "tanh",
        noise: int = 0,
    ) -> None:
        super().__init__(in_channels, noise)
        with torch.device("cpu"):  # torchvision computes with tensors on import, which has no answer on meta
            import segmentation_models_pytorch  # slow: seconds, and no other generator needs it

        known = ("fcn", *segmentation_models_pytorch.MODEL_ARCHITECTURES_MAPPING)
        if architecture not in known:
            raise ValueError(f"architecture '{architecture}' is unknown; known: {', '.join(sorted(known))}")
        extra = {"dynamic_img_size": True} if architecture == "dpt" else {}
        try:
            self.network: nn.Module = (
                FCN(encoder, in_channels, out_channels)
                if architecture == "fcn"
                else segmentation_models_pytorch.create_model(
                    architecture, encoder, encoder_weights=None, in_channels=in_channels, classes=out_channels, **extra
                )
            )
        except (KeyError, ValueError, RuntimeError) as error:
            first = str(error.args[0]).splitlines()[0]
            raise ValueError(f"{architecture} cannot be built with encoder '{encoder}': {first}") from error
        if norm != "batch":
            _replace_batch_norms(self.network, norm)
        self.stride = int(cast(int, cast(nn.Module, self.network.encoder).output_stride))
        self.stride *= 2 if architecture == "dpt" else 1  # its decoder halves the coarsest features once more
        self.smallest = 2 * (PAN_SIDE if architecture == "pan" else self.stride)  # one pixel has no variance
        self.head: nn.Module = nn.Tanh() if head == "tanh" else nn.Identity()

    def forward(self, source: Tensor) -> Tensor:
        """Translate a batch.

        Args:
            source: (batch, in_channels, rows, cols), with or without its noise, rows and cols multiples of the stride.

        Returns:
            (batch, out_channels, rows, cols).
        """
        return cast(Tensor, self.head(self.network(self.with_noise(source))))


def _replace_batch_norms(network: nn.Module, norm: Norm) -> None:
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.BatchNorm2d:
                setattr(module, name, norm_layer(norm, child.num_features))
            elif isinstance(child, _BatchNorm):
                raise ValueError(f"norm '{norm}' cannot replace the {type(child).__name__} of this encoder; use batch")
