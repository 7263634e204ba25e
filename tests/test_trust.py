"""Runs that can be trusted: rule 8, checkpoints that survive a kill, and trainings that stop or warn in words."""

import dataclasses
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Constant, Identity, grid, write_raster
from safetensors.torch import load_file

from geop2p import TileConfig, TrainConfig, tile, train
from geop2p.errors import ConfigError, GeoP2PError
from geop2p.tiling.chips import ChipSet
from geop2p.training import loop, rates, run_writer, trainer
from geop2p.training.checkpoint import load_state
from geop2p.training.data import ChipArrays, epoch_order
from geop2p.training.detectors import all_warnings, check_outputs
from geop2p.training.feeding import Feed
from geop2p.training.history import best_epoch, epochs_without_gain, read_metrics
from geop2p.training.networks import build_networks
from geop2p.training.recipes import RECIPES, Recipe
from geop2p.training.step import TrainingStep
from geop2p.translator import Translator, read_card

TINY = TrainConfig(recipe="pix2pix", epochs=2, batch_size=4, width=2, downs=4, device="cpu")
FEW = ("statistics_chips=8",)
CPU = torch.device("cpu")


@pytest.fixture
def chips(pair: tuple[Path, Path], tmp_path: Path) -> Path:
    tile(*pair, tmp_path / "chips", TileConfig(size=64, min_valid=0.5))
    return tmp_path / "chips"


def assert_same(one: Any, other: Any, where: str = "") -> None:
    """Bit-equal, whatever it is made of."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name in one:
            if name != "seconds":
                assert_same(one[name], other[name], f"{where}/{name}")
    elif isinstance(one, list):
        for place, (first, second) in enumerate(zip(one, other, strict=True)):
            assert_same(first, second, f"{where}/{place}")
    else:
        assert one == other, where


def assert_same_run(whole: Path, resumed: Path) -> None:
    assert_same(load_state(whole, CPU), load_state(resumed, CPU))
    assert_same(read_metrics(whole), read_metrics(resumed))
    names = sorted(path.name for path in whole.glob("*.safetensors"))
    assert names == sorted(path.name for path in resumed.glob("*.safetensors"))
    for name in names:
        assert_same(load_file(whole / name), load_file(resumed / name), name)


@pytest.mark.parametrize("recipe", ["pix2pix", "pix2pix-geo"])
def test_threads_of_a_process_train_one_after_the_other(chips: Path, tmp_path: Path, recipe: Any) -> None:
    config = dataclasses.replace(TINY, recipe=recipe, set=FEW if recipe == "pix2pix-geo" else ())
    names = ("alone", "one", "other")
    train(chips, tmp_path / names[0], config)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda name: train(chips, tmp_path / name, config), names[1:]))
    for name in names[1:]:
        assert_same_run(tmp_path / names[0], tmp_path / name)


class Killed(BaseException):
    """What a killed process would not live to see."""


def dying_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    original = TrainingStep.__call__

    def call(self: TrainingStep, batch: Any, at: int) -> Any:
        if at == step:
            raise Killed
        return original(self, batch, at)

    monkeypatch.setattr(TrainingStep, "__call__", call)


SYSTEMS: dict[str, TrainConfig] = {
    **{
        name: TrainConfig(recipe=name, width=2, downs=4, device="cpu", set=FEW if recipe.norm == "batch" else ())
        for name, recipe in RECIPES.items()
    },
    "balanced": TrainConfig(recipe="pix2pix", width=2, downs=4, device="cpu", balance=True),
    "noisy": TrainConfig(recipe="pix2pix", width=2, downs=4, device="cpu", set=("noise=2",)),
    "penalised": TrainConfig(
        recipe="pix2pix", width=2, downs=4, device="cpu", set=("r1_weight=1", "r1_every=2", "ema=0.9")
    ),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_resuming_equals_not_stopping(chips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Killed inside the first epoch, then inside the last one, which --steps cuts short."""
    chipset = ChipSet.open(chips)
    per_epoch = -(-chipset.counts["train"] // 4)
    config = dataclasses.replace(SYSTEMS[name], steps=per_epoch + 3, batch_size=4, best_by="ssim")
    train(chips, tmp_path / "whole", config)
    assert len(read_metrics(tmp_path / "whole")) == 2 and config.steps is not None
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)  # after every step
    for step in (per_epoch // 2, config.steps - 1):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            dying_at(patch, step)
            train(chips, tmp_path / "run", config)
        state = load_state(tmp_path / "run", CPU)
        assert state is not None and state["step"] == step and step % per_epoch
        random.seed(step), np.random.seed(step), torch.manual_seed(step)  # whatever came in between
    train(chips, tmp_path / "run", config)
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    finished = train(chips, tmp_path / "run", config)
    assert finished.images_per_s is None and finished.steps == config.steps


def test_what_is_lost_since_the_checkpoint_is_done_again(
    chips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(SYSTEMS["pix2pix-geo"], epochs=3, batch_size=8)
    train(chips, tmp_path / "whole", config)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        dying_at(patch, read_metrics(tmp_path / "whole")[1]["step"] - 1)
        train(chips, tmp_path / "run", config)
    train(chips, tmp_path / "run", config)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [1, 6])
def test_an_interrupted_step_is_finished_and_saved(
    chips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int, at: int
) -> None:
    """Within an epoch and in the last step of one; then the handler that was there before has its turn."""
    run, original = tmp_path / "run", TrainingStep.__call__
    assert ChipSet.open(chips).counts["train"] == 27

    def call(self: TrainingStep, batch: Any, step: int) -> Any:
        if step == at:
            signal.raise_signal(number)
        return original(self, batch, step)

    before = signal.signal(number, lambda *_: _raise(Killed()))
    try:
        handler = signal.getsignal(number)
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(TrainingStep, "__call__", call)
            train(chips, run, TINY)
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)
    state = load_state(run, CPU)
    assert state is not None and state["step"] == at + 1
    assert f"interrupted and saved after step {at + 1} of 14; the same command goes on from there" in caplog.text
    train(chips, run, TINY)
    train(chips, tmp_path / "whole", TINY)
    assert_same_run(tmp_path / "whole", run)


