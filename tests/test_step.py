"""One step: the discriminator's two answers in one pass, and number formats that the hardware has."""

import copy
from pathlib import Path

import pytest
import torch
from conftest import image_encoding
from torch import Tensor, nn

from geop2p.config import TrainConfig
from geop2p.models import hardware
from geop2p.models.hardware import has_fast_bf16
from geop2p.models.layers import Norm, init_weights
from geop2p.models.patchgan import MultiScale
from geop2p.models.unet import UNet
from geop2p.training import step
from geop2p.training.data import Batch
from geop2p.training.hardware import uses_bf16
from geop2p.training.networks import Networks
from geop2p.training.recipes import Recipe
from geop2p.training.step import TrainingStep
from geop2p.translator import Card

CPU = torch.device("cpu")
SIDE = 48


def made(norm: Norm, with_spectral_norm: bool, recipe: Recipe) -> TrainingStep:
    torch.manual_seed(0)
    generator = UNet(2, 3, downs=4, width=4, dropout=0)
    discriminator = MultiScale(5, 34, recipe.scales, 4, norm, with_spectral_norm)
    init_weights(generator)
    init_weights(discriminator, 0.1)
    encoding = image_encoding(bands=3)
    card = Card("unet", {}, image_encoding(bands=2), encoding, None, SIDE, 16, 45, "none", "pix2pix", {})
    config = TrainConfig(recipe="pix2pix", precision="fp32", device="cpu")
    return TrainingStep(Networks(generator, discriminator, card, CPU), recipe, config, 10)


def batch() -> Batch:
    draw = torch.Generator().manual_seed(1)
    valid = (torch.rand(2, 1, SIDE, SIDE, generator=draw) > 0.2).float()
    source, target = (torch.randn(2, bands, SIDE, SIDE, generator=draw).clamp(-1, 1) * valid for bands in (2, 3))
    return Batch(source, target, valid)


def gradients(one: TrainingStep) -> list[Tensor]:
    """Of the discriminator, and its loss, in one step."""
    losses = one(batch(), 0)
    assert one.discriminator is not None
    return [losses["d"], *(parameter.grad.clone() for parameter in one.discriminator.parameters())]


def assert_close(found: list[Tensor], expected: list[Tensor]) -> None:
    """To 1e-5 of the largest gradient: a bias before an instance norm has none but rounding."""
    largest = max(float(one.abs().max()) for one in expected[1:])
    for one, two in zip(found, expected, strict=True):
        assert torch.allclose(one, two, rtol=1e-5, atol=1e-5 * largest)


@pytest.mark.parametrize("norm", ["instance", "group", "none"])
@pytest.mark.parametrize("recipe", [Recipe(), Recipe(adversarial="hinge", scales=2, r1_weight=1.0, r1_every=1)])
def test_one_pass_over_real_and_fake_learns_what_two_do(norm: Norm, recipe: Recipe) -> None:
    together, apart = made(norm, False, recipe), made(norm, False, recipe)
    assert not together.judges_together  # a CPU gains nothing from it
    together.judges_together = True
    assert_close(gradients(together), gradients(apart))


def test_one_pass_under_spectral_norm_learns_what_two_do() -> None:
    """Each pass improves the estimate of the norm, so the two ways agree once it has settled."""
    together = made("instance", True, Recipe())
    assert together.discriminator is not None
    with torch.no_grad():
        for _ in range(300):
            for module in together.discriminator.modules():
                _ = module.weight if isinstance(module, nn.Conv2d) else None
    apart = made("instance", True, Recipe())
    apart.discriminator.load_state_dict(together.discriminator.state_dict())  # type: ignore[union-attr]
    together.judges_together = True
    assert_close(gradients(together), gradients(apart))


def test_batch_norm_keeps_real_and_fake_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    made_on: list[bool] = []
    for norm in ("batch", "instance"):
        one = made(norm, False, Recipe())  # type: ignore[arg-type]
        monkeypatch.setattr(one, "device", torch.device("cuda"))
        made_on.append(one.may_judge_together())
    assert made_on == [False, True]


