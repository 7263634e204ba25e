"""Dropout drawn by place: the same ground loses the same features, in whatever tile it lies.

Predictions with dropout left on are samples of what a network might have learned as well (Gal & Ghahramani, ICML 2016,
arXiv 1506.02142). Their noise is a hash of the place, so that neighbouring tiles draw the same.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from geop2p.models.positional_noise import BITS, numbers_of


class GroundDropout:
    """The dropout layers that a network runs through.

    Args:
        network: A generator in evaluation mode; it stays as it is outside `drawn`.
        channels: Of its input.
        side: Of a square input that it takes, to see which of its layers it uses.
    """

    def __init__(self, network: nn.Module, channels: int, side: int) -> None:
        self._network, self._layers = network, list[nn.Module]()
        hooks = [layer.register_forward_hook(self._meet) for layer in network.modules() if _drops(layer)]
        try:
            device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
            with torch.inference_mode():
                network(torch.zeros(1, channels, side, side, device=device))
        finally:
            for hook in hooks:
                hook.remove()

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._layers)

    def _meet(self, layer: nn.Module, _: tuple[Tensor, ...], features: Tensor) -> None:
        if features.ndim == 4 and layer not in self._layers:
            self._layers.append(layer)

    @contextmanager
    def drawn(self, sample: int, corners: Sequence[tuple[int, int]], rows: int) -> Iterator[None]:
        """Let the network drop features.

        Args:
            sample: Number of the draw.
            corners: (row_off, col_off) on the ground of each input of the batch, in pixels.
            rows: Rows of the inputs.
        """
        hooks = [
            layer.register_forward_hook(self._dropping(number, sample, corners, rows))
            for number, layer in enumerate(self._layers)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _dropping(
        self, number: int, sample: int, corners: Sequence[tuple[int, int]], rows: int
    ) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def drop(layer: nn.Module, _: tuple[Tensor, ...], features: Tensor) -> Tensor:
            factor, chance = rows // features.shape[2], float(layer.p)  # type: ignore[arg-type]
            whole = isinstance(layer, nn.Dropout2d)  # drops a channel everywhere or nowhere
            noise = [
                _noise(features[0], sample, number, (0, 0) if whole else (row // factor, col // factor), whole)
                for row, col in corners
            ]
            kept = torch.stack(noise) >= chance * (1 << BITS)
            return features * kept / (1 - chance)

        return drop


def _drops(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Dropout | nn.Dropout2d) and layer.p > 0


def _noise(like: Tensor, sample: int, number: int, corner: tuple[int, int], whole: bool) -> Tensor:
    """Integers from 0 to 2**32 - 1 for features (channels, rows, cols) of a layer, of every place its own.

    Where a channel is dropped as a `whole`, they are (channels, 1, 1).
    """
    channels, rows, cols = like.shape
    rows, cols = (1, 1) if whole else (rows, cols)
    spans = ((0, channels), (corner[0], rows), (corner[1], cols))
    return numbers_of((sample, number), *spans, device=like.device)
