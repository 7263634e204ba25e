"""Losses that do not see ground without data.

Every loss takes `valid`, (batch, 1, rows, cols) of 0 and 1, and is a mean over valid pixels only, 0 without any.
Networks see 0 where a pixel is not valid, in real and fake alike.
"""

import torch
from torch import Tensor
from torch.nn import functional


def masked_l1(fake: Tensor, real: Tensor, valid: Tensor) -> Tensor:
    """Mean absolute difference over valid pixels and all channels."""
    difference = torch.where(valid > 0, fake - real, 0).abs()
    return difference.sum() / (valid.sum().clamp(min=1) * fake.shape[1])


def masked_cross_entropy(logits: Tensor, one_hot: Tensor, valid: Tensor) -> Tensor:
    """Mean cross entropy over valid pixels whose class is known (their one-hot vector is not all zero)."""
    known = valid[:, 0] * one_hot.sum(dim=1)
    losses = functional.cross_entropy(logits, one_hot.argmax(dim=1), reduction="none")
    return torch.where(known > 0, losses, 0).sum() / known.sum().clamp(min=1)


def adversarial(logits: Tensor, is_real: bool, valid: Tensor) -> Tensor:
    """Binary cross entropy of patch logits against one answer, each patch weighed by its share of valid pixels."""
    weights = functional.adaptive_avg_pool2d(valid, (logits.shape[-2], logits.shape[-1]))
    answer = torch.full_like(logits, float(is_real))
    losses = functional.binary_cross_entropy_with_logits(logits, answer, reduction="none")
    return (losses * weights).sum() / weights.sum().clamp(min=1e-6)


def fill(image: Tensor, valid: Tensor) -> Tensor:
    """The image with 0 where it is not valid."""
    return torch.where(valid > 0, image, 0)
