"""Networks: torch only, nothing geographic. A registry is a dict from name to builder."""

from collections.abc import Callable

from geop2p.models.layers import Generator
from geop2p.models.patchgan import MultiScale
from geop2p.models.resnet import ResNet
from geop2p.models.smp import Smp
from geop2p.models.unet import UNet

GENERATORS: dict[str, Callable[..., Generator]] = {"unet": UNet, "resnet": ResNet, "smp": Smp}
DISCRIMINATORS: dict[str, Callable[..., MultiScale]] = {"patchgan": MultiScale}
