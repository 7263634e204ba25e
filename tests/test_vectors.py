"""Vector layers: the classes of their features, and the ground that these cover in another CRS."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from conftest import CLASSES, UTM, Identity, grid, write_raster
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.windows import Window
from shapely import make_valid
from shapely.geometry import MultiPolygon, Polygon, box

from geop2p import PredictConfig, predict
from geop2p.config import TileConfig
from geop2p.errors import ChipSetError, ConfigError, NoGroundError, RasterError
from geop2p.raster.encoding import Band, Encoding, MapClass
from geop2p.raster.features import is_vector
from geop2p.raster.grid import Grid
from geop2p.raster.layer_names import is_gdal_name, is_missing, named_layer
from geop2p.raster.reading import describe_raster
from geop2p.raster.vectors import Area, VectorReader, read_vector
from geop2p.tiling.chips import ChipSet
from geop2p.tiling.opening import layer_path, stored_path
from geop2p.tiling.tiler import tile

DEGREES = CRS.from_epsg(4326)
SHAPES = [box(number, 0, number + 1, 1) for number in range(3)]


def test_metres_in_a_layer_of_degrees_are_told(tmp_path: Path) -> None:
    where = [box(500_000, 5_300_000, 500_100, 5_300_100)]
    geopandas.GeoDataFrame({"kind": ["water"]}, geometry=where, crs=DEGREES).to_file(tmp_path / "map.gpkg")
    with pytest.raises(
        RasterError, match=r"map\.gpkg: lies at x 500000 to .*, which are no longitudes .*EPSG:4326 has"
    ):
        read_vector(tmp_path / "map.gpkg", "kind")


@pytest.mark.parametrize("suffix", ["gpkg", "geojson"])
@pytest.mark.parametrize(
    ("values", "dtype", "labels"),
    [
        ([1, 2, 3], "Int64", ["1", "2", "3"]),
        ([1, None, 3], "Int64", ["1", "3"]),
        ([614897908, None, -7], "Int64", ["614897908", "-7"]),
        ([0.5, None, 2.0], "float64", ["0.5", "2"]),
        ([True, None, False], "boolean", ["True", "False"]),
        (["1.0", None, "nan"], "object", ["1.0", "nan"]),
        (["wood", " ", "lake"], "object", ["wood", "lake"]),
    ],
)
def test_a_gap_in_a_field_changes_no_name_of_a_class(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str, values: list, dtype: str, labels: list[str]
) -> None:
    path = tmp_path / f"a.{suffix}"
    geopandas.GeoDataFrame({"num": pd.array(values, dtype=dtype)}, geometry=SHAPES, crs=UTM).to_file(path)
    layer = read_vector(path, "num")
    names = {entry.value: entry.name for entry in layer.classes}
    assert [names[code] for code in layer.features["code"]] == labels
    assert ("1 features without a value in 'num' are left out, as if nothing" in caplog.text) == (values != [1, 2, 3])


def centres(where: Grid, crs: CRS) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the centres of all pixels in another CRS, (rows, cols) each."""
    cols, rows = np.meshgrid(np.arange(where.width) + 0.5, np.arange(where.height) + 0.5)
    to_crs = Transformer.from_crs(where.crs.to_wkt(), crs.to_wkt(), always_xy=True)
    xs, ys = to_crs.transform(*(where.transform @ (cols, rows)))
    return np.asarray(xs), np.asarray(ys)


