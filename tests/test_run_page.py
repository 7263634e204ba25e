"""What a person sees of a training: the page of the run, the progress line, TensorBoard."""

import dataclasses
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import grid, write_raster
from PIL import Image

from geop2p import TileConfig, TrainConfig, tile, train
from geop2p.errors import ConfigError
from geop2p.training import run_writer
from geop2p.training.checkpoint import save_state
from geop2p.training.history import read_metrics

TINY = TrainConfig(recipe="pix2pix", epochs=3, batch_size=8, width=2, downs=4, device="cpu")


@pytest.fixture
def chips(pair: tuple[Path, Path], tmp_path: Path) -> Path:
    tile(*pair, tmp_path / "chips", TileConfig(size=64, min_valid=0.5))
    return tmp_path / "chips"


def curves(page: str) -> dict[str, list[tuple[float, float]]]:
    found = {}
    for name, points in re.findall(r'aria-label="(.+?) by epoch">.*?points="(.+?)"', page, flags=re.DOTALL):
        found[name] = [tuple(map(float, point.split(","))) for point in points.split()]
    return found  # type: ignore[return-value]


def test_the_page_of_a_run_shows_what_its_metrics_say(chips: Path, tmp_path: Path) -> None:
    run = tmp_path / "my <run>"
    result = train(chips, run, dataclasses.replace(TINY, best_by="psnr", set=("ema=0.5",)))
    page, history = (run / "report.html").read_text(), read_metrics(run)
    assert "<title>Training my &lt;run&gt;</title>" in page
    assert not re.search(r'(src|href)="(?!data:)', page) and "http" not in page and "<script" not in page
    drawn = curves(page)
    values = [entry["val"]["psnr"] for entry in history]
    low, high = min(values), max(values)
    expected = [(x, 110 * (1 - (value - low) / (high - low))) for x, value in zip((0, 130, 260), values, strict=True)]
    assert np.allclose(drawn["psnr"], expected, atol=0.06)
    assert {"gan", "l1", "d", "ssim", "variation over chips, share of the truth&#39;s"} <= set(drawn)
    assert result.best is not None and f"best psnr, epoch {result.best['epoch']}, kept as best.safetensors" in page
    assert page.count("best marked") == 1 and '<dd class="changed">ema=0.5</dd>' in page
    assert "water, meadow, road" in page and "3 bands of uint8: red, green, blue" in page and "<dt>torch</dt>" in page
    assert "<h2>Warnings</h2>" not in page and "recipe_values" not in page  # which the recipe shows
    assert "L1, DN, last epoch" in page and "l1, DN" in drawn and "l1" in drawn and result.unit == "DN"


def test_samples_on_the_page_are_those_of_the_run(chips: Path, tmp_path: Path) -> None:
    from geop2p.training.report import _samples

    run = tmp_path / "run"
    train(chips, run, TINY)
    rows = _samples(run / "samples")
    assert len(rows) == 3
    sheet = np.asarray(Image.open(run / "samples" / "epoch_0002.png"))
    assert [name for name, _ in rows[1]] == ["source", "epoch 1", "epoch 2", "epoch 3", "truth"]
    side = 64 + 4
    for name, column in (("source", 0), ("epoch 2", 1), ("truth", 2)):
        expected = sheet[side + 2 : 2 * side - 2, column * side + 2 : (column + 1) * side - 2]
        assert np.array_equal(dict(rows[1])[name], expected)


def test_a_page_without_validation_or_discriminator(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (1, 128, 128), np.uint8)
    layers = [write_raster(tmp_path / f"{name}.tif", values, grid(128, 128)) for name in "ab"]
    tile(*layers, tmp_path / "chips", TileConfig(size=32, split="1:0:0"))
    train(tmp_path / "chips", tmp_path / "run", dataclasses.replace(TINY, epochs=4, loss="l1", lr=1e-30))
    page = (tmp_path / "run" / "report.html").read_text()
    assert set(curves(page)) == {"l1", "variation over chips, share of the truth&#39;s"}


def test_a_page_tells_what_the_settings_come_to(pair: tuple[Path, Path], tmp_path: Path) -> None:
    tile(*pair, tmp_path / "chips", TileConfig(size=64, min_valid=0.5, target_kind="sar"))
    config = dataclasses.replace(TINY, epochs=TrainConfig().epochs, steps=2, set=("d4=true", "flip=true"))
    train(tmp_path / "chips", tmp_path / "run", config)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<dt>d4</dt><dd>False</dd>" in page and "<dt>flip</dt><dd>False</dd>" in page  # radar looks from one side
    assert '<dt>steps</dt><dd class="changed">2</dd>' in page and "<dt>epochs</dt>" not in page


def test_the_progress_line_tells_time_losses_and_speed(
    chips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(chips, tmp_path / "run", TINY, progress=True)
    out, err = capsys.readouterr()
    last = err.strip().split("\r")[-1]
    assert not out
    assert re.search(r"100%.* \d+/\d+ \[\d\d:\d\d<\d\d:\d\d, .*step", last)
    assert re.search(r"gan=[\d.]+, l1=[\d.]+, d=[\d.]+, images/s=[\d.]+", last)


def test_tensorboard_shows_the_metrics_also_after_an_interruption(
    chips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, config = tmp_path / "run", dataclasses.replace(TINY, tensorboard=True)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(
            run_writer, "save_state", lambda *_: _interrupt() if len(read_metrics(run)) == 2 else save_state(*_)
        )
        train(chips, run, config)
    train(chips, run, config)
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    history = read_metrics(run)
    for part, name in (("val", "ssim"), ("losses", "gan"), ("checks", "variation")):
        shown = [(event.step, event.value) for event in events.Scalars(f"{part}/{name}")]
        assert shown == [(entry["step"], pytest.approx(entry[part][name])) for entry in history]
    assert [event.step for event in events.Images("samples")] == [entry["step"] for entry in history]
    assert train(chips, run, TINY).steps == history[-1]["step"]  # the run goes on without it


def test_tensorboard_begun_later_shows_all_of_the_run(
    chips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(
            run_writer, "save_state", lambda *_: _interrupt() if len(read_metrics(run)) == 2 else save_state(*_)
        )
        train(chips, run, TINY)
    train(chips, run, dataclasses.replace(TINY, tensorboard=True))
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("val/ssim")] == [entry["step"] for entry in read_metrics(run)]


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_without_tensorboard_the_extra_is_named(chips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'geop2p\[tensorboard\]'"):
        train(chips, tmp_path / "run", dataclasses.replace(TINY, tensorboard=True))
    assert not (tmp_path / "run").exists()
