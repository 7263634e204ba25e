"""Many scenes in one chip set: empty ones, moved ones, other maps, both sides of the dateline."""

import dataclasses
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import shapely
from affine import Affine
from conftest import UTM, Identity, class_map, grid, image_encoding, write_raster
from PIL import Image
from rasterio.crs import CRS
from shapely.geometry import box

from geop2p import PredictConfig, TileConfig, TrainConfig, convert, describe, predict, tile
from geop2p.config import SPLITS
from geop2p.errors import ChipSetError, ConfigError, GridMismatchError, NoGroundError, OutputError, RasterError
from geop2p.raster.grid import Grid
from geop2p.raster.rendering import render
from geop2p.tiling.check import check_chips
from geop2p.tiling.chips import ChipSet
from geop2p.tiling.preview import GAP, PAIRS
from geop2p.tiling.summary import summarise
from geop2p.training.networks import build_networks
from geop2p.translator import Card

SMALL = TileConfig(size=32, split="1:0:0")


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise, uint8 (3, rows, cols)."""
    return np.random.default_rng(seed).integers(0, 255, (3, height, width)).astype(np.uint8)


def folders(tmp_path: Path, empty: set[int]) -> tuple[Path, Path]:
    """Three pairs far from each other; of the empty ones one side is masked."""
    for number in range(3):
        where, valid = grid(100, 100, left=500_000.0 + 10_000 * number), np.full((100, 100), number not in empty)
        for name in ("maps", "images"):
            (tmp_path / name).mkdir(exist_ok=True)
        write_raster(tmp_path / "maps" / f"s{number}.tif", class_map(100, 100, number), where)
        write_raster(tmp_path / "images" / f"s{number}.tif", image(100, 100, number), where, mask=valid)
    return tmp_path / "maps", tmp_path / "images"


@pytest.mark.parametrize("empty", [{0}, {1}, {0, 2}])
def test_an_empty_scene_of_a_folder_is_named_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, empty: set[int]
) -> None:
    result = tile(*folders(tmp_path, empty), tmp_path / "chips", SMALL)
    assert {scene.id for scene in ChipSet.open(tmp_path / "chips").scenes} == {f"s{n}" for n in {0, 1, 2} - empty}
    assert result.scenes == 3 - len(empty) and not (tmp_path / "chips" / ".staging").exists()
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert [line.split(": no window")[0] for line in warnings] == [f"left out: s{n}" for n in sorted(empty)]


def test_scenes_of_another_pixel_size_are_told_of_and_known_to_the_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, pixel, left in (("fine", 2.0, 500_000.0), ("like", 2.06, 510_000.0), ("coarse", 4.0, 520_000.0)):
        where = grid(100, 100, pixel=pixel, left=left)
        maps, images = tmp_path / f"{name}_map.tif", tmp_path / f"{name}.tif"
        write_raster(maps, class_map(100, 100), where)
        tile(maps, write_raster(images, image(100, 100), where), tmp_path / "chips", SMALL)
        told = [message for message in caplog.messages if "pixels of" in message]
        if name != "coarse":
            assert not told
    (message,) = told
    assert message.startswith("coarse: has pixels of 4.00") and "the first scene (fine) of 2.00" in message
    assert "--grid EPSG:CODE@RESOLUTION" in message
    found = describe(tmp_path / "chips")
    assert found["pixel_m"] == found["smallest_pixel_m"] == pytest.approx([2, 2], rel=1e-2)
    assert found["largest_pixel_m"] == pytest.approx([4, 4], rel=1e-2)
    train = TrainConfig(recipe="pix2pix", width=2, downs=4, device="cpu")
    card = build_networks(ChipSet.open(tmp_path / "chips"), train).card
    smallest, largest = card.pixel_range or (None, None)
    assert (smallest, largest) == (pytest.approx((2, 2), rel=1e-2), pytest.approx((4, 4), rel=1e-2))
    assert Card.from_json(card.to_json(), "card") == card


def test_a_folder_of_empty_scenes_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(NoGroundError, match="none of 3 pairs gave a chip; s0: no window"):
        tile(*folders(tmp_path, {0, 1, 2}), tmp_path / "chips", SMALL)
    assert not (tmp_path / "chips").exists()


def test_an_empty_last_scene_does_not_hide_an_empty_split(tmp_path: Path) -> None:
    with pytest.raises(ChipSetError, match="no chip is left for val"):
        tile(*folders(tmp_path, {1, 2}), tmp_path / "chips", TileConfig(size=96, split="8:1:1"))


def test_a_table_of_classes_is_for_the_side_whose_names_it_has(tmp_path: Path) -> None:
    table = tmp_path / "classes.csv"
    table.write_text("value,name,color\n1,water,#2850a0\n2,meadow,#96be6e\n5,road,#5a5a5a\n")
    for number in range(2):
        where = grid(100, 100, left=500_000.0 + 10_000 * number)
        write_raster(tmp_path / f"now{number}.tif", class_map(100, 100, number), where)
        write_raster(tmp_path / f"then{number}.tif", class_map(100, 100, 7 + number), where)
    for layout in ("geotiff", "virtual"):
        for number in range(2):
            pair = tmp_path / f"now{number}.tif", tmp_path / f"then{number}.tif"
            config = dataclasses.replace(SMALL, classes=table, source_kind="classes", format=layout)
            tile(*pair, tmp_path / layout, config)
        chipset = ChipSet.open(tmp_path / layout)
        assert [entry.name for entry in chipset.source.classes] == ["water", "meadow", "road"]
        assert [entry.name for entry in chipset.target.classes] == ["class 1", "class 2", "class 5"]
        assert len(chipset.scenes) == 2 and check_chips(chipset) == []


def test_radar_is_not_added_to_images_by_itself(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for name, left, values in (
        ("linear", 500_000.0, draw.gamma(2, 0.1, (2, 100, 100))),
        ("decibel", 600_000.0, draw.normal(-14, 3, (2, 100, 100))),
    ):
        write_raster(tmp_path / f"{name}.tif", values.astype(np.float32), grid(100, 100, left=left))
        write_raster(tmp_path / f"{name}_image.tif", image(100, 100), grid(100, 100, left=left))
    tile(tmp_path / "linear.tif", tmp_path / "linear_image.tif", tmp_path / "chips", SMALL)
    second = (tmp_path / "decibel.tif", tmp_path / "decibel_image.tif", tmp_path / "chips")
    with pytest.raises(
        ConfigError, match=r"decibel.tif: seems to be radar in dB .* the chip set's source holds images"
    ):
        tile(*second, SMALL)
    assert tile(*second, dataclasses.replace(SMALL, source_kind="image")).scenes == 2


def test_a_chip_set_follows_layers_that_have_moved(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old, new = tmp_path / "old", tmp_path / "new" / "deep"
    old.mkdir()
    where = grid(100, 100)
    geopandas.GeoDataFrame(geometry=[box(*where.bounds)], crs=UTM).to_file(old / "aoi.gpkg")
    write_raster(old / "map.tif", class_map(100, 100), where)
    write_raster(old / "image.tif", image(100, 100), where)
    config = dataclasses.replace(SMALL, format="virtual", aoi=old / "aoi.gpkg")
    tile(old / "map.tif", old / "image.tif", tmp_path / "chips", config)
    chip = ChipSet.open(tmp_path / "chips").entries("train")[0].id
    before = ChipSet.open(tmp_path / "chips").read("train", chip)
    new.parent.mkdir()
    old.rename(new)
    with pytest.raises(RasterError, match=r"map.tif: no such file, .*repeat the tile command with their new names"):
        ChipSet.open(tmp_path / "chips").read("train", chip)
    config = dataclasses.replace(config, aoi=new / "aoi.gpkg")
    tile(new / "map.tif", new / "image.tif", tmp_path / "chips", config)
    chipset = ChipSet.open(tmp_path / "chips")
    assert len(chipset.scenes) == 1 and np.array_equal(chipset.read("train", chip).target, before.target)
    description = (tmp_path / "chips" / "chipset.json").read_bytes()
    for name in ("map.tif", "image.tif"):  # a copy while the first is still there moves nothing
        shutil.copy(new / name, tmp_path / name)
    with caplog.at_level("INFO", "geop2p"):
        tile(tmp_path / "map.tif", tmp_path / "image.tif", tmp_path / "chips", config)
    assert (tmp_path / "chips" / "chipset.json").read_bytes() == description
    assert "left out: ../map.tif and ../image.tif are those of scene 'image'" in caplog.text


def test_a_scene_in_other_units_or_codes_than_those_before_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def scene(name: str, left: float, times: int, more: int) -> tuple[Path, Path]:
        where = grid(100, 100, left=left)
        codes = class_map(100, 100)
        source = write_raster(
            tmp_path / f"{name}_map.tif", np.where(codes > 0, codes + more, 0).astype(np.uint8), where
        )
        values = np.random.default_rng(len(name)).integers(100, 900, (2, 100, 100)) * times
        return source, write_raster(tmp_path / f"{name}.tif", values.astype(np.uint16), where)

    config = TileConfig(size=32, source_kind="classes", format="packed", split="1:0:0")
    chips = tmp_path / "chips"
    tile(*scene("a", 500_000.0, 1, 0), chips, config)
    tile(*scene("like", 510_000.0, 1, 0), chips, config)
    assert "lie outside" not in caplog.text and "does not have" not in caplog.text
    tile(*scene("tenfold", 520_000.0, 10, 0), chips, config)
    assert re.search(
        r"tenfold\.tif: 100 % of the values lie outside those of the chip set's target; is it in", caplog.text
    )
    tile(*scene("recoded", 530_000.0, 1, 100), chips, config)
    told = r"recoded_map.tif: has the classes .*101, 102, 105, none of which the chip set's source has \(1 class 1, 2 "
    assert re.search(told, caplog.text), caplog.text
    caplog.clear()
    tile(*scene("again", 540_000.0, 1, 100), chips, config)
    assert "none of which" not in caplog.text
    three = write_raster(tmp_path / "three.tif", np.full((3, 100, 100), 9, np.uint16), grid(100, 100, left=550_000.0))
    with pytest.raises(ChipSetError, match=r"three.tif: has 3 bands, the chip set's target has 2"):
        tile(scene("more", 550_000.0, 1, 0)[0], three, chips, config)


@pytest.mark.parametrize("behind", ["vrt", "mask", "shapefile"])
def test_virtual_chips_notice_changes_behind_a_file(tmp_path: Path, behind: str) -> None:
    where = grid(100, 100)
    source, target = tmp_path / "map.tif", tmp_path / "image.tif"
    write_raster(source, class_map(100, 100), where)
    write_raster(target, image(100, 100), where)
    config = dataclasses.replace(SMALL, format="virtual")
    if behind == "vrt":
        with rasterio.open(target) as dataset:
            pieces = "".join(
                f'<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource>'
                f'<SourceFilename relativeToVRT="1">image.tif</SourceFilename>'
                f"<SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
                for band in (1, 2, 3)
            )
            transform = ", ".join(str(value) for value in dataset.transform.to_gdal())
        (tmp_path / "image.vrt").write_text(
            f'<VRTDataset rasterXSize="100" rasterYSize="100"><SRS>EPSG:32632</SRS><GeoTransform>{transform}'
            f"</GeoTransform>{pieces}</VRTDataset>"
        )
        target = tmp_path / "image.vrt"
    if behind == "shapefile":
        shapes = geopandas.GeoDataFrame({"use": ["a", "b"]}, geometry=[box(*where.bounds)] * 2, crs=UTM)
        source, config = tmp_path / "use.shp", dataclasses.replace(config, source_field="use")
        shapes.to_file(source)
    tile(source, target, tmp_path / "chips", config)
    chipset = ChipSet.open(tmp_path / "chips")
    chip = chipset.entries("train")[0].id
    Path(f"{target}.aux.xml").write_text("<PAMDataset/>")  # what a look in QGIS leaves changes nothing
    chipset.read("train", chip)
    match behind:
        case "vrt":
            write_raster(tmp_path / "image.tif", image(100, 100, 1), where)
        case "mask":
            with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(target, "r+") as dataset:
                dataset.write_mask(np.arange(100) % 2 == np.ones((100, 1)))
            assert Path(f"{target}.msk").exists()
        case "shapefile":
            shapes.assign(use=["b", "a"]).to_file(tmp_path / "other.shp")
            (tmp_path / "other.dbf").replace(tmp_path / "use.dbf")
    with pytest.raises(ChipSetError, match="has changed since it was tiled"):
        chipset.read("train", chip)


def test_footprints_across_the_dateline_are_as_wide_as_they_are(tmp_path: Path) -> None:
    """Two scenes in UTM zones 60 and 1, whose common CRS is degrees."""
    for name, zone, left in (("east", 32660, 832_000.0), ("west", 32601, 500_000.0)):
        where = Grid(CRS.from_epsg(zone), Affine(20, 0, left, 0, -20, 200_000), 200, 200)
        write_raster(tmp_path / f"{name}.tif", class_map(200, 200), where)
        write_raster(tmp_path / f"{name}_image.tif", image(200, 200), where)
        tile(tmp_path / f"{name}.tif", tmp_path / f"{name}_image.tif", tmp_path / "chips", SMALL)
    chipset = ChipSet.open(tmp_path / "chips")
    index = chipset.index()
    assert index.crs.to_epsg() == 4326
    across = index[index.geometry.apply(shapely.get_num_geometries) == 2]
    assert len(across) and set(across["scene"]) == {"east_image"}
    for shape in index.geometry:
        assert all(part.bounds[2] - part.bounds[0] < 0.01 for part in getattr(shape, "geoms", [shape]))
    flat = index[index["scene"] == "east_image"].to_crs(32660).area / (32 * 20) ** 2
    assert flat.between(0.999, 1.001).all()
    assert check_chips(chipset) == []


def test_a_refused_import_leaves_nothing_in_the_way(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    tile(*pair, tmp_path / "chips", TileConfig(size=32))
    convert(tmp_path / "chips", tmp_path / "pairs", TileConfig(format="side-by-side"))
    with pytest.raises(ConfigError, match="classes need one integer band"):
        convert(tmp_path / "pairs", tmp_path / "back", TileConfig(source_kind="classes"))
    assert not (tmp_path / "back").exists()
    assert convert(tmp_path / "pairs", tmp_path / "back").chips


def test_what_cannot_be_removed_is_one_line(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tile(*pair, tmp_path / "chips", TileConfig(size=32))
    convert(tmp_path / "chips", tmp_path / "others", TileConfig(format="packed"))
    convert(tmp_path / "others", tmp_path / "pairs", TileConfig(format="side-by-side"))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(OutputError, match=r"chips: cannot be written .*Permission denied"):
        tile(*pair, tmp_path / "chips", TileConfig(size=32), overwrite=True)
    with pytest.raises(OutputError, match=r"pairs: cannot be written .*Permission denied"):
        convert(tmp_path / "others", tmp_path / "pairs", TileConfig(format="side-by-side"), overwrite=True)
    monkeypatch.undo()
    assert tile(*pair, tmp_path / "chips", TileConfig(size=32)).chips  # what was left of it goes now


def test_a_vector_layer_is_read_through_vsi(tmp_path: Path) -> None:
    where = grid(100, 100)
    left, bottom, right, top = where.bounds
    halves = [box(left, bottom, (left + right) / 2, top), box((left + right) / 2, bottom, right, top)]
    geopandas.GeoDataFrame({"use": ["a", "b"]}, geometry=halves, crs=UTM).to_file(tmp_path / "use.geojson")
    shutil.make_archive(str(tmp_path / "layers"), "zip", tmp_path, "use.geojson")
    target = write_raster(tmp_path / "image.tif", image(100, 100), where)
    config = dataclasses.replace(SMALL, source_field="use")
    for name in (tmp_path / "use.geojson", f"/vsizip/{tmp_path}/layers.zip/use.geojson"):
        tile(name, target, tmp_path / "chips", config, overwrite=True)
        chipset = ChipSet.open(tmp_path / "chips")
        assert [entry.name for entry in chipset.source.classes] == ["background", "a", "b"]
    with pytest.raises(RasterError, match="cannot be read as a vector layer"):
        tile(f"/vsizip/{tmp_path}/layers.zip/none.geojson", target, tmp_path / "other", config)


def test_an_ignored_value_that_the_sample_lacks_warns_and_holds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A rare code between the windows of the sample: nobody knows its name, but its ground is left out."""
    where, codes = grid(1400, 1400), np.ones((1, 1400, 1400), np.uint8)
    codes[:, 700:, :] = 2
    codes[0, 480:490, 500:510] = 9
    source = write_raster(tmp_path / "map.tif", codes, where, tiled=True, blockxsize=128, blockysize=128)
    target = write_raster(tmp_path / "image.tif", image(1400, 1400), where)
    config = TileConfig(size=128, ignore_class="9", min_valid=0.5, split="1:0:0", format="packed")
    tile(source, target, tmp_path / "chips", config)
    assert "ignore_class 9: the layers show no such class, they have 1 " in caplog.text
    chipset = ChipSet.open(tmp_path / "chips")
    assert [entry.value for entry in chipset.source.ignored] == [9]
    with chipset.reader("train") as reader:
        chips = [reader.read(row) for row in range(chipset.counts["train"])]
    assert sum(int((chip.source[0] == 9).sum()) for chip in chips) == 100
    assert not any(chip.valid[chip.source[0] == 9].any() for chip in chips)


