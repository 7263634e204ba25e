"""Random numbers that a job draws without moving those of whoever calls it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def own_random_numbers() -> Iterator[None]:
    """A block, or as a decorator a function, after which torch's random numbers go on where they were.

    Those of a GPU too, if the process used it before.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices):
        yield
