"""Before a training: what it would take (`--dry-run`), and at which rate it would learn (`--find-lr`)."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from geop2p_cli.main import main
from PIL import Image
from torch.profiler import ProfilerActivity, profile

from geop2p import TileConfig, TrainConfig, find_lr, plan_training, tile, train
from geop2p.errors import ChipSetError, ConfigError, GeoP2PError, OutputError
from geop2p.tiling.chips import ChipSet
from geop2p.training import rates
from geop2p.training.data import Batch
from geop2p.training.networks import build_networks
from geop2p.training.recipes import recipe_of
from geop2p.training.step import TrainingStep

TINY = TrainConfig(recipe="pix2pix", epochs=3, batch_size=8, width=4, downs=4, device="cpu", precision="fp32")


@pytest.fixture
def chips(pair: tuple[Path, Path], tmp_path: Path) -> Path:
    tile(*pair, tmp_path / "chips", TileConfig(size=64, min_valid=0.5))
    return tmp_path / "chips"


def files(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_plan_is_what_the_training_does(chips: Path, tmp_path: Path) -> None:
    before = files(tmp_path)
    plan = plan_training(chips, TINY)
    assert files(tmp_path) == before
    result = train(chips, tmp_path / "run", TINY)
    assert plan["steps"] == result.steps == 3 * plan["steps_per_epoch"] and plan["epochs"] == 3
    networks = build_networks(ChipSet.open(chips), TINY)
    for name in ("generator", "discriminator"):
        assert plan["parameters"][name] == sum(one.numel() for one in getattr(networks, name).parameters())
    size = (tmp_path / "run" / "model.safetensors").stat().st_size
    assert plan["model_mib"] == pytest.approx(size / 2**20, abs=0.1)
    assert plan["recipe"]["batch_size"] == 8 and plan["config"]["width"] == 4
    assert plan_training(chips, dataclasses.replace(TINY, epochs=200, steps=7))["steps"] == 7


@pytest.mark.parametrize("recipe", ["pix2pix", "pix2pix-geo"])
def test_the_memory_of_a_plan_is_that_of_a_step(chips: Path, recipe: Any) -> None:
    """Against the tensors that stay after steps on the CPU, and the most that its allocator has given out in one."""
    config = dataclasses.replace(TINY, recipe=recipe, width=16)
    found = plan_training(chips, config)["memory_mib"]
    networks = build_networks(ChipSet.open(chips), config)
    update = TrainingStep(networks, recipe_of(config), config, 4)
    update.generator.train()
    batch = [torch.rand(8, 3, 64, 64), torch.rand(8, 3, 64, 64), torch.ones(8, 1, 64, 64)]
    trained = [part for part in (networks.generator, networks.discriminator) if part is not None]
    update(Batch(*batch), 0)
    for part in trained:
        part.zero_grad()  # so that the allocator is asked for them where it is watched
    weights = [tensor for part in (*trained, update.mean) if part is not None for tensor in part.state_dict().values()]
    moments = [one for part in update.optimizers.values() for state in part.state.values() for one in state.values()]
    held = sum(tensor.nbytes for tensor in weights + moments)
    peak = held + allocated(lambda: [update(Batch(*(one.clone() for one in batch)), step) for step in (1, 2)])
    held += sum(one.grad.nbytes for part in trained for one in part.parameters() if one.grad is not None)
    assert found["networks"] == pytest.approx(held / 2**20, abs=0.1)
    assert found["step"] == pytest.approx(peak / 2**20, rel=0.15)
    half = plan_training(chips, dataclasses.replace(config, batch_size=4))["memory_mib"]
    assert half["networks"] == found["networks"]
    assert half["step"] - half["networks"] < 0.7 * (found["step"] - found["networks"])


def allocated(work: Callable[[], Any]) -> int:
    """Most bytes that the allocator of the CPU has given out for it at once."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    assert profiled.profiler is not None
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    return int(np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]).max())


def test_a_plan_counts_in_fp32_whatever_is_asked_for(chips: Path) -> None:
    plain, asked = (plan_training(chips, dataclasses.replace(TINY, precision=name)) for name in ("fp32", "bf16"))
    assert asked["memory_mib"] == plain["memory_mib"] and asked["bf16"] and not plain["bf16"]