@pytest.mark.parametrize("crs", [None, "EPSG:4326"])
def test_a_raster_placed_by_polynomials_says_how_to_warp_it(
    tmp_path: Path, make_model: Callable[..., Path], caplog: pytest.LogCaptureFixture, crs: str | None
) -> None:
    from rasterio.rpc import RPC

    line = [1.0] + [0.0] * 19
    rpc = RPC(0.0, 100.0, 50.0, 0.1, [1.0] * 20, line, 50.0, 50.0, 7.0, 0.1, [1.0] * 20, line, 50.0, 50.0, None, None)
    source = tmp_path / "scene.tif"
    profile = {"driver": "GTiff", "width": 100, "height": 100, "count": 3, "dtype": "uint8", "crs": crs}
    with rasterio.open(source, "w", rpcs=rpc, **profile) as dataset:
        dataset.write(image(100, 100))
    target = write_raster(tmp_path / "image.tif", image(100, 100), grid(100, 100))
    with pytest.raises(RasterError, match=r"scene.tif: only rational polynomials \(RPC\) place it, .*gdalwarp -rpc"):
        tile(source, target, tmp_path / "chips", SMALL)
    assert describe(source)["rational_polynomials"] and describe(source)["crs"] is None
    model = make_model(Identity, image_encoding("uint8", 3, 0, 255))
    with pytest.raises(RasterError, match=r"scene.tif: only rational polynomials .*or take its pixels"):
        predict(model, source, tmp_path / "out.tif")
    predict(model, source, tmp_path / "out.tif", PredictConfig(no_resample=True))
    assert "scene.tif: the mosaic has no place on the ground: only rational polynomials" in caplog.text
    with pytest.raises(GridMismatchError, match=r"image.tif: has a CRS, the raster of --like none; assign one"):
        predict(model, target, tmp_path / "other.tif", PredictConfig(like=source, no_resample=True))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_scenes_that_have_no_place_in_each_others_crs_share_a_chip_set(tmp_path: Path, order: tuple[int, int]) -> None:
    places = [("EPSG:32618", 500_000.0, 100_000.0), ("EPSG:32633", 500_000.0, 5_000_000.0)]
    for number in order:
        code, left, top = places[number]
        where = Grid(CRS.from_string(code), Affine(2, 0, left, 0, -2, top), 100, 100)
        map_file = write_raster(tmp_path / f"map{number}.tif", class_map(100, 100), where)
        tile(map_file, write_raster(tmp_path / f"s{number}.tif", image(100, 100), where), tmp_path / "chips", SMALL)
    assert ChipSet.open(tmp_path / "chips").index().crs == "EPSG:4326"
    assert check_chips(ChipSet.open(tmp_path / "chips")) == []


