"""Instance norm with statistics that are given instead of taken from the input.

A network that normalises every tile by its own mean and variance paints every tile in its own tone; no overlap mends
that (Buglakova et al., ICCV 2025, arXiv 2503.19545). Statistics that depend on the ground alone do. They are kept as
raw moments, the means of x and x², since these may be pooled and interpolated: the variance then holds what lies
between the places that they were taken at, too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from geop2p.models.layers import uses_input_statistics


@dataclass(frozen=True)
class Field:
    """Raw moments on a lattice of places around each input of a batch.

    Attributes:
        moments: float64 (batch, 2, channels, places down, places along): means of x and of x² of every norm's input.
        top: float64 (batch,): row of the first place, in pixels of the input from its upper edge.
        left: float64 (batch,): column of the first place.
        spacing: Pixels from one place to the next.
        size: (rows, cols) of the input.
    """

    moments: Tensor
    top: Tensor
    left: Tensor
    spacing: float
    size: tuple[int, int]


def takes_given(network: nn.Module) -> bool:
    """Whether the statistics that a network takes of its input can be given: only those of instance norms can."""
    return not any(_takes_its_own(module) for module in network.modules())


def _takes_its_own(module: nn.Module) -> bool:
    return isinstance(module, nn.GroupNorm | nn.BatchNorm2d) and uses_input_statistics(module)


class GivenNorms:
    """The instance norms of a network, which take their statistics from outside from now on.

    Args:
        network: A generator; its norms are replaced.

    Raises:
        ValueError: The network takes statistics of its input in other ways than by instance norm.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self.channels = 0
        self._recorded: dict[int, Tensor] = {}
        self._weights: Tensor | None = None
        self._field: Field | None = None
        for module in list(network.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.InstanceNorm2d) and not child.track_running_stats:
                    setattr(module, name, _GivenNorm(child, self, self.channels))
                    self.channels += child.num_features
                elif _takes_its_own(child):
                    raise ValueError(f"statistics of a {type(child).__name__} cannot be given")

    def measure(self, source: Tensor, valid: Tensor) -> Tensor:
        """Raw moments of one input that is normalised by the statistics of its valid ground.

        Args:
            source: (1, channels, rows, cols).
            valid: float (1, 1, rows, cols), 1 where there is data, somewhere.

        Returns:
            float64 (2, channels): means of x and x² over valid ground.
        """
        self._recorded, self._weights = {}, valid
        try:
            with torch.inference_mode():
                self._network(source)
        finally:
            self._weights = None
        return torch.cat([self._recorded[first] for first in sorted(self._recorded)], dim=1)

    @contextmanager
    def given(self, field: Field) -> Iterator[None]:
        """Let the network run with these statistics."""
        self._field = field
        try:
            yield
        finally:
            self._field = None

    def record(self, features: Tensor, first: int) -> None:
        """Keep the moments of a norm's input, the channels from `first` on, if they are asked for."""
        if self._weights is not None:
            place, sides = with_float64(features.device), (features.shape[2], features.shape[3])
            weights = functional.adaptive_avg_pool2d(self._weights.to(place), sides).double()
            values, total = features.to(place).double(), weights.sum()
            moments = [(power * weights).sum(dim=(0, 2, 3)) / total for power in (values, values.square())]
            self._recorded[first] = torch.stack(moments)

    def statistics(self, features: Tensor, first: int) -> tuple[Tensor, Tensor] | None:
        """Mean and variance of the channels from `first` on, each (batch, channels, rows, cols) or ending in 1, 1."""
        field = self._field
        if self._weights is not None:  # those of the valid ground alone, as they are given later
            mean, square = self._recorded[first][:, None, :, None, None]
            return mean, (square - mean.square()).clamp(min=0)
        if field is None:
            return None
        table = field.moments[:, :, first : first + features.shape[1]]
        if table.shape[-2:] == (1, 1):
            mean, square = table.unbind(dim=1)
        else:
            rows = _interpolation(field.top, field.spacing, field.size[0], features.shape[2], table.shape[3])
            cols = _interpolation(field.left, field.spacing, field.size[1], features.shape[3], table.shape[4])
            mean, square = torch.einsum("nhy,nmcyx,nwx->nmchw", rows, table, cols).unbind(dim=1)
        return mean, (square - mean.square()).clamp(min=0)


def with_float64(device: torch.device) -> torch.device:
    """Where moments of features on a device are computed: on the processor where it lacks float64 (Apple's GPUs)."""
    return torch.device("cpu") if device.type == "mps" else device


def _interpolation(first: Tensor, spacing: float, length: int, count: int, places: int) -> Tensor:
    """Linear weights (batch, count, places) of the places for `count` feature pixels along `length` pixels."""
    pixels = (torch.arange(count, dtype=torch.float64, device=first.device) + 0.5) * (length / count)
    at = ((pixels - first[:, None]) / spacing).clamp(0, places - 1)
    distance = at[..., None] - torch.arange(places, dtype=torch.float64, device=first.device)
    return (1 - distance.abs()).clamp(min=0)


class _GivenNorm(nn.Module):
    """An instance norm that asks for its statistics."""

    def __init__(self, own: nn.InstanceNorm2d, norms: GivenNorms, first: int) -> None:
        super().__init__()
        self.own, self._norms, self._first = own, norms, first

    def forward(self, features: Tensor) -> Tensor:
        self._norms.record(features, self._first)
        found = self._norms.statistics(features, self._first)
        if found is None:
            return cast(Tensor, self.own(features))
        mean, variance = found
        scale = (variance + self.own.eps).rsqrt()
        if self.own.affine:
            scale = scale * self.own.weight[:, None, None].to(scale.device)
        shift = -mean * scale
        if self.own.affine:
            shift = shift + self.own.bias[:, None, None].to(scale.device)
        scale, shift = (one.to(features.device, features.dtype) for one in (scale, shift))
        return features * scale + shift
