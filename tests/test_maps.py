"""Maps: tables of classes, maps drawn in colours, unlabelled ground, lines with a width."""

import dataclasses
import logging
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from conftest import CLASSES, UTM, Identity, class_map, grid, image_encoding, write_raster
from rasterio.crs import CRS
from rasterio.windows import Window
from shapely.geometry import GeometryCollection, LineString, Point, box

from geop2p import PredictConfig, TileConfig, TrainConfig, describe, predict, tile, train
from geop2p.errors import ConfigError, RasterError
from geop2p.raster import kinds
from geop2p.raster.aligned import aligned_reader
from geop2p.raster.class_table import TOLERANCE, ClassTable, is_photograph, read_class_table
from geop2p.raster.drawing import drawn
from geop2p.raster.encoding import Band, Encoding, MapClass
from geop2p.raster.layers import open_layer
from geop2p.raster.reading import describe_raster
from geop2p.raster.vectors import VectorReader, read_vector
from geop2p.tiling.chips import ChipSet
from geop2p.tiling.geotiff import chip_path
from geop2p.translator import read_card

SMALL = TileConfig(size=32, split="1:0:0")


def table_file(folder: Path, classes: tuple[MapClass, ...] = CLASSES) -> Path:
    """A CSV of classes, every second colour in the other notation."""
    lines = ["value,name,color"]
    for number, entry in enumerate(classes):
        red, green, blue = entry.color
        lines.append(
            f"{entry.value},{entry.name}," + (f"{red} {green} {blue}", f"#{red:02x}{green:02X}{blue:02x}")[number % 2]
        )
    path = folder / "classes.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def colored(codes: np.ndarray) -> np.ndarray:
    """The map (1, rows, cols) in the colours of its classes, uint8 (3, rows, cols)."""
    image = np.zeros((3, *codes.shape[1:]), np.uint8)
    for entry in CLASSES:
        image[:, codes[0] == entry.value] = np.array(entry.color, np.uint8)[:, None]
    return image


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 255, (3, height, width), dtype=np.uint8)


@pytest.fixture
def drawn_pair(tmp_path: Path) -> tuple[Path, Path, np.ndarray]:
    """A map in colours and a photograph; the codes of the map."""
    codes, where = class_map(140, 150), grid(140, 150)
    source = write_raster(tmp_path / "drawn.tif", colored(codes), where, photometric="RGB")
    return source, write_raster(tmp_path / "photo.tif", photo(140, 150), where, photometric="RGB"), codes


def test_a_map_in_colours_becomes_classes(
    drawn_pair: tuple[Path, Path, np.ndarray], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "geop2p")
    source, target, codes = drawn_pair
    layer = open_layer(source)
    assert layer.kind == "image" and "only 3 colours: if it is a map, read it with --classes FILE" in layer.reason
    assert "--classes" not in open_layer(target).reason
    tile(source, target, tmp_path / "chips", dataclasses.replace(SMALL, classes=table_file(tmp_path)))
    assert "0 % of the pixels have colours further than 40" in caplog.text
    chipset = ChipSet.open(tmp_path / "chips")
    assert chipset.source.classes == CLASSES and chipset.source.dtype == "uint8" and len(chipset.source.bands) == 1
    for row in chipset.index().itertuples():
        chip = chipset.read(row.split, row.id)
        inside = codes[:, row.row_off : row.row_off + 32, row.col_off : row.col_off + 32]
        assert np.array_equal(chip.source[:, : inside.shape[1], : inside.shape[2]], inside)


@pytest.mark.parametrize(("start", "is_told"), [("photograph", False), ("white", False), ("map", True)])
def test_a_large_photograph_is_known_by_the_first_window_that_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str, is_told: bool
) -> None:
    """A drawn map is looked at whole; a photograph with a plain border further than that."""
    values = photo(1100, 64)
    if start == "white":
        values[:, :600] = 255
    if start == "map":
        values = colored(class_map(1100, 64))
    layer_file = write_raster(tmp_path / "layer.tif", values, grid(1100, 64), photometric="RGB")
    looked = []
    monkeypatch.setattr(kinds, "is_photograph", lambda *sample: looked.append(sample) or is_photograph(*sample))
    layer = open_layer(layer_file)
    assert layer.kind == "image" and ("--classes FILE" in layer.reason) is is_told
    assert len(looked) == {"photograph": 1, "white": 5, "map": 8}[start]


