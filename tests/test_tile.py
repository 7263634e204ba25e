"""Chips that can be trusted: aligned, masked, split without leaks."""

import csv
import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import pytest
import rasterio
from affine import Affine
from conftest import UTM, class_map, grid, lattice, write_names, write_raster
from rasterio.crs import CRS
from rasterio.windows import Window
from shapely.geometry import LineString, box

from geop2p import PredictConfig, TileConfig, TrainConfig, check, tile
from geop2p.errors import ChipSetError, ConfigError, GeoP2PError, GridMismatchError, NoGroundError, RasterError
from geop2p.raster.aligned import aligned_reader
from geop2p.raster.encoding import MapClass
from geop2p.raster.grid import Grid
from geop2p.raster.layers import open_layer
from geop2p.tiling.chips import ChipSet
from geop2p.tiling.geotiff import chip_path
from geop2p.tiling.scenes import scene_grid

SMALL = TileConfig(size=32, stride=32)


def leaks(index: geopandas.GeoDataFrame, distance: float) -> int:
    """Pairs of chips of different splits that overlap or are nearer than a distance."""
    projected = index.to_crs(UTM)
    found = 0
    for split in ("val", "test"):
        held, others = projected[projected["split"] == split], projected[projected["split"] != split]
        for shape in held.geometry:
            gap = others.distance(shape)
            touching = gap < distance - 0.05
            overlapping = others.intersection(shape).area > 0.1
            found += int((touching | overlapping).sum())
    return found


def test_chips_hold_the_pixels_of_both_rasters(pair: tuple[Path, Path], tmp_path: Path) -> None:
    result = tile(*pair, tmp_path / "chips", SMALL)
    assert result.train and result.val and result.test
    assert result.chips == result.train + result.val + result.test
    chipset = ChipSet.open(tmp_path / "chips")
    with rasterio.open(pair[0]) as source, rasterio.open(pair[1]) as target:
        codes, image, hole = source.read(), target.read(), target.dataset_mask() == 0
    index = chipset.index()
    assert len(index) == result.chips and index.crs.to_epsg() == 32632
    for row in index.itertuples():
        chip = chipset.read(row.split, row.id)
        at = np.s_[row.row_off : row.row_off + 32, row.col_off : row.col_off + 32]
        shape = codes[:, *at].shape[1:]
        valid = (codes[0][at] != 0) & ~hole[at]
        assert np.array_equal(chip.valid[: shape[0], : shape[1]], valid)
        assert not chip.valid[shape[0] :].any() and not chip.valid[:, shape[1] :].any()
        assert np.array_equal(chip.source[:, : shape[0], : shape[1]], codes[:, *at])
        assert np.array_equal(chip.target[:, chip.valid], image[:, *at][:, valid])
        assert row.valid == pytest.approx(chip.valid.mean())
        assert row.geometry.equals(box(*rasterio.open(chip_path(chipset.folder, "source", row.split, row.id)).bounds))
        assert row.source_1 == pytest.approx((chip.source[0][chip.valid] == 1).mean())


def test_class_names_and_colours_travel(pair: tuple[Path, Path], tmp_path: Path) -> None:
    tile(*pair, tmp_path / "chips", SMALL)
    chipset = ChipSet.open(tmp_path / "chips")
    assert [(c.value, c.name, c.color) for c in chipset.source.classes] == [
        (1, "water", (40, 90, 160)), (2, "meadow", (150, 190, 110)), (5, "road", (90, 90, 90)),
    ]  # fmt: skip
    row = chipset.index().iloc[0]
    chip = chip_path(chipset.folder, "source", row.split, row.id)
    with rasterio.open(chip) as dataset:
        assert dataset.colormap(1)[5] == (90, 90, 90, 255)
    assert "<Category>meadow</Category>" in Path(f"{chip}.aux.xml").read_text()
    Path(f"{pair[0]}.aux.xml").unlink()  # names made up of the codes need no file a chip
    tile(*pair, tmp_path / "nameless", SMALL)
    assert [entry.name for entry in ChipSet.open(tmp_path / "nameless").source.classes] == [
        "class 1",
        "class 2",
        "class 5",
    ]
    assert not list((tmp_path / "nameless").rglob("*.aux.xml"))


