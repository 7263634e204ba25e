"""Scores of blocks of ground, and what their spread says: intervals by bootstrap over blocks."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from geop2p.raster.encoding import Array, Mask

BOOTSTRAPS = 1000

Interval = tuple[float, float]


class Summed(Protocol):
    """Scores whose sums add up."""

    sums: dict[str, npt.NDArray[np.float64]]

    def add(self, predicted: Array, real: Array, valid: Mask) -> None:
        """Take in a pair."""

    def result(self) -> dict[str, Any]:
        """The figures."""


def bootstrap(blocks: int) -> Iterator[npt.NDArray[np.int64]]:
    """How often each block is drawn, for seeded draws with replacement; the same for every caller."""
    generator = np.random.default_rng(0)
    for _ in range(BOOTSTRAPS):
        yield np.bincount(generator.integers(0, blocks, blocks), minlength=blocks)


class BlockScores:
    """Scores kept apart by block of ground, since neighbouring chips are no independent witnesses.

    Args:
        make: Makes empty scores; all alike.
    """

    def __init__(self, make: Callable[[], Summed]) -> None:
        self._make, self._blocks = make, dict[str, Summed]()

    def add(self, predicted: Array, real: Array, valid: Mask, block: str) -> None:
        """Take in a pair that lies in a block."""
        if block not in self._blocks:
            self._blocks[block] = self._make()
        self._blocks[block].add(predicted, real, valid)

    def result(self) -> dict[str, Any]:
        """The figures of all blocks."""
        return next(self._figures([np.ones(len(self._scores()), np.int64)]))

    def draws(self) -> Iterator[dict[str, Any]]:
        """The figures of seeded draws of blocks."""
        return self._figures(bootstrap(len(self._scores())))

    @property
    def is_tested(self) -> bool:
        """Whether draws of blocks say anything: of one block all are alike."""
        return len(self._blocks) > 1

    def intervals(self, names: Sequence[str]) -> dict[str, Interval | None]:
        """95 % intervals of some figures; None where there are fewer than two blocks, or the figure is None."""
        if not self.is_tested:
            return dict.fromkeys(names)
        known = [name for name, figure in self.result().items() if name in names and figure is not None]
        rows = [[figures.get(name) for name in known] for figures in self.draws()]
        found = {name: interval([row[column] for row in rows]) for column, name in enumerate(known)}
        return dict.fromkeys(names) | found

    def _scores(self) -> list[Summed]:
        return list(self._blocks.values()) or [self._make()]

    def _figures(self, draws: Iterable[npt.NDArray[np.int64]]) -> Iterator[dict[str, Any]]:
        """The figures with each block counted as often as it was drawn."""
        scores = self._scores()
        stacks = {name: np.stack([entry.sums[name] for entry in scores]) for name in scores[0].sums}
        for counts in draws:
            total = copy.copy(scores[0])
            total.sums = {name: np.tensordot(counts.astype(np.float64), stack, 1) for name, stack in stacks.items()}
            yield total.result()


def interval(values: Iterable[float | None]) -> Interval | None:
    """The 95 % interval of what draws gave, those that gave nothing left out."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)
