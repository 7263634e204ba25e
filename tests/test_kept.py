"""`--keep-parts`: a VRT over parts that stay, each a COG of its own, and a STAC item that tells of them."""

import dataclasses
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import geopandas
import numpy as np
import pyproj
import pystac
import pytest
import rasterio
from conftest import CLASSES, UTM, Constant, Identity, TileMean, class_map, grid, image_encoding, write_raster
from pystac.validation import JsonSchemaSTACValidator
from rasterio.windows import Window
from rio_cogeo import cog_validate
from shapely.geometry import Point, box, shape

import geop2p.mosaic.assembly as assembly
import geop2p.mosaic.mosaic as mosaic_module
import geop2p.mosaic.overview as overview
from geop2p import PredictConfig, predict
from geop2p.errors import ConfigError, OutputError, RasterError
from geop2p.mosaic.catalogue import bounding_box, footprint
from geop2p.mosaic.tags import mosaic_lattice
from geop2p.raster.encoding import Band, Encoding, MapClass
from geop2p.raster.grid import Grid
from geop2p.raster.reading import describe_raster
from geop2p.raster.vrt import Part, TiledRaster, vrt_xml
from geop2p.raster.writing import part_writer, write_cog

BLENDED: dict[str, Any] = {"tile_size": 64, "overlap": 0.5}
KEPT = PredictConfig(**BLENDED, keep_parts=True)
EXACT = PredictConfig(tile_size=64, keep_parts=True)
ROWS, COLS, SIDE = 300, 420, 128


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mosaic_module, "choose_part_side", lambda *_: SIDE)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """An image of 3 x 4 parts, the last of the first row without ground, a hole in another."""
    values = np.random.default_rng(0).integers(0, 255, (3, ROWS, COLS), dtype=np.uint8)
    valid = np.ones((ROWS, COLS), bool)
    valid[:SIDE, 3 * SIDE :] = False
    valid[200:230, 100:190] = False
    return write_raster(tmp_path / "in.tif", values, grid(ROWS, COLS), mask=valid)


class Killed(BaseException):
    """Ends a run at once."""


def killed(*_: Any, **__: Any) -> None:
    raise Killed


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return np.ma.filled(dataset.read(masked=True).astype(float), np.nan)


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_the_pixels_and_words_are_those_of_one_file(
    tmp_path: Path, make_model: Callable[..., Path], scene: Path
) -> None:
    model = make_model(TileMean, image_encoding(), statistics="tile")
    whole = predict(model, scene, tmp_path / "whole.tif", PredictConfig(**BLENDED))
    kept = predict(model, scene, tmp_path / "out" / "land.vrt", KEPT)
    assert kept.path == str(tmp_path / "out" / "land.vrt") and kept.parts == whole.parts == 12
    names = ("width", "height", "seam_index", "tile_mismatch", "tile_mismatch_percent", "network_px_per_px")
    assert [getattr(kept, name) for name in names] == [getattr(whole, name) for name in names]
    parts = {f"land_parts/part_r{row:07d}_c{col:07d}.tif" for row in (0, 128, 256) for col in (0, 128, 256, 384)}
    parts -= {"land_parts/part_r0000000_c0000384.tif"}
    parts |= {"land_parts/overview.tif", "land_parts/overview_mask.tif"}
    assert listing(tmp_path / "out") == {"land.vrt", "land.qml", "land.json", "land_parts"} | parts
    moved = (tmp_path / "out").rename(tmp_path / "elsewhere") / "land.vrt"
    assert np.array_equal(pixels(moved), pixels(tmp_path / "whole.tif"), equal_nan=True)
    assert moved.with_suffix(".qml").read_text() == (tmp_path / "whole.qml").read_text()
    with rasterio.open(moved) as here, rasterio.open(tmp_path / "whole.tif") as there:
        structure = {"OVERVIEW_RESAMPLING_METHOD"}
        assert here.tags() == {key: value for key, value in there.tags().items() if key not in structure}
        assert here.tags(1) == there.tags(1) and "STATISTICS_MEAN" in here.tags(1)
        assert (here.crs, here.transform, here.shape) == (there.crs, there.transform, there.shape)
    assert mosaic_lattice(moved) == mosaic_lattice(tmp_path / "whole.tif")