def test_one_band_takes_names_and_colours_from_the_table(pair: tuple[Path, Path], tmp_path: Path) -> None:
    names = tuple(dataclasses.replace(entry, name=entry.name.upper(), color=(1, 2, entry.value)) for entry in CLASSES)
    tile(*pair, tmp_path / "chips", dataclasses.replace(SMALL, classes=table_file(tmp_path, names)))
    chipset = ChipSet.open(tmp_path / "chips")
    assert chipset.source.classes == names
    row = chipset.index().iloc[0]
    with rasterio.open(chip_path(chipset.folder, "source", row.split, row.id)) as chip:
        assert chip.colormap(1)[5] == (1, 2, 5, 255)


@pytest.mark.parametrize("value", [999, -1])
def test_a_class_that_the_map_cannot_hold_is_refused(pair: tuple[Path, Path], tmp_path: Path, value: int) -> None:
    file = tmp_path / "classes.csv"
    file.write_text(f"value,name,color\n1,water,#1040a0\n{value},bog,#404040\n")
    with pytest.raises(ConfigError, match=rf"map\.tif: holds uint8, which has no value {value} .* expected 0 to 255"):
        tile(*pair, tmp_path / "chips", TileConfig(size=32, classes=file))
    assert not (tmp_path / "chips").exists()


def test_what_holds_more_values_than_a_map_can_is_refused(tmp_path: Path) -> None:
    values = (np.arange(160 * 160) % 5000).reshape(1, 160, 160).astype(np.int16)
    source = write_raster(tmp_path / "heights.tif", values, grid(160, 160))
    target = write_raster(tmp_path / "image.tif", np.zeros((3, 160, 160), np.uint8), grid(160, 160))
    with pytest.raises(ConfigError, match=r"heights\.tif: holds \d+ different values or more, a map has at most 256"):
        tile(source, target, tmp_path / "chips", TileConfig(size=32, source_kind="classes"))
    assert not (tmp_path / "chips").exists()


def test_the_side_of_a_table_must_be_clear(drawn_pair: tuple[Path, Path, np.ndarray], tmp_path: Path) -> None:
    source, target, codes = drawn_pair
    coded = write_raster(tmp_path / "coded.tif", codes, grid(140, 150))
    config = dataclasses.replace(SMALL, classes=table_file(tmp_path))
    with pytest.raises(ConfigError, match=r"both sides may be maps; say which one .*--source-kind classes or --target"):
        tile(source, coded, tmp_path / "chips", config)
    with pytest.raises(ConfigError, match="neither side looks like a map"):
        tile(target, target, tmp_path / "chips", config)
    with pytest.raises(ConfigError, match=r"classes need one integer band, found 3 of uint8; give .*--classes FILE"):
        tile(source, target, tmp_path / "chips", dataclasses.replace(SMALL, source_kind="classes"))
    tile(source, coded, tmp_path / "chips", dataclasses.replace(config, target_kind="classes"))
    chipset = ChipSet.open(tmp_path / "chips")
    assert (chipset.source.kind, chipset.target.kind) == ("image", "classes")


def test_colours_are_turned_into_classes_before_they_are_resampled(tmp_path: Path) -> None:
    """A mean of water and road would be no class; the mode of the classes is."""
    codes, where = class_map(160, 160), grid(160, 160)
    table = ClassTable("t", CLASSES)
    plain = write_raster(tmp_path / "codes.tif", codes, where)
    path = write_raster(tmp_path / "drawn.tif", colored(codes), where, photometric="RGB")
    for target in (grid(40, 40, pixel=7.0), grid(200, 200, pixel=1.3, left=500_000.4), grid(99, 99, left=500_002.0)):
        window = Window(0, 0, target.width, target.height)
        with (
            aligned_reader(path, target, "classes", colors=table) as one,
            aligned_reader(plain, target, "classes") as other,
        ):
            (found, valid), (expected, there) = one.read(window), other.read(window)
        assert np.array_equal(valid, there) and set(np.unique(found[0, valid])) <= {1, 2, 5}
        same = found[0, valid] == expected[0, valid]
        assert same.mean() > 0.99  # ties of a mode may fall either way


