"""One step: the discriminator's two answers in one pass, and number formats that the hardware has."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import image_encoding
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from geop2p.config import TrainConfig
from geop2p.models import hardware
from geop2p.models.hardware import has_fast_bf16, repeatable_convolutions
from geop2p.models.layers import Norm, init_weights
from geop2p.models.lpips import LPIPS
from geop2p.models.patchgan import MultiScale
from geop2p.models.perceptual import TAP_WEIGHTS, VGGFeatures
from geop2p.models.unet import UNet
from geop2p.training import step
from geop2p.training.data import Batch
from geop2p.training.exclusive import exclusive_training
from geop2p.training.hardware import prepare, uses_bf16
from geop2p.training.networks import Networks
from geop2p.training.objectives import (
    adversarial,
    feature_matching,
    fill,
    lpips_loss,
    masked_dice,
    masked_l1,
    perceptual_loss,
)
from geop2p.training.recipes import Recipe
from geop2p.training.step import TrainingStep
from geop2p.translator import Card

CPU = torch.device("cpu")
SIDE = 48


def made(
    norm: Norm, with_spectral_norm: bool, recipe: Recipe, *, total: int = 10, generator_norm: Norm = "instance"
) -> TrainingStep:
    torch.manual_seed(0)
    generator = UNet(2, 3, downs=4, width=4, norm=generator_norm, dropout=0)
    discriminator = MultiScale(5, 34, recipe.scales, 4, norm, with_spectral_norm)
    init_weights(generator)
    init_weights(discriminator, 0.1)
    encoding = image_encoding(bands=3)
    card = Card("unet", {}, image_encoding(bands=2), encoding, None, SIDE, 16, 45, "none", "pix2pix", {})
    config = TrainConfig(recipe="pix2pix", precision="fp32", device="cpu")
    return TrainingStep(Networks(generator, discriminator, card, CPU), recipe, config, total)


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


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(feature_weight=10, r1_weight=1.0, r1_every=1)])
def test_a_spectral_norm_is_computed_once_for_each_update(recipe: Recipe) -> None:
    """However often the discriminator looks; in float32, whatever the looks themselves are computed in."""
    one, in_autocast = made("none", True, recipe), list[bool]()
    one.uses_bf16 = True
    assert one.discriminator is not None
    norms = [part for part in one.discriminator.modules() if isinstance(part, ParametrizationList)]
    for norm in norms:
        norm[0].register_forward_hook(lambda *_: in_autocast.append(torch.is_autocast_enabled("cpu")))
    one(batch(), 0)
    assert in_autocast == [False] * (2 * len(norms)) and norms


def test_adams_moments_lie_in_memory_as_the_weights_do(tmp_path: Path) -> None:
    """A GPU trains with channels last and a processor does not; fused Adam does not ask how either lies."""
    gpu, cpu = (made("none", False, Recipe(), generator_norm="batch") for _ in range(2))
    assert gpu.discriminator is not None
    for network in (gpu.generator, gpu.discriminator):
        network.to(memory_format=torch.channels_last)
    gpu._layout = torch.channels_last
    gpu(batch(), 0)
    torch.save(gpu.state(), tmp_path / "state.pt")
    cpu.load_state(torch.load(tmp_path / "state.pt"))
    for name, optimizer in cpu.optimizers.items():
        for (weight, kept), there in zip(optimizer.state.items(), gpu.optimizers[name].state.values(), strict=True):
            assert kept["exp_avg"].stride() == kept["exp_avg_sq"].stride() == weight.stride()
            assert torch.equal(kept["exp_avg"], there["exp_avg"]) and kept["step"] == there["step"] == 1
    for one in (gpu, cpu):
        one(batch(), 1)
    for there, here in zip(gpu.generator.parameters(), cpu.generator.parameters(), strict=True):
        assert torch.allclose(there, here, atol=2e-5)  # a step moves a weight by 2e-4


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


def test_the_running_mean_of_the_weights_is_the_result() -> None:
    one = made("instance", False, Recipe(ema=0.5), generator_norm="batch")
    expected = [parameter.detach().clone() for parameter in one.generator.parameters()]
    for number, keep in ((0, 1 / 10), (1, 2 / 11), (8, 0.5), (9, 0.5)):  # shorter as long as the run is young
        one(batch(), number)
        now = list(one.generator.parameters())
        expected = [keep * before + (1 - keep) * after for before, after in zip(expected, now, strict=True)]
    kept, last = one.result.state_dict(), one.generator.state_dict()
    for (name, parameter), mean in zip(one.result.named_parameters(), expected, strict=True):
        assert torch.allclose(parameter, mean, rtol=1e-5, atol=1e-7), name
    apart = {name for name, _ in one.generator.named_parameters() if not torch.equal(kept[name], last[name])}
    assert any(name.endswith("weight") for name in apart)
    buffers = [name for name, _ in one.generator.named_buffers()]
    assert any(name.endswith("running_var") for name in buffers)
    assert all(torch.equal(kept[name], last[name]) for name in buffers)
    assert not one.result.training and one.generator.training


def test_without_a_running_mean_the_last_weights_are_the_result() -> None:
    one = made("instance", False, Recipe(ema=0))
    assert one.result is one.generator


def judged(one: TrainingStep, image: Tensor, data: Batch) -> list[list[Tensor]]:
    assert one.discriminator is not None
    answers: list[list[Tensor]] = one.discriminator(torch.cat([data.source, image], dim=1))
    return answers


def of_features(one: TrainingStep, fake: Tensor, data: Batch) -> Tensor:
    return feature_matching(judged(one, fake, data), judged(one, data.target, data), data.valid)


def of_vgg(one: TrainingStep, fake: Tensor, data: Batch) -> Tensor:
    assert one.vgg is not None
    return perceptual_loss(one.vgg(fake), one.vgg(data.target), TAP_WEIGHTS, data.valid)


def of_lpips(one: TrainingStep, fake: Tensor, data: Batch) -> Tensor:
    assert one.lpips is not None
    return lpips_loss(one.lpips(fake, data.target), data.valid)


def of_judging(one: TrainingStep, fake: Tensor, data: Batch) -> Tensor:
    sides = ((fake.detach(), False), (data.target, True))
    answers = [adversarial(judged(one, image, data)[0][-1], is_real, data.valid) for image, is_real in sides]
    return answers[0] + answers[1]


TERMS: dict[str, Callable[[TrainingStep, Tensor, Batch], Tensor]] = {
    "pixel_weight": lambda _, fake, data: masked_l1(fake, data.target, data.valid),
    "feature_weight": of_features,
    "perceptual_weight": of_vgg,
    "lpips_weight": of_lpips,
    "dice_weight": lambda _, logits, data: masked_dice(logits, data.target, data.valid),
    "discriminator_weight": of_judging,
}
FILES = {"perceptual_weight": ("perceptual_file",), "lpips_weight": ("lpips_file", "lpips_heads")}


def weighed(name: str, weight: float) -> TrainingStep:
    """With one weight as given, and the networks that its term asks."""
    changes = dict.fromkeys(FILES.get(name, ()) if weight else (), "given") | {name: weight}
    one = made("instance", False, Recipe(**{"pixel_weight": 1.0} | changes))  # type: ignore[arg-type]
    one.makes_classes = name == "dice_weight"
    if name == "perceptual_weight":
        one.vgg = VGGFeatures().requires_grad_(False)
    if name == "lpips_weight":
        one.lpips = LPIPS().requires_grad_(False)
        for head in one.lpips.heads:
            head.fill_(0.1)
    return one


@pytest.mark.parametrize("name", TERMS)
def test_a_term_counts_as_often_as_its_weight_says(name: str) -> None:
    data = batch()
    if name == "dice_weight":
        codes = torch.randint(0, 3, (2, SIDE, SIDE), generator=torch.Generator().manual_seed(2))
        data = Batch(data.source, nn.functional.one_hot(codes, 3).permute(0, 3, 1, 2).float(), data.valid)
    network = "discriminator" if name == "discriminator_weight" else "generator"
    found = {}
    for weight in (0.0, 3.0):
        one = weighed(name, weight)
        one(data, 0)
        found[weight] = [parameter.grad.clone() for parameter in getattr(one, network).parameters()]
    fresh = weighed(name, 3.0)
    if network == "generator":
        fresh.discriminator.load_state_dict(one.discriminator.state_dict())  # type: ignore[union-attr]
    output = fresh.generator(data.source)
    TERMS[name](fresh, output if fresh.makes_classes else fill(output, data.valid), data).backward()
    term = [parameter.grad for parameter in getattr(fresh, network).parameters()]
    largest = max(float(gradient.abs().max()) for gradient in term)
    assert largest > 1e-5
    for with_it, without, gradient in zip(found[3.0], found[0.0], term, strict=True):
        assert torch.allclose(with_it - without, 3 * gradient, rtol=1e-3, atol=1e-3 * largest)


@pytest.mark.parametrize(("number", "share"), [(0, 1.0), (10, 1.0), (15, 0.5), (19, 0.1)])
def test_the_learning_rate_falls_over_the_second_half(number: int, share: float) -> None:
    """Adam's first step moves a weight by the rate, whatever the gradient."""
    one = made("instance", False, Recipe(discriminator_lr=4.0), total=20)
    networks = {"optimizer_g": (one.generator, 2e-4), "optimizer_d": (one.discriminator, 8e-4)}
    before = {name: copy.deepcopy(network) for name, (network, _) in networks.items()}
    one(batch(), number)
    for name, (network, rate) in networks.items():
        assert network is not None and before[name] is not None
        assert one.optimizers[name].param_groups[0]["lr"] == pytest.approx(share * rate)
        pairs = zip(network.parameters(), before[name].parameters(), strict=True)  # type: ignore[union-attr]
        moved = max(float((now - then).detach().abs().max()) for now, then in pairs)
        assert moved == pytest.approx(share * rate, rel=1e-2)