UTM_5_KM = Grid(UTM, Affine(5000, 0, 200_000, 0, -5000, 6_000_000), 250, 200)
UTM_200_M = Grid(UTM, Affine(200, 0, 410_000, 0, -200, 5_005_000), 50, 900)
POLAR = Grid(CRS.from_epsg(3995), Affine(9000, 0, -1_000_000, 0, -9000, 900_000), 180, 230)
DATELINE = Grid(CRS.from_epsg(32660), Affine(5000, 0, 500_000, 0, -5000, 5_300_000), 150, 200)
MERCATOR = CRS.from_epsg(3857)
EDGE = 20_037_508.342789244  # of the world in it
BEFORE_EDGE = Grid(MERCATOR, Affine(500, 0, EDGE - 50_000, 0, -500, 1_500_000), 120, 100)
OVER_EDGE = Grid(MERCATOR, Affine(500, 0, EDGE - 50_000, 0, -500, 1_500_000), 120, 200)
OVER_OTHER_EDGE = Grid(MERCATOR, Affine(500, 0, -EDGE - 50_000, 0, -500, 1_500_000), 120, 200)
MERCATOR_WORLD = Grid(MERCATOR, Affine(EDGE / 100, 0, -EDGE, 0, -EDGE / 100, EDGE), 200, 200)
ZONE_1 = Grid(CRS.from_epsg(32601), Affine(5000, 0, 100_000, 0, -5000, 5_300_000), 150, 200)
WORLD = Grid(DEGREES, Affine(1, 0, -180, 0, -1, 90), 180, 360)


@pytest.mark.parametrize(
    ("where", "crs", "shape"),
    [
        (UTM_5_KM, DEGREES, box(-180, -90, 180, 90)),
        (UTM_200_M, DEGREES, box(8, 44, 10, 45.14)),
        (UTM_5_KM, DEGREES, box(-180, -90, 9.05, 90)),
        (UTM_5_KM, DEGREES, Polygon([(-170, 10), (170, 80), (170, 10), (-170, 80)])),  # crosses itself
        (POLAR, DEGREES, box(-180, 85, 180, 90)),
        (POLAR, DEGREES, box(-30, 40, 100, 88)),
        (DATELINE, DEGREES, box(-180, -90, 180, 90)),
        (DATELINE, DEGREES, box(170, 40, 180, 46)),
        (DATELINE, DEGREES, box(176, 43, 190, 46)),
        (BEFORE_EDGE, DEGREES, box(179.8, 13, 180.2, 13.2)),
        (BEFORE_EDGE, DEGREES, box(-180.2, 13, -179.8, 13.2)),
        (BEFORE_EDGE, DEGREES, box(-180, -90, 180, 90)),
        (OVER_EDGE, DEGREES, box(179.8, 13, 180.2, 13.2)),
        (OVER_EDGE, DEGREES, MultiPolygon([box(179.8, 13, 180, 13.2), box(-180, 13, -179.8, 13.2)])),
        (OVER_EDGE, DEGREES, box(-180, -90, 180, 90)),
        (OVER_OTHER_EDGE, DEGREES, box(179.8, 13, 180.2, 13.2)),
        (OVER_OTHER_EDGE, DEGREES, MultiPolygon([box(179.8, 13, 180, 13.2), box(-180, 13, -179.8, 13.2)])),
        (MERCATOR_WORLD, DEGREES, box(170, 10, 190, 40)),
        (MERCATOR_WORLD, DEGREES, box(-190, 10, -170, 40)),
        (MERCATOR_WORLD, DEGREES, box(170, 10, 180, 40)),
        (MERCATOR_WORLD, DEGREES, box(-180, -90, 180, 90)),
        (ZONE_1, DEGREES, box(170, 43, 182, 46)),
        (ZONE_1, DEGREES, box(-180, -90, 180, 90)),
        (WORLD, UTM, box(200_000, 1_000_000, 800_000, 7_000_000)),
        (grid(200, 300), DEGREES, box(9.001, 47.84, 9.003, 47.85)),
    ],
)
def test_features_cover_in_another_crs_the_ground_that_they_cover_in_their_own(
    tmp_path: Path, where: Grid, crs: CRS, shape: Polygon
) -> None:
    geopandas.GeoDataFrame(geometry=[shape], crs=crs.to_wkt()).to_file(tmp_path / "a.gpkg")
    xs, ys = centres(where, crs)
    shape, frame = make_valid(shape), Window(0, 0, where.width, where.height)
    expected = np.zeros(xs.shape, bool)
    for far in (0, 360, -360) if crs == DEGREES else (0,):
        expected |= shapely.contains_xy(shape, xs + far, ys)
    found = VectorReader(read_vector(tmp_path / "a.gpkg", None), where).read(frame)[0][0] == 2
    area = Area(tmp_path / "a.gpkg", where).mask(frame)
    assert expected.any()
    for burnt in (found, area):
        assert (burnt != expected).sum() <= 6  # an edge goes through the centre of a pixel, almost


