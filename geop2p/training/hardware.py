"""What the hardware computes fast: number formats and memory layouts, looked up rather than assumed."""

from pathlib import Path

import torch
from torch import nn

from geop2p.config import Precision

CPU_FLAGS = Path("/proc/cpuinfo")
BF16_FLAGS = {"avx512_bf16", "amx_bf16"}  # without these a CPU emulates bf16, two to three times slower than fp32


def has_fast_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bf16 matrices in hardware."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(BF16_FLAGS & _cpu_flags())


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
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True  # all batches but the last of an epoch have one shape
    if any(isinstance(part, nn.InstanceNorm2d | nn.GroupNorm) for network in networks for part in network.modules()):
        return torch.contiguous_format
    for network in networks:
        network.to(memory_format=torch.channels_last)
    return torch.channels_last


def _cpu_flags() -> set[str]:
    """The features of the processor as Linux tells them; none elsewhere."""
    if not CPU_FLAGS.is_file():
        return set()
    for line in CPU_FLAGS.read_text(encoding="utf-8").splitlines():
        name, _, values = line.partition(":")
        if name.strip() == "flags":
            return set(values.split())
    return set()
