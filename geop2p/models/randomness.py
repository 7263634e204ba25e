"""Random numbers that a job draws without moving those of whoever calls it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

# what fills or makes tensors, and all of torch.nn.init that draws: inside one of these a mode sees no other
DRAWING = {"rand", "randn", "randint", "randperm", "normal", "bernoulli"}
DRAWING |= {"uniform_", "normal_", "random_", "bernoulli_", "trunc_normal_", "orthogonal_", "sparse_"}
DRAWING |= {f"{rule}_{shape}_" for rule in ("kaiming", "xavier") for shape in ("uniform", "normal")}


@contextmanager
def own_random_numbers() -> Iterator[None]:
    """A block after which torch's random numbers go on where they were, those of a GPU too if the process used it.

    Other threads draw from the same numbers meanwhile: for what they do not do at the same time (`exclusive_training`).
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices):
        yield


class OwnDraws(TorchFunctionMode):
    """A block of this thread alone in which weights begin with random numbers of its own, drawn on the processor.

    They are those that torch draws after `torch.manual_seed(seed)`. Blocks with one object draw on. What C++ draws by
    itself, as dropout does, comes from the process's numbers all the same.

    Args:
        seed: Of the numbers.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self._numbers = torch.Generator().manual_seed(seed)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if getattr(func, "__name__", "") in DRAWING and given.get("generator") is None:
            filled = next((one for one in (*args, *given.values()) if isinstance(one, torch.Tensor)), None)
            place = given.get("device") or (torch.get_default_device() if filled is None else filled.device)
            if torch.device(place).type == "cpu":
                given["generator"] = self._numbers
        return func(*args, **given)
