"""Recipes, what a user changes of them, and what each of their parts does in a training."""

import dataclasses
import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from conftest import grid, image_encoding, write_raster
from safetensors.torch import save_file
from torch import nn

from geop2p import TileConfig, TrainConfig, plan_training, tile, train
from geop2p.config import LossPreset, RecipeName
from geop2p.errors import CheckpointError, ConfigError
from geop2p.models.perceptual import VGGFeatures, load_vgg
from geop2p.models.unet import UNet
from geop2p.raster.encoding import Array
from geop2p.tiling.chips import ChipSet
from geop2p.training import loop, run_writer
from geop2p.training.augmentation import Augmentation, augmentation_of
from geop2p.training.calibration import estimate_statistics
from geop2p.training.data import Batch
from geop2p.training.feeding import encode_batch
from geop2p.training.history import read_metrics
from geop2p.training.networks import build_networks
from geop2p.training.recipes import RECIPES, recipe_of
from geop2p.training.systems import list_systems
from geop2p.translator import Translator, read_card

GEO = TrainConfig(recipe="pix2pix-geo", epochs=3, width=2, device="cpu", set=("statistics_chips=16",))

# The network, losses and optimiser of arXiv 1611.07004, as its PyTorch port has them, with instance norm.
PIX2PIX = {
    "generator": "unet",
    "norm": "instance",
    "dropout": 0.5,
    "up": "transposed",
    "padding": "zero",
    "downs": None,
    "skips": True,
    "discriminator": "patchgan",
    "patch": 70,
    "scales": 1,
    "conditional": True,
    "discriminator_norm": "instance",
    "spectral_norm": False,
    "adversarial": "bce",
    "pixel_loss": "l1",
    "pixel_weight": 100,
    "feature_weight": 0,
    "perceptual_weight": 0,
    "lpips_weight": 0,
    "dice_weight": 0,
    "r1_weight": 0,
    "discriminator_weight": 0.5,
    "discriminator_lr": 1,
    "betas": (0.5, 0.999),
    "batch_size": 1,
    "ema": 0,
    "jitter": 286 / 256,
    "flip": True,
    "d4": False,
}
PAPER = {"norm": "batch", "discriminator_norm": "batch"}
OURS = {
    "norm": "batch",
    "dropout": 0,
    "up": "resize",
    "padding": "reflect",
    "downs": 5,
    "scales": 2,
    "spectral_norm": True,
    "adversarial": "hinge",
    "pixel_weight": 50,
    "feature_weight": 3,
    "batch_size": 4,
    "ema": 0.999,
    "jitter": 1,
    "flip": False,
    "d4": True,
}


@pytest.fixture
def chips(pair: tuple[Path, Path], tmp_path: Path) -> Path:
    tile(*pair, tmp_path / "chips", TileConfig(size=64, min_valid=0.5))
    return tmp_path / "chips"


def test_every_named_recipe_is_there() -> None:
    assert set(RECIPES) == set(get_args(RecipeName))


@pytest.mark.parametrize(("name", "changes"), [("pix2pix", {}), ("pix2pix-paper", PAPER), ("pix2pix-geo", OURS)])
def test_the_constants_of_a_recipe_are_those_of_its_source(name: RecipeName, changes: dict[str, Any]) -> None:
    recipe = recipe_of(TrainConfig(recipe=name))
    expected = PIX2PIX | changes
    assert {field: getattr(recipe, field) for field in expected} == expected
    config = TrainConfig(recipe=name)
    assert (config.lr, config.epochs, config.width, config.batch_size) == (2e-4, 200, 64, None)


def test_a_chip_of_256_pixels_gets_the_network_of_the_paper(chips: Path) -> None:
    """Eight halvings to a single pixel, and a discriminator whose answers see 70 pixels of source and target."""
    chipset = dataclasses.replace(ChipSet.open(chips), size=256)
    networks = build_networks(chipset, TrainConfig(recipe="pix2pix", width=2, device="cpu"))
    assert networks.card.arguments["downs"] == 8 and networks.card.stride == 256
    assert networks.discriminator is not None
    (answers,) = networks.discriminator(torch.zeros(1, 6, 256, 256))
    assert answers[-1].shape == (1, 1, 30, 30)


