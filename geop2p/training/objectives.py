"""Losses that do not see ground without data.

Every loss takes `valid`, (batch, 1, rows, cols) of 0 and 1, and is a mean over valid pixels only, 0 without any.
Networks see 0 where a pixel is not valid, in real and fake alike; what a discriminator finds in a patch weighs by the
patch's share of valid pixels.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from geop2p.training.distributed import divisor, summed

PixelLoss = Literal["l1", "charbonnier"]
AdversarialLoss = Literal["bce", "lsgan", "hinge"]

CHARBONNIER = 1e-3  # where the loss turns from a parabola to a line, on the scale of the encoding


def masked_l1(fake: Tensor, real: Tensor, valid: Tensor) -> Tensor:
    """Mean absolute difference over valid pixels and all channels."""
    difference = torch.where(valid > 0, fake - real, 0).abs()
    return difference.sum() / (divisor(valid.sum(), 1) * fake.shape[1])


def masked_charbonnier(fake: Tensor, real: Tensor, valid: Tensor) -> Tensor:
    """Mean of sqrt(d^2 + e^2) - e over valid pixels and channels: L1 without its corner (Charbonnier et al., 1994)."""
    difference = torch.where(valid > 0, fake - real, 0)
    loss = torch.sqrt(difference**2 + CHARBONNIER**2) - CHARBONNIER
    return loss.sum() / (divisor(valid.sum(), 1) * fake.shape[1])


def masked_cross_entropy(logits: Tensor, one_hot: Tensor, valid: Tensor) -> Tensor:
    """Mean cross entropy over valid pixels whose class is known (their one-hot vector is not all zero)."""
    known = valid[:, 0] * one_hot.sum(dim=1)
    losses = functional.cross_entropy(logits, one_hot.argmax(dim=1), reduction="none")
    return torch.where(known > 0, losses, 0).sum() / divisor(known.sum(), 1)


def masked_dice(logits: Tensor, one_hot: Tensor, valid: Tensor) -> Tensor:
    """1 - mean Dice of the batch's classes, over valid pixels whose class is known (V-Net, 3DV 2016)."""
    known = valid * one_hot.sum(dim=1, keepdim=True) > 0
    shares = torch.where(known, logits.softmax(dim=1), 0)
    truth = torch.where(known, one_hot, 0)
    both, either = (summed(one.sum(dim=(0, 2, 3))) for one in (shares * truth, shares + truth))
    occurs = summed(truth.sum(dim=(0, 2, 3))) > 0
    losses = torch.where(occurs, 1 - 2 * both / either.clamp(min=1e-6), 0)
    return losses.sum() / occurs.sum().clamp(min=1)


def patch_weights(valid: Tensor, logits: Tensor) -> Tensor:
    """Share of valid pixels (batch, 1, patch rows, patch cols) of the ground under each patch's answer or feature.

    The ground is cut into as many pieces as there are patches, which overlap less than what these see.

    Args:
        valid: (batch, 1, rows, cols) of 0 and 1.
        logits: (batch, channels, patch rows, patch cols).
    """
    sides = logits.shape[-2], logits.shape[-1]
    if valid.device.type == "mps":  # which pools to sides that divide the image's alone
        return functional.adaptive_avg_pool2d(valid.cpu(), sides).to(valid.device)
    return functional.adaptive_avg_pool2d(valid, sides)


def adversarial(
    logits: Tensor, is_real: bool, valid: Tensor, loss: AdversarialLoss = "bce", convince: bool = False
) -> Tensor:
    """Loss of patch logits against one answer, each patch weighed by its share of valid pixels.

    Args:
        logits: (batch, 1, patch rows, patch cols).
        is_real: The answer that is wanted.
        valid: (batch, 1, rows, cols) of 0 and 1.
        loss: bce: binary cross entropy; lsgan: squares (Mao et al., arXiv 1611.04076); hinge (Lim & Ye, arXiv
            1705.02894).
        convince: For the generator; the hinge is left out there.
    """
    weights = patch_weights(valid, logits)
    if loss == "bce":
        answer = torch.full_like(logits, float(is_real))
        losses = functional.binary_cross_entropy_with_logits(logits, answer, reduction="none")
    elif loss == "lsgan":
        losses = (logits - float(is_real)) ** 2
    else:
        signed = logits if is_real else -logits
        losses = -signed if convince else functional.relu(1 - signed)
    return (losses * weights).sum() / divisor(weights.sum(), 1e-6)