@pytest.fixture
def flags() -> Iterator[None]:
    """Puts back what a training sets for the whole process."""
    cudnn = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark
    torch.set_float32_matmul_precision("highest")
    cudnn.allow_tf32 = cudnn.benchmark = False
    yield
    torch.set_float32_matmul_precision(before[0])
    cudnn.allow_tf32, cudnn.benchmark = before[1:]


@pytest.mark.parametrize("norm", ["batch", "none", "instance", "group"])
def test_a_gpu_computes_in_tf32_and_channels_come_last_where_the_norm_keeps_it(norm: Norm, flags: None) -> None:
    layout = torch.channels_last if norm in ("batch", "none") else torch.contiguous_format
    plain, normed = (MultiScale(5, 34, 1, 4, kind, False) for kind in ("none", norm))
    networks: list[nn.Module] = [plain, normed]  # one norm that does not keep it is enough
    assert prepare(torch.device("cuda"), networks) == layout
    weights = [one for network in networks for one in network.parameters() if one.dim() == 4 and one.shape[0] > 1]
    assert weights and all(one.is_contiguous(memory_format=layout) for one in weights)
    assert not any(one.is_contiguous() for one in weights) or layout == torch.contiguous_format
    assert torch.backends.cudnn.allow_tf32 and torch.backends.cudnn.benchmark
    assert torch.get_float32_matmul_precision() == "high"


