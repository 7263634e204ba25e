"""Weights that draw rare classes oftener."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import class_map, grid, write_raster
from hypothesis import given, settings
from hypothesis import strategies as st

from geop2p import TileConfig, tile
from geop2p.tiling.balance import MOST_WEIGHT, chip_weights
from geop2p.tiling.chips import ChipSet


def chips(*splits: str, **shares: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"split": splits, "valid": 1.0} | shares)


def test_a_chip_weighs_as_its_mean_pixel_under_square_root_sampling() -> None:
    index = chips(*["train"] * 10, "val", source_1=[1.0] * 9 + [0.0, 0.0], source_2=[0.0] * 9 + [1.0, 1.0])
    weights = chip_weights(index)
    assert weights[9] / weights[0] == pytest.approx(np.sqrt(0.9 / 0.1))
    assert weights[:10].mean() == pytest.approx(1) and weights[10] == 1
    mixed = chips("train", "train", "train", source_1=[1.0, 0.5, 1.0], source_2=[0.0, 0.5, 0.0])
    assert chip_weights(mixed)[1] / chip_weights(mixed)[0] == pytest.approx(0.5 + 0.5 * np.sqrt(5))


def test_both_sides_count_and_none_means_alike() -> None:
    one = chips("train", "train", "train", source_1=[1, 1, 0], source_2=[0, 0, 1])
    two = one.assign(target_7=[1.0, 0.0, 1.0], target_8=[0.0, 1.0, 0.0])
    assert chip_weights(one)[0] == chip_weights(one)[1] < chip_weights(two)[1]
    assert chip_weights(two)[1] == pytest.approx(chip_weights(two)[2])
    assert (chip_weights(chips("train", "train", "test")) == 1).all()
    assert (chip_weights(chips("val", "test", source_1=[1.0, 1.0])) == 1).all()


@given(
    seed=st.integers(0, 1000),
    count=st.integers(1, 300),
    classes=st.integers(1, 8),
    skew=st.floats(0.01, 3),
)
@settings(max_examples=50)
def test_weights_are_positive_and_one_in_the_mean(seed: int, count: int, classes: int, skew: float) -> None:
    draws = np.random.default_rng(seed)
    shares = draws.dirichlet(np.full(classes, skew) / np.arange(1, classes + 1) ** 3 + 1e-3, count)
    columns = {f"target_{code}": shares[:, code] for code in range(classes)}
    weights = chip_weights(chips(*["train"] * count, **columns))
    assert weights.mean() == pytest.approx(1) and (weights > 0).all()
    ground = shares.sum(axis=0)
    pixel = np.where(ground > 0, ground / ground.sum(), np.inf) ** -0.5
    assert (np.diff(weights[np.argsort(shares @ pixel)]) >= -1e-9).all()  # rarer ground never weighs less


def test_one_very_rare_chip_is_capped() -> None:
    index = chips(*["train"] * 10_000, source_1=[1.0] * 9_999 + [0.0], source_2=[0.0] * 9_999 + [1.0])
    assert chip_weights(index).max() == pytest.approx(MOST_WEIGHT, rel=0.02)  # without the cap 50


def test_the_index_holds_weights_of_all_scenes(tmp_path: Path) -> None:
    for number in range(2):
        where = grid(160, 192, left=500_000 + 1000.0 * number)
        source = write_raster(tmp_path / f"map{number}.tif", class_map(160, 192, number), where)
        target = write_raster(tmp_path / f"image{number}.tif", np.zeros((3, 160, 192), np.uint8), where)
        tile(source, target, tmp_path / "chips", TileConfig(size=32))
        index = ChipSet.open(tmp_path / "chips").index()
        train = index[index["split"] == "train"]
        assert train["weight"].mean() == pytest.approx(1) and train["weight"].nunique() > 5
        assert (index.loc[index["split"] != "train", "weight"] == 1).all()
        assert np.allclose(index["weight"], chip_weights(index))
    assert index.columns.tolist()[-2:] == ["weight", "geometry"] and index["scene"].nunique() == 2