def test_an_archive_with_a_shapefile_is_a_vector_layer(tmp_path: Path) -> None:
    frame = geopandas.GeoDataFrame({"use": ["barn", "lake"]}, geometry=SHAPES[:2], crs=UTM)
    (tmp_path / "plain").mkdir()
    frame.to_file(tmp_path / "plain" / "a.shp")
    shutil.copytree(tmp_path / "plain", tmp_path / "mixed")
    write_raster(tmp_path / "mixed" / "b.tif", np.ones((1, 8, 8), np.uint8), grid(8, 8))
    plain, mixed = (shutil.make_archive(str(tmp_path / name), "zip", tmp_path / name) for name in ("plain", "mixed"))
    assert is_vector(plain) and not is_vector(mixed) and not is_vector(tmp_path / "none.zip")
    frame.to_file(tmp_path / "rows.geojsonl", driver="GeoJSONSeq")
    for layer in (plain, tmp_path / "rows.geojsonl"):
        assert [entry.name for entry in read_vector(layer, "use").classes] == ["background", "barn", "lake"]


def test_the_bounds_of_a_layer_hold_its_bent_edges(tmp_path: Path) -> None:
    geopandas.GeoDataFrame(geometry=[box(6, 44, 12, 46)], crs=4326).to_file(tmp_path / "a.gpkg")
    layer = read_vector(tmp_path / "a.gpkg", None)
    xs, ys = Transformer.from_crs(4326, 32632, always_xy=True).transform(np.linspace(6, 12, 1001), np.full(1001, 44))
    assert layer.bounds_in(UTM)[1] == pytest.approx(min(ys), abs=50)
    assert layer.bounds_in(UTM)[0] == pytest.approx(min(xs), abs=50)


def test_polygons_of_the_world_say_the_split(tmp_path: Path) -> None:
    shapes = [box(-180, -90, 9.05, 90), box(9.05, -90, 180, 90)]
    areas = geopandas.GeoDataFrame({"split": ["train", "val"]}, geometry=shapes, crs=4326)
    areas.to_file(tmp_path / "areas.gpkg")
    where = grid(160, 160, pixel=100.0, left=496_000)
    config = TileConfig(size=16, aoi=tmp_path / "areas.gpkg", split_by="polygon")
    image = write_raster(tmp_path / "image.tif", np.ones((3, 160, 160), np.uint8), where)
    tile(image, image, tmp_path / "chips", config)
    chipset = ChipSet.open(tmp_path / "chips")
    lost = chipset.scenes[0].dropped["on the areas of several splits"]
    assert lost <= 20 and chipset.counts["train"] + chipset.counts["val"] == 100 - lost


def test_reading_features_on_a_grid_leaves_them_as_they_are(tmp_path: Path) -> None:
    geopandas.GeoDataFrame(geometry=[box(-180, -90, 180, 90)], crs=4326).to_file(tmp_path / "a.gpkg")
    layer = read_vector(tmp_path / "a.gpkg", None)
    VectorReader(layer, UTM_5_KM)
    assert layer.features.total_bounds.tolist() == [-180, -90, 180, 90]