def test_two_grids_and_two_crs_meet_on_the_ground(tmp_path: Path) -> None:
    """Source in degrees, target in UTM at another resolution: both hold the same smooth function of the ground."""
    from rasterio.crs import CRS
    from rasterio.warp import transform

    from geop2p.raster.grid import covering

    def field(where) -> np.ndarray:
        cols, rows = np.meshgrid(np.arange(where.width) + 0.5, np.arange(where.height) + 0.5)
        xs, ys = where.transform @ (cols.ravel(), rows.ravel())
        easting, northing = (np.array(axis) for axis in transform(where.crs, UTM, xs, ys))
        value = 1000 + 400 * np.sin(easting / 60) + 400 * np.cos(northing / 60)
        return value.reshape(1, where.height, where.width).astype(np.float32)

    target = grid(200, 240, pixel=3.0, left=500_100.7)
    source = covering(target.bounds_in(CRS.from_epsg(4326)), CRS.from_epsg(4326), 2.5e-5)
    sides = {"source": source, "target": target}
    pair = (write_raster(tmp_path / f"{name}.tif", field(where), where) for name, where in sides.items())
    tile(*pair, tmp_path / "chips", TileConfig(size=32, split="1:0:0"))
    chipset = ChipSet.open(tmp_path / "chips")
    index = chipset.index()
    slope = 400 / 60 * 3.0  # the most that the field changes over one pixel of the target
    for row in index.itertuples():
        chip = chipset.read(row.split, row.id)
        difference = np.abs(chip.source - chip.target)[:, chip.valid]
        assert difference.max() < slope / 2
        assert difference.mean() < slope / 20


@pytest.mark.parametrize("stride", [16, 32, 40])
@pytest.mark.parametrize("buffer", [0, 7, 32])
def test_no_split_sees_the_ground_of_another(tmp_path: Path, stride: int, buffer: int) -> None:
    where = grid(500, 620)
    source = write_raster(tmp_path / "map.tif", class_map(500, 620), where)
    target = write_raster(tmp_path / "image.tif", np.zeros((1, 500, 620), np.uint8), where)
    config = TileConfig(size=32, stride=stride, buffer=buffer, target_kind="image")
    first = tile(source, target, tmp_path / "a", config)
    index = ChipSet.open(tmp_path / "a").index()
    assert leaks(index, buffer * 2.0) == 0
    assert min(first.train, first.val, first.test) > 0
    tile(source, target, tmp_path / "b", config)
    again = ChipSet.open(tmp_path / "b").index()
    assert index[["id", "split"]].equals(again[["id", "split"]])


def test_overlapping_scenes_do_not_leak_into_each_other(tmp_path: Path) -> None:
    for number, shift in enumerate((0.0, 317.0)):
        where = grid(400, 400, left=500_000 + shift)
        source = write_raster(tmp_path / f"map{number}.tif", class_map(400, 400, number), where)
        target = write_raster(tmp_path / f"image{number}.tif", np.zeros((1, 400, 400), np.uint8), where)
        result = tile(source, target, tmp_path / "chips", TileConfig(size=32, target_kind="image"))
    assert result.scenes == 2
    assert leaks(ChipSet.open(tmp_path / "chips").index(), 0) == 0


@pytest.mark.parametrize(("height", "width", "step"), [(64, 64, 32), (65, 31, 32), (33, 200, 16), (100, 97, 48)])
def test_windows_cover_every_pixel(height: int, width: int, step: int) -> None:
    visits = np.zeros((height + 64, width + 64), int)
    for row, col in lattice(grid(height, width), TileConfig(size=48, stride=step)):
        visits[row : row + 48, col : col + 48] += 1
    assert (visits[:height, :width] > 0).all()
    if step == 48:
        assert visits.max() == 1


def test_split_file_decides_by_scene_and_group(tmp_path: Path) -> None:
    rows = [("a", "train", "east"), ("b", "val", ""), ("c", "train", "east")]
    table = tmp_path / "split.csv"
    with table.open("w", newline="") as stream:
        csv.writer(stream).writerows([("scene", "split", "group"), *rows])
    config = TileConfig(size=32, split_by="file", split_file=table)
    for number, (name, _, _) in enumerate(rows):
        where = grid(100, 100, left=500_000 + 1000 * number)
        source = write_raster(tmp_path / f"{name}_map.tif", class_map(100, 100), where)
        target = write_raster(tmp_path / f"{name}.tif", np.zeros((3, 100, 100), np.uint8), where)
        tile(source, target, tmp_path / "chips", config)
    index = ChipSet.open(tmp_path / "chips").index()
    assert {name: set(group["split"]) for name, group in index.groupby("scene")} == {
        "a": {"train"}, "b": {"val"}, "c": {"train"},
    }  # fmt: skip
    where = grid(100, 100, left=600_000)
    other = write_raster(tmp_path / "d.tif", np.zeros((3, 100, 100), np.uint8), where)
    source = write_raster(tmp_path / "d_map.tif", class_map(100, 100), where)
    with pytest.raises(ChipSetError, match="has no row for scene 'd'; it has a, b, c"):
        tile(source, other, tmp_path / "chips", config)
    with table.open("a") as stream:
        stream.write("d,test,east\n")
    with pytest.raises(ChipSetError, match="group 'east' is in train and in test"):
        tile(source, other, tmp_path / "chips", config)


