"""Whose the folder of a run is: nothing of anybody else is touched, and a run is not lost to a command that fails."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import no_file_above, write_pair

from geop2p import TileConfig, TrainConfig, Translator, tile, train
from geop2p.errors import CheckpointError, ChipSetError, ConfigError, GeoP2PError, OutputError
from geop2p.evaluation.description import describe
from geop2p.training import caching
from geop2p.training.checkpoint import LAST, save_state
from geop2p.training.history import append_metrics
from geop2p.training.loop import Training
from geop2p.training.recipes import RECIPES
from geop2p.training.run_writer import RunWriter
from geop2p.translator import read_card

ONE = TrainConfig(recipe="pix2pix", steps=1, batch_size=4, width=2, downs=4, device="cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chips and two runs on them; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    tile(*write_pair(folder), folder / "chips", TileConfig(size=64, min_valid=0.5))
    train(folder / "chips", folder / "base", dataclasses.replace(ONE, seed=1))
    train(folder / "chips", folder / "run", ONE)
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made / "run", tmp_path / "run")


def content(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "config", [b'{"model_type": "bert"}', b"[]", b'"recipe, chips, set"', b"\xff\xfe", b"{", None], ids=repr
)
def test_a_folder_of_others_is_refused(made: Path, tmp_path: Path, config: bytes | None, overwrite: bool) -> None:
    foreign = tmp_path / "foreign"
    (foreign / "thesis").mkdir(parents=True)
    (foreign / "thesis" / "a.txt").write_text("mine")
    if config is not None:
        (foreign / "config.json").write_bytes(config)
    before = content(foreign)
    with pytest.raises(CheckpointError, match="give a new folder"):
        train(made / "chips", foreign, ONE, overwrite=overwrite)
    assert content(foreign) == before


@pytest.mark.parametrize("way", ["dot", "link", "name"])
def test_overwriting_removes_what_a_run_owns_and_nothing_else(
    made: Path, run: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    for name in ("notes.txt", "samples/mine.png", "best.safetensors", "cache/0/train_source.npy", ".last.ab345678.pt"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("x")
    (run.parent / "link").symlink_to(run)
    monkeypatch.chdir(run)
    given = {"dot": Path(), "link": run.parent / "link", "name": run}[way]
    train(made / "chips", given, dataclasses.replace(ONE, seed=2), overwrite=True)
    left = {str(name) for name in content(run)}
    assert left == {str(name) for name in content(made / "run")} | {"notes.txt", "samples/mine.png"}
    assert json.loads((run / "config.json").read_text())["seed"] == 2
    assert read_card(run).provenance["seed"] == 2 and not (run / "cache").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_was_barely_begun_is_that_of_a_run(made: Path, tmp_path: Path, overwrite: bool) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / ".config.abc12345.json").write_text("{")  # of a process that was killed while it wrote
    train(made / "chips", run, ONE, overwrite=overwrite)
    assert set(content(run)) == set(content(made / "run"))


@pytest.mark.parametrize("when", ["before the last epoch ends", "before the page is written"])
def test_a_run_that_is_removed_meanwhile_is_told(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    run = tmp_path / "run"
    if when == "before the page is written":
        keep = RunWriter.keep
        monkeypatch.setattr(RunWriter, "keep", lambda *arguments: (keep(*arguments), shutil.rmtree(run))[0])
    else:
        checked = Training._check_weights
        monkeypatch.setattr(Training, "_check_weights", lambda self: (checked(self), shutil.rmtree(run))[0])
    with pytest.raises(CheckpointError, match="run: was removed while the training ran"):
        train(made / "chips", run, ONE)
    assert not run.exists()


def test_a_run_is_not_removed_for_one_that_cannot_be_trained(made: Path, run: Path, tmp_path: Path) -> None:
    chips, before = shutil.copytree(made / "chips", tmp_path / "chips"), content(run)
    next((chips / "source" / "val").glob("*.tif")).write_bytes(b"")
    with pytest.raises(ChipSetError, match="skip-bad leaves such chips out"):
        train(chips, run, dataclasses.replace(ONE, seed=2), overwrite=True)
    assert content(run) == before


def test_packed_chips_are_those_of_the_training(
    made: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache of other chips, which a run left that is overwritten, is not trained on, and goes with it."""
    monkeypatch.setattr(caching, "free_memory", lambda: 0)
    train(made / "chips", run, ONE, overwrite=True)
    (old,) = (run / "cache").iterdir()
    tile(*write_pair(tmp_path), tmp_path / "chips", TileConfig(size=64, min_valid=0.5, seed=3))
    train(tmp_path / "chips", run, ONE, overwrite=True)
    (new,) = (run / "cache").iterdir()
    assert new != old and len(list(new.iterdir())) == 6