def test_every_part_is_a_cog_that_tells_of_itself(
    tmp_path: Path, make_model: Callable[..., Path], scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "COARSEST", 32)
    predict(make_model(TileMean, image_encoding(), statistics="tile"), scene, tmp_path / "land.vrt", KEPT)
    everything = pixels(tmp_path / "land.vrt")
    for path in sorted((tmp_path / "land_parts").glob("part_*")):
        sound, errors, _ = cog_validate(path, strict=True, quiet=True)
        assert sound, errors
        with rasterio.open(path) as part:
            rows, cols = part.shape
            col, row = (round(number) for number in ~grid(ROWS, COLS).transform @ (part.transform.c, part.transform.f))
            here = everything[:, row : row + rows, col : col + cols]
            assert np.array_equal(pixels(path), here, equal_nan=True)
            assert part.overviews(1) == [2, 4]
            assert part.tags()["GEOP2P_SYNTHETIC"] == "YES" and "GEOP2P_MODEL_SHA256" in part.tags()
            assert part.tags()["GEOP2P_INPUT"] == scene.name
            assert float(part.tags(2)["STATISTICS_MEAN"]) == pytest.approx(np.nanmean(here[1]))
            assert not path.with_name(f"{path.name}.msk").exists()
        lattice = mosaic_lattice(path)
        whole = mosaic_lattice(tmp_path / "land.vrt")
        assert lattice is not None and whole is not None
        assert {line + row for line in lattice.handovers(0, rows)} <= set(whole.handovers(0, ROWS))


def test_an_area_of_interest_is_a_cut(tmp_path: Path, make_model: Callable[..., Path], scene: Path) -> None:
    where = tmp_path / "area.gpkg"
    left, top = 500_000, 5_300_000
    geopandas.GeoDataFrame(geometry=[box(left + 150, top - 520, left + 601, top - 99)], crs=UTM).to_file(where)
    model = make_model(TileMean, image_encoding(), statistics="tile")
    for output, keep_parts in (("whole.tif", False), ("la nd#.vrt", True)):
        predict(model, scene, tmp_path / output, PredictConfig(**BLENDED, keep_parts=keep_parts, aoi=where))
    assert np.array_equal(pixels(tmp_path / "la nd#.vrt"), pixels(tmp_path / "whole.tif"), equal_nan=True)
    with rasterio.open(tmp_path / "whole.tif") as whole, rasterio.open(tmp_path / "la nd#.vrt") as land:
        assert whole.transform == land.transform
    item = json.loads((tmp_path / "la nd#.json").read_text())
    for asset in item["assets"].values():
        assert " " not in asset["href"] and "#" not in asset["href"]  # which would end the name in a URI
        with rasterio.open(tmp_path / unquote(asset["href"])) as dataset:
            assert asset["proj:transform"] == list(dataset.transform)[:6] and len(item["assets"]) > 5
    with pytest.raises(RasterError, match=r"la nd#_parts: holds the parts of la nd#\.vrt; give that"):
        describe_raster(tmp_path / "la nd#_parts")