def test_values_are_read_as_the_fields_are_annotated() -> None:
    config = TrainConfig(
        recipe="pix2pix",
        set=("pixel_weight=10", "betas=0, 0.99", "d4=true", "downs=none", "patch=142", "up=resize", "skips=false"),
    )
    recipe = recipe_of(config)
    assert (recipe.pixel_weight, recipe.betas, recipe.d4, recipe.downs) == (10.0, (0.0, 0.99), True, None)
    assert (recipe.patch, recipe.up, recipe.skips) == (142, "resize", False)
    assert recipe_of(TrainConfig(recipe="pix2pix", set=("encoder=vgg11", "generator=smp"))).encoder == "vgg11"
    assert recipe_of(TrainConfig(recipe="pix2pix", set=("pixel_weight=10", "pixel_weight=10.0"))).pixel_weight == 10
    assert recipe_of(TrainConfig(recipe="pix2pix-geo", downs=6, batch_size=2)).downs == 6
    untouched = RECIPES["pix2pix-geo"]
    assert recipe_of(TrainConfig(recipe="pix2pix-geo")) == untouched


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("lambda=10", r"set is 'lambda=10', expected KEY=VALUE with one of the keys adversarial, architecture, .*up"),
        ("pixel_weight", "set is 'pixel_weight', expected KEY=VALUE"),
        ("pixel_weight=much", "pixel_weight is 'much', expected a number"),
        ("pixel_weight=nan", "pixel_weight is nan, expected 0 to"),
        ("scales=1.5", "scales is '1.5', expected a whole number"),
        ("scales=0", "scales is 0, expected 1 to 4"),
        ("patch=71", "patch is '71', expected 1 or 16 or 34 or 70 or 142 or 286"),
        ("norm=layer", "norm is 'layer', expected instance or batch or group or none"),
        ("d4=yes", "d4 is 'yes', expected true or false"),
        ("betas=0.5", "betas is '0.5', expected a number,a number"),
        ("betas=0.5,1", "betas are"),
        ("batch_size=0", r"batch_size is 0, expected 1 to 1000000$"),
        ("width=8", "set is 'width=8', but width is no key of the recipe, it is an option; give --width"),
        ("best_by=l1", "give --best-by"),
        ("downs=few", "downs is 'few', expected a whole number or none"),
        ("encoder=vgg11", "encoder is for the generator smp, the generator is unet; leave it out"),
        ("adversarial=none", None),
    ],
)
def test_what_does_not_fit_is_refused(entry: str, message: str | None) -> None:
    if message is None:
        assert recipe_of(TrainConfig(recipe="pix2pix", set=(entry,))).adversarial == "none"
        with pytest.raises(ConfigError, match="feature_weight and r1_weight must be 0"):
            recipe_of(dataclasses.replace(GEO, set=(entry,)))
        return
    with pytest.raises(ConfigError, match=message):
        recipe_of(TrainConfig(recipe="pix2pix", set=(entry,)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"set": ("patch=16", "patch=34")}, "patch is set in two ways, by --set patch=16 and by --set patch=34; leave"),
        ({"set": ("batch_size=2",), "batch_size": 3}, "by --set batch_size=2 and by --batch-size 3"),
        ({"set": ("downs=none",), "downs": 3}, "by --set downs=none and by --downs 3"),
        ({"set": ("adversarial=none", "patch=16")}, "patch is for the discriminator, of which adversarial none"),
        ({"set": ("scales=2", "discriminator_lr=2"), "loss": "l1"}, "scales, discriminator_lr are for the discriminat"),
        ({"set": ("r1_every=4",)}, "r1_every is for the gradient penalty, whose r1_weight is 0; leave it out"),
        ({"set": ("pixel_loss=charbonnier",), "loss": "gan"}, "pixel_loss is for the difference of pixels, whose"),
        ({"set": ("statistics_chips=8",)}, "statistics_chips is for batch norm in the generator, its norm is instance"),
        ({"set": ("generator=resnet",), "downs": 3}, "downs is for the generator unet, the generator is resnet"),
        ({"set": ("adversarial=bce",), "loss": "l1"}, "adversarial is set in two ways, by --loss l1 and by --set adv"),
        ({"set": ("conditional=true",), "loss": "gan"}, "conditional is set in two ways, by --loss gan and by --set"),
        ({"set": ("feature_weight=1",), "loss": "cgan"}, "feature_weight is set in two ways, by --loss cgan and by"),
        (
            {"set": ("adversarial=none",), "loss": "l1+gan"},
            "--loss l1.gan has a term that --set adversarial=none takes",
        ),
        ({"set": ("adversarial=none",), "loss": "cgan"}, "--loss cgan has a term that --set adversarial=none takes"),
        ({"set": ("pixel_weight=0",), "loss": "l1+cgan"}, "--loss l1.cgan has a term that --set pixel_weight=0 takes"),
        ({"set": ("pixel_weight=0",), "loss": "l1"}, "--loss l1 has a term that --set pixel_weight=0 takes away"),
        ({"set": ("conditional=true", "pixel_weight=5"), "loss": "l1+cgan"}, None),  # the same, and what it leaves open
        ({"set": ("dropout=0.5",), "downs": 5}, r"dropout is for a U-Net that halves its input at least six times"),
        ({"set": ("dropout=0",), "downs": 5}, None),
        ({"set": ("dropout=0.3",), "downs": 6}, None),
        ({"set": ("dropout=0.3", "generator=resnet")}, None),
        ({"set": ("adversarial=none", "r1_weight=0", "feature_weight=0")}, None),  # what is off needs nothing
        ({"set": ("r1_every=4", "r1_weight=1", "norm=batch", "statistics_chips=8", "downs=3"), "downs": 3}, None),
    ],
)
def test_keys_without_effect_are_refused(changes: dict[str, Any], message: str | None) -> None:
    config = TrainConfig(recipe="pix2pix", **changes)
    if message is None:
        recipe_of(config)
        return
    with pytest.raises(ConfigError, match=message):
        recipe_of(config)


