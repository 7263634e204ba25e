"""Relief: height minus the mean height of the ground around, the same from any window."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from conftest import Identity, grid, write_raster
from rasterio.windows import Window

from geop2p import PredictConfig, TileConfig, predict, tile
from geop2p.errors import ChipSetError, ConfigError
from geop2p.raster.encoding import Band, Encoding
from geop2p.raster.grid import Grid
from geop2p.raster.relief import disc, relief_reader
from geop2p.tiling.chips import ChipSet

RADIUS = 14.0  # seven pixels of 2 m


def terrain(height: int, width: int, dtype: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    """Hills with a hole without data, (1, rows, cols), and what is valid."""
    rows, cols = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).normal(0, 3, (height, width))
    heights = 800 + 3 * rows - 2 * cols + 40 * np.sin(rows / 9) * np.cos(cols / 13) + noise
    valid = (rows - 30) ** 2 + (cols - 50) ** 2 > 150
    return np.where(valid, heights, -9999)[np.newaxis].astype(dtype), valid


def expected(heights: np.ndarray, valid: np.ndarray, pixels: int) -> np.ndarray:
    """The definition, pixel by pixel."""
    result = np.zeros(valid.shape)
    rows, cols = np.mgrid[: valid.shape[0], : valid.shape[1]]
    for row, col in zip(*np.nonzero(valid), strict=True):
        near = ((rows - row) ** 2 + (cols - col) ** 2 <= pixels**2) & valid
        result[row, col] = float(heights[0][row, col]) - heights[0][near].astype(np.float64).mean()
    return result


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_relief_is_height_minus_the_mean_of_valid_ground(tmp_path: Path, dtype: str) -> None:
    heights, valid = terrain(60, 80, dtype)
    where = grid(60, 80)
    path = write_raster(tmp_path / "dem.tif", heights, where, nodata=-9999)
    with relief_reader(path, where, RADIUS) as reader:
        values, found = reader.read(Window(0, 0, 80, 60))
    assert values.dtype == np.float32 and np.array_equal(found, valid)
    assert np.abs(values[0] - expected(heights, valid, 7))[valid].max() < 1e-4
    assert (values[0][~valid] == 0).all()


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_windows_of_any_size_agree(tmp_path: Path, dtype: str) -> None:
    heights, _ = terrain(90, 110, dtype)
    where = grid(90, 110)
    path = write_raster(tmp_path / "dem.tif", heights, where, nodata=-9999)
    with relief_reader(path, where, RADIUS) as reader:
        whole, valid = reader.read(Window(0, 0, 110, 90))
        for size in (1, 13, 32, 200):
            for row in range(0, 90, size):
                for col in range(0, 110, size):
                    values, there = reader.read(Window(col, row, size, size))
                    at = np.s_[row : row + size, col : col + size]
                    shape = valid[at].shape
                    assert np.array_equal(there[: shape[0], : shape[1]], valid[at]) and there.sum() == valid[at].sum()
                    apart = np.abs(values[:, : shape[0], : shape[1]] - whole[:, *at])
                    assert apart.max() <= (0 if dtype == "int16" else 1e-5)


def test_ground_beyond_the_grid_counts(tmp_path: Path) -> None:
    """The grid of a scene ends where the other layer does; the heights around it are still there."""
    heights, _ = terrain(90, 110)
    where = grid(90, 110)
    path = write_raster(tmp_path / "dem.tif", heights, where, nodata=-9999)
    inner = where.window(Window(20, 30, 40, 35))
    with relief_reader(path, where, RADIUS) as reader:
        whole, _ = reader.read(Window(20, 30, 40, 35))
    with relief_reader(path, inner, RADIUS) as reader:
        part, valid = reader.read(Window(0, 0, 40, 35))
        beyond, there = reader.read(Window(-5, -5, 10, 10))
    assert np.abs(part - whole)[:, valid].max() < 1e-5
    assert not there[:5].any() and not there[:, :5].any() and (beyond[:, :5] == 0).all()


def test_the_disc_is_round_on_the_ground() -> None:
    wide = Grid(grid(9, 9).crs, grid(9, 9).transform @ rasterio.Affine.scale(1, 2), 9, 9)
    assert disc(grid(9, 9), 6.2, "dem.tif") == [0, 2, 2, 3, 2, 2, 0]
    assert disc(wide, 8, "dem.tif") == [0, 3, 4, 3, 0]
    shifted = grid(9, 9, left=700_000.0)  # pixels a little larger on the ground
    assert disc(grid(9, 9), 100, "dem.tif") == disc(shifted, 100, "dem.tif")
    with pytest.raises(ConfigError, match=r"relief within 0\.9 m on pixels of 2\.001 m; give"):
        disc(grid(9, 9), 0.9, "dem.tif")
    assert len(disc(grid(9, 9), 2000, "dem.tif")) == 2001
    with pytest.raises(
        ConfigError, match=r"relief within 5000 m on pixels of 2\.001 m reaches 2499 pixels, expected 2048"
    ):
        disc(grid(9, 9), 5000, "dem.tif")
    with pytest.raises(ConfigError, match="no CRS"):
        disc(Grid(None, grid(9, 9).transform, 9, 9), 10, "dem.tif")


def test_chips_hold_relief_that_agrees_with_the_whole_layer(tmp_path: Path) -> None:
    heights, _ = terrain(200, 230)
    where = grid(200, 230)
    source = write_raster(tmp_path / "dem.tif", heights, where, nodata=-9999)
    target = write_raster(tmp_path / "image.tif", np.zeros((3, 150, 160), np.uint8), grid(150, 160))
    config = TileConfig(size=32, stride=24, relief=RADIUS, min_valid=0.2, split_by="random")
    tile(source, target, tmp_path / "chips", config)
    chipset = ChipSet.open(tmp_path / "chips")
    encoding = chipset.source
    assert (encoding.kind, encoding.dtype, encoding.relief) == ("elevation", "float32", RADIUS)
    assert -60 < encoding.bands[0].low < -5 and 5 < encoding.bands[0].high < 60  # heights are 400 to 1400
    with relief_reader(source, where, RADIUS) as reader:
        whole, _ = reader.read(Window(0, 0, 230, 200))
    for row in chipset.index().itertuples():
        chip = chipset.read(row.split, row.id)
        at = np.s_[:, row.row_off : row.row_off + 32, row.col_off : row.col_off + 32]
        assert np.abs(chip.source - whole[at])[:, chip.valid].max() < 1e-4
    with pytest.raises(ChipSetError, match=r"relief is None, there it is 14\.0"):
        tile(source, target, tmp_path / "chips", dataclasses.replace(config, relief=None))


def test_a_mosaic_of_relief_has_no_seams(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    heights, _ = terrain(150, 170, "int16")
    where = grid(150, 170)
    path = write_raster(tmp_path / "dem.tif", heights, where, nodata=-9999)
    target = Encoding("image", "float32", (Band(low=-100, high=100),))
    source = Encoding("elevation", "float32", (Band(low=-100, high=100),), relief=RADIUS)
    model = make_model(Identity, source, target)
    result = predict(model, path, tmp_path / "out.tif", PredictConfig(tile_size=32, batch_size=2))
    with relief_reader(path, where, RADIUS) as reader:
        whole, valid = reader.read(Window(0, 0, 170, 150))
    with rasterio.open(tmp_path / "out.tif") as dataset:
        made = dataset.read()
    assert np.array_equal(np.isfinite(made[0]), valid)
    assert np.abs(made - whole)[:, valid].max() < 200 * 1e-5
    assert result.tile_mismatch is not None and result.tile_mismatch < 1e-4


def test_relief_is_of_heights_and_of_the_source_only(tmp_path: Path) -> None:
    heights, _ = terrain(96, 96)
    dem = write_raster(tmp_path / "dem.tif", heights, grid(96, 96), nodata=-9999)
    image = write_raster(tmp_path / "image.tif", np.zeros((3, 96, 96), np.uint8), grid(96, 96))
    with pytest.raises(
        ConfigError, match=r"image\.tif: holds image .*relief needs elevation as the source; a target can"
    ):
        tile(image, dem, tmp_path / "chips", TileConfig(size=32, relief=20))
    for radius in (0, -5, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match=r"relief is .*, expected (metres above 0|a finite number)"):
            TileConfig(relief=radius)
