"""How much memory the activations of a network take."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter

from geop2p.errors import GeoP2PError, one_line

FULL = ("out of memory", "allocate memory", "alloc_failed", "allocation_failed")  # of torch, cuDNN, cuBLAS


class HeldBytes:
    """Bytes of tensors from when they are counted until nothing holds them; those that share memory count once.

    Attributes:
        now: Of what is held.
        peak: The most that was.
    """

    def __init__(self) -> None:
        self.peak: int = 0
        self.now: int = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def count(self, values: Any) -> None:
        """Count the tensors in values of any structure."""
        for storage in _storages(values):
            if storage not in self._known:
                self._known.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._forget, storage.nbytes())
        self.peak = max(self.peak, self.now)

    def knows_any_of(self, values: Any) -> bool:
        """Whether a tensor in values of any structure is counted."""
        return any(storage in self._known for storage in _storages(values))

    def _forget(self, size: int) -> None:
        self.now -= size


class LiveBytes(TorchFunctionMode):
    """Counts the tensors that functions of torch return.

    Those that are made of weights alone do not count: they do not grow with the input. A dispatch mode would see more,
    but loads 150 MB of libraries.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held = HeldBytes()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not _storages((args, kwargs)) or self.held.knows_any_of((args, kwargs)):
            self.held.count(result)
        return result


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [tensor.untyped_storage() for tensor in tree_iter(values) if isinstance(tensor, Tensor)]


@contextmanager
def telling_when_full(told: GeoP2PError) -> Iterator[None]:
    """Say what to try when memory is not enough.

    Raises:
        GeoP2PError: `told`, with what there was no room for where the error of the machine's own memory names it.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if isinstance(error, MemoryError) and str(error):
            told = type(told)(f"{told} ({error})")
        raise told from error


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory, of the machine or of a GPU, was not enough."""
    text = one_line(error).lower()
    told = any(words in text for words in FULL)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and told)


def activation_bytes(network: nn.Module, channels: int, side: int) -> float:
    """Most bytes that input, activations and output of a prediction hold at once, for each pixel of the input.

    Measured by a run on zeros; what the kernels allocate inside themselves is not seen.

    Args:
        network: A generator, in evaluation mode.
        channels: Of its input.
        side: Of the square input that it is measured on.
    """
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    with torch.inference_mode(), LiveBytes() as counter:
        network(torch.zeros(1, channels, side, side, device=device))
    peak: float = counter.held.peak
    return peak / side**2