@pytest.mark.parametrize(
    ("entry", "is_map", "message"),
    [
        ("adversarial=none", True, "adversarial is for targets of imagery, the target is a map of classes, which is"),
        ("patch=16", True, "patch is for targets of imagery"),
        ("pixel_weight=3", True, "pixel_weight is for targets of imagery"),
        ("lpips_file=vgg.pth", True, "lpips_file is for targets of imagery"),
        ("feature_weight=0", True, None),
        ("dice_weight=1", False, "dice_weight is for maps of classes as targets, which this target is not; leave"),
        ("dice_weight=0", False, None),
    ],
)
def test_keys_that_the_target_has_no_use_for_are_refused(
    chips: Path, entry: str, is_map: bool, message: str | None
) -> None:
    chipset = ChipSet.open(chips)
    if is_map:
        chipset = dataclasses.replace(chipset, source=chipset.target, target=chipset.source)
    config = TrainConfig(recipe="pix2pix-geo", width=2, set=(entry,), device="cpu")
    if message is None:
        build_networks(chipset, config)
        return
    with pytest.raises(ConfigError, match=message):
        build_networks(chipset, config)


def test_epochs_and_steps_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="epochs and steps both say how long to train; leave one of them out"):
        TrainConfig(epochs=3, steps=7)