def test_a_training_gives_back_how_float32_is_multiplied(flags: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def formats() -> tuple[bool, bool, str]:
        return torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()

    with exclusive_training():
        prepare(torch.device("cuda"), [])
        assert formats() == (True, True, "high")
    assert formats() == (False, False, "highest")

    def unreadable() -> str:
        raise RuntimeError("mix of the legacy and new APIs")  # as where fp32_precision was set

    monkeypatch.setattr(torch, "get_float32_matmul_precision", unreadable)
    with exclusive_training():
        prepare(torch.device("cuda"), [])
        assert not torch.backends.cudnn.allow_tf32 and torch.backends.cudnn.benchmark
    with repeatable_convolutions(tf32=True):
        assert not torch.backends.cudnn.allow_tf32  # they are the caller's


def test_a_cpu_is_left_as_it_is(flags: None) -> None:
    prepare(CPU, [MultiScale(5, 34, 1, 4, "batch", False)])
    assert not torch.backends.cudnn.allow_tf32 and torch.get_float32_matmul_precision() == "highest"


def test_batches_have_the_layout_of_the_networks() -> None:
    one = made("batch", False, Recipe(), generator_norm="batch")
    one._layout = torch.channels_last
    seen: list[Tensor] = []
    one.generator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    one(batch(), 0)
    assert [image.is_contiguous(memory_format=torch.channels_last) for image in seen] == [True]
