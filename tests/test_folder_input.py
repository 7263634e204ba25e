"""A folder of rasters is one input: one ground, with real context across the borders of its files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from conftest import CLASSES, Identity, TileMean, class_map, grid, image_encoding, write_names, write_raster
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from geop2p import PredictConfig, predict
from geop2p.errors import ConfigError, GeoP2PError, RasterError
from geop2p.raster.aligned import aligned_reader
from geop2p.raster.encoding import Band, Encoding
from geop2p.raster.fingerprints import fingerprint
from geop2p.raster.folder import stamps_of
from geop2p.raster.reading import (
    OPEN_FILES,
    _folder_source,
    describe_raster,
    gdal_env,
    opened,
    read_sample,
    read_whole,
)

ROWS, COLS = 190, 230
CUTS = [(0, 0, 70, 100), (0, 100, 90, 130), (70, 0, 120, 100), (90, 100, 60, 130)]  # the last corner is missing
BLENDED = PredictConfig(tile_size=64, overlap=0.5)


def ground() -> tuple[np.ndarray, np.ndarray]:
    """Values of three bands and valid pixels, with a hole across the borders of the files; never 0."""
    values = np.random.default_rng(0).integers(1, 255, (3, ROWS, COLS), dtype=np.uint8)
    valid = np.zeros((ROWS, COLS), bool)
    for row, col, rows, cols in CUTS:
        valid[row : row + rows, col : col + cols] = True
    valid[60:80, 90:120] = False
    return values, valid


def cut(folder: Path, values: np.ndarray, valid: np.ndarray | None = None, **profile: Any) -> Path:
    """Write the pieces, in an order of names that is not that of their places."""
    folder.mkdir()
    for name, (row, col, rows, cols) in zip("cadb", CUTS, strict=True):
        here = np.s_[row : row + rows, col : col + cols]
        mask = None if valid is None else valid[here]
        where = grid(ROWS, COLS).window(Window(col, row, cols, rows))
        write_raster(folder / f"{name}.tif", values[:, *here], where, mask=mask, **profile)
    return folder


@pytest.mark.parametrize("by", ["mask", "nodata", "nan", "alpha", "nothing"])
def test_the_pixels_of_a_folder_are_those_of_one_raster(tmp_path: Path, by: str) -> None:
    values, valid = ground()
    stored = np.where(valid, values, 0).astype(np.float32 if by == "nan" else np.uint8)
    if by == "mask":
        folder = cut(tmp_path / "tiles", values, valid)  # under the mask lies what looks like data
    elif by == "nodata":
        folder = cut(tmp_path / "tiles", stored, nodata=0)
    elif by == "nan":
        folder = cut(tmp_path / "tiles", np.where(valid, stored, np.nan).astype(np.float32), nodata=np.nan)
    elif by == "alpha":
        alpha = np.concatenate([values, 255 * valid[np.newaxis].astype(np.uint8)])
        folder = cut(tmp_path / "tiles", alpha, photometric="RGB", alpha="yes")
        with rasterio.open(folder / "a.tif") as dataset:
            assert dataset.colorinterp[3] == ColorInterp.alpha
    else:
        folder = cut(tmp_path / "tiles", values)
        valid[60:80, 90:120] = True
    info = describe_raster(folder)
    assert info.path == str(folder) and info.grid == grid(ROWS, COLS) and info.count == 3
    assert [Path(part).name for part in info.parts] == ["a.tif", "b.tif", "c.tif", "d.tif"]
    for found, there in (read_whole(folder), read_sample(folder)):
        assert np.array_equal(there, valid) and np.array_equal(found[:, valid], values[:, valid])
    with aligned_reader(folder, grid(ROWS, COLS), "image") as reader:
        found, there = reader.read(Window(80, -5, 60, 100))
    inside = valid[:95, 80:140]
    assert np.array_equal(there[5:], inside) and not there[:5].any()
    assert np.array_equal(found[:, 5:][:, inside], values[:, :95, 80:140][:, inside])


def test_the_folder_that_one_is_in_is_one_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_raster(tmp_path / "a.tif", np.zeros((1, 8, 8), np.uint8), grid(8, 8))
    monkeypatch.chdir(tmp_path)
    assert describe_raster(".").grid == grid(8, 8)


def test_tiles_see_across_the_borders_of_files(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    values, valid = ground()
    folder = cut(tmp_path / "tiles", values, valid)
    (folder / "readme.txt").write_text("not a raster")
    (folder / "a.qml").write_text("<qgis/>")
    (folder / "a.tif.aux.xml").write_text("<PAMDataset/>")
    (folder / "older").mkdir()
    whole = write_raster(tmp_path / "whole.tif", values, grid(ROWS, COLS), mask=valid)
    model = make_model(TileMean, image_encoding(), statistics="tile")
    predict(model, whole, tmp_path / "one.tif", BLENDED)
    predict(model, folder, tmp_path / "many.tif", BLENDED)
    with rasterio.open(tmp_path / "one.tif") as one, rasterio.open(tmp_path / "many.tif") as many:
        assert one.transform == many.transform and np.array_equal(one.read(), many.read())
        assert np.array_equal(one.dataset_mask(), many.dataset_mask())
        assert many.tags()["GEOP2P_INPUT"] == "tiles"


@pytest.mark.parametrize("by", ["mask", "nodata"])
def test_later_names_lie_on_top_where_they_have_data(tmp_path: Path, by: str, caplog: pytest.LogCaptureFixture) -> None:
    options = [{"nodata": 0}] * 2 if by == "nodata" else [{}, {"mask": np.eye(20) == 0}]
    first, second = np.full((1, 20, 20), 7, np.uint8), np.full((1, 20, 20), 9, np.uint8)
    if by == "nodata":
        second[0][np.eye(20) > 0] = 0
    write_raster(tmp_path / "a.tif", first, grid(20, 20), **options[0])
    write_raster(tmp_path / "b.tif", second, grid(20, 20), **options[1])
    values, valid = read_whole(tmp_path)
    assert valid.all() and np.array_equal(values[0], np.where(np.eye(20) > 0, 7, 9))
    assert "several of its rasters cover the same ground; the last by name is on top" in caplog.text


@pytest.mark.parametrize(("pixels_apart", "told"), [(1900, False), (2100, True)])
def test_rasters_far_from_each_other_are_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, pixels_apart: int, told: bool
) -> None:
    for name, left in (("a", 0), ("b", pixels_apart)):
        where = grid(100, 100).window(Window(left, 0, 10, 10))
        write_raster(tmp_path / f"{name}.tif", np.ones((1, 10, 10), np.uint8), where)
    assert describe_raster(tmp_path).grid.width == pixels_apart + 10
    expected = "its 2 rasters cover 0.948 % of the 2110 x 10 pixels around them all; if they are not meant as one"
    assert (expected in caplog.text) == told == bool(caplog.messages)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (
            {"left": 500_041.0},
            r"the pixels of b\.tif \(EPSG:32632, 2 x -2 from 500041, .* not on the lattice of a\.tif",
        ),
        ({"pixel": 2.5}, r"the pixels of b\.tif \(EPSG:32632, 2\.5 x -2\.5 from"),
        ({"crs": 32633}, r"the pixels of b\.tif \(EPSG:32633, .* \(gdalwarp -t_srs -tr -tap\)"),
        ({"crs": None}, r"b\.tif has no CRS or only control points"),
        ({"bands": 2}, r"b\.tif has bands 2, a\.tif 1"),
        ({"dtype": np.int16}, r"b\.tif has type int16, a\.tif uint8; a folder is read as one raster"),
        ({"nodata": 0}, r"b\.tif has nodata 0\.0, a\.tif None"),
        ({"names": True}, r"b\.tif and a\.tif have other names of classes"),
    ],
)
def test_rasters_that_do_not_fit_are_named(tmp_path: Path, other: dict[str, Any], expected: str) -> None:
    place = {name: other.pop(name) for name in ("left", "pixel") if name in other}
    bands, dtype, names = other.pop("bands", 1), other.pop("dtype", np.uint8), other.pop("names", False)
    crs = other.pop("crs", 32632)
    write_raster(tmp_path / "a.tif", np.ones((1, 20, 20), np.uint8), grid(20, 20))
    profile: dict[str, Any] = other | {"driver": "GTiff", "width": 20, "height": 20, "count": bands, "dtype": dtype}
    profile["transform"] = grid(20, 20, **({"left": 500_040.0} | place)).transform
    with rasterio.open(tmp_path / "b.tif", "w", crs=None if crs is None else f"EPSG:{crs}", **profile) as dataset:
        dataset.write(np.ones((bands, 20, 20), dtype))
    for name, category in (("a", "water"), ("b", "road")) if names else ():
        write_names(tmp_path / f"{name}.tif", ("", category))
    with pytest.raises(GeoP2PError, match=expected) as error:
        describe_raster(tmp_path)
    assert str(error.value).startswith(str(tmp_path)) and "\n" not in str(error.value)


@pytest.mark.parametrize("first", [False, True])
def test_alpha_that_gdal_knows_no_mask_of_is_refused(tmp_path: Path, first: bool) -> None:
    values, valid = ground()
    bands = [*values, values[0]]
    bands.insert(0 if first else 4, 255 * valid.astype(np.uint8))
    path = write_raster(tmp_path / "a.tif", np.stack(bands), grid(ROWS, COLS), photometric="minisblack", alpha="no")
    with rasterio.open(path, "r+") as dataset:
        roles = [ColorInterp.undefined] * 4
        roles.insert(0 if first else 4, ColorInterp.alpha)
        dataset.colorinterp = roles
    assert not describe_raster(path).is_whole
    assert np.array_equal(read_sample(path)[1], valid)
    with pytest.raises(RasterError, match=r"a\.tif has an alpha band that is not the last of two or four"):
        describe_raster(tmp_path)


def test_bands_in_another_order_are_refused(tmp_path: Path) -> None:
    for name, order in (("a", (2, 3, 4)), ("b", (4, 3, 2))):
        path = write_raster(tmp_path / f"{name}.tif", np.ones((3, 20, 20), np.uint8), grid(20, 20))
        with rasterio.open(path, "r+") as dataset:
            dataset.descriptions = tuple(f"B0{number}" for number in order)
    with pytest.raises(RasterError, match=r"b\.tif has the bands B04, B03, B02, expected B02, B03, B04 .* as"):
        describe_raster(tmp_path)


def test_what_is_no_folder_of_rasters(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.txt").write_text("nothing else")
    with pytest.raises(RasterError, match=r"empty: has no rasters \(\.tif, "):
        describe_raster(tmp_path / "empty")
    folder = cut(tmp_path / "tiles", *ground())
    model = make_model(Identity, image_encoding())
    with pytest.raises(RasterError, match=r"lies in the folder that is the input; give a name elsewhere"):
        predict(model, folder, folder / "out.tif")
    (folder / "broken.tif").write_bytes(b"II*\0")
    with pytest.raises(RasterError, match=r"broken\.tif: cannot be read as a raster"):
        predict(model, folder, tmp_path / "out.tif")
    assert not list(tmp_path.glob("out*"))


def test_a_run_over_a_folder_that_has_changed_is_another(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    folder = cut(tmp_path / "tiles", *ground())
    model = make_model(TileMean, image_encoding(), statistics="tile")
    half = PredictConfig(tile_size=64, overlap=0.5, shard="1/1")
    predict(model, folder, tmp_path / "out.tif", half)
    (folder / "c.tif.aux.xml").write_text("<PAMDataset/>")  # as programs leave by looking at it
    predict(model, folder, tmp_path / "out.tif", half)
    row, col, rows, cols = CUTS[0]
    where = grid(ROWS, COLS).window(Window(col, row, cols, rows))
    write_raster(folder / "c.tif", np.ones((3, rows, cols), np.uint8), where)
    with pytest.raises(ConfigError, match=r"left by a run with another input;"):
        predict(model, folder, tmp_path / "out.tif", half)


def test_a_damaged_file_is_named_or_left_out(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    values, valid = ground()
    folder = cut(tmp_path / "tiles", values, valid, compress="deflate")
    data = bytearray((folder / "d.tif").read_bytes())
    data[1500:12000] = b"\xff" * 10500
    (folder / "d.tif").write_bytes(data)
    for pixel in (3.0, 2.0):  # warped, and as it is
        model = make_model(Identity, image_encoding(), pixel_size=(pixel, pixel))
        with pytest.raises(RasterError, match=r"tiles: pixels cannot be read in rows .*tiles/d\.tif is damaged"):
            predict(model, folder, tmp_path / f"stopped_{pixel}.tif", BLENDED)
    predict(model, folder, tmp_path / "out.tif", PredictConfig(tile_size=64, skip_bad=True))
    with rasterio.open(tmp_path / "out.tif") as dataset:
        made, there = dataset.read(), dataset.dataset_mask() > 0
    with pytest.raises(RasterError, match=r"d\.tif is damaged"):
        own = tmp_path / "own.vrt"  # made by others
        own.write_text(_folder_source(str(folder), stamps_of(str(folder)))[0])
        with aligned_reader(own, grid(ROWS, COLS), "image") as reader:
            reader.read(Window(0, 0, COLS, ROWS))
    valid[:128, :128] = False
    assert np.array_equal(there, valid) and np.array_equal(made[:, there], values[:, there])


def test_a_map_in_pieces_has_its_names(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    codes, (_, valid) = class_map(ROWS, COLS), ground()
    own = np.select([codes == 1, codes == 2, codes == 5], [7, 1, 5]).astype(np.uint8)
    folder = cut(tmp_path / "tiles", own, valid, palette={7: (1, 2, 3)})
    write_names(folder / "b.tif", ("", "meadow", "", "", "", "road", "", "water"))
    assert describe_raster(folder).palette[7] == (1, 2, 3)
    known = Encoding("classes", "uint8", (Band(),), nodata=0.0, classes=CLASSES)
    predict(make_model(Identity, known), folder, tmp_path / "out.tif", PredictConfig(tile_size=64))
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert np.array_equal(dataset.read(1), np.where(valid, codes[0], 0))


def test_few_files_are_open_at_once(tmp_path: Path) -> None:
    for number in range(60):
        where = grid(30, 600).window(Window(10 * number, 0, 10, 30))
        write_raster(tmp_path / f"{number:02d}.tif", np.full((1, 30, 10), number, np.uint8), where)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with gdal_env(), opened(tmp_path) as dataset:
        values = dataset.read(1)
        assert len(list(Path("/proc/self/fd").iterdir())) - before <= OPEN_FILES
    assert np.array_equal(values, np.broadcast_to(np.repeat(np.arange(60), 10), (30, 600)))


def test_pixels_of_another_size_are_warped_as_one(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    values, valid = ground()
    folder = cut(tmp_path / "tiles", values, valid)
    whole = write_raster(tmp_path / "whole.tif", values, grid(ROWS, COLS), mask=valid)
    model = make_model(Identity, image_encoding(), pixel_size=(3.0, 3.0))
    for path, output in ((whole, "one.tif"), (folder, "many.tif")):
        predict(model, path, tmp_path / output, PredictConfig(tile_size=64))
    with rasterio.open(tmp_path / "one.tif") as one, rasterio.open(tmp_path / "many.tif") as many:
        assert one.transform == many.transform and one.shape == many.shape
        assert np.array_equal(one.dataset_mask(), many.dataset_mask())
        assert np.array_equal(one.read(), many.read())


def test_a_damaged_file_among_many_is_named(tmp_path: Path) -> None:
    """GDAL's own threads lose the error of a block where a window is wide."""
    values = np.random.default_rng(0).integers(0, 255, (3, 512, 512), dtype=np.uint8)
    for number in range(8):
        where = grid(512, 8 * 512).window(Window(512 * number, 0, 512, 512))
        path = write_raster(tmp_path / f"t{number}.tif", values, where, compress="deflate", tiled=True)
        if number == 5:
            data = bytearray(path.read_bytes())
            data[len(data) // 2 : len(data) // 2 + 20_000] = bytes(20_000)
            path.write_bytes(data)
    with (
        aligned_reader(tmp_path, grid(512, 8 * 512), "image") as reader,
        pytest.raises(RasterError, match=r"t5\.tif"),
    ):
        reader.read(Window(0, 0, 8 * 512, 512))


def test_masks_count_beside_a_nodata_value(tmp_path: Path) -> None:
    values, valid = ground()
    stored = np.maximum(values, 1)
    folder = cut(tmp_path / "tiles", stored, valid, nodata=0)
    found, there = read_whole(folder)
    assert np.array_equal(there, valid) and np.array_equal(found[:, valid], stored[:, valid])


def test_masks_and_what_virtual_rasters_name_belong_to_a_folder(tmp_path: Path) -> None:
    values, _ = ground()
    (tmp_path / "elsewhere").mkdir()
    folder = cut(tmp_path / "folder", values)
    inner = sorted(folder.iterdir())[0]
    moved = inner.rename(tmp_path / "elsewhere" / inner.name)
    rasterio.shutil.copy(moved, folder / "part.vrt", driver="VRT")
    masked = sorted(folder.glob("*.tif"))[0]
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(masked, "r+") as file:
        file.write_mask(np.ones(file.shape, bool))
    parts = describe_raster(folder).parts
    assert {Path(name).name for name in parts} >= {moved.name, "part.vrt", masked.name, f"{masked.name}.msk"}
    before = fingerprint(folder, parts)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(masked, "r+") as file:
        file.write_mask(np.arange(file.width) % 2 == np.zeros(file.shape, bool))
    assert fingerprint(folder, describe_raster(folder).parts) != before