@pytest.mark.parametrize("recipe", get_args(RecipeName))
@pytest.mark.parametrize("loss", get_args(LossPreset))
def test_presets_are_the_terms_that_they_name(
    chips: Path, tmp_path: Path, recipe: RecipeName, loss: LossPreset
) -> None:
    few = ("statistics_chips=2",) if RECIPES[recipe].norm == "batch" else ()
    config = TrainConfig(recipe=recipe, steps=1, width=2, downs=3, loss=loss, device="cpu", set=few)
    train(chips, tmp_path / "run", config)
    logged = set(read_metrics(tmp_path / "run")[0]["losses"])
    assert logged == ({"l1"} if "l1" in loss else set()) | ({"gan", "d"} if "gan" in loss else set())
    networks = build_networks(ChipSet.open(chips), config)
    if "gan" in loss:
        channels = next(p for p in networks.discriminator.parameters() if p.ndim == 4).shape[1]  # type: ignore[union-attr]
        assert channels == (6 if "cgan" in loss else 3)
    assert read_card(tmp_path / "run").provenance["loss"] == loss


def test_changes_are_recorded_and_belong_to_the_run(chips: Path, tmp_path: Path) -> None:
    config = TrainConfig(
        recipe="pix2pix", steps=1, width=2, downs=3, set=("up=pixelshuffle", "norm=group"), device="cpu"
    )
    train(chips, tmp_path / "run", config)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["set"] == ["up=pixelshuffle", "norm=group"]
    card = read_card(tmp_path / "run")
    assert card.provenance["set"] == ["up=pixelshuffle", "norm=group"]
    assert card.arguments["up"] == "pixelshuffle" and card.statistics == "tile"
    assert train(chips, tmp_path / "run", config).steps == 1  # the same settings go on
    with pytest.raises(ConfigError, match="begun with other settings"):
        train(chips, tmp_path / "run", dataclasses.replace(config, set=("up=resize",)))


@pytest.mark.parametrize(
    ("config", "statistics", "stride", "field"),
    [
        (TrainConfig(recipe="pix2pix", downs=4), "tile", 16, 45),
        (TrainConfig(recipe="pix2pix-paper", downs=4), "none", 16, 45),
        (GEO, "none", 32, 93),
        (TrainConfig(recipe="pix2pix", downs=4, set=("norm=none",)), "none", 16, 45),
        (TrainConfig(recipe="pix2pix", downs=4, set=("norm=group",)), "tile", 16, 45),
        (TrainConfig(recipe="pix2pix", set=("generator=resnet", "blocks=6")), "tile", 4, 60),
        (TrainConfig(recipe="pix2pix", set=("generator=smp", "encoder=resnet18", "norm=batch")), "none", 32, 311),
    ],
)
def test_the_card_tells_statistics_stride_and_field(
    chips: Path, config: TrainConfig, statistics: str, stride: int, field: int
) -> None:
    card = build_networks(ChipSet.open(chips), dataclasses.replace(config, width=2, device="cpu")).card
    assert (card.statistics, card.stride, card.field) == (statistics, stride, field)


def test_the_card_of_a_training_tells_that_the_field_has_no_bound(chips: Path, tmp_path: Path) -> None:
    entries = ("generator=smp", "architecture=fpn", "encoder=resnet18", "norm=batch", "statistics_chips=2")
    train(chips, tmp_path / "run", TrainConfig(recipe="pix2pix", steps=1, width=2, device="cpu", set=entries))
    card = read_card(tmp_path / "run")
    assert (card.statistics, card.stride, card.field) == ("tile", 32, None)  # its decoder has group norms


def test_chips_that_do_not_fit_the_networks_are_refused(chips: Path) -> None:
    chipset = ChipSet.open(chips)
    for entries, message in (
        (
            ("patch=286",),
            "chips of 64 pixels are too small for a discriminator of 286 pixels at 1 scales, which needs 96",
        ),
        (("scales=4",), "needs 192"),
        (("generator=smp", "architecture=pan", "norm=batch"), "multiples of 16 from 256 on"),
        (("generator=smp", "encoder=none-such"), "generator 'smp': unet cannot be built with encoder 'none-such'"),
    ):
        with pytest.raises(ConfigError, match=message):
            build_networks(chipset, TrainConfig(recipe="pix2pix", width=2, set=entries, device="cpu"))