@pytest.mark.parametrize("left", ["model.safetensors", "best.safetensors"])
def test_a_run_without_its_checkpoint_is_not_begun_again_by_the_way(made: Path, run: Path, left: str) -> None:
    """Its models would stay beside metrics of other settings."""
    (run / LAST).unlink()
    (run / "model.safetensors").rename(run / left)
    before = content(run)
    for config in (ONE, dataclasses.replace(ONE, seed=2)):
        with pytest.raises(CheckpointError, match=r"run: has a model but no last.pt, .*or --overwrite to begin again"):
            train(made / "chips", run, config)
    assert content(run) == before
    train(made / "chips", run, dataclasses.replace(ONE, seed=2), overwrite=True)
    assert read_card(run).provenance["seed"] == 2


HOLDING = """
import sys
from pathlib import Path
from geop2p.training.run_folder import lock_run
with lock_run(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no lock there")
def test_two_trainings_do_not_share_a_run(made: Path, run: Path) -> None:
    """Also not through another name of its folder; reading it goes on."""
    (run.parent / "link").symlink_to(run)
    before, pipe = content(run), subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLDING, run], stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        for place, overwrite in ((run, False), (run, True), (run.parent / "link", False)):
            with pytest.raises(CheckpointError, match="another process is training this run"):
                train(made / "chips", place, ONE, overwrite=overwrite)
        assert describe(run)["type"] == "model" and Translator.load(run).card.recipe == "pix2pix"
        other.kill()
    assert content(run) == before
    assert train(made / "chips", run, ONE).steps == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
def test_a_full_disk_or_a_read_only_place_is_one_line(made: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    translator, before = Translator.load(run), content(run)
    for name, write in {
        "last.pt": lambda: save_state(run, {"weights": torch.zeros(10_000)}),
        "model.safetensors": lambda: translator.save(run / "model.safetensors"),
        "metrics.jsonl": lambda: append_metrics(run, {"losses": "of an epoch" * 20}),
    }.items():
        with no_file_above(100), pytest.raises(OutputError, match=rf"{name}: cannot be written .*is the disk full"):
            write()
    assert content(run).keys() == before.keys()
    with monkeypatch.context() as patch, pytest.raises(OutputError, match="run: cannot be written"):
        patch.setattr(Path, "unlink", lambda *_, **__: (run / "gone").stat())
        train(made / "chips", run, ONE, overwrite=True)


def test_a_recipe_that_has_changed_since_is_not_mixed_into_a_run(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What decides is what the recipe and its changes came to, which the model tells as well."""
    config, run = dataclasses.replace(ONE, recipe="pix2pix", steps=2), tmp_path / "run"
    train(made / "chips", run, dataclasses.replace(config, set=("pixel_weight=100", *config.set)))
    assert read_card(run).provenance["recipe_values"]["pixel_weight"] == 100
    assert train(made / "chips", run, config).steps == 2  # 100 is what the recipe has
    monkeypatch.setitem(RECIPES, "pix2pix", dataclasses.replace(RECIPES["pix2pix"], pixel_weight=30.0))
    with pytest.raises(ConfigError, match=r"other settings \(pixel_weight is 30.0, there it is 100.0\); repeat"):
        train(made / "chips", run, config)
    same = dataclasses.replace(config, set=("pixel_weight=100", *config.set))
    assert train(made / "chips", run, same).steps == 2


