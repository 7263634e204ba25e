"""Odd inputs stay where they are: control points, rotated grids, pixels without ground, overviews."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from conftest import UTM, Identity, class_map, grid, image_encoding, write_raster
from numpy.lib.stride_tricks import sliding_window_view
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.shutil import copy as copy_raster
from rasterio.warp import transform
from rasterio.windows import Window

from geop2p import (
    EvaluateConfig,
    PredictConfig,
    TileConfig,
    TrainConfig,
    check,
    evaluate,
    evaluate_mosaic,
    predict,
    tile,
    train,
)
from geop2p.errors import ChipSetError, ConfigError, GeoP2PError, GridMismatchError, NoGroundError, RasterError
from geop2p.raster import aligned
from geop2p.raster.aligned import aligned_reader
from geop2p.raster.grid import Grid, covering
from geop2p.raster.reading import describe_raster
from geop2p.tiling.chips import ChipSet
from geop2p.tiling.geotiff import chip_path

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
DEGREES = CRS.from_epsg(4326)
SMALL = TileConfig(size=32, split="1:0:0")


def positions(where: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Easting and northing (rows, cols) of the pixel centres of any grid, in UTM."""
    cols, rows = np.meshgrid(np.arange(where.width) + 0.5, np.arange(where.height) + 0.5)
    xs, ys = where.transform @ (cols.ravel(), rows.ravel())
    east, north = (np.array(axis) for axis in transform(where.crs, UTM, xs, ys))
    return east.reshape(cols.shape), north.reshape(cols.shape)


