"""What training makes of the hardware: number formats and memory layouts."""

import torch
from torch import nn

from geop2p.config import Precision
from geop2p.models.hardware import has_fast_bf16, number_formats


def uses_bf16(precision: Precision, device: torch.device) -> bool:
    """Whether networks run in bf16 where it is safe; `auto` says yes where the hardware has it."""
    return precision == "bf16" or (precision == "auto" and has_fast_bf16(device))


def prepare(device: torch.device, networks: list[nn.Module]) -> torch.memory_format:
    """Set up a GPU for training: TF32 where fp32 is left, channels last where the norms keep it.

    Instance norm turns channels-last features into contiguous ones and back (pytorch#72341), group norm may; batch norm
    does not. On CPUs channels last gained nothing.

    Args:
        device: Where the networks are.
        networks: Moved to the layout.

    Returns:
        The layout that batches should have.
    """
    if device.type != "cuda":
        return torch.contiguous_format
    if number_formats() is not None:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True  # all batches but the last of an epoch have one shape
    if any(isinstance(part, nn.InstanceNorm2d | nn.GroupNorm) for network in networks for part in network.modules()):
        return torch.contiguous_format
    for network in networks:
        network.to(memory_format=torch.channels_last)
    return torch.channels_last