def feature_matching(fake: list[list[Tensor]], real: list[list[Tensor]], valid: Tensor) -> Tensor:
    """Mean absolute difference of a discriminator's features (pix2pixHD, arXiv 1711.11585, section 3.3).

    Args:
        fake: For each scale the features of its layers, logits last; those are left out.
        real: The same of real pairs; no gradient reaches them.
        valid: (batch, 1, rows, cols) of 0 and 1; a feature weighs by its share of valid pixels.

    Returns:
        Sum over the layers of a scale, mean over scales.
    """
    total = torch.zeros((), device=valid.device)
    for scale_fake, scale_real in zip(fake, real, strict=True):
        for one, other in zip(scale_fake[:-1], scale_real[:-1], strict=True):
            total = total + _difference(one, other.detach(), valid)
    return total / len(fake)


def perceptual_loss(fake: list[Tensor], real: list[Tensor], weights: tuple[float, ...], valid: Tensor) -> Tensor:
    """Weighted sum of the mean absolute differences of a fixed network's features (arXiv 1711.11585, section 3.3).

    Args:
        fake: Features of the layers.
        real: The same of real images.
        weights: Of the layers.
        valid: (batch, 1, rows, cols) of 0 and 1; a feature weighs by its share of valid pixels.
    """
    total = torch.zeros((), device=valid.device)
    for one, other, weight in zip(fake, real, weights, strict=True):
        total = total + weight * _difference(one, other.detach(), valid)
    return total


def lpips_loss(maps: list[Tensor], valid: Tensor) -> Tensor:
    """Sum of the mean differences of LPIPS's layers (arXiv 1801.03924, equation 1).

    Args:
        maps: (batch, 1, rows, cols) of the layers.
        valid: (batch, 1, rows, cols) of 0 and 1; a feature weighs by its share of valid pixels.
    """
    total = torch.zeros((), device=valid.device)
    for one in maps:
        weights = patch_weights(valid, one)
        total = total + (one.float() * weights).sum() / divisor(weights.sum(), 1e-6)
    return total


def _difference(one: Tensor, other: Tensor, valid: Tensor) -> Tensor:
    weights = patch_weights(valid, one)
    difference = (one.float() - other.float()).abs() * weights
    return difference.sum() / (divisor(weights.sum(), 1e-6) * one.shape[1])


def gradient_penalty(judge: Callable[[Tensor], list[list[Tensor]]], real: Tensor, valid: Tensor) -> Tensor:
    """R1: half the squared gradient of the logits of real images (Mescheder et al., ICML 2018, arXiv 1801.04406).

    Args:
        judge: From images to the features of the discriminator's scales, logits last.
        real: Real images, 0 where they are not valid.
        valid: (batch, 1, rows, cols) of 0 and 1; logits weigh by it, and only its pixels' gradients count.

    Returns:
        Mean of half the sum over valid pixels, over the images that have any.
    """
    image = real.detach().requires_grad_(True)
    total = torch.zeros((), device=real.device)
    for scale in judge(image):
        logits = scale[-1].float()
        total = total + (logits * patch_weights(valid, logits)).sum()
    (gradient,) = torch.autograd.grad(total, image, create_graph=True)
    return torch.where(valid > 0, gradient, 0).square().sum() / (2 * divisor(valid.amax(dim=(1, 2, 3)).sum(), 1))


def fill(image: Tensor, valid: Tensor) -> Tensor:
    """The image with 0 where it is not valid."""
    return torch.where(valid > 0, image, 0)


PIXEL_LOSSES: dict[PixelLoss, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "l1": masked_l1,
    "charbonnier": masked_charbonnier,
}
