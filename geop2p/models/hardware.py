"""The devices of this machine, and the number formats that they compute fast, looked up rather than assumed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from geop2p.config import Device
from geop2p.errors import ConfigError

CPU_FLAGS = Path("/proc/cpuinfo")
BF16_FLAGS = {"avx512_bf16", "amx_bf16"}  # without these a CPU emulates bf16, two to three times slower than fp32


def resolve_device(device: Device) -> torch.device:
    """The device that a setting means on this machine.

    Raises:
        ConfigError: The device asked for is not there, or none that torch knows by that name.
    """
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device not in ("auto", *found):
        raise ConfigError(f"device is {device!r}, expected auto or {' or '.join(found)}")
    if device == "auto":
        return torch.device(next(name for name, there in found.items() if there))
    if not found[device]:
        raise ConfigError(f"device '{device}' is not available here; use cpu or auto")
    return torch.device(device)


def has_fast_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bf16 matrices in hardware."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(BF16_FLAGS & _cpu_flags())


@contextmanager
def own_number_formats() -> Iterator[None]:
    """A block after which float32 is multiplied as it was before, and cuDNN chooses as it did.

    `torch.backends.cudnn.flags` would turn cuDNN off as well, unless it is told not to, and set what is not named.
    """
    cudnn = torch.backends.cudnn
    before, formats = (cudnn.deterministic, cudnn.benchmark), number_formats()
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
        now = number_formats()
        if formats is not None and now is not None:  # each by itself: setting what is set sets more than that
            if now[0] != formats[0]:
                cudnn.allow_tf32 = formats[0]
            if now[1] != formats[1]:
                torch.set_float32_matmul_precision(formats[1])


@contextmanager
def repeatable_convolutions(tf32: bool) -> Iterator[None]:
    """Let cuDNN choose the same algorithm for the same shape every time, in the whole process.

    Args:
        tf32: Whether convolutions may multiply float32 as TF32, which tells a few thousand values apart.
    """
    cudnn = torch.backends.cudnn
    with own_number_formats():
        cudnn.deterministic, cudnn.benchmark = True, False
        if number_formats() is not None:
            cudnn.allow_tf32 = tf32
        yield


def number_formats() -> tuple[bool, str] | None:
    """Whether cuDNN may take TF32, and how finely matrices are multiplied.

    None where the caller has set them by the names that came with torch 2.9, which cannot be read by those before: then
    they are the caller's to keep.
    """
    try:
        return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


class InBf16(nn.Module):
    """A network that multiplies in bf16 and adds in float32, on float32 input and output.

    Args:
        network: In evaluation mode.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = network

    def forward(self, source: Tensor) -> Tensor:
        """Run (batch, channels, rows, cols)."""
        with torch.autocast(source.device.type, torch.bfloat16):
            result: Tensor = self._network(source)
        return result.float()


def _cpu_flags() -> set[str]:
    """The features of the processor as Linux tells them; none elsewhere."""
    if not CPU_FLAGS.is_file():
        return set()
    for line in CPU_FLAGS.read_text(encoding="utf-8").splitlines():
        name, _, values = line.partition(":")
        if name.strip() == "flags":
            return set(values.split())
    return set()