def test_fine_tuning_goes_on_without_its_base(made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The checkpoint has all of it; the base may be gone, or trained anew."""
    base, run = shutil.copytree(made / "base", tmp_path / "base"), tmp_path / "tuned"
    config = dataclasses.replace(ONE, init_from=base, steps=2)
    train(made / "chips", run, config)
    start = read_card(run).provenance["init_from"]
    shutil.copy(made / "run" / "model.safetensors", base / "model.safetensors")
    (run / "model.safetensors").unlink()
    assert train(made / "chips", run, config).steps == 2
    assert f"{base}: not the model that the run began with; it goes on without" in caplog.text
    assert read_card(run).provenance["init_from"] == start
    shutil.rmtree(base)
    assert train(made / "chips", run, config).steps == 2
    for other in (None, made / "run"):
        with pytest.raises(ConfigError, match=r"begun with other settings .*init_from is"):
            train(made / "chips", run, dataclasses.replace(config, init_from=other))
    with pytest.raises(CheckpointError, match="no such model"):
        train(made / "chips", run, config, overwrite=True)
    assert (run / LAST).exists()


def test_too_little_memory_is_not_taken_for_a_damaged_checkpoint(
    made: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

    monkeypatch.setattr(torch, "load", full)
    with pytest.raises(GeoP2PError, match="out of memory with 4 chips a step"):
        train(made / "chips", run, ONE)


def test_epochs_that_count_for_nothing_do_not_keep_a_run_from_going_on(made: Path, run: Path) -> None:
    settings = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(settings | {"epochs": 5}))  # as it was given beside steps once
    assert train(made / "chips", run, ONE).steps == 1


def test_a_run_goes_on_on_another_device(made: Path, run: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "geop2p"):
        assert train(made / "chips", run, dataclasses.replace(ONE, device="auto")).steps == 1
    assert json.loads((run / "config.json").read_text())["device"] == "auto"
    assert "bit by bit" not in caplog.text or torch.cuda.is_available()
    state = torch.load(run / LAST, weights_only=True)
    torch.save(state | {"device": "mps"}, run / LAST)
    with caplog.at_level("INFO", "geop2p"):
        train(made / "chips", run, ONE)
    assert "trained on mps so far, goes on on cpu; the rest is not equal bit by bit" in caplog.text


def test_lost_metrics_are_told(made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, config = tmp_path / "run", dataclasses.replace(ONE, steps=None, epochs=2, batch_size=16)
    train(made / "chips", run, config)
    train(made / "chips", run, config)
    assert "missing" not in caplog.text
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    for text, lost in ((lines[1], 1), ("", 2)):
        (run / "metrics.jsonl").write_text(text)
        train(made / "chips", run, config)
        assert f"metrics.jsonl: {lost} epochs before the checkpoint are missing" in caplog.text


@pytest.mark.parametrize(
    "bad", [b"\xff\x00\n", b"[]\n", b"3\n", b"{}\n", b'{"step": "x", "epoch": 1, "losses": {}}\n', None], ids=repr
)
def test_damaged_metrics_are_one_line(made: Path, run: Path, bad: bytes | None) -> None:
    (run / "metrics.jsonl").unlink()
    if bad is None:
        (run / "metrics.jsonl").mkdir()
    else:
        (run / "metrics.jsonl").write_bytes(bad)
    for reading in (lambda: train(made / "chips", run, ONE), lambda: describe(run)):
        with pytest.raises(CheckpointError, match=r"metrics\.jsonl: damaged .*begin again with --overwrite"):
            reading()


@pytest.mark.parametrize(
    "text", ['{"format": "x"}', "[]", '"x"', '{"format": 2, "layout": "geotiff", "size": 8, "source": 3}']
)
def test_damaged_descriptions_of_chips_are_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "chipset.json").write_text(text)
    with pytest.raises(ChipSetError, match=r"chipset\.json: is damaged.*; tile again with --overwrite"):
        train(tmp_path, tmp_path / "run", ONE)
