"""What a training is given, good and bad: any bands and kinds, damaged chips, foreign checkpoints."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import class_map, grid, write_raster
from safetensors.torch import save_file

from geop2p import TileConfig, TrainConfig, Translator, tile, train
from geop2p.errors import CheckpointError, ChipSetError, ConfigError
from geop2p.raster.encoding import Array
from geop2p.tiling.chips import ChipSet
from geop2p.training.checkpoint import load_state
from geop2p.training.data import ChipArrays
from geop2p.training.history import read_metrics
from geop2p.training.recipes import RECIPES
from geop2p.translator import read_card

TINY = TrainConfig(recipe="pix2pix", epochs=1, batch_size=4, width=2, downs=4, device="cpu")


@pytest.fixture
def chips(pair: tuple[Path, Path], tmp_path: Path) -> Path:
    tile(*pair, tmp_path / "chips", TileConfig(size=64, min_valid=0.5))
    return tmp_path / "chips"


def a_chip(chips: Path, split: str = "train", side: str = "source") -> Path:
    return sorted((chips / side / split).glob("*.tif"))[0]


def replaced(chip: Path, values: Array) -> None:
    write_raster(chip, values, grid(*values.shape[1:]))


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_damaged_chip_is_named_before_the_first_step_or_left_out(
    chips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, split: str
) -> None:
    bad = a_chip(chips, split)
    bad.write_bytes(bad.read_bytes()[:300])
    with pytest.raises(ChipSetError, match=rf"{bad.name}.*--skip-bad leaves such chips out"):
        train(chips, tmp_path / "run", TINY)
    assert not (tmp_path / "run" / "last.pt").exists()
    train(chips, tmp_path / "run", dataclasses.replace(TINY, skip_bad=True))  # the same folder: nothing was learnt yet
    count = ChipSet.open(chips).counts[split]
    assert f"left out 1 of {count} {split} chips: {bad.stem}" in caplog.text
    train_chips = read_card(tmp_path / "run").provenance["train_chips"]
    assert train_chips == ChipSet.open(chips).counts["train"] - (split == "train")


def test_norms_are_checked_with_the_chips_that_are_left(chips: Path, tmp_path: Path) -> None:
    """Before the first step: of as many as there are without the damaged one, the last batch has one."""
    bad, count = a_chip(chips), ChipSet.open(chips).counts["train"]
    bad.write_bytes(bad.read_bytes()[:300])
    entries = ("generator=smp", "architecture=deeplabv3plus", "encoder=resnet18", "norm=batch")
    config = dataclasses.replace(TINY, batch_size=count - 2, downs=None, skip_bad=True, set=entries)
    with pytest.raises(
        ConfigError, match=rf"{count - 1} training chips in batches of {count - 2} leave a batch of one"
    ):
        train(chips, tmp_path / "run", config)


def test_chips_of_mixed_size_are_named(chips: Path, tmp_path: Path) -> None:
    odd = a_chip(chips, side="target")
    replaced(odd, np.zeros((3, 48, 64), np.uint8))
    with pytest.raises(ChipSetError, match=rf"{odd.name}.*\(3, 48, 64\), uint8, expected \(3, 64, 64\), uint8"):
        train(chips, tmp_path / "run", TINY)


def test_chips_that_come_back_do_not_slip_into_a_run(chips: Path, tmp_path: Path) -> None:
    bad = a_chip(chips)
    whole = bad.read_bytes()
    bad.write_bytes(whole[:300])
    config = dataclasses.replace(TINY, skip_bad=True)
    train(chips, tmp_path / "run", config)
    bad.write_bytes(whole)
    with pytest.raises(CheckpointError, match=r"made with other training chips than the .* that can be read now"):
        train(chips, tmp_path / "run", config)


def test_empty_splits(pair: tuple[Path, Path], chips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for bad in (chips / "source" / "train").glob("*.tif"):
        bad.write_bytes(b"")
    with pytest.raises(ChipSetError, match=r"none of the \d+ train chips can be used"):
        train(chips, tmp_path / "run", dataclasses.replace(TINY, skip_bad=True))
    file = chips / "chipset.json"
    described = json.loads(file.read_text())
    file.write_text(json.dumps(described | {"counts": described["counts"] | {"train": 0}}))
    with pytest.raises(ChipSetError, match="has no training chips; tile with another --split"):
        train(chips, tmp_path / "none", TINY)
    tile(*pair, tmp_path / "alone", TileConfig(size=64, min_valid=0.5, split="1:0:0"))
    result = train(tmp_path / "alone", tmp_path / "alone_run", dataclasses.replace(TINY, epochs=200, steps=1))
    assert result.best is None and "no validation chips" in caplog.text


def test_foreign_and_damaged_checkpoints_are_refused(chips: Path, tmp_path: Path) -> None:
    run, last = tmp_path / "run", tmp_path / "run" / "last.pt"
    config = dataclasses.replace(TINY, epochs=200, steps=1)
    train(chips, run, config)
    whole, state = last.read_bytes(), load_state(run, torch.device("cpu"))
    assert state is not None
    cut = {name: value[:1] for name, value in state["generator"].items() if value.ndim}
    foreign, misfit = r"not a checkpoint of geop2p \(", "does not fit the networks of this run "
    bytes_of_others = (whole[: len(whole) // 4], whole[: len(whole) // 2], b"PK garbage", b"junk\n", b"a" * 512, b"")
    broken: list[tuple[str, Any]] = [(foreign, some) for some in bytes_of_others]
    broken += [(rf"{foreign}a foreign file\)", some) for some in ({"epoch": 3}, [1, 2])]
    broken += [(r"made by a newer geop2p \(format 99\); upgrade", state | {"geop2p": 99})]
    broken += [("damaged .*steps done", state | {"step": step}) for step in ("7", -1, None)]
    broken += [(misfit, state | change) for change in ({"generator": cut}, {"optimizer_g": {}}, {"losses": []})]
    for message, some in broken:
        last.write_bytes(some) if isinstance(some, bytes) else torch.save(some, last)
        with pytest.raises(CheckpointError, match=rf"last\.pt: {message}") as caught:
            train(chips, run, config)
        assert "weights_only" not in str(caught.value) and "\n" not in str(caught.value)
    last.unlink()
    last.mkdir()
    with pytest.raises(CheckpointError, match=r"last\.pt: cannot be read \(Is a directory\)"):
        train(chips, run, config)
    last.rmdir()
    (run / "metrics.jsonl").write_text("{\n")
    last.write_bytes(whole)
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: damaged"):
        train(chips, run, config)


def test_foreign_and_damaged_models_are_refused(chips: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(chips, run, dataclasses.replace(TINY, epochs=200, steps=1))
    file = run / "model.safetensors"
    whole = file.read_bytes()
    save_file({"a": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(whole[:-100])
    (tmp_path / "newer.safetensors").write_bytes(whole.replace(b'\\"format\\": 1', b'\\"format\\": 9'))
    for name, message in (
        ("foreign", "without a geop2p card"),
        ("torn", "not a whole safetensors file"),
        ("newer", "made by a newer geop2p"),
    ):
        with pytest.raises(CheckpointError, match=rf"{name}\.safetensors: .*{message}"):
            Translator.load(tmp_path / f"{name}.safetensors")


def test_a_device_that_is_not_there_is_refused(chips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device 'cuda' is not available here; use cpu or auto"):
        train(chips, tmp_path / "run", dataclasses.replace(TINY, device="cuda"))
    assert not (tmp_path / "run").exists()


SIDES: dict[str, tuple[dict[str, Any], Any]] = {  # settings of the side, and its values in a window
    "1 uint8": ({}, lambda random, shape: random.integers(0, 255, (1, *shape), np.uint8)),
    "4 uint16": ({}, lambda random, shape: random.integers(300, 9000, (4, *shape), np.uint16)),
    "2 int16": ({}, lambda random, shape: random.integers(-3000, 3000, (2, *shape), np.int16)),
    "7 float32": ({}, lambda random, shape: random.normal(0.2, 0.05, (7, *shape)).astype(np.float32)),
    "classes": ({}, lambda random, shape: class_map(*shape)),
    "2 sar": ({"kind": "sar"}, lambda random, shape: random.normal(-12, 3, (2, *shape)).astype(np.float32)),
    "1 elevation": (
        {"kind": "elevation"},
        lambda random, shape: np.cumsum(random.normal(0, 1, (1, *shape)), axis=2).astype(np.float32),
    ),
}
PAIRS = [
    ("1 uint8", "4 uint16"),
    ("4 uint16", "1 uint8"),
    ("2 int16", "7 float32"),
    ("7 float32", "classes"),
    ("classes", "2 int16"),
    ("classes", "classes"),
    ("2 sar", "4 uint16"),
    ("1 elevation", "2 sar"),
    ("4 uint16", "1 elevation"),
]


@pytest.mark.parametrize(("source", "target"), PAIRS, ids=[f"{source} to {target}" for source, target in PAIRS])
@pytest.mark.parametrize("recipe", ["pix2pix", "pix2pix-geo"])
def test_any_bands_and_kinds_train_and_predict(tmp_path: Path, source: str, target: str, recipe: Any) -> None:
    """N bands in, M out, classes on either side: the card tells the contract, scores are in the target's units."""
    where, random = grid(112, 144), np.random.default_rng(0)
    config: dict[str, Any] = {}
    values = {}
    for side, name in (("source", source), ("target", target)):
        settings, draw = SIDES[name]
        values[side] = draw(random, (112, 144))
        profile = {"nodata": 0} if name == "classes" else {}
        write_raster(tmp_path / f"{side}.tif", values[side], where, **profile)
        config[f"{side}_kind"] = settings.get("kind", "classes" if name == "classes" else "image")
    tile(tmp_path / "source.tif", tmp_path / "target.tif", tmp_path / "chips", TileConfig(size=16, **config))
    settings = () if target == "classes" else ("scales=1", "patch=16")
    settings += ("statistics_chips=8",) if RECIPES[recipe].norm == "batch" else ()
    train(
        tmp_path / "chips",
        tmp_path / "run",
        TrainConfig(recipe=recipe, steps=2, width=2, downs=2, batch_size=8, device="cpu", set=settings),
    )
    translator = Translator.load(tmp_path / "run")
    card, chipset = translator.card, ChipSet.open(tmp_path / "chips")
    assert (card.source, card.target) == (chipset.source, chipset.target)
    assert (card.arguments["in_channels"], card.arguments["out_channels"]) == tuple(
        3 if name == "classes" else int(name[0]) for name in (source, target)
    )
    made = translator(values["source"])
    assert made.shape == values["target"].shape and made.dtype == values["target"].dtype
    scores = read_metrics(tmp_path / "run")[-1]["val"]
    validation = ChipArrays.load(chipset, "val")
    made = np.stack([translator(chip) for chip in validation.source])
    if target == "classes":
        assert set(np.unique(made)) <= {1, 2, 5}
        right = (made == validation.target)[:, 0][validation.valid]
        assert scores["accuracy"] == pytest.approx(right.mean())
        return
    error = np.abs(made.astype(np.float64) - validation.target).transpose(1, 0, 2, 3)[:, validation.valid]
    assert scores["l1"] == pytest.approx(error.mean(), rel=1e-5)  # DN, dB, metres or reflectance
    assert scores["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-5)
