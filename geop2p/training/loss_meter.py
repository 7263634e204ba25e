"""Losses of an epoch, summed where they are computed, so that no step waits for the device."""

import math
from typing import Any

import torch
from torch import Tensor


class LossMeter:
    """Sums of losses, and how long each has not been finite.

    Args:
        device: Where the losses are.
    """

    def __init__(self, device: torch.device) -> None:
        self._names: list[str] = []
        self._counts: list[int] = []
        self._sums, self._ages = torch.zeros(0, device=device), torch.zeros(0, device=device)

    def add(self, losses: dict[str, Tensor]) -> None:
        """Take in the losses of a step; one that comes only at some steps counts only these."""
        new = [name for name in losses if name not in self._names]
        if new:
            self._names += new
            self._counts += [0] * len(new)
            self._sums, self._ages = (torch.cat([one, one.new_zeros(len(new))]) for one in (self._sums, self._ages))
        nothing = self._sums.new_zeros(())
        self._sums = self._sums + torch.stack([losses.get(name, nothing).float() for name in self._names])
        self._ages = self._ages + ~torch.isfinite(self._sums)
        self._counts = [count + (name in losses) for name, count in zip(self._names, self._counts, strict=True)]

    def means(self) -> dict[str, float]:
        """The mean of each loss."""
        columns = zip(self._names, self._sums.tolist(), self._counts, strict=True)
        return {name: total / count for name, total, count in columns}

    def not_finite(self) -> dict[str, int]:
        """The losses that are not finite, and for how many steps they have not been: 1 is the step just added."""
        broken = {name for name, mean in self.means().items() if not math.isfinite(mean)}
        return {name: round(age) for name, age in zip(self._names, self._ages.tolist(), strict=True) if name in broken}

    def state(self) -> dict[str, Any]:
        """Plain values to go on from."""
        return {"names": list(self._names), "counts": list(self._counts), "sums": self._sums.clone()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self._names, self._counts, self._sums = list(state["names"]), list(state["counts"]), state["sums"].clone()
        self._ages = torch.zeros_like(self._sums)