def bend(rows: np.ndarray, cols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Easting and northing of places in a raster as a side-looking sensor sees it: turned, skewed and curved."""
    east = 500_000 + 5 * (0.97 * cols + 0.2 * rows) + 3e-3 * cols * rows + 20 * np.sin(rows / 40)
    north = 5_300_000 - 5 * (0.95 * rows - 0.18 * cols) + 1.5e-3 * cols**2 + 20 * np.sin(cols / 45)
    return east, north


def write_by_points(path: Path, values: np.ndarray, curved: bool, crs: CRS = DEGREES, **profile: object) -> Path:
    """A raster placed by a lattice of control points only."""
    count, height, width = values.shape
    at_rows, at_cols = (axis.ravel() for axis in np.mgrid[0 : height + 1 : height / 12, 0 : width + 1 : width / 12])
    east, north = place(at_rows, at_cols, curved)
    xs, ys = transform(UTM, crs, east, north)
    points = [GroundControlPoint(row, col, x, y) for row, col, x, y in zip(at_rows, at_cols, xs, ys, strict=True)]
    profile |= {"count": count, "height": height, "width": width, "dtype": values.dtype}
    with rasterio.open(path, "w", driver="GTiff", **profile) as dataset:
        dataset.write(values)
        dataset.gcps = (points, crs)
    return path


def place(rows: np.ndarray, cols: np.ndarray, curved: bool) -> tuple[np.ndarray, np.ndarray]:
    if curved:
        return bend(rows, cols)
    return 500_000 + 5 * (0.9 * cols + 0.3 * rows), 5_300_000 - 5 * (0.9 * rows - 0.3 * cols)


def ramp(height: int, width: int, curved: bool) -> np.ndarray:
    """Easting and northing of every pixel centre of such a raster, float64 (2, rows, cols)."""
    rows, cols = np.mgrid[0:height, 0:width] + 0.5
    return np.stack(place(rows, cols, curved))


def eroded(valid: np.ndarray) -> np.ndarray:
    """Valid pixels all of whose neighbours are valid."""
    inner = np.zeros_like(valid)
    inner[1:-1, 1:-1] = sliding_window_view(valid, (3, 3)).all(axis=(2, 3))
    return inner


@pytest.mark.parametrize("curved", [False, True])
@pytest.mark.parametrize("where", ["its own", "another"])
def test_control_points_place_a_raster(tmp_path: Path, curved: bool, where: str) -> None:
    path = write_by_points(tmp_path / "a.tif", ramp(180, 200, curved), curved)
    info = describe_raster(path)
    assert info.by_points and info.grid.crs == CRS.from_epsg(32632) and info.grid.transform.b == 0
    target = info.grid if where == "its own" else grid(150, 150, pixel=6.0, left=500_100.3, top=5_299_900.7)
    with aligned_reader(path, target, "elevation") as reader:
        found, valid = reader.read(Window(0, 0, target.width, target.height))
    assert valid.mean() > 0.5
    inner = eroded(valid)
    for plane, truth in zip(found, positions(target), strict=True):
        assert np.abs(plane - truth)[inner].max() < 1.5  # 0.3 pixels
        assert np.abs(plane - truth)[valid].max() < 3.5  # at the border the outermost pixel is continued


def test_radar_by_control_points_is_resampled_as_power(tmp_path: Path) -> None:
    east, north = ramp(180, 200, True)
    values = (-0.02 * np.hypot(east - 500_500, north - 5_299_600))[None].astype(np.float32)
    path = write_by_points(tmp_path / "a.tif", values, True)
    target = grid(100, 100, pixel=5.0, left=500_200.3, top=5_299_800.7)
    with aligned_reader(path, target, "sar") as reader:
        found, valid = reader.read(Window(0, 0, 100, 100))
        part, there = reader.read(Window(30, 20, 40, 50))
    east, north = positions(target)
    distance = np.hypot(east - 500_500, north - 5_299_600)
    smooth = valid & (distance > 30)
    assert smooth.mean() > 0.8
    assert np.abs(found[0] + 0.02 * distance)[smooth].max() < 0.05  # 2.5 m, half a pixel
    assert np.array_equal(there, valid[20:70, 30:70])
    assert np.allclose(part[0][there], found[0, 20:70, 30:70][there], atol=0.02)


def test_control_points_without_crs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    points = [GroundControlPoint(row, col, 9 + col / 1000, 47 - row / 1000) for row in (0, 64) for col in (0, 64)]
    with rasterio.open(path, "w", driver="GTiff", count=1, height=64, width=64, dtype="uint8") as dataset:
        dataset.gcps = (points, CRS())
    with pytest.raises(RasterError, match=r"a\.tif: .*(control points have no CRS|has no CRS)"):
        tile(path, path, tmp_path / "chips", SMALL)


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("base", ["source", "target"])
def test_a_raster_by_control_points_can_be_either_side(
    tmp_path: Path, side: str, base: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One side is placed by points, the other by a transform; both hold easting and northing."""
    caplog.set_level(logging.INFO, "geop2p")
    points = write_by_points(tmp_path / "points.tif", ramp(180, 200, True), True)
    where = grid(170, 190, pixel=6.0, left=500_000.0, top=5_300_100.0)
    plain = write_raster(tmp_path / "plain.tif", np.stack(positions(where)), where)
    pair = (points, plain) if side == "source" else (plain, points)
    config = dataclasses.replace(SMALL, grid=base, source_kind="elevation", target_kind="elevation")
    tile(*pair, tmp_path / "chips", config)
    chipset = ChipSet.open(tmp_path / "chips")
    said = "placed by ground control points, warped onto" in caplog.text
    assert said == (side == base)
    for row in chipset.index().itertuples():
        chip = chipset.read(row.split, row.id)
        east, north = positions(chipset.scenes[0].grid.window(Window(row.col_off, row.row_off, 32, 32)))
        for values in (chip.source, chip.target):
            assert np.abs(values - np.stack([east, north]))[:, eroded(chip.valid)].max() < 1.5


ROTATIONS = {
    "rotated": Affine.translation(500_100, 5_299_900) @ Affine.rotation(30) @ Affine.scale(4, -4),
    "rotated, not square": Affine.translation(500_300, 5_299_900) @ Affine.rotation(-125) @ Affine.scale(4, -6),
    "south-up": Affine(4, 0, 500_000, 0, 4, 5_299_000),
    "not square": Affine(3, 0, 500_000, 0, -5, 5_300_000),
    "mirrored": Affine(-4, 0, 501_000, 0, -4, 5_300_000),
}


@pytest.mark.parametrize("name", ROTATIONS)
@pytest.mark.parametrize("kind", ["elevation", "sar"])
def test_turned_rasters_are_warped_right(tmp_path: Path, name: str, kind: str) -> None:
    own = Grid(UTM, ROTATIONS[name], 150, 170)
    east, north = positions(own)
    centre = (east.mean(), north.mean())
    if kind == "sar":
        values = (-0.05 * np.hypot(east - centre[0], north - centre[1]))[None].astype(np.float32)
    else:
        values = np.stack([east, north])
    path = write_raster(tmp_path / "a.tif", values, own)
    target = grid(60, 60, pixel=3.0, left=centre[0] - 90.2, top=centre[1] + 90.3)
    with aligned_reader(path, target, kind) as reader:
        found, valid = reader.read(Window(0, 0, 60, 60))
    assert valid.all()
    east, north = positions(target)
    if kind == "sar":
        distance = np.hypot(east - centre[0], north - centre[1])
        assert np.abs(found[0] + 0.05 * distance)[distance > 30].max() < 0.05
    else:
        assert np.abs(found - np.stack([east, north])).max() < 0.05


@pytest.mark.parametrize("name", ROTATIONS)
def test_chips_of_a_turned_grid_keep_its_pixels_and_their_place(tmp_path: Path, name: str) -> None:
    own = Grid(UTM, ROTATIONS[name], 90, 110)
    target = write_raster(tmp_path / "target.tif", np.stack(positions(own)), own)
    left, bottom, right, top = own.bounds_in(DEGREES)
    around = covering((left - 1e-3, bottom - 1e-3, right + 1e-3, top + 1e-3), DEGREES, 4.5e-5)
    source = write_raster(tmp_path / "source.tif", np.stack(positions(around)), around)
    config = dataclasses.replace(SMALL, source_kind="elevation", target_kind="elevation")
    tile(source, target, tmp_path / "chips", config)
    chipset = ChipSet.open(tmp_path / "chips")
    index = chipset.index()
    assert len(index) == 6 and check(tmp_path / "chips") == []
    for row in index.itertuples():
        here = own.unmirrored.window(Window(row.col_off, row.row_off, 32, 32))
        with rasterio.open(chip_path(chipset.folder, "target", row.split, row.id)) as chip:
            assert chip.crs == UTM and chip.transform.almost_equals(here.transform, 1e-6)
            assert np.allclose(chip.read(), np.stack(positions(here)), rtol=0, atol=1e-6)
        pair = chipset.read(row.split, row.id)
        assert np.abs(pair.source - pair.target)[:, pair.valid].max() < 0.8  # a fifth of a pixel
        assert row.geometry.symmetric_difference(here.footprint).area < 1e-3


def bare(path: Path, values: np.ndarray) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", count=len(values), height=values.shape[1], width=values.shape[2], dtype=values.dtype
    ) as dataset:
        dataset.write(values)
    return path