@pytest.mark.parametrize("known_by", ["roles", "names"])
def test_bands_are_read_as_they_are_called_and_black_is_a_colour(tmp_path: Path, known_by: str) -> None:
    codes = class_map(64, 64)
    classes = (MapClass(1, "deep", (0, 0, 255)), MapClass(2, "black", (10, 0, 10)), MapClass(5, "red", (255, 0, 0)))
    image = np.zeros((3, 64, 64), np.uint8)
    for entry in classes:
        image[:, codes[0] == entry.value] = np.array(entry.color, np.uint8)[:, None]
    image[:, :8, :8] = 0  # nodata
    path = write_raster(tmp_path / "drawn.tif", image[::-1], grid(64, 64), nodata=0)
    with rasterio.open(path, "r+") as dataset:
        if known_by == "roles":
            dataset.colorinterp = [rasterio.enums.ColorInterp[name] for name in ("blue", "green", "red")]
        else:
            dataset.descriptions = ("B2 blue", "B3 green", "B4 red")
    with aligned_reader(path, grid(64, 64), "classes", colors=ClassTable("t", classes)) as reader:
        found, valid = reader.read(Window(0, 0, 64, 64))
    assert not valid[:8, :8].any() and valid.sum() == 64 * 64 - 64
    assert np.array_equal(found[0][valid], codes[0][valid])