def test_one_crs_told_in_two_ways_stays_the_crs_of_the_index(tmp_path: Path) -> None:
    for number, ending in enumerate(("tif", "img")):
        where = grid(100, 100, left=500_000.0 + 10_000 * number)
        for name, values in (("map", class_map(100, 100)), ("s", image(100, 100))):
            made = write_raster(tmp_path / f"{name}{number}.tif", values, where)
            rasterio.shutil.copy(made, tmp_path / f"{name}.{ending}", driver="HFA" if ending == "img" else "GTiff")
        tile(tmp_path / f"map.{ending}", tmp_path / f"s.{ending}", tmp_path / "chips", SMALL)
    with rasterio.open(tmp_path / "map.tif") as first, rasterio.open(tmp_path / "map.img") as second:
        assert first.crs == second.crs and first.crs.to_wkt() != second.crs.to_wkt()
    assert ChipSet.open(tmp_path / "chips").index().crs == "EPSG:32632"


def test_an_index_that_lost_columns(tmp_path: Path) -> None:
    """What is measured on some chips may be missing, what tells a chip may not."""
    for number in range(2):
        where = grid(100, 100, left=500_000.0 + 10_000 * number)
        map_file = write_raster(tmp_path / f"map{number}.tif", class_map(100, 100), where)
        tile(map_file, write_raster(tmp_path / f"s{number}.tif", image(100, 100), where), tmp_path / "chips", SMALL)
        chipset = ChipSet.open(tmp_path / "chips")
        table = chipset.table()
        columns = {name: values for name, values in table.columns.items() if name != "shift_rows"}
        chipset.save(dataclasses.replace(table, columns=columns))
    index = chipset.index()
    with_both = tile(map_file, tmp_path / "s1.tif", tmp_path / "chips", SMALL)
    assert with_both.scenes == 2 and "shift_rows" not in index
    del columns["block"]
    chipset.save(dataclasses.replace(table, columns=columns))
    with pytest.raises(ChipSetError, match=r"index\.gpkg: missing or damaged \(no column block\); tile again"):
        chipset.table()