def test_a_vector_layer_becomes_classes(tmp_path: Path) -> None:
    where = grid(128, 128)
    target = write_raster(tmp_path / "image.tif", np.zeros((3, 128, 128), np.uint8), where)
    left, top = where.transform.c, where.transform.f
    shapes = [box(left, top - 64, left + 64, top), box(left + 128, top - 256, left + 256, top - 128)]
    layer = geopandas.GeoDataFrame({"use": ["lake", "barn"]}, geometry=shapes, crs=UTM)
    layer.to_crs(4326).to_file(tmp_path / "features.gpkg")
    config = TileConfig(size=32, source_field="use", split="1:0:0")
    tile(tmp_path / "features.gpkg", target, tmp_path / "chips", config)
    chipset = ChipSet.open(tmp_path / "chips")
    assert {c.name: c.value for c in chipset.source.classes} == {"background": 1, "barn": 2, "lake": 3}
    chips = {row.id: chipset.read(row.split, row.id).source[0] for row in chipset.index().itertuples()}
    assert (chips["image_r000000_c000000"] == 3).all()
    assert (chips["image_r000096_c000096"] == 2).all()
    assert (chips["image_r000000_c000096"] == 1).all()


def test_a_finished_chip_set_may_be_read_only(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tile(*pair, tmp_path / "chips", SMALL)
    monkeypatch.setattr("os.access", lambda *_: False)
    assert tile(*pair, tmp_path / "chips", SMALL).chips == made.chips


def test_repeating_does_nothing_and_other_settings_are_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    first = tile(*pair, tmp_path / "chips", SMALL)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "chips").rglob("*") if path.is_file()}
    second = tile(*pair, tmp_path / "chips", SMALL)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "chips").rglob("*") if path.is_file()}
    assert (first.train, first.val, first.test) == (second.train, second.val, second.test)
    with pytest.raises(ChipSetError, match="size is 64, there it is 32"):
        tile(*pair, tmp_path / "chips", TileConfig(size=64))
    assert tile(*pair, tmp_path / "chips", TileConfig(size=64, split="1:0:0"), overwrite=True).chips > 0
    assert ChipSet.open(tmp_path / "chips").size == 64


def test_float_sides_are_scaled_by_training_chips_only(tmp_path: Path) -> None:
    where = grid(320, 320)
    values = np.random.default_rng(0).normal(-12, 3, (2, 320, 320)).astype(np.float32)
    source = write_raster(tmp_path / "sar.tif", values, where)
    target = write_raster(tmp_path / "image.tif", np.zeros((3, 320, 320), np.uint8), where)
    tile(source, target, tmp_path / "a", SMALL)
    chipset = ChipSet.open(tmp_path / "a")
    assert chipset.source.kind == "sar"
    index = chipset.index()
    for row in index[index["split"] != "train"].itertuples():
        values[:, row.row_off : row.row_off + 32, row.col_off : row.col_off + 32] = -500
    changed = write_raster(tmp_path / "sar2.tif", values, where)
    tile(changed, target, tmp_path / "b", TileConfig(size=32, source_kind="sar"))
    assert ChipSet.open(tmp_path / "b").source.bands == chipset.source.bands
    assert chipset.source.bands[0].low == pytest.approx(-12 - 3.09 * 3, abs=0.3)


