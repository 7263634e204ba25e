"""Rule 5 for every loss: ground without data changes no loss and no gradient by a bit."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CLASSES, image_encoding
from torch import Tensor

from geop2p.config import TrainConfig
from geop2p.models.layers import init_weights
from geop2p.models.patchgan import MultiScale
from geop2p.models.perceptual import TAP_WEIGHTS, VGGFeatures
from geop2p.models.unet import UNet
from geop2p.raster.encoding import Band, Encoding
from geop2p.training.data import Batch
from geop2p.training.networks import Networks
from geop2p.training.objectives import (
    adversarial,
    feature_matching,
    fill,
    gradient_penalty,
    masked_charbonnier,
    masked_cross_entropy,
    masked_dice,
    masked_l1,
    perceptual_loss,
)
from geop2p.training.recipes import Recipe
from geop2p.training.step import TrainingStep
from geop2p.translator import Card

SIDE = 32
LOSSES = ("bce", "lsgan", "hinge")

RECIPES = {
    "pix2pix": Recipe(),
    "everything": Recipe(
        norm="batch",
        scales=2,
        patch=34,
        spectral_norm=True,
        adversarial="hinge",
        pixel_loss="charbonnier",
        feature_weight=10,
        r1_weight=1,
        ema=0.9,
    ),
    "unconditional": Recipe(conditional=False, adversarial="lsgan", patch=16, pixel_weight=0, r1_weight=1),
    "batch norm": Recipe(norm="batch", discriminator_norm="batch", patch=34),
    "pixels": Recipe(patch=1, feature_weight=1, discriminator_norm="none"),
    "no adversary": Recipe(adversarial="none"),
}


def networks(recipe: Recipe, target: Encoding) -> Networks:
    torch.manual_seed(0)
    source = image_encoding(bands=2)
    generator = UNet(
        2, target.channels, downs=4, width=4, norm=recipe.norm, head="logits" if target.is_classes else "tanh"
    )
    init_weights(generator, 0.1)
    discriminator = None
    if recipe.adversarial != "none" and not target.is_classes:
        discriminator = MultiScale(
            target.channels + 2 * recipe.conditional,
            recipe.patch,
            recipe.scales,
            4,
            recipe.discriminator_norm,
            recipe.spectral_norm,
        )
        init_weights(discriminator, 0.1)
    card = Card("unet", {}, source, target, None, SIDE, 16, 45, "none", "pix2pix", {})
    return Networks(generator, discriminator, card, torch.device("cpu"))


def batch(target: Tensor) -> Batch:
    draw = torch.Generator().manual_seed(1)
    valid = (torch.rand(2, 1, SIDE, SIDE, generator=draw) > 0.2).float()
    valid[0, :, :, :20] = 0
    return Batch(torch.randn(2, 2, SIDE, SIDE, generator=draw) * valid, target, valid)


def weights_after(recipe: Recipe, target: Encoding, values: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
    made = networks(recipe, target)
    step = TrainingStep(made, recipe, TrainConfig(recipe="pix2pix", lr=1e-2, precision="fp32", device="cpu"), 10)
    losses = [step(batch(values), number) for number in range(2)]
    parts = [made.generator, step.result] + ([] if made.discriminator is None else [made.discriminator])
    state = {f"{index}.{name}": one for index, part in enumerate(parts) for name, one in part.state_dict().items()}
    return state, [one for entry in losses for one in entry.values()]


def check_blind(recipe: Recipe, target: Encoding, values: Tensor, junk: Tensor) -> None:
    hidden = torch.where(batch(values).valid > 0, values, junk)
    first, losses = weights_after(recipe, target, values)
    second, other_losses = weights_after(recipe, target, hidden)
    assert all(torch.equal(one, two) for one, two in zip(losses, other_losses, strict=True))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(one.isfinite() for one in losses)
    seen = torch.where(batch(values).valid > 0, junk.nan_to_num(0.5), values)
    third, _ = weights_after(recipe, target, seen)
    assert not all(torch.equal(first[name], third[name]) for name in first)  # the test can fail


@pytest.mark.parametrize("name", RECIPES)
def test_target_values_under_the_mask_change_no_step(name: str) -> None:
    values = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2)) * 2 - 1
    junk = -values
    junk[..., ::3] = torch.nan
    check_blind(RECIPES[name], image_encoding(bands=3), values, junk)


def test_perceptual_loss_is_blind_under_the_mask() -> None:
    torch.manual_seed(0)
    network = VGGFeatures().eval().requires_grad_(False)
    valid = batch(torch.zeros(2, 3, SIDE, SIDE)).valid
    real, junk = torch.rand(2, 3, SIDE, SIDE) * 2 - 1, torch.rand(2, 3, SIDE, SIDE) * 2 - 1
    found = []
    for values in (real, torch.where(valid > 0, real, junk), junk):
        fake = torch.zeros(2, 3, SIDE, SIDE, requires_grad=True)
        features = network(fill(fake, valid)), network(fill(values, valid))
        loss = perceptual_loss(*features, TAP_WEIGHTS, valid)
        loss.backward()
        found.append((loss.detach(), fake.grad))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
    assert not torch.equal(found[0][0], found[2][0])
    assert not found[0][1][(valid == 0).expand(2, 3, SIDE, SIDE)].any()


def test_classes_under_the_mask_change_no_step() -> None:
    target = Encoding("classes", "uint8", (Band(),), classes=CLASSES)
    codes = torch.randint(0, 3, (2, SIDE, SIDE), generator=torch.Generator().manual_seed(2))
    values, junk = (torch.nn.functional.one_hot(one, 3).permute(0, 3, 1, 2).float() for one in (codes, 2 - codes))
    check_blind(Recipe(dice_weight=1.0, norm="batch"), target, values, junk)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_patch_weighs_by_its_share_of_valid_pixels(loss: Any) -> None:
    logits = torch.tensor([[[[0.5, -30.0]]]])
    valid = torch.zeros(1, 1, 4, 8)
    valid[..., :4] = 1
    alone = adversarial(logits[..., :1], True, torch.ones(1, 1, 4, 4), loss)
    assert torch.equal(adversarial(logits, True, valid, loss), alone)
    valid[..., 4:6] = 1  # half of the second patch
    far = adversarial(logits[..., 1:], True, torch.ones(1, 1, 4, 4), loss)
    assert float(adversarial(logits, True, valid, loss)) == pytest.approx(float(2 * alone + far) / 3)
    assert float(adversarial(logits, True, torch.zeros(1, 1, 4, 8), loss)) == 0


@pytest.mark.parametrize(
    ("loss", "is_real", "convince", "expected"),
    [
        ("bce", True, False, 0.126928),
        ("bce", False, False, 2.126928),
        ("lsgan", True, False, 1.0),
        ("lsgan", False, False, 4.0),
        ("hinge", True, False, 0.0),
        ("hinge", False, False, 3.0),
        ("hinge", True, True, -2.0),
    ],
)
def test_values_of_the_adversarial_losses(loss: Any, is_real: bool, convince: bool, expected: float) -> None:
    value = adversarial(torch.full((1, 1, 2, 2), 2.0), is_real, torch.ones(1, 1, 8, 8), loss, convince)
    assert float(value) == pytest.approx(expected, abs=1e-5)


def test_charbonnier_is_l1_without_its_corner() -> None:
    fake, real, valid = torch.zeros(1, 2, 2, 2), torch.full((1, 2, 2, 2), 0.5), torch.ones(1, 1, 2, 2)
    assert float(masked_charbonnier(fake, real, valid)) == pytest.approx(0.5, abs=2e-3)
    same = torch.zeros(1, 2, 2, 2, requires_grad=True)
    masked_charbonnier(same, fake, valid).backward()
    assert same.grad is not None and not same.grad.any() and same.grad.isfinite().all()


def test_losses_have_the_values_of_their_definitions() -> None:
    """Written out with numpy, pixel by pixel, with holes and with pixels of no class."""
    draw = np.random.default_rng(0)
    fake, real = draw.normal(size=(2, 2, 3, 5, 4))
    valid = draw.random((2, 1, 5, 4)) < 0.6
    pairs = [(batch, row, col) for batch, row, col in np.argwhere(valid[:, 0])]
    differences = np.array([fake[b, :, r, c] - real[b, :, r, c] for b, r, c in pairs])
    tensors = [torch.from_numpy(side) for side in (fake, real, valid.astype(np.float64))]
    assert float(masked_l1(*tensors)) == pytest.approx(np.abs(differences).mean())
    curved = np.sqrt(differences**2 + 1e-6) - 1e-3
    assert float(masked_charbonnier(*tensors)) == pytest.approx(curved.mean())

    codes = draw.integers(0, 3, (2, 5, 4))
    one_hot = np.moveaxis(np.eye(3)[codes], -1, 1)
    one_hot[:, :, 0] = 0  # a row whose class is unknown
    known = [place for place in pairs if place[1] > 0]
    shares = np.exp(fake) / np.exp(fake).sum(axis=1, keepdims=True)
    entropy = np.mean([-np.log(shares[b, codes[b, r, c], r, c]) for b, r, c in known])
    tensors[1] = torch.from_numpy(one_hot)
    assert float(masked_cross_entropy(*tensors)) == pytest.approx(entropy)
    dice = []
    for code in range(3):
        given = np.array([shares[b, code, r, c] for b, r, c in known])
        truth = np.array([codes[b, r, c] == code for b, r, c in known])
        dice.append(1 - 2 * (given * truth).sum() / (given.sum() + truth.sum()))
    assert float(masked_dice(*tensors)) == pytest.approx(np.mean(dice))


def test_features_are_compared_layer_by_layer_in_each_scale() -> None:
    draw = torch.Generator().manual_seed(0)
    sides, valid = [[8, 4, 2], [4, 2, 1]], torch.ones(1, 1, 8, 8)
    fake, real = ([[torch.rand(1, 3, n, n, generator=draw) for n in scale] for scale in sides] for _ in range(2))
    layers = [
        [float((one - other).abs().mean()) for one, other in zip(*pair, strict=True)]
        for pair in zip(fake, real, strict=True)
    ]
    expected = np.mean([sum(scale[:-1]) for scale in layers])  # the last are the logits
    assert float(feature_matching(fake, real, valid)) == pytest.approx(expected)
    weighted = 2 * layers[0][0] + 3 * layers[0][1] + 5 * layers[0][2]
    assert float(perceptual_loss(fake[0], real[0], (2.0, 3.0, 5.0), valid)) == pytest.approx(weighted)
    valid[..., :4, :] = 0  # half of the ground: the lower rows of the features alone count
    half = [
        float((one - other).abs()[..., n // 2 :, :].mean())
        for one, other, n in zip(fake[0], real[0], sides[0], strict=True)
    ]
    assert float(feature_matching(fake[:1], real[:1], valid)) == pytest.approx(sum(half[:-1]))


def test_losses_over_valid_pixels_equal_losses_of_those_pixels_alone() -> None:
    draw = torch.Generator().manual_seed(0)
    fake, real = (torch.randn(2, 3, 8, 8, generator=draw) for _ in range(2))
    one_hot = torch.nn.functional.one_hot(real.argmax(1), 3).permute(0, 3, 1, 2).float()
    valid = torch.zeros(2, 1, 8, 8)
    valid[..., 2:6] = 1
    for loss in (masked_l1, masked_charbonnier, masked_cross_entropy, masked_dice):
        truth = one_hot if loss in (masked_cross_entropy, masked_dice) else real
        part = loss(fake[..., 2:6], truth[..., 2:6], valid[..., 2:6])
        assert float(loss(fake, truth, valid)) == pytest.approx(float(part), rel=1e-5)
        assert float(loss(fake, truth, torch.zeros_like(valid))) == 0


def test_dice_is_zero_for_the_truth_and_one_for_what_misses_it() -> None:
    codes = torch.randint(0, 2, (1, 8, 8), generator=torch.Generator().manual_seed(0))
    one_hot = torch.nn.functional.one_hot(codes, 3).permute(0, 3, 1, 2).float()  # the third class does not occur
    valid = torch.ones(1, 1, 8, 8)
    assert float(masked_dice(one_hot * 100, one_hot, valid)) == pytest.approx(0, abs=1e-6)
    assert float(masked_dice(one_hot.flip(1).roll(1, 1) * 100, one_hot, valid)) > 0.4
    third = torch.zeros_like(one_hot)
    third[:, 2] = 100
    assert float(masked_dice(third, one_hot, valid)) == pytest.approx(1, abs=1e-6)


def test_feature_matching_weighs_features_and_leaves_the_real_ones_alone() -> None:
    fake = [[torch.zeros(1, 2, 1, 2, requires_grad=True), torch.zeros(1, 1, 1, 1)]]
    real = [[torch.tensor([[[[1.0, 50.0]], [[3.0, 50.0]]]], requires_grad=True), torch.full((1, 1, 1, 1), 9.0)]]
    valid = torch.zeros(1, 1, 4, 8)
    valid[..., :4] = 1
    loss = feature_matching(fake, real, valid)
    assert float(loss.detach()) == 2  # logits and the patch without data are left out
    loss.backward()
    assert real[0][0].grad is None and not fake[0][0].grad[..., 1].any()  # type: ignore[index]


def test_the_gradient_penalty_of_a_linear_judge_is_half_its_squared_weights() -> None:
    weight = torch.tensor([3.0, 4.0], requires_grad=True)

    def judge(image: Tensor) -> list[list[Tensor]]:
        return [[(image * weight[:, None, None]).sum(dim=1, keepdim=True)]]

    valid = torch.ones(2, 1, 2, 2)
    valid[0, :, 0] = 0
    penalty = gradient_penalty(judge, torch.randn(2, 2, 2, 2), valid)
    assert float(penalty.detach()) == pytest.approx(25 * 6 / (2 * 2))  # six valid pixels, two images
    penalty.backward()
    assert weight.grad is not None and weight.grad.tolist() == pytest.approx([9.0, 12.0])


def test_r1_counts_every_few_steps_only() -> None:
    recipe = dataclasses.replace(RECIPES["unconditional"], r1_every=2)
    step = TrainingStep(
        networks(recipe, image_encoding(bands=3)), recipe, TrainConfig(recipe="pix2pix", device="cpu"), 10
    )
    losses = [step(batch(torch.rand(2, 3, SIDE, SIDE)), number) for number in range(4)]
    assert ["r1" in entry for entry in losses] == [True, False, True, False]
