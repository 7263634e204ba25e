"""Features of VGG-19 (Simonyan & Zisserman, arXiv 1409.1556) for the perceptual loss of pix2pixHD (arXiv 1711.11585).

The weights come from a file that the user names, nothing is fetched.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from geop2p.errors import CheckpointError, one_line

# Channels of the convolutions up to conv5_1; 0 is a pooling that halves the side.
_LAYERS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512)
_TAPS = (1, 6, 11, 20, 29)  # relu1_1, relu2_1, relu3_1, relu4_1, relu5_1
TAP_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, on which the weights were learnt


class VGGFeatures(nn.Module):
    """The activations of five layers of VGG-19; its weights stay as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.features = vgg_layers(_LAYERS)
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_STD)[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Features of an image.

        Args:
            image: (batch, 3, rows, cols), red, green and blue in [-1, 1], sides at least 16.

        Returns:
            Activations of relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1.
        """
        return activations(self.features, ((image + 1) / 2 - cast(Tensor, self.mean)) / cast(Tensor, self.std), _TAPS)


def vgg_layers(widths: Sequence[int]) -> nn.Sequential:
    """Convolutions of 3x3 with these channels, each with its activation; 0 is a pooling that halves the side."""
    layers: list[nn.Module] = []
    channels = 3
    for width in widths:
        if width:
            layers += [nn.Conv2d(channels, width, 3, 1, 1), nn.ReLU()]
            channels = width
        else:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def activations(layers: nn.Sequential, image: Tensor, taps: Sequence[int]) -> list[Tensor]:
    """What the layers with these numbers make of an image (batch, 3, rows, cols)."""
    found: list[Tensor] = []
    for index, layer in enumerate(layers):
        image = layer(image)
        if index in taps:
            found.append(image)
    return found


def load_vgg(path: str | Path) -> VGGFeatures:
    """Read the weights of torchvision's VGG-19, whole or up to `features.28`, from safetensors or a tensor-only pickle.

    Raises:
        CheckpointError: The file is missing, damaged, or holds other weights.
    """
    network = VGGFeatures()
    stored = read_weights(path, "torchvision's VGG-19 weights (vgg19-dcbb9e9d.pth)", network.state_dict())
    network.load_state_dict(stored)
    return network.eval().requires_grad_(False)


def read_tensors(file: Path, what: str) -> Any:
    """What a file of weights holds: safetensors, or a pickle of tensors and plain values; nothing of it is executed.

    Raises:
        CheckpointError: The file is missing or damaged, or holds more than such values.
    """
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file; give {what}")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({one_line(error)}); give {what}") from error
    except Exception as error:  # whatever trips over the bytes of another file; some of it advises to trust the file
        raise CheckpointError(f"{file}: not a file of weights, or one that holds more; give {what}") from error


def read_weights(path: str | Path, what: str, wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Read tensors of a file by name.

    Args:
        path: safetensors, or a pickle of tensors alone; nothing else in it is executed.
        what: The weights to give, for messages.
        wanted: Tensors of the names and shapes that are needed; others in the file are left out.

    Raises:
        CheckpointError: The file is missing, damaged, or holds other weights.
    """
    file = Path(path)
    stored = read_tensors(file, what)
    fits = isinstance(stored, dict) and all(
        isinstance(stored.get(name), Tensor) and stored[name].shape == one.shape for name, one in wanted.items()
    )
    if not fits:
        raise CheckpointError(f"{file}: holds other weights; give {what}")
    if broken := [name for name in wanted if not torch.isfinite(stored[name]).all()]:
        raise CheckpointError(f"{file}: {broken[0]} holds values that are not finite; give {what}")
    return {name: stored[name] for name in wanted}