def write_labels(folder: Path, name: str, shapes: list, uses: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    frame = geopandas.GeoDataFrame({"use": pd.Series(uses, dtype=object)}, geometry=shapes, crs=DEGREES.to_wkt())
    frame.to_file(folder / name)
    return folder / name


@pytest.mark.parametrize("suffix", ["gpkg", "geojson"])  # GeoJSON has no fields without features
@pytest.mark.parametrize("where_grid", ["target", "EPSG:32632@2"])
def test_a_layer_without_features_is_background(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str, where_grid: str
) -> None:
    (tmp_path / "images").mkdir()
    for number in range(3):
        where = grid(64, 64, left=500_000 + 1000 * number)
        write_raster(tmp_path / "images" / f"t{number}.tif", np.full((3, 64, 64), number, np.uint8), where)
        shape = box(9.0 + 0.01 * number, 47.8, 9.02 + 0.01 * number, 47.9)
        uses = [] if number == 0 else ["barn"] if number == 1 else ["lake"]
        write_labels(tmp_path / "labels", f"t{number}.{suffix}", [shape] * len(uses), uses)
    config = TileConfig(size=32, source_field="use", grid=where_grid, line_width=3, format="virtual")
    tile(tmp_path / "labels", tmp_path / "images", tmp_path / "chips", config)
    told = [record.getMessage() for record in caplog.records if "has no features" in record.getMessage()]
    assert len(told) == 1 and f"t0.{suffix}: has no features with a geometry, so all of its ground is" in told[0]
    chipset = ChipSet.open(tmp_path / "chips")
    assert [(entry.value, entry.name) for entry in chipset.source.classes] == [
        (1, "background"), (2, "barn"), (3, "lake"),
    ]  # fmt: skip
    index = chipset.index()
    assert (index.loc[index["scene"] == "t0", "source_1"] == 1).all()
    for row in index.itertuples():
        with chipset.reader(row.split) as reader:
            number = [r.id for r in chipset.entries(row.split)].index(row.id)
            assert (reader.read(number).source[0, 4:-4, 4:-4] == int(row.scene[1]) + 1).all()
    tile(tmp_path / "labels", tmp_path / "images", tmp_path / "chips", config)  # they are known again
    assert len(ChipSet.open(tmp_path / "chips").scenes) == 3


def test_two_layers_without_features_are_no_pair_and_an_area_needs_polygons(tmp_path: Path) -> None:
    empty = write_labels(tmp_path / "a", "t.gpkg", [], [])
    with pytest.raises(NoGroundError, match=r"neither .*t\.gpkg nor .*t\.gpkg has features with a geometry"):
        tile(empty, empty, tmp_path / "chips", TileConfig(size=32, grid="EPSG:32632@2"))
    with pytest.raises(RasterError, match="has no features with a geometry, expected polygons"):
        Area(empty, grid(64, 64))


def test_predict_translates_a_layer_without_features_as_background(
    tmp_path: Path, make_model: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    empty = write_labels(tmp_path / "a", "t.gpkg", [], [])
    background = MapClass(9, "background", (1, 1, 1))
    kinds = Encoding("classes", "uint8", (Band(),), nodata=0.0, classes=(*CLASSES, background))
    like = write_raster(tmp_path / "like.tif", np.zeros((1, 80, 100), np.uint8), grid(80, 100))
    settings = PredictConfig(source_field="use", like=like, tile_size=64)
    with pytest.raises(RasterError, match="nothing to translate; the model has no class background"):
        bare = dataclasses.replace(kinds, classes=CLASSES)
        predict(make_model(Identity, bare), empty, tmp_path / "out.tif", settings)
    model = make_model(Identity, kinds)
    with pytest.raises(RasterError, match="nothing to translate; give a grid with --like"):
        predict(model, empty, tmp_path / "out.tif", PredictConfig(source_field="use", tile_size=64))
    predict(model, empty, tmp_path / "out.tif", settings)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert (dataset.read(1) == 9).all()
    assert "so all of its ground is background" in caplog.text and "by the value" not in caplog.text


def test_a_file_of_several_layers_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    pyogrio.write_dataframe(pd.DataFrame({"use": ["barn"]}), path, layer="owners")
    features = geopandas.GeoDataFrame({"use": [True, None]}, geometry=SHAPES[:2], crs=UTM)
    features.to_file(path, layer="roads")
    layer = read_vector(path, "use")  # tables do not count
    assert [entry.name for entry in layer.classes] == ["background", "True"]
    features.to_file(path, layer="lakes")
    message = r"a\.gpkg: has 2 layers \(roads, lakes\), expected one; say which .*: '.*a\.gpkg\|layername=roads'$"
    with pytest.raises(RasterError, match=message):
        read_vector(path, "use")
    with pytest.raises(RasterError, match=message):
        Area(path, grid(64, 64))


@pytest.mark.parametrize(("file", "driver"), [("a.gpkg", "GPKG"), ("a.gdb", "OpenFileGDB")])
def test_one_layer_of_several_is_named_as_qgis_names_it(tmp_path: Path, file: str, driver: str) -> None:
    where, path = grid(64, 64), tmp_path / "here" / file
    path.parent.mkdir()
    left, bottom, right, top = where.bounds
    middle = (left + right) / 2
    shapes = {"west": box(left, bottom, middle, top), "east": box(middle, bottom, right, top), "roads": box(0, 0, 1, 1)}
    for name, shape in shapes.items():
        geopandas.GeoDataFrame({"use": [name]}, geometry=[shape], crs=UTM).to_file(path, driver=driver, layer=name)
    image = write_raster(path.with_name("image.tif"), np.ones((3, 64, 64), np.uint8), where)
    source, chips = f"{path}|layername=west", path.with_name("chips")
    config = TileConfig(size=16, grid="target", source_field="use", format="virtual", aoi=Path(source), min_valid=1.0)
    assert tile(source, image, chips, config).chips == 8
    assert tile(source, image, chips, config).chips == 8 and len(ChipSet.open(chips).scenes) == 1  # it is known again
    with ChipSet.open(chips).reader("train") as reader:
        assert (reader.read(0).source == 2).all()
    tile(f"{path}|layername=east", image, chips, dataclasses.replace(config, aoi=Path(f"{path}|layername=east")))
    names = [(scene.id, Path(scene.source).name) for scene in ChipSet.open(chips).scenes]
    assert names == [("image", f"{file}|layername=west"), ("image-2", f"{file}|layername=east")]
    said = (chips / "chipset.json").read_bytes()
    shutil.copytree(path.parent, tmp_path / "copy")  # the layers lie where they were, so none has moved
    tile(f"{tmp_path / 'copy' / file}|layername=west", tmp_path / "copy" / "image.tif", chips, config)
    assert (chips / "chipset.json").read_bytes() == said
    path.parent.rename(tmp_path / "there")  # layers and chips move together
    chips, moved = tmp_path / "there" / "chips", tmp_path / "there" / file
    with ChipSet.open(chips).reader("train") as reader:
        assert (reader.read(0).source == 2).all()
    (chips / "source").mkdir()
    moved.rename(chips / "source" / file)
    inside = f"{chips / 'source' / file}|layername=west"
    with pytest.raises(ChipSetError, match="belongs to the chip set"):
        tile(inside, tmp_path / "there" / "image.tif", chips, config, overwrite=True)
    with pytest.raises(RasterError, match=f"{file}: has no layer 'lakes'; it has west, east, roads$"):
        read_vector(inside.replace("west", "lakes"), "use")
    with pytest.raises(RasterError, match=r"b\.gpkg: no such file$"):
        read_vector(tmp_path / "b.gpkg|layername=lakes", "use")


def test_names_of_layers_are_kept_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.gpkg").touch()
    (tmp_path / "chips").mkdir()
    for layer in ("a//b", "../x", "w.x|y", "c:d"):
        name = f"{tmp_path / 'a.gpkg'}|layername={layer}"
        stored = stored_path(name, tmp_path / "chips")
        assert stored == f"../a.gpkg|layername={layer}"
        there = layer_path(stored, tmp_path / "chips")
        assert named_layer(there)[1] == layer and Path(named_layer(there)[0]).samefile(tmp_path / "a.gpkg")


def test_names_of_gdal_are_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chips = tmp_path / "chips"
    chips.mkdir()
    for name in ("NETCDF:f.nc:band", "GTIFF_DIR:2:/disk/f.tif", "/vsicurl/https://host/f.tif", "s3://store/f.tif"):
        assert is_gdal_name(name) and not is_missing(name)
        assert layer_path(name, chips) == name
    for name in (tmp_path / "f.tif", tmp_path / "a:b.tif", "C:/f.tif", "f.gpkg|layername=a:b"):
        assert is_missing(name)
    assert not is_missing(f"/vsicurl?max_retry=3&url={'a' * 300}") and is_missing(tmp_path / ("a" * 300))
    monkeypatch.chdir(chips)
    Path("scene:1.tif").touch()
    assert not is_gdal_name("scene:1.tif") and stored_path("scene:1.tif", chips) == "scene:1.tif"
    monkeypatch.chdir(tmp_path)
    assert layer_path("scene:1.tif", chips) == str(chips / "scene:1.tif")


def test_a_directory_inside_a_tiff_can_be_read(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "f.tif", np.full((1, 20, 30), 7, np.uint8), grid(20, 30))
    assert describe_raster(f"GTIFF_DIR:1:{path}").grid == grid(20, 30)


def test_a_mosaic_of_one_layer_does_not_go_on_with_another(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    where, path = grid(80, 100), tmp_path / "a.gpkg"
    for name, use in (("one", "water"), ("two", "meadow")):
        shape = box(*where.bounds)
        geopandas.GeoDataFrame({"use": [use]}, geometry=[shape], crs=UTM).to_file(path, layer=name)
    kinds = Encoding("classes", "uint8", (Band(),), nodata=0.0, classes=CLASSES)
    model, output = make_model(Identity, kinds), tmp_path / "out.tif"
    settings = PredictConfig(source_field="use", tile_size=64)
    predict(model, f"{path}|layername=one", output, dataclasses.replace(settings, shard="1/2"))
    with pytest.raises(ConfigError, match="another input"):
        predict(model, f"{path}|layername=two", output, settings)
    predict(model, f"{path}|layername=one", output, settings)
    with rasterio.open(output) as dataset:
        assert (dataset.read(1) == 1).all()


@pytest.mark.parametrize("folders", [False, True])
def test_a_geodatabase_is_a_layer(tmp_path: Path, folders: bool) -> None:
    where, labels = grid(64, 64), tmp_path / "labels"
    labels.mkdir()
    frame = geopandas.GeoDataFrame({"use": ["barn"]}, geometry=[shapely.box(*where.bounds)], crs=UTM)
    frame.to_file(labels / "t.gdb", driver="OpenFileGDB", layer="uses")
    image = write_raster(tmp_path / "t.tif", np.ones((3, 64, 64), np.uint8), where)
    if folders:
        (tmp_path / "images").mkdir()
        image = image.rename(tmp_path / "images" / "t.tif")
    source, target = (labels, image.parent) if folders else (f"{labels / 't.gdb'}/", image)
    config = TileConfig(size=32, source_field="use", format="virtual", aoi=labels / "t.gdb")
    tile(source, target, tmp_path / "chips", config)
    chipset = ChipSet.open(tmp_path / "chips")
    with chipset.reader("train") as reader:
        assert (reader.read(0).source == 2).all()
    tile(source, target, tmp_path / "chips", config)
    shutil.rmtree(labels / "t.gdb")
    frame.geometry = frame.buffer(7)
    frame.to_file(labels / "t.gdb", driver="OpenFileGDB", layer="uses")
    with pytest.raises(ChipSetError, match="source has changed"):
        tile(source, target, tmp_path / "chips", config)
