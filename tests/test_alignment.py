"""Misregistration: a planted shift is found again."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from conftest import grid, write_raster
from rasterio.windows import Window
from scipy import ndimage

from geop2p import TileConfig, tile
from geop2p.errors import ConfigError, NoGroundError
from geop2p.raster.layers import open_layer
from geop2p.tiling.alignment import TRUSTED, Shift, measure_shift, report
from geop2p.tiling.chips import ChipSet

SAMPLE = Path(__file__).parents[1] / "sample_data"
PLANTED = [(0.0, 0.0), (0.3, -0.3), (1.0, 1.0), (-3.7, 3.7)]


def scene(side: int, seed: int = 0) -> np.ndarray:
    """Patches with noise, float64 (rows, cols), larger than asked for."""
    generator = np.random.default_rng(seed)
    patches = generator.normal(0, 40, (side // 12 + 8, side // 12 + 8)).repeat(12, 0).repeat(12, 1)
    return patches + generator.normal(0, 4, patches.shape)


@pytest.mark.parametrize(("rows", "cols"), PLANTED)
def test_a_planted_shift_is_recovered(rows: float, cols: float) -> None:
    base = scene(128)
    moved = ndimage.shift(base, (rows, cols), order=3, mode="reflect")
    valid = np.ones((128, 128), bool)
    at = np.s_[None, 20:148, 20:148]
    shift = measure_shift(base[at], moved[at], valid, (False, False))
    assert (shift.rows, shift.cols) == pytest.approx((rows, cols), abs=0.2)
    assert shift.confidence > TRUSTED


@pytest.mark.parametrize(("rows", "cols"), [(13.0, 0.0), (14.0, 14.0), (-16.0, 2.0), (40.0, -25.5)])
def test_a_shift_is_found_far_away_too(rows: float, cols: float) -> None:
    """And not taken for the furthest of those that are likely."""
    base = scene(256)
    moved = ndimage.shift(base, (rows, cols), order=3, mode="reflect")
    at = np.s_[None, 40:232, 40:232]
    shift = measure_shift(base[at], moved[at], np.ones((192, 192), bool), (False, False))
    assert (shift.rows, shift.cols) == pytest.approx((rows, cols), abs=0.2)
    assert shift.confidence > TRUSTED


def test_holes_do_not_pull_the_shift() -> None:
    base = scene(128)
    moved = ndimage.shift(base, (2.0, -1.0), order=3, mode="reflect")
    valid = np.ones((128, 128), bool)
    valid[:, 90:] = False
    valid[30:50, 20:60] = False
    at = np.s_[None, 20:148, 20:148]
    shift = measure_shift(np.where(valid, base[at], 999), np.where(valid, moved[at], -999), valid, (False, False))
    assert (shift.rows, shift.cols) == pytest.approx((2.0, -1.0), abs=0.2)


@pytest.mark.parametrize(("rows", "cols"), PLANTED)
def test_a_planted_shift_of_the_sample_image_is_recovered_from_the_map(rows: float, cols: float) -> None:
    """A class map against an image: single chips may err, their median does not."""
    source, target = open_layer(SAMPLE / "landcover.tif"), open_layer(SAMPLE / "image.tif")
    assert target.grid is not None
    moved = dataclasses.replace(target.grid, transform=target.grid.transform @ Affine.translation(-cols, -rows))
    shifts = []
    with source.reader(target.grid) as first, target.reader(moved) as second:
        for row in range(0, 900, 180):
            for col in range(128, 900, 180):
                window = Window(col, row, 192, 192)
                (codes, there), (image, here) = first.read(window), second.read(window)
                if (there & here).mean() > 0.95:
                    shifts.append(measure_shift(codes, image, there & here, (True, False)))
    trusted = [(shift.rows, shift.cols) for shift in shifts if shift.confidence >= TRUSTED]
    assert len(trusted) > 10
    assert np.median(trusted, axis=0) == pytest.approx((rows, cols), abs=0.2)


def test_noise_is_not_trusted() -> None:
    generator = np.random.default_rng(0)
    valid = np.ones((64, 64), bool)
    shifts = [
        measure_shift(generator.normal(size=(1, 64, 64)), generator.normal(size=(1, 64, 64)), valid, (False, False))
        for _ in range(20)
    ]
    assert sum(shift.confidence >= TRUSTED for shift in shifts) <= 1
    assert "too few edges in common, or too far apart" in report("a", shifts)
    flat = measure_shift(np.zeros((1, 64, 64)), np.zeros((1, 64, 64)), valid, (False, False))
    assert flat.confidence == 0
    with pytest.raises(ConfigError, match="max_shift is 33, expected 0 to 32, half a chip"):
        TileConfig(size=64, max_shift=33)


def test_the_report_says_when_to_worry() -> None:
    fine = [Shift(0.1, -0.1, 20.0)] * 9
    far = [Shift(3.0, 0.1, 20.0)] * 9 + [Shift(-9.0, 9.0, 2.0)]
    assert report("a", fine).endswith("(median of 9 chips, spread 0.00)")
    assert "+3.00 rows" in report("b", far) and report("b", far).endswith("check their georeference")


def test_shifted_chips_are_dropped_when_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    base = scene(420)[:420, :420]
    image = base.copy()
    image[:, 210:] = ndimage.shift(base, (4, 4), order=1, mode="reflect")[:, 210:]
    where = grid(420, 420)
    source = write_raster(tmp_path / "a.tif", base[None].astype(np.float32), where)
    target = write_raster(tmp_path / "b.tif", image[None].astype(np.float32), where)
    kinds = {"source_kind": "image", "target_kind": "image", "split": "1:0:0", "size": 64}
    tile(source, target, tmp_path / "all", TileConfig(**kinds))
    tile(source, target, tmp_path / "some", TileConfig(**kinds, max_shift=2.0))
    every, some = (ChipSet.open(tmp_path / name) for name in ("all", "some"))
    assert some.scenes[0].dropped["shifted"] == 18  # three of six columns lie right of the fault
    assert some.index()["col_off"].max() < 210 < every.index()["col_off"].max()
    measured = every.index().dropna(subset=["shift_rows"])
    right = measured[measured["col_off"] > 210]
    assert np.allclose(right[["shift_rows", "shift_cols"]], 4, atol=0.2)
    assert "b: the target lies" in caplog.text
    all_over = write_raster(tmp_path / "c.tif", np.roll(base, 4, axis=0)[None].astype(np.float32), where)
    message = r"c: \d+ windows of 64 pixels show a shift of more than 2 pixels, .*; raise --max-shift, or correct where"
    with pytest.raises(NoGroundError, match=message):
        tile(source, all_over, tmp_path / "none", TileConfig(**kinds, max_shift=2.0))