KILLED_WHILE_SAVING = """
import os, signal, sys
import torch
from geop2p import TrainConfig, train
from geop2p.training import checkpoint

torch.set_num_threads(int(sys.argv[3]))
whole, saved = torch.save, []

def torn(state, path):
    whole(state, path)
    saved.append(path)
    if len(saved) == 2:
        size = os.path.getsize(path)
        os.truncate(path, size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

checkpoint.torch.save = torn
train(sys.argv[1], sys.argv[2], TrainConfig(recipe="pix2pix", epochs=2, batch_size=4, width=2, downs=4, device="cpu"))
"""


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(chips: Path, tmp_path: Path) -> None:
    """A real SIGKILL between the first byte and the last."""
    run = tmp_path / "run"
    arguments = [str(chips), str(run), str(torch.get_num_threads())]
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_SAVING, *arguments], check=False, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    (left,) = run.glob(".last.*.pt")
    state = load_state(run, CPU)
    first, second = read_metrics(run)
    assert state is not None and state["step"] == first["step"] < second["step"]
    train(chips, run, TINY)
    train(chips, tmp_path / "whole", TINY)
    assert_same_run(tmp_path / "whole", run)
    assert not left.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "best.safetensors"])
def test_a_kill_between_checkpoint_and_models_is_made_good(
    chips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config = dataclasses.replace(TINY, best_by="ssim", lr=2e-3)
    train(chips, tmp_path / "whole", config)
    assert read_card(tmp_path / "whole" / "best.safetensors").provenance["of_steps"]
    original, calls = Translator.save, []

    def dying(self: Translator, path: Path) -> None:
        calls.append(path.name)
        if calls.count(name) == 2:
            raise Killed
        original(self, path)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Translator, "save", dying)
        train(chips, tmp_path / "run", config)
    train(chips, tmp_path / "run", config)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_the_best_epoch_is_kept_and_named(chips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = tmp_path / "run"
    with caplog.at_level("INFO", "geop2p"):
        result = train(chips, run, dataclasses.replace(TINY, epochs=5, lr=0.05, best_by="ssim", set=("ema=0",)))
    history = read_metrics(run)
    values = [entry["val"]["ssim"] for entry in history]
    best = values.index(max(values))
    assert result.best == {"metric": "ssim", "value": values[best], "epoch": best + 1, "file": "best.safetensors"}
    assert read_card(run / "best.safetensors").provenance["steps"] == history[best]["step"]
    assert f"epoch {best + 1}: best.safetensors" in caplog.text
    validation = ChipArrays.load(ChipSet.open(chips), "val")
    target = ChipSet.open(chips).target
    again = run_writer.validate(Translator.load(run / "best.safetensors"), validation, 4, target)
    assert again["ssim"] == pytest.approx(values[best], abs=1e-6)  # the very weights that were scored
    last = run_writer.validate(Translator.load(run), validation, 4, target)
    assert last["ssim"] == pytest.approx(values[-1], abs=1e-6)


def test_training_stops_when_nothing_gets_better(chips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = dataclasses.replace(TINY, epochs=6, lr=1e-30, best_by="psnr", patience=2)
    with caplog.at_level("INFO", "geop2p"):
        result = train(chips, tmp_path / "run", config)
    history = read_metrics(tmp_path / "run")
    assert len(history) == 3 and result.steps == history[-1]["step"] and result.best["epoch"] == 1  # type: ignore[index]
    assert "no better psnr for long" in caplog.text
    assert train(chips, tmp_path / "run", config).steps == result.steps  # repeated, it stays where it stopped
    longer = train(chips, tmp_path / "run", dataclasses.replace(config, patience=4))
    assert longer.steps > result.steps and len(read_metrics(tmp_path / "run")) == 5


def test_a_score_that_there_is_not_ends_no_training(
    chips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where stripes without data leave no whole window, no SSIM is no worse one."""
    original = run_writer.validate
    monkeypatch.setattr(run_writer, "validate", lambda *given: original(*given) | {"ssim": None})
    config = dataclasses.replace(TINY, epochs=4, best_by="ssim", patience=1)
    result = train(chips, tmp_path / "run", config)
    assert len(read_metrics(tmp_path / "run")) == 4 and result.best is None
    assert caplog.text.count("epoch 1: the validation has no ssim to tell the best epoch by") == 1


def test_an_epoch_without_error_is_the_best() -> None:
    def epoch(number: int, psnr: float | None, rmse: float | None) -> dict[str, Any]:
        return {"epoch": number, "step": 10 * number, "val": {"psnr": psnr, "rmse": rmse}}

    history = [epoch(1, 30.0, 1.0), epoch(2, None, 0.0), epoch(3, 50.0, 0.1), epoch(4, None, None)]
    best = {"metric": "psnr", "value": None, "epoch": 2, "step": 20}
    assert best_epoch(history, "psnr") == best and epochs_without_gain(history, "psnr") == 1
    assert best_epoch(history[:1] + history[3:], "psnr") == best | {"value": 30.0, "epoch": 1, "step": 10}


def test_scores_that_the_target_does_not_have_are_refused(pair: tuple[Path, Path], chips: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="patience counts epochs without a better score; say which with best_by"):
        TrainConfig(recipe="pix2pix", patience=3)
    with pytest.raises(ConfigError, match=r"best_by is 'miou', the target of .* is scored by l1, rmse, psnr, ssim"):
        train(chips, tmp_path / "run", dataclasses.replace(TINY, best_by="miou"))
    tile(*pair, tmp_path / "alone", TileConfig(size=64, min_valid=0.5, split="1:0:0"))
    with pytest.raises(ConfigError, match="best_by needs validation chips"):
        train(tmp_path / "alone", tmp_path / "run", dataclasses.replace(TINY, best_by="l1"))
    assert not (tmp_path / "run").exists()


def failing(chips: Path, run: Path, **changes: Any) -> str:
    with pytest.raises(GeoP2PError) as caught:
        train(chips, run, dataclasses.replace(TINY, **changes))
    return str(caught.value)


def test_losses_that_are_not_finite_name_step_and_cause(chips: Path, tmp_path: Path) -> None:
    """Rates at which the generator, then the discriminator breaks: what is said is what was done."""
    text = failing(chips, tmp_path / "g", lr=1e30, loss="l1", precision="fp32")
    assert "loss l1 is not finite from step 2 on, its chips are finite: the generator's weights broke in the" in text
    assert "in the step before; lower --lr (now 1e+30), and repeat with --overwrite" in text
    text = failing(chips, tmp_path / "d", lr=1e36, precision="fp32", set=("discriminator_lr=100",))
    assert "loss gan is not finite from step 1 on, its chips are finite: the discriminator's weights broke" in text
    assert "in the step itself; lower --lr (now 1e+36) or --set discriminator_lr=0.5" in text


def test_inputs_that_are_not_finite_are_named(chips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chips are looked at when they are read; what spoils them later is found as well."""
    original = Feed._finish

    def spoiled(self: Feed, stored: Any, places: Any, *others: Any) -> Any:
        batch = original(self, stored, places, *others)
        batch.source[places == 9] = torch.nan
        return batch

    monkeypatch.setattr(Feed, "_finish", spoiled)
    text = failing(chips, tmp_path / "run")
    chipset = ChipSet.open(chips)
    name = chipset.entries("train")[epoch_order(0, 0, chipset.counts["train"])[9]].id
    assert f"is not finite from step 3 on: the inputs came first, chip {name} holds values" in text


@pytest.mark.parametrize("side", ["source", "target"])
def test_validation_pixels_that_are_not_finite_are_named(tmp_path: Path, side: str) -> None:
    """Packed chips are mapped as they are, so that nobody looked at them before."""
    values = np.random.default_rng(0).normal(0, 1, (1, 128, 128)).astype(np.float32)
    layers = [write_raster(tmp_path / f"{name}.tif", values, grid(128, 128)) for name in "ab"]
    kinds: dict[str, Any] = {"source_kind": "image", "target_kind": "image"}
    tile(*layers, tmp_path / "chips", TileConfig(size=32, split="2:1:1", format="packed", **kinds))
    stored = np.load(tmp_path / "chips" / f"val_{side}.npy", mmap_mode="r+")
    stored[1, 0, 3, 4] = np.nan
    stored.flush()
    name = ChipSet.open(tmp_path / "chips").entries("val")[1].id
    text = failing(tmp_path / "chips", tmp_path / "run", batch_size=16, epochs=1)
    assert text.startswith(f"validation chip {name} holds values of the {side} that are not finite in valid pixels; ")


def test_weights_that_break_in_the_last_step_of_an_epoch_are_not_kept(
    chips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = TrainingStep.__call__

    def call(self: TrainingStep, batch: Any, step: int) -> Any:
        losses = original(self, batch, step)
        next(self.generator.parameters()).data[0] = torch.inf
        return losses

    monkeypatch.setattr(TrainingStep, "__call__", call)
    text = failing(chips, tmp_path / "run", epochs=200, steps=1)
    assert "the weights of the generator are not finite after step 1, the losses before were; lower --lr" in text
    assert not (tmp_path / "run" / "model.safetensors").exists() and not (tmp_path / "run" / "last.pt").exists()


@pytest.mark.parametrize(
    ("cause", "size", "hint"),
    [
        (lambda: torch.empty(10**15), 8, "out of memory with 8 chips a step and width 2; try --batch-size 4"),
        (lambda: _raise(torch.OutOfMemoryError("CUDA out of memory. Tried to")), 3, "try --batch-size 1"),
        (lambda: _raise(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")), 2, "try --batch-size 1"),
        (lambda: _raise(MemoryError()), 1, "out of memory with 1 chips a step and width 2; try --width 1"),
        (lambda: _raise(RuntimeError("stride is wrong")), 8, None),
    ],
)
def test_out_of_memory_names_what_to_try(
    chips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: Callable[[], Any], size: int, hint: str | None
) -> None:
    monkeypatch.setattr(TrainingStep, "__call__", lambda *_: cause())
    config = dataclasses.replace(TINY, batch_size=size)
    with pytest.raises(RuntimeError if hint is None else GeoP2PError, match=hint or "stride is wrong"):
        train(chips, tmp_path / "run", config)


def test_networks_that_do_not_fit_into_memory_are_explained_too(
    chips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "build_networks", lambda *_: _raise(torch.OutOfMemoryError("CUDA out of memory.")))
    monkeypatch.setattr(rates, "build_networks", lambda *_: _raise(MemoryError("Unable to allocate 9 GiB")))
    with pytest.raises(GeoP2PError, match=r"out of memory with 8 chips a step and width 2; try --batch-size 4$"):
        train(chips, tmp_path / "run", dataclasses.replace(TINY, batch_size=8))
    with pytest.raises(GeoP2PError, match=r"try --batch-size 4 \(Unable to allocate 9 GiB\)$"):
        rates.find_lr(chips, tmp_path / "rate.png", dataclasses.replace(TINY, batch_size=8))


def _raise(error: BaseException) -> None:
    raise error


def image_chips(tmp_path: Path, name: str, target: np.ndarray, valid: np.ndarray | None = None) -> Path:
    """Chips of noise as the source and of something else as the target."""
    source = np.random.default_rng(0).integers(0, 255, target.shape, np.uint8)
    layers = (
        write_raster(tmp_path / f"{name}_{side}.tif", values, grid(160, 160), mask=mask)
        for side, values, mask in (("a", source, None), ("b", target, valid))
    )
    tile(*layers, tmp_path / name, TileConfig(size=32, source_kind="image", target_kind="image", min_valid=0.5))
    return tmp_path / name


def checks_of(chips: Path, module: torch.nn.Module, discriminator: torch.nn.Module | None = None) -> dict[str, Any]:
    chipset = ChipSet.open(chips)
    card = build_networks(chipset, TINY).card
    arrays = ChipArrays.load(chipset, "train")
    return check_outputs(Translator(module, card), discriminator, Recipe(batch_size=4), arrays)


class Weakened(Identity):
    def forward(self, source: torch.Tensor) -> torch.Tensor:
        return 0.3 * source.flip(-1)


class Answer(torch.nn.Module):
    """A discriminator that is right, wrong or without an idea, told by the mean of what it judges."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor))

    def forward(self, pair: torch.Tensor) -> list[list[torch.Tensor]]:
        return [[self.factor * (pair[:, 3:].mean(dim=(1, 2, 3), keepdim=True) - 0.2)]]


def history_of(checks: dict[str, Any], epochs: int) -> list[dict[str, Any]]:
    return [{"epoch": epoch + 1, "checks": checks} for epoch in range(epochs)]


def test_outputs_that_ignore_the_source_are_noticed(tmp_path: Path) -> None:
    chips = image_chips(tmp_path, "chips", np.random.default_rng(1).integers(0, 255, (3, 160, 160), np.uint8))
    collapsed, healthy = checks_of(chips, Constant()), checks_of(chips, Weakened())
    assert collapsed["variation"] == 0 and healthy["variation"] == pytest.approx(0.09, abs=0.01)
    assert not all_warnings(history_of(collapsed, 2))
    (warning,) = all_warnings(history_of(collapsed, 8))  # said once
    assert warning["epoch"] == 3 and "nearly the same for every chip for 3 epochs" in warning["text"]
    mended = [*history_of(collapsed, 2), *history_of(healthy, 1), *history_of(collapsed, 2)]
    assert not all_warnings(mended)


def test_copies_of_the_source_are_noticed_unless_the_truth_is_one(tmp_path: Path) -> None:
    source = np.random.default_rng(0).integers(0, 255, (3, 160, 160), np.uint8)
    other = image_chips(tmp_path, "other", 255 - source)
    same = image_chips(tmp_path, "same", source // 2)
    copied, right, inverse = checks_of(other, Identity()), checks_of(same, Identity()), checks_of(other, Weakened())
    assert copied["likeness"] == pytest.approx(1) and copied["true_likeness"] == pytest.approx(-1)
    (warning,) = all_warnings(history_of(copied, 5))
    assert warning["epoch"] == 3 and "nearly a copy of the source" in warning["text"]
    assert not all_warnings(history_of(right, 5)) and not all_warnings(history_of(inverse, 5))


def test_a_discriminator_without_a_task_is_noticed(tmp_path: Path) -> None:
    chips = image_chips(tmp_path, "chips", np.full((3, 160, 160), 200, np.uint8))
    for factor, rights, words in ((1.0, (1, 1), "without fail for 10"), (-1.0, (0, 0), "has been wrong about")):
        found = checks_of(chips, Weakened(), Answer(factor))
        assert (found["right_real"], found["right_fake"]) == rights
        assert not all_warnings(history_of(found, 9))
        (warning,) = all_warnings(history_of(found | {"variation": 1.0}, 25))
        assert warning["epoch"] == 10 and words in warning["text"]
    undecided = checks_of(chips, Constant(), Answer(1.0))
    assert (undecided["right_real"], undecided["right_fake"]) == (1, 0)
    assert not all_warnings(history_of(undecided | {"variation": 1.0}, 25))


class Sure(torch.nn.Module):
    """A discriminator that knows patches of 16 pixels of real images by their brightness."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, pair: torch.Tensor) -> list[list[torch.Tensor]]:
        return [[torch.nn.functional.avg_pool2d(pair[:, 3:4], 16) - 0.4]]


def test_ground_without_data_is_no_answer_of_the_discriminator(tmp_path: Path) -> None:
    """There real and fake images are the same, so that nobody could be sure of both."""
    values, valid = np.full((3, 160, 160), 200, np.uint8), np.ones((160, 160), bool)
    valid[16:48, 16:48] = False
    chips = image_chips(tmp_path, "chips", values, valid)
    found = checks_of(chips, Constant(), Sure())
    assert (found["right_real"], found["right_fake"]) == (1, 1)


def test_a_healthy_training_warns_of_nothing(chips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = dataclasses.replace(TINY, epochs=4, width=4, lr=2e-3)
    train(chips, tmp_path / "run", config)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    checks = [entry["checks"] for entry in read_metrics(tmp_path / "run")]
    assert checks[-1]["variation"] > 0.1 and checks[-1]["likeness"] is None  # a map is no picture to copy


def test_a_collapsed_training_warns_in_words(
    chips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Translator, "translate", lambda self, encoded: torch.full((len(encoded), 3, 64, 64), 0.3))
    train(chips, tmp_path / "run", dataclasses.replace(TINY, epochs=3, batch_size=16))
    assert "epoch 3: the output has been nearly the same for every chip" in caplog.text


def test_batch_norm_with_few_chips_a_step_is_warned_of(
    chips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = dataclasses.replace(TINY, recipe="pix2pix-paper", epochs=200, steps=1, set=FEW)
    train(chips, tmp_path / "four", config)
    assert "batch norm" not in caplog.text
    train(chips, tmp_path / "three", dataclasses.replace(config, batch_size=3))
    assert "batch norm in the generator and the discriminator trains with 3 chips a step" in caplog.text