@pytest.fixture
def bare_pair(tmp_path: Path) -> tuple[Path, Path]:
    """A class map and an image of one size, both without CRS."""
    image = np.random.default_rng(0).integers(0, 255, (3, 150, 170), dtype=np.uint8)
    return bare(tmp_path / "map.tif", class_map(150, 170)), bare(tmp_path / "image.tif", image)


def test_rasters_without_crs_are_paired_by_pixel_when_asked(
    bare_pair: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """From tile to evaluate: nothing on the way needs a CRS."""
    caplog.set_level(logging.INFO, "geop2p")
    chips, config = tmp_path / "chips", TileConfig(size=32, stride=16, pixel_grid=True, buffer=4)
    with pytest.raises(RasterError, match=r"map\.tif: has no CRS.*with --pixel-grid"):
        tile(*bare_pair, chips, TileConfig(size=32))
    result = tile(*bare_pair, chips, config)
    assert "have no CRS and are paired pixel by pixel" in caplog.text
    assert result.train and result.val and result.test
    chipset = ChipSet.open(chips)
    assert chipset.scenes[0].grid.crs is None and chipset.settings["pixel_grid"] and chipset.pixel_size is None
    index = chipset.index()
    assert index.crs is None and check(chips) == []
    train_part, rest = index[index["split"] == "train"], index[index["split"] != "train"]
    assert min(train_part.distance(shape).min() for shape in rest.geometry) >= 4
    with rasterio.open(bare_pair[1]) as image:
        values = image.read()
    for row in index.itertuples():
        assert row.geometry.bounds == (row.col_off, -row.row_off - 32, row.col_off + 32, -row.row_off)
        chip = chipset.read(row.split, row.id)
        inside = values[:, row.row_off : row.row_off + 32, row.col_off : row.col_off + 32]
        assert np.array_equal(chip.target[:, : inside.shape[1], : inside.shape[2]], inside)

    run, mosaic = tmp_path / "run", tmp_path / "mosaic.tif"
    train(chips, run, TrainConfig(recipe="pix2pix", steps=2, width=4))
    made = predict(run, bare_pair[0], mosaic, PredictConfig(overlap=0.25))
    assert (made.height, made.width) == (150, 170)
    with rasterio.open(mosaic) as dataset:
        assert dataset.crs is None and dataset.transform.is_identity and dataset.shape == (150, 170)
    assert evaluate(run, chips, tmp_path / "report.html")["chips"] == result.test
    assert evaluate_mosaic(mosaic, bare_pair[1], tmp_path / "mosaic.html")["pixels"] == 150 * 170
    with pytest.raises(GridMismatchError, match="without CRS both need one size"):
        other = bare(tmp_path / "other.tif", values[:, :99])
        evaluate_mosaic(mosaic, other, tmp_path / "other.html")


def test_scenes_without_crs_do_not_share_ground(bare_pair: tuple[Path, Path], tmp_path: Path) -> None:
    config = TileConfig(size=32, pixel_grid=True)
    first = tile(*bare_pair, tmp_path / "chips", config)
    with rasterio.open(bare_pair[0]) as dataset:
        second = bare(tmp_path / "map2.tif", dataset.read()[:, ::-1])
    image = bare(tmp_path / "image2.tif", np.random.default_rng(3).integers(0, 255, (3, 150, 170), dtype=np.uint8))
    both = tile(second, image, tmp_path / "chips", config)
    assert both.chips == 2 * first.chips and check(tmp_path / "chips") == []
    located = write_raster(tmp_path / "located.tif", class_map(150, 170), grid(150, 170))
    with pytest.raises(ChipSetError, match="pixel_grid is False, there it is True"):
        tile(located, located, tmp_path / "chips", TileConfig(size=32))


def test_pixel_grid_is_for_two_bare_rasters_of_one_size(bare_pair: tuple[Path, Path], tmp_path: Path) -> None:
    config = TileConfig(size=32, pixel_grid=True)
    located = write_raster(tmp_path / "located.tif", class_map(150, 170), grid(150, 170))
    with pytest.raises(GridMismatchError, match=r"located\.tif: has a CRS; --pixel-grid is for"):
        tile(located, bare_pair[1], tmp_path / "chips", config)
    small = bare(tmp_path / "small.tif", class_map(150, 100))
    with pytest.raises(GridMismatchError, match=r"150 rows and 100 columns.*needs two rasters of one size"):
        tile(small, bare_pair[1], tmp_path / "chips", config)
    with pytest.raises(RasterError, match=r"assign one \(gdal_edit -a_srs\)$"):  # no way out to name
        tile(small, bare_pair[1], tmp_path / "chips", TileConfig(size=32))
    area = geopandas.GeoDataFrame(geometry=[bare_box()], crs=UTM)
    area.to_file(tmp_path / "aoi.gpkg")
    with pytest.raises(GridMismatchError, match="leave out --aoi"):
        tile(*bare_pair, tmp_path / "chips", dataclasses.replace(config, aoi=tmp_path / "aoi.gpkg"))
    with pytest.raises(ConfigError, match="pairs pixel by pixel"):
        TileConfig(pixel_grid=True, grid="EPSG:32632@2")


def bare_box() -> object:
    from shapely.geometry import box

    return box(0, 0, 50, 50)


def test_a_model_with_a_pixel_size_takes_bare_pixels_only_when_told(tmp_path: Path, make_model) -> None:
    path = bare(tmp_path / "a.tif", np.full((3, 70, 80), 9, np.uint8))
    model = make_model(Identity, image_encoding())
    with pytest.raises(RasterError, match=r"has no CRS.*--no-resample"):
        predict(model, path, tmp_path / "out.tif")
    predict(model, path, tmp_path / "out.tif", PredictConfig(no_resample=True))
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert (dataset.read() == 9).all()


def test_a_model_reads_a_raster_by_control_points(tmp_path: Path, make_model) -> None:
    path = write_by_points(tmp_path / "a.tif", ramp(180, 200, True).astype(np.float32) % 4096, True)
    model = make_model(Identity, image_encoding("float32", 2, 0, 4096), pixel_size=(5.0, 5.0))
    predict(model, path, tmp_path / "out.tif")
    info = describe_raster(tmp_path / "out.tif")
    assert info.grid.crs == CRS.from_epsg(32632) and not info.by_points
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert np.isfinite(dataset.read()).mean() > 0.6


@pytest.mark.parametrize("why", ["all of it", "under the area"])
@pytest.mark.parametrize("keep_parts", [False, True])
def test_ground_without_data_is_told_and_passes_no_gate(
    tmp_path: Path, make_model: Callable[..., Path], caplog: pytest.LogCaptureFixture, why: str, keep_parts: bool
) -> None:
    where, there = grid(80, 90), np.zeros((80, 90), bool)
    there[:, 45:] = why == "under the area"
    photo = write_raster(tmp_path / "photo.tif", np.ones((3, 80, 90), np.uint8), where, mask=there)
    settings: dict[str, Any] = {"tile_size": 64, "keep_parts": keep_parts}
    if why == "under the area":
        settings["aoi"] = tmp_path / "area.gpkg"
        area = shapely.box(*where.window(Window(0, 0, 40, 80)).bounds)
        geopandas.GeoDataFrame(geometry=[area], crs=UTM).to_file(settings["aoi"])
    model, output = make_model(Identity, image_encoding()), tmp_path / ("out.vrt" if keep_parts else "out.tif")
    with pytest.raises(GeoP2PError, match="no ground is valid, so --max-mismatch 5 has nothing to measure; look at"):
        predict(model, photo, output, PredictConfig(**settings, max_mismatch=5.0))
    assert not output.exists()
    predict(model, photo, output, PredictConfig(**settings))
    assert "no valid ground: the mosaic is empty" in caplog.text
    with rasterio.open(output) as dataset:
        assert not dataset.dataset_mask().any()


def test_a_gate_that_measures_nothing_says_so(
    tmp_path: Path, make_model: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    """Exact tiles are measured, and are 0, unless they are as small as the network's stride."""
    photo = write_raster(tmp_path / "photo.tif", np.ones((3, 80, 90), np.uint8), grid(80, 90))
    model = make_model(Identity, image_encoding(), stride=64)
    for size, figure in ((128, 0.0), (64, None)):
        config = PredictConfig(tile_size=size, max_mismatch=0.0)
        assert predict(model, photo, tmp_path / f"{size}.tif", config).tile_mismatch_percent == figure
        assert ("--max-mismatch 0 measured nothing: tiles of 64 pixels have" in caplog.text) == (figure is None)


def test_no_file_that_is_read_is_replaced(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    """Nor those that a VRT of VRTs, `--like` or `--aoi` refer to, by whatever output."""
    where, values = grid(40, 50), np.ones((3, 40, 50), np.uint8)
    like = write_raster(tmp_path / "like.tif", values[:1], where)
    photo = write_raster(tmp_path / "photo.tif", values, where)
    copy_raster(photo, tmp_path / "inner.vrt", driver="VRT")
    copy_raster(tmp_path / "inner.vrt", tmp_path / "outer.vrt", driver="VRT")
    outer = (tmp_path / "outer.vrt").read_text()
    (tmp_path / "outer.vrt").write_text(outer.replace("photo.tif", "inner.vrt"))
    area = tmp_path / "area.json"
    geopandas.GeoDataFrame(geometry=[shapely.box(*where.bounds)], crs=UTM).to_file(area, driver="GeoJSON")
    model = make_model(Identity, image_encoding()).rename(tmp_path / "model.tif")
    names = ("like.tif", "photo.tif", "area.json", "model.tif", "inner.vrt")
    before = {name: (tmp_path / name).read_bytes() for name in names}

    def refused(message: str, output: str, **settings: Any) -> None:
        config = PredictConfig(like=like, aoi=str(area), **settings)  # type: ignore[arg-type]
        with pytest.raises(RasterError, match=message):
            predict(model, tmp_path / "outer.vrt", tmp_path / output, config, overwrite=True)

    refused(r"photo\.tif: is a file of the input; give another name", "photo.tif")
    refused(r"inner\.vrt: is a file of the input; give another name", "inner.vrt", keep_parts=True)
    refused(r"like\.tif: is the raster of --like; give another name", "like.tif")
    refused(r"like\.tif: is the raster of --like; give another name", "out.tif", seam_map=like)
    refused(r"area\.json: is the layer of --aoi; give another name", "area.vrt", keep_parts=True)
    refused(r"model\.tif: is the model; give another name", "model.tif")
    assert {name: (tmp_path / name).read_bytes() for name in names} == before


def test_an_output_that_is_a_folder_is_refused_at_once(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    photo = write_raster(tmp_path / "photo.tif", np.ones((3, 40, 50), np.uint8), grid(40, 50))
    (tmp_path / "folder.tif").mkdir()
    model = make_model(Identity, image_encoding())
    for output, beside in (("folder.tif", None), ("out.tif", tmp_path / "folder.tif")):
        with pytest.raises(RasterError, match=r"folder\.tif: is a folder; give the name of a file"):
            predict(model, photo, tmp_path / output, PredictConfig(seam_map=beside), overwrite=True)
    assert not list(tmp_path.glob("out*"))


def test_parts_that_are_read_are_not_replaced(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    """Neither by the parts of another mosaic nor by an error raster."""
    photo = write_raster(tmp_path / "photo.tif", np.ones((3, 40, 50), np.uint8), grid(40, 50))
    model, kept = make_model(Identity, image_encoding()), PredictConfig(keep_parts=True)
    predict(model, photo, tmp_path / "out.vrt", kept)
    (part,) = (tmp_path / "out_parts").glob("part_*.tif")
    (tmp_path / "out.vrt").rename(tmp_path / "made.vrt")
    with pytest.raises(RasterError, match=r"part_.*: lies where the parts of out\.vrt are to stay; give another"):
        predict(model, tmp_path / "made.vrt", tmp_path / "out.vrt", kept, overwrite=True)
    config = EvaluateConfig(error_raster=part)
    with pytest.raises(ConfigError, match=r"part_.*: is an input; give another name"):
        evaluate_mosaic(tmp_path / "made.vrt", photo, tmp_path / "report.html", config, overwrite=True)
    assert part.exists()


def test_chips_that_are_read_are_not_removed(tmp_path: Path) -> None:
    photo = write_raster(tmp_path / "photo.tif", np.ones((3, 40, 50), np.uint8), grid(40, 50))
    tile(photo, photo, tmp_path / "chips", SMALL)
    (chip,) = (tmp_path / "chips" / "target").rglob("*.tif")
    copy_raster(chip, tmp_path / "again.vrt", driver="VRT")
    with pytest.raises(ChipSetError, match=r"\.tif: belongs to the chip set .*chips, which --overwrite deletes; tile"):
        tile(photo, tmp_path / "again.vrt", tmp_path / "chips", SMALL, overwrite=True)
    assert chip.exists()


@pytest.mark.parametrize("kind", ["image", "classes"])
def test_far_coarser_grids_are_read_through_overviews(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = grid(720, 840)
    east, north = positions(where)
    smooth = 120 + 60 * np.sin(east / 300) + 60 * np.cos(north / 250)
    values = np.stack([smooth, smooth[::-1], smooth[:, ::-1]]).astype(np.uint8)
    if kind == "classes":
        values = class_map(720, 840)
    plain = write_raster(tmp_path / "plain.tif", values, where)
    path = write_raster(tmp_path / "a.tif", values, where)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4, 8], Resampling.average if kind == "image" else Resampling.nearest)
    target = grid(60, 70, pixel=23.0, left=500_003.0, top=5_299_999.0)
    levels: list[int | None] = []
    original = aligned.overview_for
    monkeypatch.setattr(aligned, "overview_for", lambda *a: levels.append(original(*a)) or levels[-1])
    results = []
    for file in (plain, path):
        with aligned_reader(file, target, kind) as reader:
            results.append(reader.read(Window(0, 0, 60, 70)))
    assert levels == ([None, 1] if kind == "image" else [None, None])  # 4 x 2 m is at most half of 23 m, 8 x 2 m is not
    (exact, valid), (through, there) = results
    assert np.array_equal(valid, there)
    difference = np.abs(exact.astype(int) - through.astype(int))[:, valid]
    assert difference.max() <= (1 if kind == "image" else 0)


@pytest.mark.parametrize("form", ["nodata", "mask", "external mask", "alpha", "nan"])
def test_holes_are_seen_through_overviews_too(tmp_path: Path, form: str) -> None:
    where, hole = grid(512, 512), np.zeros((512, 512), bool)
    hole[128:256, 128:320] = True
    values = np.full((3, 512, 512), 100, np.float32 if form == "nan" else np.uint8)
    options: dict = {}
    if form in ("nodata", "nan"):
        values[:, hole] = np.nan if form == "nan" else 0
        options = {} if form == "nan" else {"nodata": 0}
    elif form == "alpha":
        values = np.concatenate([values, np.where(hole, 0, 255).astype(np.uint8)[None]])
        options = {"photometric": "RGB", "alpha": "yes"}
    elif form == "mask":
        options = {"mask": ~hole}
    path = write_raster(tmp_path / "a.tif", values, where, **options)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as dataset:
        if form == "external mask":
            dataset.write_mask(~hole)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4, 8], Resampling.average)
    target = grid(32, 32, pixel=32.0)
    with aligned_reader(path, target, "image") as reader:
        found, valid = reader.read(Window(0, 0, 32, 32))
    assert not valid[8:16, 8:20].any() and valid.sum() == 1024 - 8 * 12
    assert (found[:, valid] == 100).all()


def test_a_raster_smaller_than_a_chip_is_padded_where_enough_of_it_is_valid(tmp_path: Path) -> None:
    """A raster of 60 pixels is 88 % of a chip of 64."""
    where = grid(60, 60)
    values = np.random.default_rng(0).integers(1, 255, (3, 60, 60), dtype=np.uint8)
    pair = write_raster(tmp_path / "map.tif", class_map(60, 60), where), write_raster(tmp_path / "a.tif", values, where)
    config = TileConfig(size=64, split="1:0:0", min_valid=0.8)
    assert tile(*pair, tmp_path / "chips", config).chips == 1
    chipset = ChipSet.open(tmp_path / "chips")
    (row,) = chipset.index().itertuples()
    chip = chipset.read("train", row.id)
    assert (row.row_off, row.col_off, row.valid) == (0, 0, 60 * 60 / 64**2)
    assert np.array_equal(chip.valid, np.pad(np.ones((60, 60), bool), (0, 4)))
    assert np.array_equal(chip.target, np.pad(values, ((0, 0), (0, 4), (0, 4)))) and check(tmp_path / "chips") == []
    message = r"a: no window of 64 pixels has 95% valid ground on a grid of 60x60 .*; lower --min-valid or --size"
    with pytest.raises(NoGroundError, match=message):
        tile(*pair, tmp_path / "other", dataclasses.replace(config, min_valid=0.95))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("layout", ["virtual", "packed"])
def test_an_image_whose_statistics_are_needed_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: Any
) -> None:
    where, draw = grid(704, 800), np.random.default_rng(0)
    image = write_raster(tmp_path / "a.tif", draw.integers(0, 4000, (2, 704, 800)).astype(np.uint16), where)
    source = write_raster(tmp_path / "map.tif", class_map(704, 800), where)
    pixels, read = [], aligned._read_masked

    def counted(dataset: Any, bands: list[int], read_masks: Any, path: Path, window: Window) -> Any:
        pixels.append(window.width * window.height if len(bands) == 2 else 0)
        return read(dataset, bands, read_masks, path, window)

    monkeypatch.setattr(aligned, "_read_masked", counted)
    config = TileConfig(size=32, format=layout, source_kind="classes", target_kind="image")
    tile(source, image, tmp_path / "chips", config)
    chipset = ChipSet.open(tmp_path / "chips")
    train_share = chipset.counts["train"] * 32**2 / (704 * 800)
    assert 0.75 < train_share < 0.85 and chipset.target.scaling == "percentiles"
    distribution = chipset.target.bands[0].distribution
    assert distribution is not None and distribution.count == chipset.counts["train"] * 32**2
    assert train_share < sum(pixels) / (704 * 800) <= 1.1
