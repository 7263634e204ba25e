"""Networks: torch only, nothing geographic. A registry is a dict from name to builder."""

from collections.abc import Callable

from torch import nn

from geop2p.models.patchgan import PatchGAN
from geop2p.models.unet import UNet

GENERATORS: dict[str, Callable[..., UNet]] = {"unet": UNet}
DISCRIMINATORS: dict[str, Callable[..., nn.Module]] = {"patchgan": PatchGAN}
