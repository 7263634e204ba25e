"""Masked scores, summed in float64 over any number of chips or windows, and their intervals over blocks of ground."""

from geop2p.metrics.blocks import BlockScores
from geop2p.metrics.classes import ClassScores
from geop2p.metrics.images import ImageScores
from geop2p.raster.encoding import Encoding

__all__ = [
    "IN_UNITS",
    "BlockScores",
    "ClassScores",
    "ImageScores",
    "Scores",
    "error_unit",
    "scores_for",
]

Scores = ImageScores | ClassScores
IN_UNITS = ("l1", "rmse")  # scores in the unit of the target, see `error_unit`


def scores_for(encoding: Encoding, full: bool = False) -> Scores:
    """The scores that fit what the target holds; see the classes for what `full` adds."""
    return ClassScores(encoding, full) if encoding.is_classes else ImageScores(encoding, full)


def error_unit(encoding: Encoding) -> str | None:
    """What L1 and RMSE are told in: dB, metres, what the bands name, else DN; None for classes."""
    if encoding.is_classes:
        return None
    if encoding.kind == "sar":
        return "dB"
    named = {band.unit for band in encoding.bands}
    if len(named) > 1:
        return "units of the bands"
    if encoding.kind == "elevation":
        return named.pop() or "m"
    return named.pop() or ("DN" if all(band.scale == 1 for band in encoding.bands) else "scaled values")
