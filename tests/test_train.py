"""Rules 5 and 8, and a training that learns."""

import dataclasses
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import class_map, grid, write_raster
from torch import nn

from geop2p import (
    TileConfig,
    TrainConfig,
    evaluate,
    find_lr,
    list_systems,
    plan_training,
    predict,
    tile,
    train,
)
from geop2p.errors import CheckpointError, ChipSetError, ConfigError, GeoP2PError
from geop2p.metrics import scores_for
from geop2p.models.patchgan import PatchGAN
from geop2p.models.randomness import OwnDraws
from geop2p.tiling.chips import ChipSet
from geop2p.training import loop, step
from geop2p.training.augmentation import Augmentation
from geop2p.training.data import ChipArrays, batches, epoch_order
from geop2p.training.distributed import World
from geop2p.training.feeding import Feed
from geop2p.training.history import read_metrics
from geop2p.training.networks import build_networks
from geop2p.training.objectives import adversarial, fill, masked_cross_entropy, masked_l1
from geop2p.training.schedule import decay
from geop2p.training.validation import predict_chips, validate
from geop2p.translator import Translator, read_card

TINY = TrainConfig(recipe="pix2pix", epochs=2, batch_size=4, width=4, downs=5)


@pytest.fixture
def chips(pair: tuple[Path, Path], tmp_path: Path) -> Path:
    tile(*pair, tmp_path / "chips", TileConfig(size=32))
    return tmp_path / "chips"