@pytest.mark.parametrize(
    ("count", "changes", "message"),
    [
        (
            12,
            {"batch_size": 1},
            "12 training chips in batches of 1 leave a batch of one, .*use --batch-size 2,",
        ),
        (
            13,
            {"batch_size": 4},
            "13 training chips in batches of 4 leave a batch of one, .*use --batch-size 5,",
        ),
        (1, {"batch_size": 4}, "in batches of 4 leave a batch of one, .*; use --set norm=group or"),
        (
            12,
            {"batch_size": 4, "norm": "instance"},
            "a norm of the generator 'smp' would see one value of each chip; use",
        ),
        (13, {"batch_size": 1, "norm": "group"}, None),
        (13, {"batch_size": 4, "steps": 3}, None),  # it ends before that batch
        (14, {"batch_size": 4}, None),
        (13, {"batch_size": 4, "architecture": "unet"}, None),
    ],
)
def test_norms_of_one_value_are_refused(chips: Path, count: int, changes: dict[str, Any], message: str | None) -> None:
    chipset = ChipSet.open(chips)
    chipset = dataclasses.replace(chipset, counts=chipset.counts | {"train": count})
    entries = ("generator=smp", f"architecture={changes.pop('architecture', 'deeplabv3plus')}", "encoder=resnet18")
    norm = f"norm={changes.pop('norm', 'batch')}"
    config = TrainConfig(recipe="pix2pix", width=2, device="cpu", set=(*entries, norm), **changes)
    if message is None:
        assert isinstance(build_networks(chipset, config).generator, nn.Module)
        return
    with pytest.raises(ConfigError, match=message):
        build_networks(chipset, config)


def test_loss_presets_are_not_for_maps(pair: tuple[Path, Path], tmp_path: Path) -> None:
    tile(pair[1], pair[0], tmp_path / "chips", TileConfig(size=64, min_valid=0.5))
    with pytest.raises(ConfigError, match="trained by cross entropy; leave --loss out"):
        train(tmp_path / "chips", tmp_path / "run", TrainConfig(recipe="pix2pix", loss="l1"))
    config = TrainConfig(recipe="pix2pix-geo", steps=2, width=2, set=("dice_weight=1",), device="cpu")
    train(tmp_path / "chips", tmp_path / "run", config)
    assert set(read_metrics(tmp_path / "run")[0]["losses"]) == {"cross_entropy", "dice"}


