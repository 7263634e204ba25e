"""The field of a network: how far on the ground an output pixel looks, measured rather than assumed."""

import copy
import functools

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


def one_sided_field(
    network: nn.Module, in_channels: int, stride: int, reach: int = 1024, rows: int | None = None
) -> int | None:
    """The largest distance in pixels at which an input pixel changes an output pixel, norm statistics left out.

    A copy of the network is made linear with positive weights in float64, so that nothing cancels; where the
    gradient of an output column is not zero, the network looks. Gates, which multiply, are seen as well. As all
    channels of a layer are alike then, its convolutions take one channel, the mean, and repeat what they find.

    Args:
        network: Generator that maps (1, in_channels, rows, cols) to the same rows and cols.
        in_channels: Its input channels.
        stride: Its stride; every phase of it counts.
        reach: Largest field that is looked for.
        rows: Shortest side that the network takes; none: the stride.

    Returns:
        Pixels, or None where the field is wider than `reach`, or where the network does not move its output with
        its input by multiples of the stride, so that no halo makes tiles agree.
    """
    probe = _positive_linear(network)
    margin = (-(-reach // stride) + 2) * stride
    width = 2 * margin + stride
    source = torch.ones(1, in_channels, rows or stride, width, dtype=torch.float64, requires_grad=True)
    columns = probe(source).sum(dim=(0, 1, 2))

    @functools.cache
    def seen(phase: int) -> tuple[int, int]:
        (gradient,) = torch.autograd.grad(columns[margin + phase], source, retain_graph=True)
        found = torch.nonzero(gradient.sum(dim=(0, 1, 2)))  # not a number counts as seen
        return (int(found.min()) - margin, int(found.max()) - margin) if len(found) else (-width, width)

    def widest(first: int, last: int) -> int:
        """Field of the phases from first to last; columns further right do not see less far right."""
        (left, right), (other_left, other_right) = seen(first), seen(last)
        if (left, right) == (other_left, other_right) or last - first <= 1:
            return max(first - left, right - first, last - other_left, other_right - last)
        middle = (first + last) // 2
        return max(widest(first, middle), widest(middle, last))

    field = max(-seen(0)[0], seen(0)[1])
    if field <= reach:
        field = widest(0, stride - 1)
    return field if field <= reach and _moves_with_its_input(probe, source, stride, field) else None


def _moves_with_its_input(probe: nn.Module, like: Tensor, stride: int, field: int) -> bool:
    values = torch.rand(like.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        inside = slice(field + stride, -field or None)
        still, moved = (probe(image)[..., inside] for image in (values, values.roll(stride, -1)))
    return torch.allclose(still[..., :-stride], moved[..., stride:], rtol=1e-9, atol=0)


def _positive_linear(network: nn.Module) -> nn.Module:
    probe = copy.deepcopy(network).cpu().double().eval()
    for module in list(probe.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, _NORMS) or _is_activation(child):
                setattr(module, name, nn.Identity())
            elif isinstance(child, nn.MaxPool2d):
                setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode))
    for name, parameter in probe.requires_grad_(False).named_parameters():
        if parameter.ndim > 1:
            nn.init.constant_(parameter, 1 / parameter[0].numel())
        else:
            nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)
    for module in list(probe.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d | nn.ConvTranspose2d):
                setattr(module, name, _OneChannel(child))
    return probe


class _OneChannel(nn.Module):
    """A convolution whose channels are all alike: only one is computed."""

    def __init__(self, like: nn.Conv2d | nn.ConvTranspose2d) -> None:
        super().__init__()
        self.channels = like.out_channels
        self.thin = copy.deepcopy(like)
        self.thin.in_channels = self.thin.out_channels = self.thin.groups = 1
        self.thin.bias = None
        kernel = torch.ones(1, 1, *like.weight.shape[2:], dtype=torch.float64)
        self.thin.weight = nn.Parameter(kernel / kernel.numel(), requires_grad=False)

    def forward(self, source: Tensor) -> Tensor:
        one: Tensor = self.thin(source.mean(dim=1, keepdim=True))
        return one.repeat(1, self.channels, 1, 1)


def _is_activation(module: nn.Module) -> bool:
    is_one = type(module).__module__.endswith((".activation", ".activations", ".dropout"))
    return is_one and not list(module.children())
