"""Random numbers that a job draws without moving those of whoever calls it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch.utils._python_dispatch import TorchDispatchMode


@contextmanager
def own_random_numbers() -> Iterator[None]:
    """A block after which torch's random numbers go on where they were, those of a GPU too if the process used it.

    Other threads draw from the same numbers meanwhile: for what they do not do at the same time (`alone`).
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices):
        yield


class OwnDraws(TorchDispatchMode):
    """A block of this thread alone that draws from numbers of its own, on the processor.

    They are those that torch draws after `torch.manual_seed(seed)`. Blocks with one object draw on.

    Args:
        seed: Of the numbers.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._numbers = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        places = [given.get("device"), *(one.device for one in args if isinstance(one, torch.Tensor))]
        if any(place is not None and torch.device(place).type != "cpu" for place in places):
            return func(*args, **given)
        drawing = _drawing(func)
        if drawing is None or given.get("generator") is not None:
            return func(*args, **given)
        return drawing(*args, **given | {"generator": self._numbers})


def _drawing(func: Any) -> Callable[..., Any] | None:
    """An operation in the form that takes a generator, which torch.rand and its like have beside another."""
    if any(argument.name == "generator" for argument in func._schema.arguments):
        return cast(Callable[..., Any], func)
    packet, twin = func.overloadpacket, {"default": "generator", "low": "low_generator"}.get(func._overloadname, "")
    return cast(Callable[..., Any], getattr(packet, twin)) if twin in packet.overloads() else None