def test_a_map_keeps_names_and_colours(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    encoding = Encoding("classes", "uint8", (Band(),), nodata=0.0, classes=CLASSES)
    path = write_raster(tmp_path / "in.tif", class_map(ROWS, COLS), grid(ROWS, COLS))
    predict(make_model(Identity, encoding), path, tmp_path / "map.vrt", EXACT)
    first = tmp_path / "map_parts" / "part_r0000000_c0000000.tif"
    for file in (tmp_path / "map.vrt", first):
        info = describe_raster(file)
        assert {value: name for value, name in info.categories.items() if name} == {
            entry.value: entry.name for entry in CLASSES
        }
        assert info.palette[5] == CLASSES[2].color and info.nodata == 0
    assert cog_validate(first, strict=True, quiet=True)[0]
    with rasterio.open(tmp_path / "map.vrt") as dataset:
        assert np.array_equal(dataset.read(), class_map(ROWS, COLS))


@pytest.mark.parametrize(
    ("dtype", "wide"), [("int32", (7, 70_000, 300_000)), ("int16", (-3, 0, 250)), ("uint32", (1, 2, 4_000_000_000))]
)
def test_classes_keep_their_names_whatever_their_codes(
    tmp_path: Path, make_model: Callable[..., Path], dtype: str, wide: tuple[int, ...]
) -> None:
    """Category names are counted from 0, at most to 4095; other codes have an attribute table."""
    classes = tuple(dataclasses.replace(entry, value=value) for entry, value in zip(CLASSES, wide, strict=True))
    model = make_model(Identity, Encoding("classes", dtype, (Band(),), classes=classes))
    codes = np.select([class_map(80, 90) == entry.value for entry in CLASSES], wide).astype(dtype)
    path = write_raster(tmp_path / "in.tif", codes, grid(80, 90))
    for output, keep_parts in (("one.tif", False), ("kept.vrt", True)):
        predict(model, path, tmp_path / output, PredictConfig(tile_size=64, keep_parts=keep_parts))
        assert describe_raster(tmp_path / output).categories == {entry.value: entry.name for entry in classes}
        with rasterio.open(tmp_path / output) as dataset:
            assert np.array_equal(dataset.read(), codes)


def test_shards_leave_the_same(tmp_path: Path, make_model: Callable[..., Path], scene: Path) -> None:
    model = make_model(TileMean, image_encoding(), statistics="tile")
    predict(model, scene, tmp_path / "one.vrt", KEPT)
    for number in (3, 1, 2):
        predict(model, scene, tmp_path / "out.vrt", PredictConfig(**BLENDED, keep_parts=True, shard=f"{number}/3"))
        assert not (tmp_path / "out.vrt").exists() and not (tmp_path / "out_parts").exists()
    made = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out.vrt.parts" / "cogs").iterdir()}
    predict(model, scene, tmp_path / "out.vrt", KEPT)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out_parts").glob("part_*")} == made
    assert (tmp_path / "out.vrt").read_text() == (tmp_path / "one.vrt").read_text().replace("one_parts/", "out_parts/")
    assert not (tmp_path / "out.vrt.parts").exists()


def test_a_killed_run_goes_on(
    tmp_path: Path, make_model: Callable[..., Path], scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is killed: between parts, and at every step of leaving them."""
    model, output = make_model(TileMean, image_encoding(), statistics="tile"), tmp_path / "out.vrt"
    predict(model, scene, tmp_path / "one.vrt", KEPT)

    with monkeypatch.context() as patch:
        patch.setattr("geop2p.mosaic.parts.keep_part", killed)
        with pytest.raises(Killed):
            predict(model, scene, output, KEPT)
    write = assembly.write_text
    steps: list[tuple[Any, str, Any]] = [
        (assembly, "leave_parts", killed),
        (Path, "rename", killed),  # to the name that stays
        (assembly, "write_item", killed),
        (assembly, "write_text", lambda path, text: killed() if path == output else write(path, text)),
    ]
    for step in steps:
        with monkeypatch.context() as patch:
            patch.setattr(*step)
            with pytest.raises(Killed):
                predict(model, scene, output, KEPT)
        assert not output.exists()
    predict(model, scene, output, KEPT)
    assert output.read_text() == (tmp_path / "one.vrt").read_text().replace("one_parts/", "out_parts/")
    assert listing(tmp_path / "out_parts") == listing(tmp_path / "one_parts")
    assert {path.name for path in tmp_path.iterdir() if "out" in path.name} == {
        "out.vrt", "out.qml", "out.json", "out_parts"
    }  # fmt: skip


def test_parts_that_were_removed_after_a_kill_are_made_again(
    tmp_path: Path, make_model: Callable[..., Path], scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, output = make_model(TileMean, image_encoding(), statistics="tile"), tmp_path / "out.vrt"
    predict(model, scene, tmp_path / "one.vrt", KEPT)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("geop2p.mosaic.predictor.remove_folder", killed)  # all is there, the work is not yet gone
        predict(model, scene, output, KEPT)
    with pytest.raises(OutputError, match=r"out\.vrt: exists; give another name or --overwrite"):
        predict(model, scene, output, KEPT)
    assert output.exists() and listing(tmp_path / "out_parts") == listing(tmp_path / "one_parts")
    output.unlink()  # what is in the way, and nothing else
    shutil.rmtree(tmp_path / "out_parts")
    predict(model, scene, output, KEPT)
    assert not (tmp_path / "out.vrt.parts").exists()
    assert output.read_text() == (tmp_path / "one.vrt").read_text().replace("one_parts/", "out_parts/")
    assert listing(tmp_path / "out_parts") == listing(tmp_path / "one_parts")


def test_a_repeat_never_removes_parts_that_are_not_put_together(
    tmp_path: Path, make_model: Callable[..., Path], scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at the end, then while it was replaced: what a call without --overwrite finds must stay."""
    model, output = make_model(TileMean, image_encoding(), statistics="tile"), tmp_path / "out.vrt"
    for name, overwrite in (("predictor.remove_folder", False), ("assembly.leave_parts", True)):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(f"geop2p.mosaic.{name}", killed)
            predict(model, scene, output, KEPT, overwrite=overwrite)
    before = listing(tmp_path / "out.vrt.parts")
    with pytest.raises(OutputError, match="exists; give another name or --overwrite"):
        predict(model, scene, output, KEPT)
    assert listing(tmp_path / "out.vrt.parts") == before and any("part_" in name for name in before)
    predict(model, scene, output, KEPT, overwrite=True)
    assert not np.isnan(pixels(output)).all()


def test_a_mosaic_that_has_its_name_leaves_no_parts_behind(
    tmp_path: Path, make_model: Callable[..., Path], scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, output = make_model(TileMean, image_encoding(), statistics="tile"), tmp_path / "out.tif"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(shutil, "rmtree", killed)  # the parts have lost their name, and are there
        predict(model, scene, output, PredictConfig(**BLENDED))
    assert list(tmp_path.glob(".out.tif.parts*"))
    before = output.read_bytes()
    with pytest.raises(OutputError, match=r"out\.tif: exists; give another name or --overwrite"):
        predict(model, scene, output, PredictConfig(**BLENDED))
    assert output.read_bytes() == before and not list(tmp_path.glob("*out.tif.parts*"))


def test_what_is_there_is_replaced_only_when_asked(
    tmp_path: Path, make_model: Callable[..., Path], scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, output = make_model(TileMean, image_encoding(), statistics="tile"), tmp_path / "out.vrt"
    predict(model, scene, output, KEPT)
    before = listing(tmp_path / "out_parts")
    with pytest.raises(OutputError, match=r"out\.vrt: exists; give another name or --overwrite"):
        predict(model, scene, output, KEPT)
    output.rename(tmp_path / "kept.vrt")  # refers to the parts all the same
    (tmp_path / "out.qml").unlink(), (tmp_path / "out.json").unlink()
    with pytest.raises(OutputError, match=r"out_parts: exists; give another name or --overwrite"):
        predict(model, scene, output, KEPT)
    assert listing(tmp_path / "out_parts") == before
    (tmp_path / "kept.vrt").rename(output)
    monkeypatch.setattr(mosaic_module, "choose_part_side", lambda *_: 256)
    other = make_model(Constant, image_encoding())
    with monkeypatch.context() as patch:
        patch.setattr(assembly, "write_item", killed)
        with pytest.raises(Killed):
            predict(other, scene, output, KEPT, overwrite=True)
    assert not output.exists()  # the earlier VRT must not show the new parts
    predict(other, scene, output, KEPT, overwrite=True)
    names = {f"part_r{row:07d}_c{col:07d}.tif" for row in (0, 256) for col in (0, 256)}
    assert listing(tmp_path / "out_parts") == names | {"overview.tif", "overview_mask.tif"}
    assert np.nanmax(pixels(output)) == np.nanmin(pixels(output))
    (tmp_path / "out_parts" / "letter.txt").write_text("mine")
    with pytest.raises(RasterError, match="holds something else; move it or name another output"):
        predict(model, scene, output, KEPT, overwrite=True)
    assert (tmp_path / "out_parts" / "letter.txt").read_text() == "mine"


def test_names_and_packages_are_checked_before_any_work(
    tmp_path: Path, scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "no model is looked at"
    with pytest.raises(RasterError, match=r"land\.tif: is to be a VRT over the parts that are kept; give a name that"):
        predict(model, scene, tmp_path / "land.tif", KEPT)
    with pytest.raises(RasterError, match=r"land\.vrt: is to be a GeoTIFF; .* or keep the parts with --keep-parts"):
        predict(model, scene, tmp_path / "land.vrt")
    (tmp_path / "land.json").write_text("mine")
    with pytest.raises(OutputError, match=r"land\.json: exists and would be replaced by the mosaic's STAC item"):
        predict(model, scene, tmp_path / "land.vrt", KEPT)
    (tmp_path / "land.json").unlink()
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "pystac" else find(name, *rest)
    )
    with pytest.raises(ConfigError, match=r"needs pystac, which is not installed; pip install 'geop2p\[stac\]'"):
        predict(model, scene, tmp_path / "land.vrt", KEPT)
    assert not list(tmp_path.glob("land*"))


def test_no_valid_ground_is_an_empty_vrt(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    nothing = np.zeros((ROWS, COLS), bool)
    path = write_raster(tmp_path / "in.tif", np.zeros((3, ROWS, COLS), np.uint8), grid(ROWS, COLS), mask=nothing)
    predict(
        make_model(Identity, image_encoding()), path, tmp_path / "out.vrt", PredictConfig(tile_size=64, keep_parts=True)
    )
    assert np.isnan(pixels(tmp_path / "out.vrt")).all() and not listing(tmp_path / "out_parts")
    item = json.loads((tmp_path / "out.json").read_text())
    assert item["geometry"] is None and "bbox" not in item


def test_the_item_is_valid_and_true(tmp_path: Path, make_model: Callable[..., Path], scene: Path) -> None:
    result = predict(make_model(TileMean, image_encoding(), statistics="tile"), scene, tmp_path / "land.vrt", KEPT)
    data = json.loads((tmp_path / "land.json").read_text())
    JsonSchemaSTACValidator().validate_core(data, pystac.STACObjectType.ITEM, data["stac_version"])
    item = pystac.Item.from_file(tmp_path / "land.json")
    where = grid(ROWS, COLS)
    for asset in item.assets.values():
        href = asset.get_absolute_href()
        assert href is not None and "tmp" not in asset.href
        with rasterio.open(href) as dataset:
            told = asset.extra_fields
            assert told["proj:shape"] == list(dataset.shape)
            assert told["proj:transform"] == list(dataset.transform)[:6]
            assert told["proj:bbox"] == list(dataset.bounds)
    assert len(item.assets) == 13 and item.assets["overview"].roles == ["overview"]
    assert item.properties["proj:code"] == "EPSG:32632" and item.properties["proj:wkt2"].startswith("PROJCRS[")
    assert item.properties["proj:shape"] == [ROWS, COLS]
    assert item.properties["geop2p:synthetic"] is True and item.properties["geop2p:recipe"] == "pix2pix"
    assert item.properties["geop2p:seam_index"] == result.seam_index
    with rasterio.open(tmp_path / "land.vrt") as dataset:
        assert item.properties["geop2p:model_sha256"] == dataset.tags()["GEOP2P_MODEL_SHA256"]
        mean = float(dataset.tags(1)["STATISTICS_MEAN"])
    first = item.assets["mosaic"].extra_fields["raster:bands"][0]
    assert first["data_type"] == "uint8" and first["statistics"]["mean"] == mean
    outline, whole = shape(item.geometry), where.bounds_in(rasterio.CRS.from_epsg(4326))
    assert outline.bounds == pytest.approx(whole, abs=1e-5) and item.bbox == list(outline.bounds)
    assert outline.area / box(*whole).area == pytest.approx(1 - SIDE * (COLS - 3 * SIDE) / (ROWS * COLS), abs=0.01)


def test_the_outline_of_ground_beyond_the_antimeridian(tmp_path: Path) -> None:
    fiji = Grid(rasterio.CRS.from_epsg(32760), rasterio.Affine(1000, 0, 700_000, 0, -1000, 8_100_000), 300, 300)
    parts = [Part("a", Window(0, 0, 150, 300)), Part("b", Window(150, 0, 150, 300))]
    outline = footprint(fiji, parts)
    assert outline is not None and outline.geom_type == "MultiPolygon"
    west, south, east, north = bounding_box(outline)
    assert 178 < west < 180 and -180 < east < -178 and south < north < -15


@pytest.mark.parametrize("offset", [(-0.5, -0.5), (-0.1, -0.9), (0.1, 0.3), (-1.2, -0.5)])
@pytest.mark.parametrize(
    ("code", "latitude"),
    [(3031, -70), (3571, 65), (3413, 75), (6933, 10), (32660, 40), (3832, -30), (3857, 5), (4326, -12), (2193, -40)],
)
def test_the_outline_is_cut_at_the_antimeridian_in_every_crs(
    code: int, latitude: float, offset: tuple[float, float]
) -> None:
    """GDAL makes a ring around the world of it on polar grids. Longitudes may be written beyond 180, too."""
    there = pyproj.Transformer.from_crs(4326, code, always_xy=True)
    pixel = 1e-5 if code == 4326 else 1.0
    x, y = there.transform(180.0, latitude)
    corner = x + 400 * pixel * offset[0], y - 400 * pixel * offset[1]
    here = Grid(rasterio.CRS.from_epsg(code), rasterio.Affine(pixel, 0, corner[0], 0, -pixel, corner[1]), 400, 400)
    outline = footprint(here, [Part("a", Window(0, 0, 400, 200)), Part("b", Window(0, 200, 400, 200))])
    assert outline is not None and outline.is_valid and outline.area < 0.01**2
    rng = np.random.default_rng(0)
    for inside, places in ((True, rng.uniform(2, 398, (50, 2))), (False, [(-20, 200), (420, 200), (200, -20)])):
        for col, row in places:
            lon, lat = there.transform(*(here.transform @ (col, row)), direction="INVERSE")
            assert outline.contains(Point((lon + 180) % 360 - 180, lat)) == inside, (col, row)
    west, _, east, _ = bounding_box(outline)
    assert (west > east) == (outline.geom_type == "MultiPolygon")


def test_outlines_on_both_sides_of_180_degrees_have_a_box() -> None:
    here = Grid(rasterio.CRS.from_epsg(4326), rasterio.Affine(0.1, 0, 160, 0, -0.1, 10), 100, 400)
    for cuts, box_of in (
        ([(0, 100), (200, 100)], [160, 0, -170, 10]),  # one of them begins at 180
        ([(0, 100), (250, 50)], [160, 0, -170, 10]),
        ([(200, 100)], [-180, 0, -170, 10]),
    ):
        outline = footprint(here, [Part("a", Window(col, 0, width, 100)) for col, width in cuts])
        assert outline is not None and outline.geom_type in ("Polygon", "MultiPolygon")
        assert bounding_box(outline) == pytest.approx(box_of)


@pytest.mark.parametrize("side", [128, 100])
def test_drawing_all_of_it_opens_no_part(
    tmp_path: Path, make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    """A small copy is drawn from afar: same place, no lines where parts meet, holes left out."""
    monkeypatch.setattr(mosaic_module, "choose_part_side", lambda *_: side)
    monkeypatch.setattr(overview, "COARSEST", 16)
    rows, cols = 450, 470
    ramp = np.broadcast_to(np.linspace(0, 255, cols).astype(np.uint8), (3, rows, cols))
    valid = np.ones((rows, cols), bool)
    valid[90:240, 150:330] = False
    path = write_raster(tmp_path / "in.tif", ramp.copy(), grid(rows, cols), mask=valid)
    predict(make_model(Identity, image_encoding()), path, tmp_path / "out.vrt", EXACT)
    small = tmp_path / "out_parts" / "overview.tif"
    assert cog_validate(small, strict=True, quiet=True)[0]
    with rasterio.open(small) as dataset, rasterio.open(tmp_path / "out.vrt") as whole:
        assert dataset.shape == (-(-rows // 8), -(-cols // 8)) and whole.overviews(1) == [8]
        assert dataset.bounds == pytest.approx(whole.bounds) and dataset.tags()["GEOP2P_SYNTHETIC"] == "YES"
    for part in (tmp_path / "out_parts").glob("part_*"):
        part.unlink()
    with rasterio.open(tmp_path / "out.vrt") as dataset:
        apart = np.ma.abs(dataset.read(1, out_shape=(57, 59), masked=True) - (np.arange(59) + 0.5) / 59 * 255)
        assert apart.max() < 6  # of 255 over 59 columns: a pixel and a half
        for rows_there, cols_there in ((57, 59), (20, 25)):
            mask = dataset.dataset_mask(out_shape=(rows_there, cols_there)) > 0
            for margin, expected in ((-0.03, False), (0.03, True)):  # a pixel and a half of the copy
                inside = [
                    (place > first / side - margin - 0.5 / count) & (place < last / side + margin + 0.5 / count)
                    if expected
                    else (place > first / side - margin + 0.5 / count) & (place < last / side + margin - 0.5 / count)
                    for count, side, first, last in ((rows_there, rows, 90, 240), (cols_there, cols, 150, 330))
                    for place in [(np.arange(count) + 0.5) / count]
                ]
                hole = np.outer(*inside)
                assert mask[~hole].all() if expected else not mask[hole].any()


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_overviews_do_not_darken_the_rims_of_holes(tmp_path: Path, dtype: str) -> None:
    encoding, where = image_encoding(dtype, 1), grid(100, 100)
    valid = np.ones((100, 100), bool)
    valid[:40, 50:] = False
    with part_writer(tmp_path / "part.tif", where, encoding) as write:
        write(0, np.full((1, 100, 100), 200, dtype), valid)
    whole = Part("part.tif", Window(0, 0, 100, 100))
    text = vrt_xml(TiledRaster(where, encoding, [whole]))
    (tmp_path / "part.vrt").write_text(text)
    write_cog(tmp_path / "part.vrt", tmp_path / "cog.tif", encoding, overviews=3)
    for level in range(3):
        with rasterio.open(tmp_path / "cog.tif", overview_level=level) as dataset:
            seen = dataset.read(1, masked=True)
            assert set(seen.compressed()) == {200} and 0 < seen.mask.mean() < 0.25


def test_parts_meet_from_afar(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    path = write_raster(tmp_path / "in.tif", np.full((3, 450, 450), 200, np.uint8), grid(450, 450))
    predict(make_model(Identity, image_encoding()), path, tmp_path / "out.vrt", EXACT)
    with rasterio.open(tmp_path / "out.vrt") as dataset:
        for side in (17, 50, 111, 224, 301):
            assert (dataset.read(out_shape=(3, side, side)) == 200).all()
            assert (dataset.dataset_mask(out_shape=(side, side)) == 255).all()


def test_outlines_around_the_world_have_a_box() -> None:
    world = Grid(rasterio.CRS.from_epsg(4326), rasterio.Affine(1, 0, -180, 0, -1, 90), 180, 360)
    for cuts in ([(0, 360)], [(0, 180), (180, 180)]):
        outline = footprint(world, [Part("a", Window(col, 0, width, 180)) for col, width in cuts])
        assert outline is not None and bounding_box(outline) == [-180, -90, 180, 90]


def test_a_late_shard_leaves_alone_what_is_being_left(
    tmp_path: Path, make_model: Callable[..., Path], scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, output, write = make_model(Identity, image_encoding()), tmp_path / "out.vrt", assembly.write_item

    def overtaken(*args: Any) -> None:
        predict(model, scene, output, dataclasses.replace(KEPT, shard="1/2"))
        write(*args)

    monkeypatch.setattr(assembly, "write_item", overtaken)
    made = predict(model, scene, output, KEPT)
    assert len(list((tmp_path / "out_parts").glob("part_*.tif"))) == made.parts - 1  # one has no ground
    assert np.array_equal(pixels(output), pixels(scene), equal_nan=True)


def test_parts_that_are_gone_are_not_taken_for_none(
    tmp_path: Path, make_model: Callable[..., Path], scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, output = make_model(Identity, image_encoding()), tmp_path / "out.vrt"
    before = predict(model, scene, output, KEPT)
    write = assembly.write_style

    def overtaken(*args: Any) -> None:
        shutil.rmtree(tmp_path / "out.vrt.parts" / "cogs")
        write(*args)

    monkeypatch.setattr(assembly, "write_style", overtaken)
    with pytest.raises(RasterError, match=r"part_r0000000_c0000000\.tif: is gone: another process"):
        predict(model, scene, output, KEPT, overwrite=True)
    assert output.exists() and len(list((tmp_path / "out_parts").glob("part_*.tif"))) == before.parts - 1


def test_an_input_among_the_parts_is_refused(tmp_path: Path, make_model: Callable[..., Path], scene: Path) -> None:
    model, output = make_model(Identity, image_encoding()), tmp_path / "out.vrt"
    predict(model, scene, output, KEPT)
    for given in (tmp_path / "out_parts", tmp_path / "out_parts" / "part_r0000000_c0000000.tif"):
        with pytest.raises(RasterError, match=r"lies where the parts of out\.vrt are to stay"):
            predict(model, given, output, KEPT, overwrite=True)


@pytest.mark.parametrize("keep_parts", [False, True])
@pytest.mark.parametrize(("codes", "own", "nodata"), [
    ((0, 1, 2), None, 255),
    ((0, 7, 255), None, 1),
    ((1, 2, 5), None, 0),
    ((0, 1, 2), 9, 9),  # the layer's own
    ((0, 7, 255), 7, 1),  # which is a class, too
    (range(256), None, None),
])  # fmt: skip
def test_ground_without_data_has_a_code_that_no_class_uses_or_a_mask(
    tmp_path: Path, make_model: Callable[..., Path], codes: tuple[int, ...], own: int | None, nodata: int | None,
    keep_parts: bool,
) -> None:  # fmt: skip
    draw = np.random.default_rng(0)
    values = draw.choice(codes, (1, 24, 140)).astype(np.uint8)
    valid = draw.random((24, 140)) > 0.2
    path = write_raster(tmp_path / "in.tif", values, grid(24, 140), mask=valid)
    classes = tuple(MapClass(code, f"class {code}", (code, 0, 255 - code)) for code in codes)
    encoding = Encoding("classes", "uint8", (Band(),), nodata=own, classes=classes, color_interp=("palette",))
    output = tmp_path / ("out.vrt" if keep_parts else "out.tif")
    config = PredictConfig(tile_size=64, overlap=0, keep_parts=keep_parts)
    predict(make_model(Identity, encoding), path, output, config)
    files = [output, *tmp_path.glob("out*/part_*.tif")]
    assert len(files) == (3 if keep_parts else 1)
    for file in files:
        with rasterio.open(file) as dataset:
            assert dataset.nodata == nodata
            found, there = dataset.read(1), dataset.dataset_mask() > 0
        if file == output:
            assert np.array_equal(there, valid) and np.array_equal(found[valid], values[0, valid])
        assert nodata is None or (found[~there] == nodata).all()
        assert not there.all()


def test_a_part_that_cannot_be_made_a_cog_leaves_nothing_nameless(
    tmp_path: Path, make_model: Callable[..., Path], scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OutputError("no space left on the device")

    model = make_model(TileMean, image_encoding(), statistics="tile")
    config = dataclasses.replace(KEPT, uncertainty=tmp_path / "apart.tif", uncertainty_by="tiles")
    folder = tmp_path / "out.vrt.parts"
    predict(model, scene, tmp_path / "out.vrt", dataclasses.replace(config, shard="1/1"))
    extras = sorted(folder.glob("part_*_uncertainty.tif"))
    for note in list(folder.glob("part_*.json"))[:3]:  # as a process sees it that began before another made them
        note.unlink()
    with monkeypatch.context() as patch, pytest.raises(OutputError, match="no space left"):
        patch.setattr("geop2p.mosaic.kept.write_cog", full)
        predict(model, scene, tmp_path / "out.vrt", config)
    assert not list(folder.rglob(".part_*")) and sorted(folder.glob("part_*_uncertainty.tif")) == extras
    assert predict(model, scene, tmp_path / "out.vrt", config).parts == 12