def test_noise_is_tolerated_and_other_colours_are_no_ground(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    codes, where = class_map(160, 160), grid(160, 160)
    image = colored(codes).astype(int)
    image += np.random.default_rng(0).integers(-16, 17, image.shape)  # at most 28 from the colour
    image = np.clip(image, 0, 255).astype(np.uint8)
    image[:, 40:80, 50:60] = np.array([255, 0, 255])[:, None, None]
    source = write_raster(tmp_path / "drawn.tif", image, where, photometric="RGB")
    target = write_raster(tmp_path / "photo.tif", photo(160, 160), where)
    config = dataclasses.replace(SMALL, classes=table_file(tmp_path), source_kind="classes", min_valid=0.1)
    tile(source, target, tmp_path / "chips", config)
    assert "1.56 % of the pixels have colours further than 40" in caplog.text and "#ff00ff" in caplog.text
    chipset = ChipSet.open(tmp_path / "chips")
    lost = np.zeros((160, 160), bool)
    lost[40:80, 50:60] = True
    for row in chipset.index().itertuples():
        chip, at = (
            chipset.read(row.split, row.id),
            np.s_[row.row_off : row.row_off + 32, row.col_off : row.col_off + 32],
        )
        assert np.array_equal(chip.valid, ~lost[at])
        assert np.array_equal(chip.source[0][chip.valid], codes[0][at][chip.valid])
    assert {column for column in chipset.index().columns if column.startswith("source_")} == {
        "source_1", "source_2", "source_5",
    }  # fmt: skip


def test_the_nearest_colour_within_the_tolerance_is_taken() -> None:
    table = ClassTable("t", CLASSES)
    every = np.random.default_rng(0).integers(0, 256, (3, 100, 100), dtype=np.uint8)
    colors = np.array([entry.color for entry in CLASSES], float)
    distance = np.sqrt(((every.reshape(3, -1).T[:, None] - colors) ** 2).sum(axis=-1))
    expected = np.array([entry.value for entry in CLASSES])[distance.argmin(axis=1)]
    expected[distance.min(axis=1) > TOLERANCE] = table.unlisted
    assert table.unlisted == 255 and 0.02 < (expected != 255).mean() < 0.9
    assert np.array_equal(table.codes(every)[0].ravel(), expected)
    assert np.array_equal(table.codes(every[:, ::-1]), table.codes(every)[:, ::-1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("value,name\n1,a\n", "has the columns 'value,name', expected a CSV with the columns value, name, color"),
        ("value,name,color\nx,a,#000000\n", "line 2 has value 'x' and name 'a', expected an integer"),
        ("value,name,color\n1,a,blue\n", "line 2 has color 'blue', expected #rrggbb"),
        ("value,name,color\n1,a,0 0 300\n", "expected numbers from 0 to 255"),
        ("value,name,color\n1,a,#000000\n1,b,#ffffff\n", "line 3 repeats 1"),
        ("value,name,color\n1,a,#000000\n2,a,#ffffff\n", "line 3 repeats .*'a'"),
        (b"value,name,color\n1,\xe4,#000000\n", "is not UTF-8 text"),
    ],
)
def test_bad_tables_are_one_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "classes.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=message):
        read_class_table(path)


def test_tables_that_cannot_name_colours_are_refused(drawn_pair: tuple[Path, Path, np.ndarray], tmp_path: Path) -> None:
    source, target, _ = drawn_pair
    for classes, message in (
        ((CLASSES[0], dataclasses.replace(CLASSES[1], color=CLASSES[0].color)), "'water' and 'meadow' have one colour"),
        ((CLASSES[0], dataclasses.replace(CLASSES[1], value=700)), "one of value 700"),
    ):
        config = dataclasses.replace(SMALL, classes=table_file(tmp_path, classes))
        with pytest.raises(ConfigError, match=message):
            tile(source, target, tmp_path / "chips", config)
    with pytest.raises(ConfigError, match="no such file; expected a CSV with the columns value, name, color"):
        tile(source, target, tmp_path / "chips", dataclasses.replace(SMALL, classes=tmp_path / "none.csv"))


def test_a_model_reads_colours_and_codes_alike(drawn_pair: tuple[Path, Path, np.ndarray], tmp_path: Path) -> None:
    source, target, codes = drawn_pair
    chips, run = tmp_path / "chips", tmp_path / "run"
    tile(source, target, chips, dataclasses.replace(SMALL, classes=table_file(tmp_path)))
    train(chips, run, TrainConfig(recipe="pix2pix", steps=2, width=4))
    coded = write_raster(tmp_path / "coded.tif", codes, grid(140, 150))
    outputs = []
    for name, path in (("colours", source), ("codes", coded)):
        predict(run, path, tmp_path / f"{name}.tif", PredictConfig(overlap=0.25))
        with rasterio.open(tmp_path / f"{name}.tif") as dataset:
            assert (dataset.dataset_mask() > 0).all()
            outputs.append(dataset.read())
    assert np.array_equal(*outputs)
    with pytest.raises(
        RasterError, match=r"photo\.tif: \d+ % of its pixels have colours such as #.*the model knows #285aa0"
    ):
        predict(run, target, tmp_path / "wrong.tif")


def test_unlisted_colours_of_an_input_stay_valid(tmp_path: Path, make_model, caplog: pytest.LogCaptureFixture) -> None:
    class Rest(Identity):
        def forward(self, source):  # 0.5 where a class is, -0.5 elsewhere
            return source.sum(dim=1, keepdim=True) - 0.5

    image = colored(class_map(70, 80))
    image[:, 10:20, 10:20] = 255
    path = write_raster(tmp_path / "drawn.tif", image, grid(70, 80), photometric="RGB")
    encoding = Encoding("classes", "uint8", (Band(),), classes=CLASSES)
    predict(make_model(Rest, encoding, image_encoding(bands=1)), path, tmp_path / "out.tif")
    assert "1.79 % of the pixels have colours of no class, such as #ffffff" in caplog.text
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert (dataset.dataset_mask() > 0).all() and dataset.read(1)[15, 15] == 64 and dataset.read(1)[40, 40] == 191


@pytest.mark.parametrize("name", ["road", "5"])
def test_ignored_classes_are_no_ground_in_chips_and_stay_valid_in_predictions(
    pair: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    chips, run = tmp_path / "chips", tmp_path / "run"
    tile(*pair, chips, TileConfig(size=32, ignore_class=name, min_valid=0.2, split="1:0:0"))
    chipset = ChipSet.open(chips)
    assert [entry.name for entry in chipset.source.classes] == ["water", "meadow"]
    assert [(entry.value, entry.name) for entry in chipset.source.ignored] == [(5, "road")]
    assert describe(chips)["source"]["ignored_classes"] == {"5": "road"}
    seen = 0
    for row in chipset.index().itertuples():
        chip = chipset.read(row.split, row.id)
        assert not chip.valid[chip.source[0] == 5].any()
        seen += int((chip.source[0] == 5).sum())
    assert seen and "source_5" not in chipset.index().columns
    train(chips, run, TrainConfig(recipe="pix2pix", steps=2, width=4))
    card = read_card(run)
    assert card.source.channels == 2 and card.source.ignored == chipset.source.ignored
    predict(run, pair[0], tmp_path / "out.tif", PredictConfig(overlap=0.25))
    with rasterio.open(pair[0]) as source, rasterio.open(tmp_path / "out.tif") as made:
        assert np.array_equal(made.dataset_mask() > 0, source.read(1) != 0)


def test_ignored_values_of_an_input_raise_no_alarm(
    tmp_path: Path, make_model, caplog: pytest.LogCaptureFixture
) -> None:
    encoding = Encoding("classes", "uint8", (Band(),), classes=CLASSES[:2], ignored=CLASSES[2:])
    assert Encoding.from_dict(encoding.to_dict()) == encoding
    values = np.array([[[1, 2, 5]]], np.uint8)
    assert encoding.encode(values, np.ones((1, 3), bool))[:, 0].T.tolist() == [[1, 0], [0, 1], [0, 0]]
    path = write_raster(tmp_path / "map.tif", class_map(70, 80), grid(70, 80))
    predict(make_model(Identity, encoding, image_encoding(bands=2)), path, tmp_path / "out.tif")
    assert "never saw" not in caplog.text


def test_classes_are_ignored_on_either_side_and_unknown_names_are_listed(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    config = TileConfig(size=32, ignore_class="meadow, road", min_valid=0.1, split="1:0:0")
    tile(pair[1], pair[0], tmp_path / "chips", config)
    chipset = ChipSet.open(tmp_path / "chips")
    assert [entry.name for entry in chipset.target.classes] == ["water"] and not chipset.source.ignored
    with pytest.raises(ConfigError, match="ignore_class names 'marsh', the layers have 1 water, 2 meadow, 5 road"):
        tile(*pair, tmp_path / "other", dataclasses.replace(config, ignore_class="road,marsh"))
    with pytest.raises(
        ConfigError, match=r"ignore_class is '220', but neither layer holds classes; .*its nodata value"
    ):
        tile(pair[1], pair[1], tmp_path / "other", dataclasses.replace(config, ignore_class="220"))


def test_unlabelled_pixels_of_a_drawn_map_are_ignored(
    drawn_pair: tuple[Path, Path, np.ndarray], tmp_path: Path
) -> None:
    source, target, codes = drawn_pair
    config = dataclasses.replace(SMALL, classes=table_file(tmp_path), ignore_class="road", min_valid=0.1)
    tile(source, target, tmp_path / "chips", config)
    chipset = ChipSet.open(tmp_path / "chips")
    assert chipset.source.ignored == CLASSES[2:]  # with its colour, so that predict knows it
    for row in chipset.index().itertuples():
        chip = chipset.read(row.split, row.id)
        at = np.s_[row.row_off : row.row_off + 32, row.col_off : row.col_off + 32]
        inside = codes[0][at]
        assert np.array_equal(chip.valid[: inside.shape[0], : inside.shape[1]], inside != 5)


def test_a_vector_layer_can_be_the_target(tmp_path: Path) -> None:
    where = grid(128, 128)
    left, top = where.transform.c, where.transform.f
    shapes = [box(left, top - 64, left + 64, top), box(left + 128, top - 256, left + 256, top - 128)]
    geopandas.GeoDataFrame({"use": ["lake", "barn"]}, geometry=shapes, crs=UTM).to_file(tmp_path / "features.gpkg")
    image = write_raster(tmp_path / "image.tif", photo(128, 128), where)
    config = dataclasses.replace(SMALL, target_field="use", grid="source")
    tile(image, tmp_path / "features.gpkg", tmp_path / "chips", config)
    chipset = ChipSet.open(tmp_path / "chips")
    assert {c.name: c.value for c in chipset.target.classes} == {"background": 1, "barn": 2, "lake": 3}
    chips = {row.id: chipset.read(row.split, row.id).target[0] for row in chipset.index().itertuples()}
    assert (chips["image_r000000_c000000"] == 3).all() and (chips["image_r000096_c000096"] == 2).all()
    left += 1000
    other = write_raster(tmp_path / "image2.tif", photo(128, 128), grid(128, 128, left=left))
    shapes = [box(left, top - 64, left + 64, top)]
    geopandas.GeoDataFrame({"use": ["lake"]}, geometry=shapes, crs=UTM).to_file(tmp_path / "features2.gpkg")
    tile(other, tmp_path / "features2.gpkg", tmp_path / "chips", config)  # the code of lake is kept
    chipset = ChipSet.open(tmp_path / "chips")
    row = chipset.index().set_index("id").loc["image2_r000000_c000000"]
    assert (chipset.read(row["split"], "image2_r000000_c000000").target == 3).all()


@pytest.mark.parametrize("crs", [4326, 3857, 32632])
@pytest.mark.parametrize("shape", ["line", "point"])
def test_line_width_is_metres_on_the_ground(tmp_path: Path, crs: int, shape: str) -> None:
    where = grid(200, 200, pixel=1.0, left=400_000.0, top=5_300_000.0)
    line = LineString([(400_020, 5_299_900), (400_180, 5_299_900)])
    geometry = line if shape == "line" else Point(400_100, 5_299_900)
    features = geopandas.GeoDataFrame(geometry=[geometry], crs=UTM)
    features.to_crs(crs).to_file(tmp_path / "roads.gpkg")
    for width in (None, 20.0):
        layer = drawn(read_vector(tmp_path / "roads.gpkg", None), width, ())
        burnt, valid = VectorReader(layer, where).read(Window(0, 0, 200, 200))
        assert valid.all()
        assert abs(int((burnt[0, :, 100] == 2).sum()) - (width or 1)) <= 1
        across = 160 + (width or 0) if shape == "line" else (width or 1)
        assert abs(int((burnt[0] == 2).any(axis=0).sum()) - across) <= 2


def test_lines_in_collections_have_the_width_too(tmp_path: Path) -> None:
    where = grid(200, 200, pixel=1.0, left=400_000.0, top=5_300_000.0)
    field, line = box(400_020, 5_299_950, 400_060, 5_299_990), LineString([(400_020, 5_299_900), (400_180, 5_299_900)])
    together = GeometryCollection([field, line])
    geopandas.GeoDataFrame(geometry=[together, field], crs=UTM).to_file(tmp_path / "mixed.gpkg")
    layer = drawn(read_vector(tmp_path / "mixed.gpkg", None), 20.0, ())
    burnt = VectorReader(layer, where).read(Window(0, 0, 200, 200))[0][0] == 2
    assert burnt[:60].sum() == 40 * 40 and burnt[:, 100].sum() == 20 and burnt[90:110, 20:180].all()


def test_thin_lines_are_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "geop2p")
    where = grid(64, 64)
    left, top = where.transform.c, where.transform.f
    line = LineString([(left, top - 64), (left + 128, top - 64)])
    geopandas.GeoDataFrame(geometry=[line], crs=UTM).to_file(tmp_path / "roads.gpkg")
    target = write_raster(tmp_path / "image.tif", photo(64, 64), where)
    tile(tmp_path / "roads.gpkg", target, tmp_path / "a", SMALL)
    assert "lines and points are drawn one pixel wide; --line-width gives them metres" in caplog.text
    caplog.clear()
    tile(tmp_path / "roads.gpkg", target, tmp_path / "b", dataclasses.replace(SMALL, line_width=12.0))
    assert "one pixel wide" not in caplog.text
    shares = [ChipSet.open(tmp_path / name).index()["source_2"].sum() for name in "ab"]
    assert shares[1] == pytest.approx(6 * shares[0], rel=0.01)
    with pytest.raises(ConfigError, match=r"line_width is 0\.0, expected above 0"):
        TileConfig(line_width=0)


def test_classes_are_drawn_in_the_order_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    where = grid(32, 32)
    left, top = where.transform.c, where.transform.f
    whole = box(left, top - 64, left + 64, top)
    uses = ["road", "house", "lake", "park"]
    features = geopandas.GeoDataFrame({"use": uses}, geometry=[whole] * 4, crs=UTM)
    features.to_file(tmp_path / "a.gpkg")
    layer = read_vector(tmp_path / "a.gpkg", "use")
    codes = {entry.name: entry.value for entry in layer.classes}
    for order, top_most in (
        ((), "park"), (("park", "road", "house"), "house"), (("house",), "house"), (("lake", "park", "marsh"), "park"),
    ):  # fmt: skip
        burnt, _ = VectorReader(drawn(layer, None, order), where).read(Window(0, 0, 32, 32))
        assert (burnt == codes[top_most]).all()
    assert "has no class marsh to draw in order; it has background, house, lake, park, road" in caplog.text
    drawn(layer, 5.0, ())
    assert "has no lines or points, so --line-width changes nothing" in caplog.text
    target = write_raster(tmp_path / "image.tif", photo(32, 32), where)
    config = dataclasses.replace(SMALL, source_field="use", draw_order="park, house,road")
    tile(tmp_path / "a.gpkg", target, tmp_path / "chips", config)
    assert ChipSet.open(tmp_path / "chips").index()[f"source_{codes['road']}"].tolist() == [1.0]


def test_widths_hold_in_both_hemispheres(tmp_path: Path) -> None:
    for latitude in (47.0, -47.0):
        line = LineString([(9.0, latitude), (9.02, latitude)])
        geopandas.GeoDataFrame(geometry=[line], crs=CRS.from_epsg(4326)).to_file(tmp_path / f"a{latitude}.gpkg")
        wide = drawn(read_vector(tmp_path / f"a{latitude}.gpkg", None), 30.0, ()).features.to_crs(
            32632 if latitude > 0 else 32732
        )
        bottom, top = wide.total_bounds[[1, 3]]
        assert top - bottom == pytest.approx(30, abs=2)


def test_names_of_classes_come_from_an_attribute_table(tmp_path: Path) -> None:
    """As other programs write one: whole values as decimals, more columns, rows that say nothing."""
    path = write_raster(tmp_path / "map.tif", np.full((1, 8, 8), 70_000, np.int32), grid(8, 8))
    fields = "".join(
        f'<FieldDefn index="{index}"><Name>{name}</Name><Type>{kind}</Type><Usage>{usage}</Usage></FieldDefn>'
        for index, (name, kind, usage) in enumerate((("Pixels", 0, 1), ("Value", 1, 5), ("Label", 2, 2)))
    )
    rows = (
        (9, "70000", "lake "),
        (8, "-3.0", "wood"),
        (7, "4.5", "none"),
        (6, "", "none"),
        (5, "11", ""),
        (4, "x", "y"),
    )
    table = (
        "".join("<Row>" + "".join(f"<F>{entry}</F>" for entry in row) + "</Row>" for row in rows)
        + "<Row><F>1</F></Row>"
    )
    for table_xml, names in (
        (fields + table, {70_000: "lake", -3: "wood"}),
        (fields.replace(">5<", ">0<") + table, {}),
    ):
        Path(f"{path}.aux.xml").write_text(
            f'<PAMDataset><PAMRasterBand band="1"><GDALRasterAttributeTable>{table_xml}</GDALRasterAttributeTable>'
            "</PAMRasterBand></PAMDataset>"
        )
        assert describe_raster(path).categories == names