def test_the_preview_shows_sources_above_targets(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """A row for each split, from its first pair to its last, each in a frame of three pixels."""
    size = 40
    tile(*pair, tmp_path / "chips", TileConfig(size=size, min_valid=0.5))
    chipset = ChipSet.open(tmp_path / "chips")
    picture = np.asarray(Image.open(tmp_path / "chips" / "preview.png"))
    height, width = 2 * size + 6 + GAP, size + 6 + GAP
    assert picture.shape == (len(SPLITS) * height, PAIRS * width, 3)
    whole = []
    for row, split in enumerate(SPLITS):
        entries = chipset.entries(split)
        for col, entry in ((0, entries[0]), (PAIRS - 1, entries[-1])):
            chip = chipset.read(split, entry.id)
            sides = (chip.source, chipset.source), (chip.target, chipset.target)
            expected = np.concatenate([render(values, chip.valid, encoding) for values, encoding in sides])
            top, left = row * height + 3, col * width + 3
            assert np.array_equal(picture[top : top + 2 * size, left : left + size], expected)
            whole.append(bool(chip.valid.all()))
    assert set(whole) == {True, False}


def tile_maps(tmp_path: Path, maps: list[np.ndarray], config: TileConfig, **profile: Any) -> ChipSet:
    """Scenes of maps, as the source, far from each other."""
    for number, codes in enumerate(maps):
        where = grid(*codes.shape[1:], left=500_000.0 + 5000 * number)
        source = write_raster(tmp_path / f"map{number}.tif", codes, where, **profile)
        target = write_raster(tmp_path / f"s{number}.tif", image(*codes.shape[1:], number), where)
        tile(source, target, tmp_path / "chips", config)
    return ChipSet.open(tmp_path / "chips")


def test_classes_that_only_validation_or_test_hold_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = TileConfig(size=32, split_by="scene", split="1:1:1", source_kind="classes")
    maps = [class_map(96, 96), np.where(class_map(96, 96) == 2, 3, 1).astype(np.uint8), np.full((1, 96, 96), 7, "u1")]
    chipset = tile_maps(tmp_path, maps, config)
    assert [entry.value for entry in chipset.source.classes] == [1, 2, 5]
    expected = {"class 7": 0.5, "class 3": float((maps[1] == 3).mean()) / 2}
    line = next(text for text in caplog.messages[::-1] if "no training chip holds the source class" in text)
    for name, share in expected.items():
        assert f"{name} ({100 * share:.3g}% of the ground of val and test)" in line
    splits = {entry.name: entry for entry in summarise(chipset.folder).splits}
    assert splits["test"].classes["class 7"] == 1 and splits["train"].classes["class 7"] == 0


def test_splits_that_wait_for_scenes_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = TileConfig(size=32, split_by="scene", split="1:1:0")
    tile_maps(tmp_path, [class_map(96, 96)], config)
    assert "no chip is in val so far" in caplog.text
    caplog.clear()
    tile_maps(tmp_path, [class_map(96, 96), class_map(96, 96, 1)], config)
    assert "so far" not in caplog.text


@pytest.mark.parametrize(
    ("codes", "nodata", "told"),
    [
        (lambda codes: codes * 0 - 1, None, "of the source is class -1; if that means no data, leave it out with --ig"),
        (lambda codes: codes * 0 + 2, None, "all valid ground of the source is class 2"),
        (lambda codes: codes - 2, None, "the source holds class -1; if that means no data, leave it out with --ignore"),
        (lambda codes: codes - 2, -1, None),
    ],
)
def test_maps_of_one_class_or_with_negative_codes_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, codes, nodata: int | None, told: str | None
) -> None:
    config = TileConfig(size=32, split_by="scene", source_kind="classes", min_valid=0.1)
    tile_maps(tmp_path, [codes(class_map(96, 96).astype(np.int16))], config, nodata=nodata)
    found = [text for text in caplog.messages if " class " in text]
    assert len(found) == (told is not None) and (told or "") in "".join(found)


