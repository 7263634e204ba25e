"""Chips of one format become chips of another, and chips of other tools become chip sets."""

import csv
import dataclasses
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner
from conftest import CLASSES, UTM, class_map, grid, write_pair, write_raster
from geop2p_cli.main import main
from PIL import Image

from geop2p import TileConfig, TrainConfig, check, convert, describe, tile, train
from geop2p.config import SPLITS
from geop2p.errors import ChipSetError, ConfigError, GeoP2PError
from geop2p.raster.reading import gdal_env
from geop2p.tiling.chips import ChipSet

SMALL = TileConfig(size=32, stride=24, min_valid=0.8)
LAYOUTS = ("geotiff", "packed", "virtual")


def same_chips(one: ChipSet, two: ChipSet) -> None:
    pd.testing.assert_frame_equal(one.index(), two.index())
    assert (one.counts, one.source, one.target, one.settings) == (two.counts, two.source, two.target, two.settings)
    for split in SPLITS:
        with one.reader(split) as first, two.reader(split) as second:
            for row in range(one.counts[split]):
                here, there = first.read(row), second.read(row)
                for side in ("source", "target", "valid"):
                    assert np.array_equal(getattr(here, side), getattr(there, side))


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chip set of two scenes in two UTM zones, and what it was made from, tiled once for all tests."""
    place = tmp_path_factory.mktemp("tiled")
    config = dataclasses.replace(SMALL, source_kind="classes")
    tile(*write_pair(place), place / "chips", config)
    there = dataclasses.replace(grid(200, 260), crs=rasterio.CRS.from_epsg(32633))
    source = write_raster(place / "b.tif", class_map(200, 260, 4), there)
    image = np.random.default_rng(2).integers(0, 255, (3, 200, 260)).astype(np.uint8)
    tile(source, write_raster(place / "b_image.tif", image, there), place / "chips", config)
    return place


@pytest.fixture
def two_scenes(tiled: Path, tmp_path: Path) -> Path:
    """The chip set of `tiled`, for a test alone."""
    shutil.copytree(tiled, tmp_path, dirs_exist_ok=True)
    return tmp_path / "chips"


@pytest.mark.parametrize("first", LAYOUTS)
@pytest.mark.parametrize("second", LAYOUTS)
def test_every_layout_becomes_every_other(two_scenes: Path, tmp_path: Path, first: str, second: str) -> None:
    convert(two_scenes, tmp_path / "one", TileConfig(format=first))
    result = convert(tmp_path / "one", tmp_path / "two", TileConfig(format=second))
    chipset = ChipSet.open(two_scenes)
    assert result.scenes == 2 and result.chips == sum(chipset.counts.values())
    same_chips(chipset, ChipSet.open(tmp_path / "two"))
    assert check(tmp_path / "two") == [] and (tmp_path / "two" / "preview.png").exists()


def test_converted_geotiffs_lie_in_the_crs_of_their_scene(two_scenes: Path, tmp_path: Path) -> None:
    convert(two_scenes, tmp_path / "packed", TileConfig(format="packed"))
    convert(tmp_path / "packed", tmp_path / "again", TileConfig())
    for path in two_scenes.rglob("*.tif"):
        with rasterio.open(path) as one, rasterio.open(tmp_path / "again" / path.relative_to(two_scenes)) as two:
            assert (one.crs, one.transform) == (two.crs, two.transform)


def test_an_interrupted_conversion_begins_again_and_others_are_left_alone(
    two_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import geop2p.interop.conversion as conversion

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(conversion, "count_splits", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        convert(two_scenes, tmp_path / "out", TileConfig(format="packed"))
    with pytest.raises(ChipSetError, match="exists; give a new folder"):
        convert(two_scenes, tmp_path / "out", TileConfig(format="geotiff"))
    convert(two_scenes, tmp_path / "out", TileConfig(format="packed"))
    same_chips(ChipSet.open(two_scenes), ChipSet.open(tmp_path / "out"))
    with pytest.raises(ChipSetError, match="exists; give a new folder"):
        convert(two_scenes, tmp_path / "out", TileConfig(format="packed"))
    assert convert(two_scenes, tmp_path / "out", TileConfig(format="geotiff"), overwrite=True).chips
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ChipSetError, match="exists"):
            convert(two_scenes, tmp_path / "mine", TileConfig(), overwrite=overwrite)
    with pytest.raises(ChipSetError, match="is where the chips are"):
        convert(two_scenes, two_scenes, TileConfig(), overwrite=True)


@pytest.mark.parametrize(
    ("layout", "first"), [("packed", ".staging/.conversion.x1234567.json"), ("side-by-side", ".export.x1234567.json")]
)
def test_a_folder_that_was_barely_begun_is_taken(chips: Path, tmp_path: Path, layout: Any, first: str) -> None:
    convert(chips, tmp_path / "whole", TileConfig(format=layout))
    (tmp_path / "out" / first).parent.mkdir(parents=True)
    (tmp_path / "out" / first).write_text("{")  # of a process that was killed while it wrote
    convert(chips, tmp_path / "out", TileConfig(format=layout))
    assert set(all_files(tmp_path / "out")) == set(all_files(tmp_path / "whole"))


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_pairs_go_out_side_by_side_and_come_back(pair: tuple[Path, Path], tmp_path: Path, direction: Any) -> None:
    tile(*pair, tmp_path / "chips", TileConfig(size=32))  # only whole chips: A|B images have no mask
    out = tmp_path / "ab"
    convert(tmp_path / "chips", out, TileConfig(format="side-by-side", direction=direction))
    chipset = ChipSet.open(tmp_path / "chips")
    with (out / "classes_source.csv").open() as file:
        table = [(int(row["value"]), row["name"]) for row in csv.DictReader(file)]
    assert table == [(entry.value, entry.name) for entry in CLASSES]
    for split in SPLITS:
        assert len(list((out / split).iterdir())) == chipset.counts[split]
    back = TileConfig(source_kind="classes", classes=out / "classes_source.csv", direction=direction, format="packed")
    result = convert(out, tmp_path / "back", back)
    again = ChipSet.open(tmp_path / "back")
    assert result.chips == sum(chipset.counts.values()) and again.counts == chipset.counts
    assert [entry.name for entry in again.source.classes] == ["water", "meadow", "road"]
    for split in SPLITS:
        for entry in chipset.entries(split):
            one, two = chipset.read(split, entry.id), again.read(split, f"{split}_{entry.id}")
            assert np.array_equal(one.source[0][one.valid], two.source[0][one.valid])
            assert np.array_equal(one.target[:, one.valid], two.target[:, one.valid])
    assert check(tmp_path / "back") == []
    assert describe(tmp_path / "back")["chips"] == chipset.counts
    train(tmp_path / "back", tmp_path / "run", TrainConfig(recipe="pix2pix", steps=1, batch_size=2, width=2))


def test_the_map_of_pairs_is_the_side_that_is_said_to_be_nothing_else(
    pair: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tile(*pair, tmp_path / "chips", TileConfig(size=32))
    convert(tmp_path / "chips", tmp_path / "ab", TileConfig(format="side-by-side"))
    shutil.rmtree(tmp_path / "ab" / "test")
    table = tmp_path / "ab" / "classes_source.csv"
    convert(tmp_path / "ab", tmp_path / "back", TileConfig(target_kind="image", classes=table))
    back = ChipSet.open(tmp_path / "back")
    assert (back.source.kind, back.target.kind, back.counts["test"]) == ("classes", "image", 0)
    assert f"{tmp_path / 'ab'}: has no chips for test" in caplog.text
    other = tmp_path / "other.csv"
    other.write_text("value,name,color\n1,one,#ff00ff\n2,two,#ffff00\n")
    for config in (TileConfig(classes=table), TileConfig(classes=other, source_kind="image")):  # not in those colours
        with pytest.raises(ConfigError, match="say which side is the map"):
            convert(tmp_path / "ab", tmp_path / "other", config)


def test_the_same_image_in_two_splits_is_found(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for split in ("train", "test"):
        (tmp_path / "ab" / split).mkdir(parents=True)
        for number in range(3):
            Image.fromarray(draw.integers(0, 255, (32, 64, 3), np.uint8)).save(
                tmp_path / "ab" / split / f"{number}.png"
            )
    (tmp_path / "ab" / "test" / "twin.png").write_bytes((tmp_path / "ab" / "train" / "1.png").read_bytes())
    assert convert(tmp_path / "ab", tmp_path / "chips", TileConfig()).chips == 7
    assert check(tmp_path / "chips") == ["train_1 (train) and test_twin (test) hold the same pixels"]


def test_images_without_split_are_split_at_random(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    draw = np.random.default_rng(0)
    (tmp_path / "ab").mkdir()
    for number in range(40):
        Image.fromarray(draw.integers(0, 255, (32, 64, 3), np.uint8)).save(tmp_path / "ab" / f"{number}.jpg")
    result = convert(tmp_path / "ab", tmp_path / "chips", TileConfig())
    assert (result.train, result.val, result.test) == (32, 4, 4) and "split at random" in caplog.text


def all_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def chips(pair: tuple[Path, Path], tmp_path: Path) -> Path:
    tile(*pair, tmp_path / "chips", TileConfig(size=32))
    return tmp_path / "chips"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("names", [["train/cats/1.txt", "other/y"], ["train/1.png"], ["export.json", "val/1.png"]])
def test_an_export_leaves_the_folders_of_others_alone(
    chips: Path, tmp_path: Path, names: list[str], overwrite: bool
) -> None:
    mine, out = tmp_path / "mine", TileConfig(format="side-by-side")
    for name in names:
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_text("{}")
    with pytest.raises(ChipSetError, match="holds something else"):
        convert(chips, mine, out, overwrite=overwrite)
    assert all_files(mine) == dict.fromkeys(names, b"{}")
    convert(chips, tmp_path / "ab", out)
    (tmp_path / "ab" / "train" / "notes.txt").write_text("mine")
    there = all_files(tmp_path / "ab")
    with pytest.raises(ChipSetError, match=r"holds something else .*notes\.txt"):
        convert(chips, tmp_path / "ab", out, overwrite=overwrite)
    assert all_files(tmp_path / "ab") == there


def test_an_export_goes_on_and_is_never_mixed_with_another(
    chips: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    ab, out, turned = tmp_path / "ab", TileConfig(format="side-by-side"), {"direction": "BtoA"}
    convert(chips, ab, out, overwrite=True)  # of a folder that is not there yet
    there = all_files(ab)
    next((ab / "train").iterdir()).unlink()
    convert(chips, ab, out)
    assert all_files(ab) == there
    with pytest.raises(ChipSetError, match="direction is BtoA, there it is AtoB"):
        convert(chips, ab, dataclasses.replace(out, **turned))
    tile(*pair, tmp_path / "more", TileConfig(size=48))
    with pytest.raises(ChipSetError, match=r"chip set is .*more, there it is .*chips"):
        convert(tmp_path / "more", ab, out)
    assert all_files(ab) == there
    convert(tmp_path / "more", ab, dataclasses.replace(out, **turned), overwrite=True)
    assert len(list(ab.rglob("*.png"))) == sum(ChipSet.open(tmp_path / "more").counts.values())
    tile(*pair, tmp_path / "more", TileConfig(size=48, seed=1), overwrite=True)
    with pytest.raises(ChipSetError, match="more has changed"):
        convert(tmp_path / "more", ab, dataclasses.replace(out, **turned))


def test_nothing_is_replaced_before_the_chips_are_found(chips: Path, tmp_path: Path) -> None:
    convert(chips, tmp_path / "virtual", TileConfig(format="virtual"))
    (tmp_path / "image.tif").rename(tmp_path / "moved.tif")
    images(tmp_path / "ab", "a.png", "b.png", "c.png")
    before = all_files(chips)
    for origin, config, error in (
        ("nothere", TileConfig(), "no such folder of chips"),
        ("virtual", TileConfig(), r"image\.tif: no such file"),
        ("ab", TileConfig(format="virtual"), "have no layers to read virtual chips from"),
        ("ab", TileConfig(source_kind="classes", classes=tmp_path / "nothere.csv"), r"nothere\.csv"),
        ("ab", TileConfig(relief=20), "--relief has no effect for chips of another tool"),
    ):
        with pytest.raises(GeoP2PError, match=error):
            convert(tmp_path / origin, chips, config, overwrite=True)
        assert all_files(chips) == before


def images(folder: Path, *names: str) -> None:
    """A|B images of noise."""
    draw = np.random.default_rng(len(names))
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 255, (32, 64, 3), np.uint8)).save(folder / name)


def test_no_image_is_lost_to_another_of_its_name(tmp_path: Path) -> None:
    names = ("a.png", "a.jpg", "A.png", "a-2.png", "a b.png", "a_b.png", "\u5317\u4eac.png", "\u4e0a\u6d77.png")
    images(tmp_path / "ab", *(f"{split}/{name}" for split in ("train", "test") for name in names))
    assert convert(tmp_path / "ab", tmp_path / "chips", TileConfig()).chips == 16
    chipset = ChipSet.open(tmp_path / "chips")
    ids = [entry.id for entry in chipset.entries("train")]
    assert len({name.lower() for name in ids}) == 8 and "train_a-2" in ids and "train_a-3" in ids
    files = {path.name for path in (tmp_path / "chips" / "source" / "train").glob("*.tif")}
    assert files == {f"{name}.tif" for name in ids} and check(tmp_path / "chips") == []


def test_the_folder_that_one_is_in_can_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images(tmp_path / "ab", "train/a.png", "val/b.png", "test/c.png")
    monkeypatch.chdir(tmp_path / "ab")
    assert convert(".", "../chips", TileConfig()).chips == 3
    assert [scene.id for scene in ChipSet.open(tmp_path / "chips").scenes] == ["ab"]


def test_settings_without_effect_are_refused(chips: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    images(tmp_path / "ab", "train/a.png", "val/b.png", "test/c.png")
    images(tmp_path / "plain", "a.png", "b.png", "c.png")
    for origin, config, idle in (
        (
            chips,
            TileConfig(size=64, stride=8, seed=3),
            "--size, --stride, --seed have no effect for the finished chips of .*; leave them out",
        ),
        (chips, TileConfig(direction="BtoA"), "--direction has no effect .*; leave it out"),
        (tmp_path / "ab", TileConfig(size=64), "--size has no effect .*; leave it out"),
        (
            tmp_path / "ab",
            TileConfig(split="1:1:1"),
            "--split has no effect for chips of another tool in folders of splits .*; leave it out",
        ),
        (
            tmp_path / "plain",
            TileConfig(aoi=pair[0], ignore_class="1"),
            "--ignore-class, --aoi have no effect .*; leave them out",
        ),
    ):
        with pytest.raises(ConfigError, match=idle):
            convert(origin, tmp_path / "out", config)
    for config in (TileConfig(direction="BtoA"), TileConfig(split_field="part")):
        with pytest.raises(
            ConfigError, match=r"--(direction|split-field) has no effect where layers are tiled; leave it out"
        ):
            tile(*pair, tmp_path / "out", config)
    assert not (tmp_path / "out").exists()


def test_nothing_is_tiled_into_an_interrupted_conversion(
    chips: Path, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import geop2p.interop.conversion as conversion

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(conversion, "count_splits", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        convert(chips, tmp_path / "out", TileConfig())
    with pytest.raises(ChipSetError, match="a conversion with --from was interrupted here; repeat it"):
        tile(*pair, tmp_path / "out", TileConfig(size=32))
    convert(chips, tmp_path / "out", TileConfig())
    assert tile(*pair, tmp_path / "out", TileConfig(size=32)).scenes == 1
    assert check(tmp_path / "out") == []


@pytest.fixture
def arcgis(pair: tuple[Path, Path], tmp_path: Path) -> Path:
    """What "Export Tiles" leaves: chips of both rasters under the same names, with their place on the ground."""
    folder = tmp_path / "exported"
    for name, path in zip(("images", "images2"), pair, strict=True):
        (folder / name).mkdir(parents=True)
        with rasterio.open(path) as dataset:
            profile = {key: dataset.profile[key] for key in ("driver", "count", "dtype", "crs", "nodata")}
            palette = dataset.colormap(1) if dataset.count == 1 else {}
            number = 0
            for row in range(0, 300 - 31, 32):
                for col in range(32, 420 - 31, 32):
                    window = rasterio.windows.Window(col, row, 32, 32)
                    file = folder / name / f"{number:09d}.tif"
                    where = {"width": 32, "height": 32, "transform": dataset.window_transform(window)}
                    with rasterio.open(file, "w", **profile, **where) as chip:
                        chip.write(dataset.read(window=window))
                        if palette:
                            chip.write_colormap(1, palette)
                    number += 1
    (folder / "map.txt").write_text("images/000000000.tif images2/000000000.tif\n")
    return folder


@pytest.mark.parametrize("change", ["moved", "crs", "size"])
def test_arcgis_pairs_of_other_ground_are_refused(arcgis: Path, tmp_path: Path, change: str) -> None:
    file = arcgis / "images2" / "000000003.tif"
    with rasterio.open(file) as dataset:
        values, profile = dataset.read(), dataset.profile
    if change == "moved":
        profile["transform"] @= rasterio.Affine.translation(16, 16)
    if change == "crs":
        profile["crs"] = "EPSG:32633"
    if change == "size":
        values, profile = values.repeat(2, 1).repeat(2, 2), profile | {"width": 64, "height": 64}
    with rasterio.open(file, "w", **profile) as dataset:
        dataset.write(values)
    told = (
        r"images2.000000003\.tif: is \(3, 64, 64\)"
        if change == "size"
        else r"images.000000003\.tif: lies on .*images2.*on"
    )
    with pytest.raises(ChipSetError, match=told):
        convert(arcgis, tmp_path / "chips", TileConfig())
    assert not (tmp_path / "chips").exists()


def test_arcgis_tiles_keep_their_place_and_do_not_leak(arcgis: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    result = convert(arcgis, tmp_path / "chips", TileConfig(buffer=10))
    chipset = ChipSet.open(tmp_path / "chips")
    assert result.scenes == 1 and result.train and result.val and result.test and check(tmp_path / "chips") == []
    assert chipset.source.is_classes and chipset.scenes[0].grid.crs == UTM
    with rasterio.open(pair[0]) as source, rasterio.open(pair[1]) as target:
        for row in chipset.index().itertuples():
            chip = chipset.read(row.split, row.id)
            left, _, _, top = row.geometry.bounds
            line, col = source.index(left + 1, top - 1)
            window = rasterio.windows.Window(col, line, 32, 32)
            assert np.array_equal(chip.source, source.read(window=window))
            assert np.array_equal(chip.target, target.read(window=window))
    told = describe(arcgis)
    assert told["layout"] == "ArcGIS Export Tiles" and told["bands"] == [1, 3]
    assert told["chips"] == {"no split": told["georeferenced"]}
    swapped = convert(arcgis, tmp_path / "swapped", TileConfig(direction="BtoA", format="packed"))
    assert swapped.chips and ChipSet.open(tmp_path / "swapped").target.is_classes
    with pytest.raises(ChipSetError, match="was imported as chips and has no layers"):
        convert(tmp_path / "chips", tmp_path / "virtual", TileConfig(format="virtual"))


def test_what_cannot_be_imported_is_one_line(arcgis: Path, tmp_path: Path) -> None:
    lone = next((arcgis / "images2").iterdir())
    lone.rename(tmp_path / lone.name)
    with pytest.raises(ChipSetError, match=rf"no partner of the same stem for .*{lone.name}"):
        convert(arcgis, tmp_path / "out", TileConfig())
    (tmp_path / lone.name).rename(lone)
    twin = lone.with_suffix(".png")
    twin.write_bytes(b"")
    with pytest.raises(ChipSetError, match=rf"has {twin.name} and {lone.name}; one stem must name one chip"):
        convert(arcgis, tmp_path / "out", TileConfig())
    twin.unlink()
    with rasterio.open(lone, "w", driver="GTiff", width=16, height=16, count=3, dtype="uint8", crs=UTM,
                       transform=Affine(2, 0, 500_000, 0, -2, 5_300_000)):  # fmt: skip
        pass
    with pytest.raises(ChipSetError, match=r"lies on 32x32 .* on 16x16 .*; a pair shows one ground"):
        convert(arcgis, tmp_path / "out2", TileConfig())
    bad = tmp_path / "bad"
    (bad / "train").mkdir(parents=True)
    Image.fromarray(np.zeros((32, 70, 3), np.uint8)).save(bad / "train" / "a.png")
    with pytest.raises(ChipSetError, match=r"a\.png: is 70x32, expected two squares side by side"):
        convert(bad, tmp_path / "out3", TileConfig())
    (bad / "train" / "a.png").write_text("no image")
    with pytest.raises(ChipSetError, match=r"a\.png: cannot be read as an image"):
        convert(bad, tmp_path / "out4", TileConfig())
    for name, shape in (("a", (32, 64, 3)), ("b", (16, 32, 3)), ("c", (32, 64))):
        Image.fromarray(np.zeros(shape, np.uint8)).save(bad / "train" / f"{name}.png")
    with pytest.raises(ChipSetError, match=r"b\.png: is \(3, 16, 16\) of uint8, the first chip is \(3, 32, 32\)"):
        convert(bad, tmp_path / "out4", TileConfig())
    (bad / "train" / "b.png").unlink()
    with pytest.raises(ChipSetError, match=r"c\.png: is \(1, 32, 32\) of uint8, the first chip is \(3, 32, 32\)"):
        convert(bad, tmp_path / "out4", TileConfig())
    (tmp_path / "empty").mkdir()
    with pytest.raises(ChipSetError, match=r"has no chips: neither chipset\.json"):
        convert(tmp_path / "empty", tmp_path / "out5", TileConfig())
    with pytest.raises(ConfigError, match="is no chip set of geop2p; make one of it first"):
        convert(bad, tmp_path / "out6", TileConfig(format="side-by-side"))


@pytest.mark.parametrize(
    ("suffix", "dtype", "bands", "options"),
    [
        ("png", "uint16", 1, {}),
        ("png", "uint16", 3, {}),
        ("tif", "uint16", 1, {"ENDIANNESS": "BIG"}),
        ("tif", "uint16", 3, {}),
        ("tif", "int16", 2, {}),
        ("tif", "float32", 1, {}),
    ],
)
def test_images_of_more_than_8_bits_keep_their_values(
    tmp_path: Path, suffix: str, dtype: str, bands: int, options: dict[str, str]
) -> None:
    values = np.random.default_rng(0).integers(300, 30_000, (bands, 32, 64)).astype(dtype)
    for split in ("train", "val"):
        (tmp_path / "pairs" / split).mkdir(parents=True)
        path = tmp_path / "pairs" / split / f"{split}.{suffix}"
        driver = {"png": "PNG", "tif": "GTiff"}[suffix]
        with gdal_env(), warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(
                path, "w", driver=driver, width=64, height=32, count=bands, dtype=dtype, **options
            ) as file:
                file.write(values)
    kinds = TileConfig(source_kind="image", target_kind="image")
    convert(tmp_path / "pairs", tmp_path / "chips", kinds)
    chipset = ChipSet.open(tmp_path / "chips")
    assert chipset.source.dtype == dtype and len(chipset.source.bands) == bands
    with chipset.reader("train") as reader:
        chip = reader.read(0)
    assert np.array_equal(chip.source, values[:, :, :32]) and np.array_equal(chip.target, values[:, :, 32:])
    assert chip.valid.all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_in_an_image_is_no_data(tmp_path: Path, mode: str) -> None:
    values = np.random.default_rng(0).integers(1, 255, (32, 64, 4), dtype=np.uint8)
    values[..., 3] = 255
    values[:8, :16, 3] = values[24:, 40:, 3] = 0
    image, expected = Image.fromarray(values), values[:, :32, 3] & values[:, 32:, 3] > 0
    if mode == "P":
        image = Image.fromarray((values[..., 3] == 0).astype(np.uint8), mode="P")
        image.putpalette([200, 100, 50, 0, 0, 0])
        image.info["transparency"] = 1
    for split in ("train", "val"):
        (tmp_path / "pairs" / split).mkdir(parents=True)
        image.convert(mode).save(
            tmp_path / "pairs" / split / f"{split}.png", transparency=image.info.get("transparency")
        )
    convert(tmp_path / "pairs", tmp_path / "chips", TileConfig(min_valid=0.1))
    chipset = ChipSet.open(tmp_path / "chips")
    with chipset.reader("train") as reader:
        assert (reader.read(0).valid == expected).all() and not expected.all()


def test_tiling_side_by_side_says_what_to_do(pair: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="keeps neither ground nor values"):
        tile(*pair, tmp_path / "chips", TileConfig(size=32, format="side-by-side"))
    assert not (tmp_path / "chips").exists()


def test_the_command_converts_and_counts_its_names(pair: tuple[Path, Path], tmp_path: Path) -> None:
    def invoke(*arguments: Any) -> Any:
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    assert invoke("tile", *pair, tmp_path / "chips", "--size", 32).exit_code == 0
    done = invoke("tile", "--from", tmp_path / "chips", tmp_path / "packed", "--format", "packed", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1])["chips"] == sum(ChipSet.open(tmp_path / "packed").counts.values())
    exported = invoke("tile", "--from", tmp_path / "packed", tmp_path / "ab", "--format", "side-by-side")
    assert exported.exit_code == 0 and exported.stdout == f"{tmp_path / 'ab'}\n"
    told = json.loads(invoke("info", tmp_path / "ab", "--json").stdout)
    assert told["layout"] == "side by side (A|B)" and told["size"] == [32, 32] and told["georeferenced"] == 0
    assert told["chips"] == {name: count for name, count in ChipSet.open(tmp_path / "chips").counts.items() if count}
    for names in ([tmp_path / "chips"], [*pair], [*pair, "a", "b"], ["--from", tmp_path / "chips", "a", "b"]):
        wrong = invoke("tile", *names)
        assert wrong.exit_code == 2 and "expected" in wrong.stderr
    assert issubclass(ChipSetError, GeoP2PError)
