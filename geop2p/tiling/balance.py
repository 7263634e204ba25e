"""Weights of chips, so that rare classes are drawn oftener."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from geop2p.tiling.rows import share_columns
from geop2p.tiling.table import ChipTable, Column

TEMPER = 0.5  # 0: all chips alike, 1: every class equally often
MOST_WEIGHT = 10.0  # times the mean; a chip all of a very rare class would fill the epoch


def with_weights(index: ChipTable) -> ChipTable:
    """The index with the column `weight`."""
    return index.assign(weight=chip_weights(index.columns))


def chip_weights(index: Mapping[str, Column]) -> npt.NDArray[np.float64]:
    """How often a chip is to be drawn: mean 1 over the training chips, 1 for all others.

    A pixel of class c weighs 1 / sqrt(f_c), with f_c the share of the class on the valid ground of all training
    chips: square-root sampling, between what there is and every class alike (Mahajan et al. 2018, arXiv 1805.00932;
    Kang et al. 2020, arXiv 1910.09217). A chip weighs as much as its mean valid pixel, averaged over the sides
    that hold classes and capped at 10 times the mean chip. All are 1 where no side holds classes.

    Args:
        index: Columns split, valid and class shares of the chips.
    """
    is_train = np.asarray(index["split"]) == "train"
    weights = np.ones(len(is_train))
    sides = [_side_weights(index, is_train, side) for side in ("source", "target")]
    found = [values for values in sides if values is not None]
    if found:
        capped = np.minimum(np.mean(found, axis=0), MOST_WEIGHT)
        weights[is_train] = capped / capped.mean()
    return weights


def _side_weights(index: Mapping[str, Column], is_train: Column, side: str) -> npt.NDArray[np.float64] | None:
    """Weight of every training chip by the classes of one side, mean 1; None if it has none."""
    columns = [np.asarray(index[name]) for name in share_columns(index) if name.startswith(side)]
    shares = np.array(columns, np.float64).reshape(-1, len(is_train)).T[is_train]
    ground = np.asarray(index["valid"], np.float64)[is_train] @ shares
    if not ground.any():
        return None
    pixel = np.where(ground > 0, ground / ground.sum(), np.inf) ** -TEMPER
    values = np.asarray(shares @ pixel, np.float64)
    return np.asarray(values / values.mean())