def test_perceptual_weights_come_from_a_file_and_need_three_bands(
    pair: tuple[Path, Path], chips: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    file, other = tmp_path / "vgg.pth", tmp_path / "other.safetensors"
    network = VGGFeatures()
    torch.save(network.state_dict() | {"classifier.0.weight": torch.zeros(3)}, file)  # what follows is left out
    save_file({"features.0.weight": torch.zeros(3)}, other)
    (tmp_path / "torn.pth").write_bytes(file.read_bytes()[:1000])
    (tmp_path / "text.pth").write_text("root:x:0:0:root:/root:/bin/bash\n")
    (tmp_path / "page.pth").write_text("<!doctype html><html>not found</html>")
    broken = tmp_path / "broken.safetensors"
    save_file(network.state_dict() | {"features.28.bias": torch.full((512,), torch.nan)}, broken)
    loaded = load_vgg(file)
    image = torch.rand(1, 3, 16, 16)
    assert all(torch.equal(one, two) for one, two in zip(loaded(image), network(image), strict=True))
    assert [one.shape[1] for one in loaded(image)] == [64, 128, 256, 512, 512]

    def config(path: Path, **changes: Any) -> TrainConfig:
        entries = ("perceptual_weight=10", f"perceptual_file={path}")
        return TrainConfig(recipe="pix2pix", steps=1, width=2, downs=3, device="cpu", set=entries, **changes)

    train(chips, tmp_path / "run", config(file))
    assert set(read_metrics(tmp_path / "run")[0]["losses"]) == {"gan", "d", "l1", "perceptual"}
    chipset = ChipSet.open(chips)
    for path, message in (
        (tmp_path / "none.pth", r"none\.pth: no such file"),
        (other, "holds other weights; give torchvision's VGG-19"),
        (tmp_path / "torn.pth", "not a file of weights"),
        (tmp_path / "text.pth", r"text\.pth: not a file of weights"),
        (tmp_path / "page.pth", r"page\.pth: not a file of weights, or one that holds more; give torchvision's"),
        (broken, r"broken\.safetensors: features\.28\.bias holds values that are not finite; give"),
    ):
        with pytest.raises(CheckpointError, match=message):
            build_networks(chipset, config(path))
    with pytest.raises(ConfigError, match="go together: set both or neither"):
        build_networks(chipset, TrainConfig(recipe="pix2pix", set=("perceptual_weight=10",)))
    tile(pair[1], pair[0], tmp_path / "maps", TileConfig(size=64, min_valid=0.5))
    with pytest.raises(ConfigError, match="perceptual_weight, perceptual_file are for targets of imagery, the target"):
        build_networks(ChipSet.open(tmp_path / "maps"), config(file))


@pytest.mark.parametrize("bands", [1, 4])
@pytest.mark.parametrize("loss", ["perceptual", "lpips"])
def test_losses_of_pictures_refuse_other_than_three_bands(chips: Path, tmp_path: Path, bands: int, loss: str) -> None:
    chipset = dataclasses.replace(ChipSet.open(chips), target=image_encoding(bands=bands))
    names = ("perceptual_file",) if loss == "perceptual" else ("lpips_file", "lpips_heads")
    entries = (f"{loss}_weight=1", *(f"{name}={tmp_path / 'weights.pth'}" for name in names))
    message = f"pictures of red, green and blue, the target is {bands} bands; leave {loss}_weight out"
    with pytest.raises(ConfigError, match=message):
        build_networks(chipset, TrainConfig(recipe="pix2pix", width=2, device="cpu", set=entries))


def test_statistics_are_those_of_all_chips_and_leave_the_rest_alone() -> None:
    torch.manual_seed(0)
    network = UNet(2, 1, downs=3, width=4, norm="batch", dropout=0.5)
    before = {name: one.clone() for name, one in network.named_parameters()}
    sources = [torch.randn(2 + number, 2, 16, 16) + 3 * number for number in range(3)]  # ground of three kinds
    seen: list[torch.Tensor] = []
    norm = next(module for module in network.modules() if isinstance(module, nn.BatchNorm2d))
    handle = norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for _ in range(2):  # a second time gives the same
        estimate_statistics(network, sources)
        variance, mean = torch.var_mean(torch.cat(seen[-3:]), dim=(0, 2, 3))
        assert torch.allclose(norm.running_mean, mean, atol=1e-6)  # type: ignore[arg-type]
        assert torch.allclose(norm.running_var, variance, rtol=1e-5)  # type: ignore[arg-type]
    handle.remove()
    assert all(torch.equal(one, before[name]) for name, one in network.named_parameters())
    assert not network.training and not norm.training and norm.momentum == 0.1


def test_validation_sees_the_estimated_statistics(chips: Path, tmp_path: Path) -> None:
    """With one chip a step the running statistics of training are not those of the training ground."""
    config = TrainConfig(recipe="pix2pix-paper", epochs=1, width=4, downs=4, device="cpu")
    train(chips, tmp_path / "run", config)
    generator = Translator.load(tmp_path / "run").generator
    norms = [module for module in generator.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {int(norm.num_batches_tracked) for norm in norms} == {-(-ChipSet.open(chips).counts["train"] // 8)}  # type: ignore[arg-type]


def test_norms_that_a_network_never_calls_stay_as_they_are() -> None:
    """Some encoders have them; no number would be left of the saved model."""
    network = nn.Sequential(nn.BatchNorm2d(2))
    spare = nn.BatchNorm2d(3)
    network[0].spare = spare
    estimate_statistics(network, [torch.randn(2, 2, 8, 8) + 5])
    assert torch.equal(spare.running_mean, torch.zeros(3)) and torch.equal(spare.running_var, torch.ones(3))
    assert network[0].running_mean.min() > 4


def test_statistics_are_taken_of_mixed_chips(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As steps have them: chips that follow each other show like ground, which norms would take for all there is."""
    tile(pair[1], pair[0], tmp_path / "chips", TileConfig(size=32, split="1:0:0"))
    count, batches = ChipSet.open(tmp_path / "chips").counts["train"], list[set[int]]()

    def spy(arrays: Any, rows: Any, *encodings: Any) -> Batch:
        batches.append(set(rows.tolist()))
        return encode_batch(arrays, rows, *encodings)

    monkeypatch.setattr(run_writer, "encode_batch", spy)
    config = TrainConfig(recipe="pix2pix-paper", steps=1, width=2, downs=4, device="cpu")
    train(tmp_path / "chips", tmp_path / "run", config)
    assert set.union(*batches) == set(range(count)) and len(batches) > 5
    assert all(max(one) - min(one) > count / 4 for one in batches)


@pytest.mark.parametrize(
    ("kind", "told"),
    [("sar", "radar looks from one side"), ("elevation", "relief is lit from one side"), ("image", "")],
)
def test_sides_that_look_are_neither_turned_nor_mirrored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: Any, told: str
) -> None:
    values: Array = np.random.default_rng(0).normal(-10, 3, (1, 200, 200)).astype(np.float32)
    source = write_raster(tmp_path / "a.tif", values, grid(200, 200))
    target = write_raster(tmp_path / "b.tif", (values + 50).astype(np.float32), grid(200, 200))
    tile(source, target, tmp_path / "chips", TileConfig(size=64, source_kind=kind, target_kind="image"))
    asked: list[Augmentation] = []

    def spy(*arguments: Any) -> Augmentation:
        asked.append(augmentation_of(*arguments))
        return asked[-1]

    monkeypatch.setattr(loop, "augmentation_of", spy)
    config = TrainConfig(recipe="pix2pix-geo", steps=1, width=2, device="cpu", set=("flip=true",))
    with caplog.at_level("INFO", "geop2p"):
        train(tmp_path / "chips", tmp_path / "run", config)
    assert [(one.flip, one.d4) for one in asked] == [(not told, not told)]
    assert told in caplog.text and ("not turned or mirrored" in caplog.text) == bool(told)
    plan = plan_training(tmp_path / "chips", config)["recipe"]
    assert (plan["flip"], plan["d4"]) == (not told, not told)


def test_systems_are_listed_with_their_sizes() -> None:
    listed = list_systems()
    assert [entry["name"] for entry in listed["systems"]] == list(RECIPES)
    generators = {entry["name"]: entry for entry in listed["generators"]}
    assert generators["unet, 8 downs"]["parameters"] == 54_409_603
    assert generators["unet, 8 downs"] | {"stride": 256, "field": 765} == generators["unet, 8 downs"]
    assert generators["resnet, 9 blocks"] | {"stride": 4, "field": 84} == generators["resnet, 9 blocks"]
    patches = {entry["patch"]: entry["parameters"] for entry in listed["discriminators"]}
    assert patches == {1: 8_897, 16: 139_457, 34: 666_049, 70: 2_767_809, 142: 6_962_625, 286: 11_157_441}
    geo = next(entry for entry in listed["systems"] if entry["name"] == "pix2pix-geo")
    assert (geo["statistics"], geo["field"], geo["stride"]) == ("none", 93, 32)
