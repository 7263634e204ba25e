"""Scores of maps of classes."""

from typing import Any

import numpy as np

from geop2p.raster.class_table import class_titles
from geop2p.raster.encoding import Array, Encoding, Mask


class ClassScores:
    """Pixel accuracy, class accuracy (mean recall), mIoU and F1 (macro), from one confusion matrix.

    mIoU is the mean over classes of p_ii / (row_i + column_i - p_ii), F1 of 2 p_ii / (row_i + column_i), class accuracy
    of p_ii / row_i, all over the classes that occur in the real map: the same ones for every prediction of it.

    Args:
        encoding: The target's; ground of other codes than its classes is skipped, and predicting one is wrong.
        full: Whether the result shows the confusion matrix.

    Attributes:
        sums: All that was taken in: `confusion`, (classes, classes + 1), real classes by predicted ones; the last
            column counts predicted codes that are no class.
    """

    def __init__(self, encoding: Encoding, full: bool = False) -> None:
        self._codes = np.array([entry.value for entry in encoding.classes])
        self._names, self._full = class_titles(encoding.classes), full
        self.sums = {"confusion": np.zeros((len(self._codes), len(self._codes) + 1))}

    def add(self, predicted: Array, real: Array, valid: Mask) -> None:
        """Take in a pair of stored codes (1, rows, cols) and their valid pixels (rows, cols)."""
        known = valid & np.isin(real[0], self._codes)
        size = len(self._codes)
        rows, columns = (self._channels(side[0][known]) for side in (real, predicted))
        counts = np.bincount(rows * (size + 1) + columns, minlength=size * (size + 1))
        self.sums["confusion"] += counts.reshape(size, size + 1)

    def _channels(self, codes: Array) -> Array:
        """The class of each code, counted from 0; one more than the last for codes that are none."""
        order = np.argsort(self._codes)
        places = np.searchsorted(self._codes[order], codes).clip(max=len(order) - 1)
        found = order[places]
        return np.where(self._codes[found] == codes, found, len(order))

    def result(self) -> dict[str, Any]:
        """`accuracy`, `class_accuracy`, `miou`, `f1`, `pixels`, and per class of either map under `classes`.

        With `full` also `confusion`, real classes by predicted ones in the order of `confusion_classes`.
        """
        confusion = self.sums["confusion"]
        rows, total = confusion.sum(axis=1), int(confusion.sum())
        hits, columns = np.diag(confusion), confusion.sum(axis=0)[: len(rows)]
        if not total:
            return {"accuracy": None, "class_accuracy": None, "miou": None, "f1": None, "pixels": 0, "classes": {}}
        union = rows + columns - hits
        iou, recall = hits / np.maximum(union, 1), hits / np.maximum(rows, 1)
        f1 = 2 * hits / np.maximum(rows + columns, 1)
        occurs = union > 0
        result = {
            "accuracy": float(hits.sum() / total),
            "class_accuracy": float(recall[rows > 0].mean()),
            "miou": float(iou[rows > 0].mean()),
            "f1": float(f1[rows > 0].mean()),
            "pixels": total,
            "classes": {
                self._names[row]: {
                    "iou": float(iou[row]),
                    "f1": float(f1[row]),
                    "accuracy": float(recall[row]) if rows[row] else None,
                    "share": float(rows[row] / total),
                }
                for row in np.flatnonzero(occurs)
            },
        }
        if self._full:
            counts = confusion.astype(np.int64)
            other = [] if not counts[:, -1].any() else ["no class"]
            result["confusion_classes"] = self._names + other
            result["confusion"] = counts[:, : len(self._names) + len(other)].tolist()
        return result
