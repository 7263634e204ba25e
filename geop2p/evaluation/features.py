"""How far generated imagery lies from real imagery in what a network sees: Frechet distances of its features.

After Heusel et al. (NeurIPS 2017, arXiv 1706.08500), with a judge's encoder in place of Inception, so that any bands
can be compared: features of all places of its stride-16 level instead of one vector an image.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from geop2p.raster.encoding import Array, Mask
from geop2p.translator import Translator

GROUPS = 8  # at most
HALVINGS = 10
STRIDE = 16
T95 = {4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}  # 97.5 % quantile of Student's t, by the number of groups

Matrix = npt.NDArray[np.float64]


class _Moments:
    """Count, sum and products of features (places, channels)."""

    def __init__(self) -> None:
        self.count: int = 0
        self.sum: Matrix = np.zeros(1)
        self.products: Matrix = np.zeros((1, 1))

    def add(self, features: Matrix) -> None:
        """Take in some."""
        self.count += len(features)
        self.sum = self.sum + features.sum(axis=0)
        self.products = self.products + features.T @ features

    def gaussian(self) -> tuple[Matrix, Matrix]:
        """Mean and covariance."""
        mean = self.sum / self.count
        return mean, self.products / self.count - np.outer(mean, mean)

    def __add__(self, other: "_Moments") -> "_Moments":
        total = _Moments()
        total.count, total.sum = self.count + other.count, self.sum + other.sum
        total.products = self.products + other.products
        return total


class FeatureDistance:
    """Frechet distance of generated to real imagery, beside that of real to real imagery.

    Blocks of ground fall into groups. Half of the groups, generated and real, stands against the real other half: both
    distances are between equally many features of the same two places, so that their ratio means something.

    Args:
        judge: Whose encoder sees the imagery.
        blocks: The block of each chip that will come.
    """

    def __init__(self, judge: Translator, blocks: Sequence[str]) -> None:
        self._encode = judge.card.source.encode
        self._network = judge.generator.get_submodule("network.encoder")
        self._device, self._stride = judge.device, judge.card.stride
        names = sorted(set(blocks))
        order = np.random.default_rng(0).permutation(len(names)) % GROUPS
        self._count = min(GROUPS, len(names))
        self._groups = dict(zip(names, order.tolist(), strict=True))
        self._moments: dict[str | None, list[_Moments]] = {}

    def add(self, name: str | None, values: Array, valid: Mask, block: str) -> None:
        """Take in the imagery (bands, rows, cols) of a chip under the name of its predictor; None is the truth."""
        moments = self._moments.setdefault(name, [_Moments() for _ in range(self._count)])
        moments[self._groups[block]].add(self._features(values, valid))

    def distance(self, name: str) -> dict[str, Any]:
        """Mean distances over seeded halves.

        Returns:
            `generated` and `real` (the floor), None with a `reason`; `features`, how many the smallest half has;
            `interval`, 95 % of `generated` by the jackknife over groups, None with fewer than four, or
            with too few features without one of them.
        """
        found: dict[str, Any] = {"generated": None, "real": None, "features": 0, "reason": None, "interval": None}
        if self._count < 2:
            return found | {"reason": "the chips lie in one block of ground"}
        everything = list(range(self._count))
        found["features"] = least = min(self._least(name, everything), self._least(None, everything))
        channels = len(self._moments[None][0].sum)
        if least <= channels:
            why = f"half of the chips gives {least} features of {channels} numbers each; more are needed"
            return found | {"reason": why}
        generated = self._over(name, everything)
        subsets = [everything[:out] + everything[out + 1 :] for out in everything]
        fewest = min(self._least(side, rest) for rest in subsets for side in (name, None))
        if self._count in T95 and fewest > channels:
            left_out = [self._over(name, rest) for rest in subsets]
            error = T95[self._count] * np.sqrt((self._count - 1) * np.var(left_out))
            found["interval"] = [max(0.0, generated - error), generated + error]
        return found | {"generated": generated, "real": self._over(None, everything)}

    def _halves(self, groups: Sequence[int]) -> list[tuple[list[int], list[int]]]:
        """Groups cut into halves in several ways."""
        generator, middle = np.random.default_rng(0), len(groups) // 2
        orders = [generator.permutation(groups).tolist() for _ in range(HALVINGS)]
        pairs = [(order[:middle], order[middle:]) for order in orders]
        return [pair for here, there in pairs for pair in ((here, there), (there, here))]

    def _least(self, name: str | None, groups: Sequence[int]) -> int:
        """Fewest features that a half has."""
        return min(sum(self._moments[name][group].count for group in half) for half, _ in self._halves(groups))

    def _over(self, name: str | None, groups: Sequence[int]) -> float:
        """Mean distance of some groups to real ones."""
        made, real = self._moments[name], self._moments[None]
        found = []
        for here, there in self._halves(groups):
            mine = sum((made[group] for group in here), _Moments())
            other = sum((real[group] for group in there), _Moments())
            found.append(frechet(mine.gaussian(), other.gaussian()))
        return float(np.mean(found))

    def _features(self, values: Array, valid: Mask) -> Matrix:
        """Features (places, channels) of places without a hole."""
        room = -valid.shape[-1] % self._stride
        image = torch.from_numpy(self._encode(values, valid))[None]
        image = functional.pad(image, (0, room, 0, room)).to(self._device)
        with torch.inference_mode():
            level = _level(self._network, image)
        cell = image.shape[-1] // level.shape[-1]
        holes = functional.pad(torch.from_numpy(~valid).float()[None, None], (0, room, 0, room), value=1.0)
        whole = functional.max_pool2d(holes, cell)[0, 0] == 0
        features: Matrix = level[0].cpu().double()[:, whole].T.numpy()
        return features


def _level(encoder: nn.Module, image: Tensor) -> Tensor:
    """The features of the coarsest level of a stride of at most 16."""
    levels: list[Tensor] = encoder(image)
    return [level for level in levels if level.shape[-1] * STRIDE >= image.shape[-1]][-1]


def frechet(first: tuple[Matrix, Matrix], second: tuple[Matrix, Matrix]) -> float:
    """Squared Frechet distance of two normal distributions, each (mean, covariance)."""
    (mean_1, spread_1), (mean_2, spread_2) = first, second
    values, vectors = np.linalg.eigh(spread_1)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    common = np.sqrt(np.linalg.eigvalsh(root @ spread_2 @ root).clip(min=0)).sum()
    return float(np.square(mean_1 - mean_2).sum() + np.trace(spread_1) + np.trace(spread_2) - 2 * common)
