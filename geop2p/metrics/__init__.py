"""Masked scores, summed in float64 over any number of chips or windows, and their intervals over blocks of ground."""

from geop2p.metrics.blocks import BlockScores, bootstrap
from geop2p.metrics.classes import ClassScores
from geop2p.metrics.images import ImageScores
from geop2p.metrics.similarity import ms_ssim, ssim_map
from geop2p.raster.encoding import Encoding

__all__ = ["BlockScores", "ClassScores", "ImageScores", "Scores", "bootstrap", "ms_ssim", "scores_for", "ssim_map"]

Scores = ImageScores | ClassScores


def scores_for(encoding: Encoding, full: bool = False) -> Scores:
    """The scores that fit what the target holds; see the classes for what `full` adds."""
    return ClassScores(encoding, full) if encoding.is_classes else ImageScores(encoding, full)