def test_bf16_is_used_where_the_processor_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for flags, fast in (("fma avx512f avx512_vnni", False), ("avx512f avx512_bf16", True), ("amx_tile amx_bf16", True)):
        file = tmp_path / "cpuinfo"
        file.write_text(f"processor\t: 0\nmodel name\t: avx512_bf16\nflags\t\t: {flags}\n\nprocessor\t: 1\n")
        monkeypatch.setattr(hardware, "CPU_FLAGS", file)
        assert has_fast_bf16(CPU) == uses_bf16("auto", CPU) == fast
        assert uses_bf16("bf16", CPU) and not uses_bf16("fp32", CPU)
    monkeypatch.setattr(hardware, "CPU_FLAGS", tmp_path / "missing")  # another system than Linux
    assert not has_fast_bf16(CPU) and not has_fast_bf16(torch.device("mps"))


def test_bf16_learns_about_what_fp32_does() -> None:
    found = []
    for precision in ("fp32", "bf16"):
        one = made("instance", False, Recipe(pixel_weight=10.0))
        one.uses_bf16 = precision == "bf16"
        found.append([one(batch(), number)["l1"] for number in range(4)])
    assert found[0] != found[1]
    assert torch.allclose(torch.stack(found[0]), torch.stack(found[1]), rtol=0.02)


@pytest.mark.parametrize("every", [2, 5])
def test_a_penalty_of_every_few_steps_weighs_as_often(every: int) -> None:
    def of(**changes: float) -> list[Tensor]:
        return gradients(made("instance", False, Recipe(**changes)))  # type: ignore[arg-type]

    without, always, seldom = of(), of(r1_weight=0.5, r1_every=1), of(r1_weight=0.5, r1_every=every)
    penalties = [one - none for one, none in zip(always, without, strict=True)]
    assert max(float(one.abs().max()) for one in penalties) > 1e-3
    assert_close(seldom, [none + every * one for none, one in zip(without, penalties, strict=True)])


def test_the_discriminator_stands_still_while_the_generator_learns() -> None:
    one = made("instance", False, Recipe(feature_weight=1.0))
    assert one.discriminator is not None
    seen: list[tuple[bool, set[bool]]] = []

    def look(module: nn.Module, inputs: tuple[Tensor]) -> None:
        seen.append((inputs[0].requires_grad, {parameter.requires_grad for parameter in module.parameters()}))

    one.discriminator.register_forward_pre_hook(look)
    for number in range(2):
        one(batch(), number)
    learns, translated, compared = (False, {True}), (True, {False}), (False, {False})
    assert seen == [learns, learns, translated, compared] * 2


def test_both_networks_are_synchronised_by_the_chips_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[nn.Module, int, torch.device]] = []
    monkeypatch.setattr(step, "synchronised", lambda *arguments: asked.append(arguments) or arguments[0])
    one = made("batch", False, Recipe(batch_size=6))
    assert asked == [(one.generator, 6, CPU), (one.discriminator, 6, CPU)]


def test_adam_is_fused_and_moves_at_the_rates_of_the_recipe() -> None:
    one = made("instance", False, Recipe(betas=(0.3, 0.9), discriminator_lr=4.0))
    assert set(one.optimizers) == {"optimizer_g", "optimizer_d"}
    one(batch(), 0)
    for name, rate in (("optimizer_g", 2e-4), ("optimizer_d", 8e-4)):
        settings = one.optimizers[name].param_groups[0]
        assert type(one.optimizers[name]) is torch.optim.Adam
        assert settings["fused"] is True and settings["betas"] == (0.3, 0.9) and settings["lr"] == pytest.approx(rate)


def test_a_step_leaves_layout_and_batch_as_they_are() -> None:
    one, data = made("instance", False, Recipe()), batch()
    before = copy.deepcopy(data)
    one(data, 0)
    assert all(torch.equal(now, then) for now, then in zip(vars(data).values(), vars(before).values(), strict=True))
    assert step.prepare(CPU, [one.generator]) == torch.contiguous_format
