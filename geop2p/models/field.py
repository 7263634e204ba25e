"""The field of a network: how far on the ground an output pixel looks, measured rather than assumed."""

import copy

import torch
from torch import nn

_LINEAR = (nn.Conv2d, nn.ConvTranspose2d, nn.Sequential, nn.ModuleList)


def one_sided_field(network: nn.Module, in_channels: int, stride: int, reach: int = 1024) -> int | None:
    """The largest distance in pixels at which an input pixel changes an output pixel, norm statistics left out.

    A copy of the network is made linear with positive weights in float64, so that nothing cancels, and fed
    single columns of ones; where the output is not zero, the network looks.

    Args:
        network: Generator that maps (1, in_channels, rows, cols) to the same rows and cols.
        in_channels: Its input channels.
        stride: Its stride; columns are tried at the phases where the field is widest and some between.
        reach: Largest field that is looked for.

    Returns:
        Pixels, or None where the field is wider than `reach`.
    """
    probe = _positive_linear(network)
    margin = -(-reach // stride) * stride
    width = 2 * margin + stride
    phases = sorted({*range(0, stride, max(1, stride // 4)), 1 % stride, stride - 1})
    field = 0
    with torch.inference_mode():
        for phase in phases:
            at = margin + phase
            columns = torch.zeros(1, in_channels, stride, width, dtype=torch.float64)
            columns[..., at] = 1
            seen = torch.nonzero(probe(columns).sum(dim=(0, 1, 2)))
            field = max(field, at - int(seen.min()), int(seen.max()) - at)
            if field > reach or int(seen.min()) == 0 or int(seen.max()) == width - 1:
                return None
    return field


def _positive_linear(network: nn.Module) -> nn.Module:
    probe = copy.deepcopy(network).cpu().double().eval()
    for module in list(probe.modules()):
        for name, child in list(module.named_children()):
            if not list(child.children()) and not isinstance(child, _LINEAR):
                setattr(module, name, nn.Identity())
    for parameter in probe.parameters():
        nn.init.constant_(parameter, 0.0 if parameter.ndim == 1 else 1 / parameter[0].numel())
    return probe