def test_a_scene_of_values_that_joins_maps_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A first scene of few heights is taken for a map; hundreds of them are none."""
    config = TileConfig(size=32, split_by="scene", min_valid=0.1)
    heights = np.random.default_rng(0).integers(0, 200, (1, 96, 96)).astype(np.uint8)
    tile_maps(tmp_path, [class_map(96, 96), heights], config)
    (told,) = [text for text in caplog.messages if "seems to be image" in text]
    assert "is read as a map, as the source of the chip set is one" in told and "--source-kind" in told


@pytest.mark.parametrize(("rows", "hole"), [(64, 0), (224, 120)])
def test_a_split_without_chips_says_what_was_dropped(tmp_path: Path, rows: int, hole: int) -> None:
    """Two windows of ground for three splits; in the second scene many more have none."""
    codes = class_map(rows, 160)
    codes[:, :hole, :] = 0
    with pytest.raises(ChipSetError, match="no chip is left for") as caught:
        tile_maps(tmp_path, [codes], TileConfig(size=64, min_valid=0.9), nodata=0)
    told = str(caught.value)
    assert ("windows dropped: too little valid ground); try" in told) == bool(hole)
    assert ("a lower --min-valid" in told) == bool(hole) and "smaller --buffer" not in told and "--size 32" in told


@pytest.mark.parametrize(
    ("side", "config", "hole", "told", "untold"),
    [
        (96, TileConfig(size=32, min_valid=0.001), 96, "has 0.1% valid ground.*no pixel at all is valid", "lower"),
        (96, TileConfig(size=32), 90, r"lower --min-valid or --size \(most is \d", "no pixel at all"),
        (12, TileConfig(size=32), 0, r"lower --min-valid \(most is 14.1% valid\)", "--size"),
        (96, TileConfig(size=16), 90, r"lower --min-valid \(most is", "--size"),
    ],
)
def test_a_scene_without_chips_says_what_would_help(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, side: int, config: TileConfig, hole: int, told: str, untold: str
) -> None:
    caplog.set_level("INFO")
    codes = class_map(side, side)
    codes[:, :hole, :] = 0
    with pytest.raises(NoGroundError, match=told) as caught:
        tile_maps(tmp_path, [codes], config, nodata=0)
    assert untold not in str(caught.value) and "too few edges" not in caplog.text


def test_a_target_with_another_source_is_told_of(
    pair: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As of a map that was corrected: both versions would be trained on."""
    with rasterio.open(pair[0]) as dataset:
        corrected = np.where(dataset.read() == 5, 2, dataset.read())
    other = write_raster(tmp_path / "corrected.tif", corrected.astype(np.uint8), grid(300, 420), nodata=0)
    tile(*pair, tmp_path / "chips", TileConfig(size=32))
    assert "is that of scene" not in caplog.text
    assert tile(other, pair[1], tmp_path / "chips", TileConfig(size=32)).scenes == 2
    assert "scene 'image-2': its target is that of scene 'image', whose source is another (../map.tif)" in caplog.text