def test_a_run_leaves_a_model_with_its_card(chips: Path, tmp_path: Path) -> None:
    result = train(chips, tmp_path / "run", TINY)
    chipset = ChipSet.open(chips)
    assert result.steps == 2 * -(-chipset.counts["train"] // 4)
    card = read_card(tmp_path / "run")
    assert (card.source, card.target) == (chipset.source, chipset.target)
    assert card.arguments["in_channels"] == 3 and card.arguments["out_channels"] == 3
    assert (card.stride, card.field, card.statistics, card.chip_size) == (32, 93, "tile", 32)
    assert card.pixel_size == pytest.approx((2.0, 2.0), rel=1e-3)
    history = read_metrics(tmp_path / "run")
    assert [entry["epoch"] for entry in history] == [1, 2]
    assert history[-1]["val"]["psnr"] > 0 and set(history[-1]["losses"]) == {"gan", "l1", "d"}
    assert result.best is not None and result.best["value"] == min(entry["val"]["l1"] for entry in history)
    assert (tmp_path / "run" / "samples" / "epoch_0002.png").read_bytes()[:4] == b"\x89PNG"


def test_the_running_mean_is_what_is_validated_and_kept(chips: Path, tmp_path: Path) -> None:
    """With batch-norm statistics of its own, which the checkpoint has, too."""
    entries = ("ema=0.9", "norm=batch", "statistics_chips=16")
    train(chips, tmp_path / "run", dataclasses.replace(TINY, epochs=1, width=2, downs=3, device="cpu", set=entries))
    kept = Translator.load(tmp_path / "run").generator.state_dict()
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert set(kept) == set(state["ema"]) == set(state["generator"])
    assert all(torch.equal(one, state["ema"][name]) for name, one in kept.items())
    weights = [name for name in kept if name.endswith("weight")]
    assert weights and not any(torch.equal(kept[name], state["generator"][name]) for name in weights)
    validation = ChipArrays.load(ChipSet.open(chips), "val")
    translator, found = Translator.load(tmp_path / "run"), read_metrics(tmp_path / "run")[-1]["val"]
    assert validate(translator, validation, 4, translator.card.target)["l1"] == pytest.approx(found["l1"], rel=1e-6)
    translator.generator.load_state_dict(state["generator"])
    assert validate(translator, validation, 4, translator.card.target)["l1"] != pytest.approx(found["l1"], rel=1e-3)


def test_threads_score_a_validation_as_one_after_the_other_does(chips: Path, tmp_path: Path) -> None:
    train(chips, tmp_path / "run", dataclasses.replace(TINY, epochs=1, width=2, downs=3, device="cpu"))
    translator, validation = Translator.load(tmp_path / "run"), ChipArrays.load(ChipSet.open(chips), "val")
    target = translator.card.target
    scores, rows = scores_for(target), batches(np.arange(len(validation)), 1)
    for (row,) in rows:
        scores.add(
            predict_chips(translator, validation, np.array([row]))[0], validation.target[row], validation.valid[row]
        )
    assert len(rows) > 1 and validate(translator, validation, 1, target) == scores.result()


def test_images_per_second_are_those_of_the_steps_alone(
    chips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    def slow(call: Callable[..., Any], seconds: float) -> Callable[..., Any]:
        def taking(*arguments: Any) -> Any:
            now[0] += seconds
            return call(*arguments)

        return taking

    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(loop.TrainingStep, "__call__", slow(loop.TrainingStep.__call__, 0.25))
    monkeypatch.setattr(loop.RunWriter, "look", slow(loop.RunWriter.look, 100.0))
    result = train(chips, tmp_path / "run", dataclasses.replace(TINY, epochs=1, batch_size=7, width=2, downs=3))
    images = ChipSet.open(chips).counts["train"]
    assert images % 7  # the last batch is smaller
    assert result.images_per_s == round(images / (0.25 * result.steps), 2)
    assert result.seconds == pytest.approx(0.25 * result.steps + 100, abs=0.1)


def test_target_values_under_the_mask_change_nothing(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """Chips that differ only in target values under their mask train the same weights, bit by bit."""
    config = TileConfig(size=32, min_valid=0.3)
    tile(*pair, tmp_path / "a", config)
    chipset = ChipSet.open(tmp_path / "a")
    arrays = ChipArrays.load(chipset, "train")
    assert not arrays.valid.all()
    junk = np.where(arrays.valid[:, None], arrays.target, 255 - arrays.target)
    other = dataclasses.replace(arrays, target=junk)
    rows = np.flatnonzero(~arrays.valid.all(axis=(1, 2)))[:4]
    losses = []
    for chips in (arrays, other):
        torch.manual_seed(0)
        discriminator = PatchGAN(6, layers=2, width=4)
        augmentation = Augmentation(0, 286 / 256, flip=True)
        feed = Feed(chips, chipset.source, chipset.target, torch.device("cpu"), augmentation)
        batch = feed.batch(rows, rows)
        fake = fill((batch.source * 0.3).requires_grad_(), batch.valid)
        real_logits = discriminator(torch.cat([batch.source, batch.target], 1))
        loss = masked_l1(fake, batch.target, batch.valid) + adversarial(real_logits, True, batch.valid)
        loss.backward()
        losses.append((loss.detach(), [p.grad for p in discriminator.parameters()]))
    assert torch.equal(losses[0][0], losses[1][0])
    assert all(torch.equal(one, two) for one, two in zip(losses[0][1], losses[1][1], strict=True))


def test_masked_losses_are_means_over_valid_pixels() -> None:
    fake, real = torch.zeros(1, 2, 2, 2), torch.ones(1, 2, 2, 2)
    real[..., 0, 0] = 100
    valid = torch.tensor([[[[0.0, 1.0], [1.0, 1.0]]]])
    assert float(masked_l1(fake, real, valid)) == 1
    logits = torch.tensor([[[[30.0, -30.0]]]])
    share = torch.tensor([[[[1.0, 0.0]]]])
    assert float(adversarial(logits, True, share)) == pytest.approx(0, abs=1e-6)
    one_hot = torch.tensor([[[[1.0, 0.0]], [[0.0, 0.0]]]])  # the second pixel has no known class
    scores = torch.tensor([[[[20.0, -20.0]], [[0.0, 0.0]]]])
    assert float(masked_cross_entropy(scores, one_hot, torch.ones(1, 1, 1, 2))) == pytest.approx(0, abs=1e-6)


def test_order_visits_every_chip_once_and_depends_on_the_epoch() -> None:
    first, second = epoch_order(0, 0, 50), epoch_order(0, 1, 50)
    assert sorted(first) == sorted(second) == list(range(50))
    assert not np.array_equal(first, second) and np.array_equal(first, epoch_order(0, 0, 50))


def test_balanced_draws_follow_the_weights() -> None:
    weights = np.array([0.25, 0.5, 0.5, 3.0, 0.75, 1.0], np.float32)
    draws = [epoch_order(0, epoch, 6, weights) for epoch in range(2000)]
    counts = np.array([np.bincount(draw, minlength=6) for draw in draws])
    assert (counts.sum(axis=1) == 6).all()
    assert (abs(counts - weights) < 1).all()  # rounded down or up in every epoch
    assert np.allclose(counts.mean(axis=0), weights, atol=0.05)
    assert np.array_equal(draws[7], epoch_order(0, 7, 6, weights)) and not np.array_equal(draws[7], draws[8])
    assert sorted(epoch_order(3, 1, 50, np.ones(50, np.float32))) == list(range(50))


def test_a_chip_that_is_drawn_twice_is_seen_in_two_ways(chips: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, batch_size=1, balance=True, device="cpu")
    chipset = ChipSet.open(chips)
    training = loop.Training(chipset, build_networks(chipset, config), tmp_path, config, progress=False, world=World())
    weights = np.where(np.arange(len(training.chips)) == 7, 6.0, 1.0).astype(np.float32)
    training.chips = dataclasses.replace(training.chips, weights=weights)
    draws = [int(place) for place in np.flatnonzero(training._order(0) == 7)]
    assert len(draws) > 3
    seen = [training.batch(step)[0].target for step in draws]
    assert not any(torch.equal(seen[0], other) for other in seen[1:])
    assert torch.equal(seen[0], training.batch(draws[0])[0].target)


def test_balance_without_classes_says_that_it_does_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    where = grid(160, 160)
    layers = [
        write_raster(
            tmp_path / f"{name}.tif", np.random.default_rng(0).integers(0, 255, (3, 160, 160), np.uint8), where
        )
        for name in ("a", "b")
    ]
    tile(*layers, tmp_path / "chips", TileConfig(size=32))
    train(tmp_path / "chips", tmp_path / "run", TrainConfig(recipe="pix2pix", steps=1, width=4, downs=5, balance=True))
    assert "--balance changes nothing" in caplog.text


def test_learning_rate_is_constant_then_falls_to_zero() -> None:
    factors = [decay(step, 100) for step in range(101)]
    assert factors[:51] == [1.0] * 51
    assert factors[75] == pytest.approx(0.5) and factors[100] == 0
    assert np.allclose(np.diff(factors[50:]), -0.02)


def test_training_learns_the_colours_of_classes(chips: Path, tmp_path: Path) -> None:
    config = TrainConfig(recipe="pix2pix", epochs=5, batch_size=2, width=8, downs=5, lr=2e-3)
    train(chips, tmp_path / "run", config)
    history = read_metrics(tmp_path / "run")
    assert history[-1]["val"]["l1"] < history[0]["val"]["l1"]
    assert history[-1]["val"]["l1"] < 14  # the noise alone is 10; one colour for all is 40


def test_a_map_as_target_is_trained_by_cross_entropy_and_predicted(pair: tuple[Path, Path], tmp_path: Path) -> None:
    import rasterio

    source, target = pair
    tile(target, source, tmp_path / "chips", TileConfig(size=32))
    result = train(
        tmp_path / "chips",
        tmp_path / "run",
        TrainConfig(recipe="pix2pix", epochs=6, batch_size=2, width=8, downs=5, lr=2e-3),
    )
    history = read_metrics(tmp_path / "run")
    assert set(history[0]["losses"]) == {"cross_entropy"}
    assert result.best is not None and result.best["metric"] == "miou" and result.best["value"] > 0.6
    predict(tmp_path / "run", target, tmp_path / "made.tif")
    with rasterio.open(tmp_path / "made.tif") as made, rasterio.open(source) as truth:
        codes, real, valid = made.read(1), truth.read(1), made.dataset_mask() > 0
    assert set(np.unique(codes[valid])) <= {1, 2, 5}
    assert (codes == real)[valid & (real > 0)].mean() > 0.8


def test_sar_to_image_predicts_at_the_training_pixel_size(tmp_path: Path) -> None:
    """A source in degrees, coarser than the target: prediction is on the target's pixel size, in metres."""
    import rasterio
    from rasterio.crs import CRS

    from geop2p.raster.grid import covering

    where = grid(160, 160)
    image = np.random.default_rng(0).integers(0, 255, (3, 160, 160), dtype=np.uint8)
    target = write_raster(tmp_path / "image.tif", image, where)
    degrees = covering(where.bounds_in(CRS.from_epsg(4326)), CRS.from_epsg(4326), 5e-5)
    decibel = np.random.default_rng(1).normal(-12, 3, (2, degrees.height, degrees.width)).astype(np.float32)
    source = write_raster(tmp_path / "sar.tif", decibel, degrees, nodata=np.nan)
    tile(source, target, tmp_path / "chips", TileConfig(size=32))
    train(tmp_path / "chips", tmp_path / "run", TrainConfig(recipe="pix2pix", steps=2, width=4, downs=5))
    predict(tmp_path / "run", source, tmp_path / "out.tif")
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.crs.to_epsg() == 32632 and dataset.res == pytest.approx((2.0, 2.0), rel=1e-3)
        assert dataset.count == 3 and dataset.dtypes[0] == "uint8"
        assert (dataset.dataset_mask() > 0).mean() > 0.8


def test_other_settings_and_foreign_folders_are_refused(chips: Path, tmp_path: Path) -> None:
    train(chips, tmp_path / "run", TINY)
    with pytest.raises(ConfigError, match="width is 8, there it is 4"):
        train(chips, tmp_path / "run", TrainConfig(recipe="pix2pix", epochs=2, batch_size=4, width=8, downs=5))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "a.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="exists and is not a run"):
        train(chips, tmp_path / "thesis", TINY)
    with pytest.raises(ConfigError, match="cannot be halved 6 times; use --downs 5"):
        train(chips, tmp_path / "deep", TrainConfig(recipe="pix2pix", downs=6))
    assert not (tmp_path / "deep").exists()
    with pytest.raises(ChipSetError, match="not a chip set"):
        train(tmp_path / "nothing", tmp_path / "new", TINY)
    with pytest.raises(ConfigError, match="device 'mps' is not available"):
        train(chips, tmp_path / "new", TrainConfig(recipe="pix2pix", device="mps"))


def test_a_malicious_checkpoint_is_not_executed(chips: Path, tmp_path: Path) -> None:
    train(chips, tmp_path / "run", TINY)

    class Malice:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "owned",))

    for protocol in (2, 4):  # torch warns of newer protocols, which pytest would take for an error
        (tmp_path / "run" / "last.pt").write_bytes(pickle.dumps({"step": Malice()}, protocol=protocol))
        with pytest.raises(CheckpointError, match=r"last\.pt: not a checkpoint of geop2p"):
            train(chips, tmp_path / "run", TINY)
    torch.save({"step": Malice()}, tmp_path / "run" / "last.pt")
    with pytest.raises(CheckpointError, match=r"last\.pt: not a checkpoint of geop2p"):
        train(chips, tmp_path / "run", TINY)
    assert not (tmp_path / "owned").exists()


def test_a_chip_set_of_a_newer_format_is_refused(chips: Path, tmp_path: Path) -> None:
    file = chips / "chipset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))
    with pytest.raises(ChipSetError, match="format 99, this geop2p reads up to 2"):
        train(chips, tmp_path / "run", TINY)


def test_the_card_survives_saving(tmp_path: Path, chips: Path) -> None:
    train(chips, tmp_path / "run", TINY)
    translator = Translator.load(tmp_path / "run")
    translator.save(str(tmp_path / "copy.safetensors"))
    again = Translator.load(tmp_path / "copy.safetensors")
    assert again.card == translator.card
    codes = class_map(64, 64)
    assert np.array_equal(translator(codes), again(codes))


def test_a_network_is_given_what_it_takes(tmp_path: Path, chips: Path) -> None:
    train(chips, tmp_path / "run", dataclasses.replace(TINY, epochs=200, steps=1))
    translator = Translator.load(tmp_path / "run")
    assert translator.translate(torch.zeros(2, 3, 32, 64)).shape == (2, 3, 32, 64)
    for shape in ((3, 32, 32), (1, 2, 32, 32), (1, 4, 32, 32)):
        with pytest.raises(ConfigError, match=r"encoded has the shape .*, expected \(batch, 3 channels, rows, cols\)"):
            translator.translate(torch.zeros(shape))
    with pytest.raises(ConfigError, match="expected sides that are multiples of 32"):
        translator.translate(torch.zeros(1, 3, 33, 32))
    tile(tmp_path / "map.tif", tmp_path / "image.tif", tmp_path / "other", TileConfig(size=40, split="1:0:1"))
    with pytest.raises(
        ChipSetError, match="chips of 40 pixels, the network takes multiples of 32; tile with --size 64"
    ):
        evaluate(tmp_path / "run", tmp_path / "other", tmp_path / "a.html")
    with pytest.raises(ConfigError, match=r"device is device\(type='cpu'\), expected auto or "):
        Translator.load(tmp_path / "run", torch.device("cpu"))  # type: ignore[arg-type]


def test_random_numbers_of_the_caller_stay_his(tmp_path: Path, chips: Path) -> None:
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    config = dataclasses.replace(TINY, epochs=200, steps=1)
    train(chips, tmp_path / "run", config)
    plan_training(chips, config)
    find_lr(chips, tmp_path / "lr.png", config)
    list_systems()
    Translator.load(tmp_path / "run")
    assert torch.equal(torch.rand(3), wanted)


def test_models_that_are_made_meanwhile_change_no_training(
    tmp_path: Path, chips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another thread does that predicts or plans: what a step draws is its own."""
    parts = ("generator=resnet", "blocks=6", "dropout=0.5", "noise=2")
    config = TrainConfig(recipe="pix2pix", steps=2, batch_size=4, width=2, set=parts)
    train(chips, tmp_path / "run", config)
    drawn = []

    def meanwhile(target: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        if target.device.type != "meta":  # where it is planned
            before = torch.get_rng_state()
            Translator.load(tmp_path / "run")
            plan_training(chips, config)
            if not drawn:
                list_systems()
            drawn.append(not torch.equal(before, torch.get_rng_state()))
        return fill(target, valid)

    monkeypatch.setattr(step, "fill", meanwhile)
    train(chips, tmp_path / "other", config)
    assert drawn and not any(drawn)
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("run", "other"))
    assert first == second


def test_draws_of_their_own_are_those_of_the_seed() -> None:
    def drawn() -> list[torch.Tensor]:
        place = torch.empty(5)
        made = [torch.randn(3), torch.rand(2, 3), torch.randperm(9), torch.randint(0, 9, (4,)), place.uniform_()]
        made.append(nn.init.trunc_normal_(torch.empty(7), std=0.1))
        return [*made, nn.Conv2d(2, 3, 3).weight.detach(), torch.bernoulli(torch.full((9,), 0.5))]

    torch.manual_seed(5)
    wanted, after = drawn(), torch.get_rng_state()
    with OwnDraws(5):
        assert all(torch.equal(one, other) for one, other in zip(drawn(), wanted, strict=True))
    draws = OwnDraws(5)
    with draws:
        first = torch.rand(4)
    with draws:
        assert not torch.equal(torch.rand(4), first)
    assert torch.equal(torch.get_rng_state(), after)


def test_a_batch_without_valid_ground_costs_nothing() -> None:
    nothing = torch.zeros(1, 1, 8, 8)
    fake = torch.ones(1, 3, 8, 8, requires_grad=True)
    assert float(masked_l1(fake, torch.zeros(1, 3, 8, 8), nothing).detach()) == 0
    assert float(adversarial(torch.ones(1, 1, 2, 2), True, nothing)) == 0


def test_seeds_are_checked_and_large_ones_work(chips: Path, tmp_path: Path) -> None:
    for bad in (-1, 2**31):
        with pytest.raises(ConfigError, match="seed is"):
            TrainConfig(recipe="pix2pix", seed=bad)
    result = train(chips, tmp_path / "run", TrainConfig(recipe="pix2pix", steps=1, width=4, downs=5, seed=2**31 - 1))
    assert result.steps == 1


def test_runs_through_a_file_and_damaged_configs_are_one_line(chips: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError, match="exists and is not a run"):
        train(chips, tmp_path / "file", TINY)
    with pytest.raises(GeoP2PError, match="cannot be made a folder"):
        train(chips, tmp_path / "file" / "run", TINY)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json: not valid JSON"):
        train(chips, tmp_path / "run", TINY)