def test_a_plan_refuses_what_the_training_would(chips: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be halved 7 times"):
        plan_training(chips, dataclasses.replace(TINY, downs=7))
    with pytest.raises(ConfigError, match="best_by is 'miou'"):
        plan_training(chips, dataclasses.replace(TINY, best_by="miou"))
    with pytest.raises(ChipSetError, match="not a chip set"):
        plan_training(chips / "none", TINY)


def test_the_steepest_fall_is_suggested() -> None:
    powers = np.linspace(-6, 0, 61)
    falls = 1 - 0.8 / (1 + np.exp(-6 * (powers + 3)))  # half of the fall is done at 1e-3
    losses = np.where(powers < -1.5, falls, 0.2 + 3 * (powers + 1.5))
    assert rates.steepest((10**powers).tolist(), losses.tolist()) == pytest.approx(1e-3, rel=0.3)
    assert rates.steepest((10**powers).tolist(), (powers + 7).tolist()) is None  # it only rises


@pytest.mark.parametrize(("noise", "ends"), [(0.05, 0.0), (0.2, 0.0), (0.2, -1.5)])
def test_noise_of_the_batches_is_no_fall(noise: float, ends: float) -> None:
    """Loss of batches as they come: half of it goes around one rate, after which it rises again or the test ends."""
    powers = np.linspace(-6, 0, rates.STEPS)
    off: list[float] = []
    for seed in range(100):
        random = np.random.default_rng(seed)
        middle = random.uniform(-3.7, -2.3)
        losses = 1 - 0.5 / (1 + np.exp(-6 * (powers - middle))) + 2 * np.maximum(powers - middle - 1, 0)
        losses *= 1 + random.normal(0, noise, len(powers))
        losses[:3] *= (3, 2, 1.5)  # what is learnt at once at any rate is not learnt at the best one
        shown = powers <= ends
        found = rates.steepest((10 ** powers[shown]).tolist(), losses[shown].tolist())
        off.append(abs(np.log10(found) - middle) if found is not None else np.inf)
    assert np.mean(np.array(off) < 0.5) >= 0.95
    flat = 1 + np.random.default_rng(0).normal(0, noise, (100, len(powers)))
    assert sum(rates.steepest((10**powers).tolist(), one.tolist()) is not None for one in flat) < 10


def test_a_range_test_draws_its_curve_and_trains_nothing(
    chips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "STEPS", 30)
    before = files(chips)
    with pytest.raises(ConfigError, match=r"lr\.jpg: the curve is drawn as a PNG"):
        find_lr(chips, tmp_path / "lr.jpg", TINY)
    found = find_lr(chips, tmp_path / "lr.png", TINY)
    assert files(chips) == before and {path.name for path in tmp_path.iterdir()} - {"chips", "lr.png"} == {
        "map.tif", "map.tif.aux.xml", "image.tif",
    }  # fmt: skip
    assert found.loss == "l1" and found.suggestion is not None and 1e-5 < found.suggestion < 0.5
    assert np.allclose(np.diff(np.log(found.rates)), np.log(1e6) / 29) and min(found.losses) < 0.8 * found.losses[0]
    assert found == find_lr(chips, tmp_path / "lr.png", dataclasses.replace(TINY, lr=0.3), overwrite=True)
    assert found != find_lr(chips, tmp_path / "lr.png", dataclasses.replace(TINY, balance=True), overwrite=True)
    with Image.open(tmp_path / "lr.png") as image:
        assert image.size == (900, 520) and (np.asarray(image.convert("RGB")) == rates.MARK).all(axis=2).sum() > 500
    with pytest.raises(OutputError, match=r"lr\.png: exists; give another name or --overwrite"):
        find_lr(chips, tmp_path / "lr.png", TINY)


def test_a_range_test_goes_through_all_of_an_epoch(chips: Path, tmp_path: Path) -> None:
    """A training that ends before the batch of one may have it; the range test goes on."""
    count = ChipSet.open(chips).counts["train"]
    entries = ("generator=smp", "architecture=deeplabv3plus", "encoder=resnet18", "norm=batch")
    config = dataclasses.replace(TINY, downs=None, batch_size=count - 1, steps=1, epochs=200, set=entries)
    with pytest.raises(ConfigError, match=rf"{count} training chips in batches of {count - 1} leave a batch of one"):
        find_lr(chips, tmp_path / "lr.png", config)


def test_a_range_test_ends_where_the_loss_leaves(chips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = TrainingStep.__call__

    def call(self: TrainingStep, batch: Any, step: int) -> dict[str, torch.Tensor]:
        losses = original(self, batch, step)
        return losses | {"l1": losses["l1"] * (torch.nan if step > 10 else 1)}

    monkeypatch.setattr(TrainingStep, "__call__", call)
    assert len(find_lr(chips, tmp_path / "lr.png", TINY).rates) == 11


def test_the_commands_say_the_same(chips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "STEPS", 4)
    options = [
        "--recipe",
        "pix2pix",
        "--width",
        "4",
        "--downs",
        "4",
        "--batch-size",
        "8",
        "--device",
        "cpu",
        "--precision",
        "fp32",
    ]

    def run(*more: str) -> str:
        result = CliRunner().invoke(main, ["train", str(chips), str(tmp_path / "run"), *options, *more])
        assert result.exit_code == 0, result.output
        return result.stdout

    config = dataclasses.replace(TINY, epochs=200)
    assert json.loads(run("--dry-run", "--json")) == json.loads(json.dumps(plan_training(chips, config)))
    assert "steps per epoch" in run("--dry-run") and not (tmp_path / "run").exists()
    found = json.loads(run("--find-lr", "--json"))
    assert found["path"] == str(tmp_path / "run_lr.png") and len(found["rates"]) == 4
    assert run("--find-lr", "--overwrite").splitlines()[-1] == str(tmp_path / "run_lr.png")
    assert not (tmp_path / "run").exists()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    result = CliRunner().invoke(main, ["train", str(chips), ".", *options, "--find-lr"])
    assert result.stdout.splitlines()[-1] == str(tmp_path / "here_lr.png")


def test_networks_that_memory_cannot_hold_are_told_in_one_line(chips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1280000000000 bytes.")

    monkeypatch.setattr("geop2p.training.planning.build_networks", full)
    with pytest.raises(GeoP2PError, match=r"^out of memory with networks of width 90; try --width 45$"):
        plan_training(chips, dataclasses.replace(TINY, width=90))