def fails(pair: tuple[Path, Path], chips: Path, config: TileConfig, error: type[GeoP2PError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        tile(*pair, chips, config)
    assert "\n" not in str(caught.value)
    assert not chips.exists()


def test_clear_refusals(pair: tuple[Path, Path], tmp_path: Path) -> None:
    from affine import Affine

    from geop2p.raster.grid import Grid

    _, target = pair
    chips = tmp_path / "chips"
    fails((tmp_path / "no.tif", target), chips, SMALL, RasterError, r"no\.tif: no such file")
    away = write_raster(tmp_path / "away.tif", class_map(64, 64), grid(64, 64, left=600_000.0))
    fails((away, target), chips, SMALL, GridMismatchError, "no common ground.*x 500000 to 500840.*x 600000 to 600128")
    bare = write_raster(tmp_path / "bare.tif", class_map(64, 64), Grid(None, Affine(2, 0, 5, 0, -2, 5), 64, 64))
    fails((bare, target), chips, SMALL, RasterError, "has no CRS")
    fails(pair, chips, TileConfig(size=1024), ChipSetError, "no window of 1024 pixels has 95% valid ground.*lower")
    fails(pair, chips, TileConfig(size=256, min_valid=0.2), ChipSetError, "no chip is left for .*try --size 128")
    fails(pair, chips, TileConfig(size=32, grid="EPSG:99999@2"), ConfigError, "unknown CRS")
    fails(pair, chips, TileConfig(size=32, grid="2m"), ConfigError, "expected source, target or EPSG:CODE@RESOLUTION")
    chips.mkdir(exist_ok=True)
    (chips / "thesis.doc").write_text("mine")
    with pytest.raises(ChipSetError, match="exists and is not a chip set"):
        tile(*pair, chips, SMALL)
    with pytest.raises(ChipSetError, match="leaves it alone"):
        tile(*pair, chips, SMALL, overwrite=True)
    assert (chips / "thesis.doc").read_text() == "mine"


def test_nothing_is_replaced_before_the_inputs_are_found(pair: tuple[Path, Path], tmp_path: Path) -> None:
    chips, nowhere = tmp_path / "chips", tmp_path / "nowhere"
    tile(*pair, chips, TileConfig(size=32))
    (tmp_path / "splits.csv").write_text("scene,split\nother,train\n")
    before = {path: path.read_bytes() for path in chips.rglob("*") if path.is_file()}
    for source, settings in (
        (nowhere, {}),
        (pair[0], {"aoi": nowhere}),
        (pair[0], {"classes": nowhere}),
        (pair[0], {"split_by": "file", "split_file": nowhere}),
        (pair[0], {"split_by": "file", "split_file": tmp_path / "splits.csv"}),
        (pair[0], {"size": 2048}),
        (pair[0], {"relief": 20.0}),
    ):
        with pytest.raises(GeoP2PError):
            tile(source, pair[1], chips, TileConfig(**{"size": 32} | settings), overwrite=True)
        assert {path: path.read_bytes() for path in chips.rglob("*") if path.is_file()} == before
    assert tile(*pair, chips, TileConfig(size=48), overwrite=True).scenes == 1


def test_chips_far_larger_than_the_layers_take_no_memory(pair: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(NoGroundError, match=r"no window of 2000000 pixels has 95% valid ground .*lower --min-valid or"):
        tile(*pair, tmp_path / "chips", TileConfig(size=2_000_000))
    assert not (tmp_path / "chips").exists()


HOLDING = """
import sys
from pathlib import Path
from geop2p.tiling.removal import lock_chips
with lock_chips(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no lock there")
def test_two_processes_do_not_make_one_chip_set(pair: tuple[Path, Path], tmp_path: Path) -> None:
    chips = tmp_path / "chips"
    tile(*pair, chips, TileConfig(size=32))
    command, pipe = [sys.executable, "-c", HOLDING, chips], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "locked\n"
        for overwrite in (False, True):
            with pytest.raises(ChipSetError, match="another process is making this chip set"):
                tile(*pair, chips, TileConfig(size=32), overwrite=overwrite)
        other.kill()
    assert tile(*pair, chips, TileConfig(size=32)).scenes == 1 and check(chips) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_settings_that_are_no_number_are_refused(value: float) -> None:
    for config in (TileConfig, TrainConfig, PredictConfig):
        for field in dataclasses.fields(config):
            if "float" in str(field.type):
                with pytest.raises(ConfigError, match=f"{field.name} is {value}, expected a finite number"):
                    config(**{field.name: value})


def test_shares_of_a_split_are_three_numbers_and_some_are_for_training() -> None:
    for split in ("nan:1:1", "inf:1:1", "8:1", "1:-1:1", "a:b:c"):
        with pytest.raises(ConfigError, match="expected three shares such as 8:1:1"):
            TileConfig(split=split)
    with pytest.raises(ConfigError, match=r"expected a first share, that of training, above 0; .*--split-by file"):
        TileConfig(split="0:0:1")


def test_bad_settings_are_refused_on_construction() -> None:
    for bad in ({"size": 1}, {"min_valid": 0}, {"split": "8:1"}, {"split_by": "file"}, {"buffer": -1}, {"stride": 0}):
        with pytest.raises(ConfigError):
            TileConfig(**bad)


@pytest.mark.parametrize(
    ("where", "told"),
    [
        (
            "EPSG:3857@0.0025",
            r"pixels 1\.19e\+03 times finer than those of .*\.tif; give the resolution in metre, the unit",
        ),
        ("EPSG:32632@1e-7", r"x .* pixels, more than 1e\+09 windows; give the resolution in metre"),
        ("EPSG:4326@10", r"pixels larger than the ground, 0\.0112 wide or high; give the resolution in degree"),
    ],
)
def test_a_resolution_in_the_wrong_unit_is_refused(
    pair: tuple[Path, Path], tmp_path: Path, where: str, told: str
) -> None:
    fails(pair, tmp_path / "chips", TileConfig(size=32, grid=where), ConfigError, told)


def test_so_is_one_of_layers_without_pixels(tmp_path: Path) -> None:
    shape = geopandas.GeoDataFrame(geometry=[box(9, 48, 10, 49)], crs=4326)
    for name in ("a", "b"):
        shape.to_file(tmp_path / f"{name}.gpkg")
    layers = tmp_path / "a.gpkg", tmp_path / "b.gpkg"
    fails(layers, tmp_path / "chips", TileConfig(grid="EPSG:32632@1e-3"), ConfigError, r"more than 1e\+09 windows")


def test_grids_of_any_crs_are_made_beside_a_raster_of_the_world(tmp_path: Path) -> None:
    """Whose bounds on a polar grid, and pixels at its own centre, say little of its pixels there."""
    world = Grid(CRS.from_epsg(4326), Affine(1, 0, -180, 0, -1, 90), 180, 360)
    raster = write_raster(tmp_path / "world.tif", np.zeros((3, 180, 360), np.uint8), world)
    shapes = geopandas.GeoDataFrame(geometry=[box(-24, 63, -13, 67)], crs=4326)
    shapes.to_file(tmp_path / "iceland.gpkg")
    layer = open_layer(tmp_path / "iceland.gpkg")
    for where in ("EPSG:3413@10000", "EPSG:3057@1000", "EPSG:4326@0.1"):
        found = scene_grid((layer, open_layer(raster)), TileConfig(size=16, grid=where))
        assert 30 < found.height < 700 and 30 < found.width < 700


def test_grid_by_resolution_snaps(pair: tuple[Path, Path], tmp_path: Path) -> None:
    tile(*pair, tmp_path / "chips", TileConfig(size=32, grid="EPSG:32632@4"))
    scene = ChipSet.open(tmp_path / "chips").scenes[0]
    assert scene.grid.transform.a == 4 and scene.grid.transform.c % 4 == 0


@pytest.mark.parametrize("bands", [2, 4, 5])
def test_any_number_of_8_bit_bands_survives(tmp_path: Path, bands: int) -> None:
    """GDAL takes the fourth of four 8-bit bands for alpha unless told otherwise."""
    where = grid(96, 96)
    values = np.random.default_rng(0).integers(0, 256, (bands, 96, 96), dtype=np.uint8)
    profile = {} if bands < 4 else {"photometric": "minisblack", "alpha": "no"}
    target = write_raster(tmp_path / "image.tif", values, where, **profile)
    source = write_raster(tmp_path / "map.tif", class_map(96, 96), where)
    tile(source, target, tmp_path / "chips", TileConfig(size=32, split="1:0:0"))
    chipset = ChipSet.open(tmp_path / "chips")
    row = chipset.index().iloc[0]
    at = np.s_[:, row.row_off : row.row_off + 32, row.col_off : row.col_off + 32]
    assert np.array_equal(chipset.read(row.split, row.id).target, values[at])


def test_a_narrow_range_far_from_zero_keeps_its_interval(tmp_path: Path) -> None:
    where = grid(128, 128)
    heights = np.random.default_rng(0).uniform(2000.0, 2001.9, (1, 128, 128)).astype(np.float32)
    source = write_raster(tmp_path / "dem.tif", heights, where)
    target = write_raster(tmp_path / "image.tif", np.zeros((3, 128, 128), np.uint8), where)
    tile(source, target, tmp_path / "chips", TileConfig(size=32, source_kind="elevation", split="1:0:0"))
    band = ChipSet.open(tmp_path / "chips").source.bands[0]
    assert (band.low, band.high) == (pytest.approx(2000.0, abs=0.01), pytest.approx(2001.9, abs=0.01))


def test_a_layer_of_the_whole_world_crops_nothing(tmp_path: Path) -> None:
    from affine import Affine
    from rasterio.crs import CRS

    from geop2p.raster.grid import Grid

    world = Grid(CRS.from_epsg(4326), Affine(1, 0, -180, 0, -1, 90), 180, 360)
    source = write_raster(tmp_path / "world.tif", class_map(180, 360), world)
    where = grid(128, 128, pixel=2000.0, left=400_000.0)
    target = write_raster(tmp_path / "image.tif", np.zeros((3, 128, 128), np.uint8), where)
    for number, config in enumerate((TileConfig(size=32), TileConfig(size=32, grid="EPSG:32632@2000"))):
        result = tile(source, target, tmp_path / f"chips{number}", dataclasses.replace(config, split="1:0:0"))
        assert result.chips == 16 and result.dropped == 0


def test_all_bands_must_be_data_with_and_without_a_warp(tmp_path: Path) -> None:
    where = grid(64, 64)
    values = np.full((3, 64, 64), 90, np.uint8)
    values[0, 20:30, 20:30] = 0
    path = write_raster(tmp_path / "image.tif", values, where, nodata=0)
    for shift in (0.0, 0.6):
        target = grid(60, 60, left=500_000.0 + shift)
        with aligned_reader(path, target, "image") as reader:
            found, valid = reader.read(Window(0, 0, 60, 60))
        assert not valid[21:29, 21:29].any() and valid[:, 32:].all()
        assert (found[:, valid] == 90).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"source_field": "use"}, r"map.tif: is a raster; --source-field is for vector layers, leave it out"),
        ({"target_field": "use"}, r"image.tif: is a raster; --target-field is for vector layers"),
        ({"line_width": 3.0}, r"map.tif and .*image.tif: are rasters; --line-width and --draw-order are for"),
        ({"draw_order": "road"}, r"map.tif and .*image.tif: are rasters; --line-width and --draw-order are for"),
    ],
)
def test_settings_for_vector_layers_are_refused_where_there_is_none(
    pair: tuple[Path, Path], tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        tile(*pair, tmp_path / "chips", dataclasses.replace(SMALL, **settings))


def test_a_largest_share_of_one_class_is_refused_where_there_are_none(pair: tuple[Path, Path], tmp_path: Path) -> None:
    image = pair[1]
    words = r"image.tif \(image\) and .*image.tif \(image\): hold no classes; --max-share is for maps, leave it out"
    with pytest.raises(ConfigError, match=words):
        tile(image, image, tmp_path / "chips", dataclasses.replace(SMALL, max_share=0.9))


def test_a_changed_or_differently_read_pair_is_refused_and_a_copy_is_known(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    first = tile(*pair, tmp_path / "chips", SMALL)
    copies = [Path(shutil.copy(path, tmp_path / f"copy_{path.name}")) for path in pair]
    assert tile(*copies, tmp_path / "chips", SMALL).chips == first.chips
    area = geopandas.GeoDataFrame(geometry=[box(*grid(300, 420).bounds)], crs=UTM)
    area.to_file(tmp_path / "aoi.gpkg")
    with pytest.raises(ChipSetError, match=r"other options \(aoi has changed\)"):
        tile(*pair, tmp_path / "chips", dataclasses.replace(SMALL, aoi=tmp_path / "aoi.gpkg"))
    with rasterio.open(pair[1], "r+") as dataset:
        dataset.write(np.full((3, 8, 8), 77, np.uint8), window=Window(0, 0, 8, 8))
    with pytest.raises(ChipSetError, match=r"scene 'image' .* was cut from other files \(target has changed\)"):
        tile(*pair, tmp_path / "chips", SMALL)


def test_vector_layers_with_gaps_are_understood(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from geop2p.raster.vectors import read_vector

    shapes = [box(0, 0, 1, 1), box(1, 0, 2, 1), box(2, 0, 3, 1)]
    uses = ["barn", None, "background"]
    geopandas.GeoDataFrame({"use": uses}, geometry=shapes, crs=UTM).to_file(tmp_path / "a.gpkg")
    layer = read_vector(tmp_path / "a.gpkg", "use")
    assert [(entry.value, entry.name) for entry in layer.classes] == [(1, "background"), (2, "barn")]
    assert layer.features["code"].tolist() == [2, 1] and "1 features without a value in 'use'" in caplog.text
    again = read_vector(
        tmp_path / "a.gpkg", "use", (MapClass(1, "background", (0, 0, 0)), MapClass(7, "barn", (0, 0, 0)))
    )
    assert again.features["code"].tolist() == [7, 1]
    with pytest.raises(RasterError, match="has no field 'roof'; it has use"):
        read_vector(tmp_path / "a.gpkg", "roof")
    pyogrio.write_dataframe(pd.DataFrame({"use": uses}), tmp_path / "table.gpkg")
    with pytest.raises(RasterError, match="is a table without geometry"):
        read_vector(tmp_path / "table.gpkg", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scene,split\na\n", "line 2 has split ''"),
        ("file,split\na,train\n", "has the columns 'file,split', expected a CSV with the columns scene, split"),
        ("scene,split\n", "has no lines below its columns"),
        ("", "has the columns '', expected a CSV"),
        ("scene,split\na,train\na,val\n", "scene 'a' is in train and in val"),
        (b"scene,split\n\xe4,train\n", "is not UTF-8 text"),
    ],
)
def test_bad_split_files_are_one_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    from geop2p.tiling.splits import read_split_file

    file = tmp_path / "split.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(GeoP2PError, match=message):
        read_split_file(file)


def test_split_files_are_read_as_spreadsheets_save_them(tmp_path: Path) -> None:
    from geop2p.tiling.splits import read_split_file

    expected = {"a": "train", "b, south": "val"}
    for text in (
        '"scene","split"\n"a","train"\n"b, south","val"\n',
        "\ufeffscene;split;group\r\na;train;\r\nb, south;val;1\r\n",
        'group, scene , split\n1,a, train\n2,"b, south",val\n',
    ):
        (tmp_path / "split.csv").write_text(text, encoding="utf-8")
        assert read_split_file(tmp_path / "split.csv") == expected


def test_outputs_through_a_file_and_damaged_sets_are_one_line(pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ChipSetError, match="exists and is not a chip set"):
        tile(*pair, tmp_path / "file", SMALL)
    with pytest.raises(GeoP2PError, match="cannot be made a folder"):
        tile(*pair, tmp_path / "file" / "chips", SMALL)
    tile(*pair, tmp_path / "chips", SMALL)
    (tmp_path / "chips" / "index.gpkg").unlink()
    with pytest.raises(ChipSetError, match=r"index\.gpkg: missing or damaged"):
        ChipSet.open(tmp_path / "chips").index()
    for text, message in (
        ('{"format": 2, "layout": "packed"}', "is damaged, 'size' is missing or wrong"),
        ('{"format": 2, "layout": "check"}', "layout 'check' is not one of geotiff, packed, virtual"),
        ('{"format": 1}', "made by an earlier geop2p; tile again"),
    ):
        (tmp_path / "chips" / "chipset.json").write_text(text)
        with pytest.raises(ChipSetError, match=message):
            ChipSet.open(tmp_path / "chips")


def test_a_preview_and_a_styled_index_come_with_the_chips(pair: tuple[Path, Path], tmp_path: Path) -> None:
    from xml.etree import ElementTree

    from PIL import Image

    tile(*pair, tmp_path / "chips", SMALL)
    picture = np.asarray(Image.open(tmp_path / "chips" / "preview.png"))
    for color in ((31, 120, 180), (255, 127, 0), (227, 26, 28)):  # frames of train, val and test
        assert (picture == color).all(axis=-1).any()
    style = (tmp_path / "chips" / "index.qml").read_text()
    categories = ElementTree.fromstring(style).findall("./renderer-v2[@attr='split']/categories/category")
    assert [entry.get("value") for entry in categories] == ["train", "val", "test"]
    assert len(geopandas.read_file(tmp_path / "chips" / "index.gpkg")) > 0  # quiet without a layer name


def test_only_ground_inside_the_aoi_is_valid(pair: tuple[Path, Path], tmp_path: Path) -> None:
    where = grid(300, 420)
    left, top = where.transform.c, where.transform.f
    area = geopandas.GeoDataFrame(geometry=[box(left, top - 256, left + 320, top)], crs=UTM)
    area.to_crs(4326).to_file(tmp_path / "aoi.gpkg")
    config = dataclasses.replace(SMALL, aoi=tmp_path / "aoi.gpkg", min_valid=0.4, split="1:0:0")
    tile(*pair, tmp_path / "chips", config)
    index = ChipSet.open(tmp_path / "chips").index()
    assert len(index) and index["row_off"].max() <= 96 + 32 and index["col_off"].max() <= 128 + 32
    lines = geopandas.GeoDataFrame(geometry=[LineString([(0, 0), (1, 1)])], crs=UTM)
    lines.to_file(tmp_path / "lines.gpkg")
    with pytest.raises(RasterError, match="has no polygons"):
        tile(*pair, tmp_path / "other", dataclasses.replace(SMALL, aoi=tmp_path / "lines.gpkg"))


def test_nearly_uniform_chips_are_dropped_when_asked(tmp_path: Path) -> None:
    where = grid(64, 128)
    codes = class_map(64, 128)
    codes[:, :, :64] = 2
    source = write_raster(tmp_path / "map.tif", codes, where)
    target = write_raster(tmp_path / "image.tif", np.zeros((3, 64, 128), np.uint8), where)
    tile(source, target, tmp_path / "chips", TileConfig(size=32, max_share=0.95, split="1:0:0"))
    chipset = ChipSet.open(tmp_path / "chips")
    assert chipset.index()["col_off"].min() == 64
    assert chipset.scenes[0].dropped["nearly one class"] == 4


def test_whole_scenes_fill_the_splits_in_turn(tmp_path: Path) -> None:
    config = TileConfig(size=32, split_by="scene", split="2:1:1")
    for number in range(4):
        where = grid(64, 64, left=500_000 + 1000 * number)
        source = write_raster(tmp_path / f"map{number}.tif", class_map(64, 64), where)
        target = write_raster(tmp_path / f"image{number}.tif", np.full((3, 64, 64), number, np.uint8), where)
        result = tile(source, target, tmp_path / "chips", config)
    index = ChipSet.open(tmp_path / "chips").index()
    assert index.groupby("scene")["split"].nunique().max() == 1
    assert (result.train, result.val, result.test) == (8, 4, 4)


def test_random_splits_warn_and_still_share_no_ground(
    pair: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = tile(*pair, tmp_path / "chips", dataclasses.replace(SMALL, split_by="random"))
    assert "chips split at random" in caplog.text and result.val and result.test
    assert leaks(ChipSet.open(tmp_path / "chips").index(), 0) == 0


def test_classes_missing_from_training_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    where = grid(160, 160)
    source = write_raster(tmp_path / "map.tif", class_map(160, 160), where)
    write_names(source, ("", "water", "meadow", "marsh", "", "road"))
    target = write_raster(tmp_path / "image.tif", np.zeros((3, 160, 160), np.uint8), where)
    tile(source, target, tmp_path / "chips", SMALL)
    assert "no training chip holds the source class marsh" in caplog.text


def test_the_check_finds_leaks_and_broken_chips(pair: tuple[Path, Path], tmp_path: Path) -> None:
    from geop2p import check

    tile(*pair, tmp_path / "chips", SMALL)
    assert check(tmp_path / "chips") == []
    chipset = ChipSet.open(tmp_path / "chips")
    index = chipset.table()
    moved, held = (np.flatnonzero(index["split"] == split)[0] for split in ("train", "test"))
    index.shapes[moved] = index.shapes[held]
    chipset.save(index)
    name = index["id"][moved]
    assert f"{name} (train) shares ground with test chips, or comes too near" in check(tmp_path / "chips")
    chip_path(chipset.folder, "target", "train", name).write_bytes(b"broken")
    assert any("cannot be read as a raster" in problem for problem in check(tmp_path / "chips"))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three small float scenes and their maps, paired by stem."""
    for name in ("maps", "images"):
        (tmp_path / name).mkdir()
    for number in range(3):
        where = grid(100, 140, left=500_000 + 1000 * number)
        write_raster(tmp_path / "maps" / f"s{number}.tif", class_map(100, 140, number), where)
        values = np.random.default_rng(number).normal(50 * number, 3, (1, 100, 140)).astype(np.float32)
        write_raster(tmp_path / "images" / f"s{number}.tif", values, where)
    return tmp_path / "maps", tmp_path / "images"


def test_folders_are_paired_by_stem(folders: tuple[Path, Path], tmp_path: Path) -> None:
    config = TileConfig(size=32, target_kind="image")
    result = tile(*folders, tmp_path / "chips", config)
    assert result.scenes == 3 and min(result.train, result.val, result.test) > 0
    chipset = ChipSet.open(tmp_path / "chips")
    assert [scene.id for scene in chipset.scenes] == ["s0", "s1", "s2"]
    band = chipset.target.bands[0]
    assert band.low < 0 and band.high > 100  # from the training chips of all scenes
    for number in range(3):
        pair = [folder / f"s{number}.tif" for folder in folders]
        tile(*pair, tmp_path / "one by one", config)
    assert ChipSet.open(tmp_path / "one by one").target == chipset.target
    first, second = (ChipSet.open(tmp_path / name).index() for name in ("chips", "one by one"))
    assert first[["id", "split"]].equals(second[["id", "split"]])


def test_unpaired_names_are_all_listed(folders: tuple[Path, Path], tmp_path: Path) -> None:
    maps, images = folders
    (maps / "s1.tif").rename(maps / "other.tif")
    with pytest.raises(GridMismatchError, match=r"no partner .*maps/other\.tif, .*images/s1\.tif"):
        tile(maps, images, tmp_path / "chips", SMALL)
    with pytest.raises(RasterError, match="a folder, the other side is not"):
        tile(maps, images / "s0.tif", tmp_path / "chips", SMALL)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RasterError, match="has no layers"):
        tile(maps, tmp_path / "empty", tmp_path / "chips", SMALL)


def test_a_bad_pair_leaves_a_whole_chip_set_of_those_before_it(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (folders[1] / "s2.tif").write_text("not a raster")
    with pytest.raises(RasterError, match=r"s2\.tif: cannot be read as a raster"):
        tile(*folders, tmp_path / "chips", TileConfig(size=32, target_kind="image"))
    chipset = ChipSet.open(tmp_path / "chips")
    assert len(chipset.scenes) == 2 and chipset.target.bands[0].high < 70
    assert not (tmp_path / "chips" / ".staging").exists()


def test_an_interrupted_second_scene_is_continued_and_not_trained_on(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from geop2p import train
    from geop2p.raster.chipfile import ChipFiles

    config = TileConfig(size=32, target_kind="image")
    tile(*folders, tmp_path / "whole", config)
    original, written = ChipFiles.write, []

    def dying(files: ChipFiles, path: Path, *arguments: object) -> None:
        if len(written) == 30:  # 24 are of the first scene
            raise KeyboardInterrupt
        written.append(path)
        original(files, path, *arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ChipFiles, "write", dying)
        tile(*folders, tmp_path / "chips", config)
    kept = [path for path in written if path.exists()]
    assert kept and all(".staging" in path.parts for path in kept)
    with pytest.raises(ChipSetError, match="tiling was interrupted; repeat the tile command"):
        train(tmp_path / "chips", tmp_path / "run", TrainConfig(recipe="pix2pix"))
    tile(*folders, tmp_path / "chips", config)
    whole, again = ChipSet.open(tmp_path / "whole"), ChipSet.open(tmp_path / "chips")
    assert again.target == whole.target and again.counts == whole.counts
    again.check_finished()
