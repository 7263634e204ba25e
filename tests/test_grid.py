"""Grids, and aligned reading: the same ground to half a pixel."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from conftest import CLASSES, UTM, class_map, grid, write_raster
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.env import get_gdal_config
from rasterio.warp import transform
from rasterio.windows import Window

from geop2p.errors import GridMismatchError, RasterError
from geop2p.raster.aligned import aligned_reader
from geop2p.raster.borders import reflect_indices
from geop2p.raster.class_table import ClassTable
from geop2p.raster.grid import Grid, covering, local_crs, positions_in
from geop2p.raster.reading import BLOCK_CACHE, describe_raster, gdal_env


def test_window_and_offset_are_inverse() -> None:
    base = grid(100, 200)
    assert base.window(Window(30, -7, 10, 20)).offset_in(base) == (-7, 30)
    assert grid(10, 10, left=500_001.0).offset_in(base) is None
    assert grid(10, 10, pixel=2.01).offset_in(base) is None


def test_covering_snaps_to_multiples_of_the_resolution() -> None:
    made = covering((10.5, 20.1, 31.0, 39.9), UTM, 2.0)
    assert made.bounds == (10.0, 20.0, 32.0, 40.0)
    assert (made.height, made.width) == (10, 11)


def test_pixel_size_is_metres_on_the_ground() -> None:
    assert grid(10, 10).pixel_size == pytest.approx((2.0, 2.0), rel=1e-3)
    mercator = Grid(CRS.from_epsg(3857), Affine(10, 0, 0, 0, -10, 8_399_738), 2, 2)  # 60 degrees north
    assert mercator.pixel_size == pytest.approx((5.0, 5.0), rel=0.01)
    degrees = Grid(CRS.from_epsg(4326), Affine(1e-4, 0, 9, 0, -1e-4, 60), 2, 2)
    assert degrees.pixel_size == pytest.approx((11.14, 5.58), rel=0.01)


def test_local_crs_of_degrees_is_the_utm_zone() -> None:
    degrees = Grid(CRS.from_epsg(4326), Affine(1e-4, 0, 9, 0, -1e-4, -33), 10, 10)
    assert local_crs(degrees).to_epsg() == 32732
    assert local_crs(grid(3, 3)) == UTM


@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_reflection_mirrors_without_repeating_the_edge(length: int) -> None:
    axis = np.arange(length)
    margin = 2 * length + 3
    expected = np.pad(axis, margin, mode="reflect")
    assert np.array_equal(reflect_indices(-margin, length + margin, length), expected)


def test_coinciding_pixels_are_read_as_they_are(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (3, 40, 50), dtype=np.uint8)
    where = grid(40, 50)
    path = write_raster(tmp_path / "a.tif", values, where)
    with aligned_reader(path, where.window(Window(5, 3, 20, 50)), "image") as reader:
        found, valid = reader.read(Window(-2, 25, 10, 20))
    assert np.array_equal(found[:, :12, 2:], values[:, 28:40, 5:13])
    assert valid[:12, 2:].all()
    assert not valid[12:].any() and not valid[:, :2].any()  # beyond the raster, beyond the grid
    assert not found[:, ~valid].any()


@pytest.mark.parametrize("crs", [4326, 3857, 32633])
@pytest.mark.parametrize("kind", ["image", "elevation", "sar"])
def test_a_ramp_of_coordinates_stays_where_it_is(tmp_path: Path, crs: int, kind: str) -> None:
    """Every value of the source is its own easting, so any misplacement is a wrong value."""
    source = grid(200, 220, pixel=5.0)
    if kind == "sar":
        centre = source.transform @ (110, 100)
        bump = [[np.hypot(x - 110, y - 100) for x in np.arange(220) + 0.5] for y in np.arange(200) + 0.5]
        values = (-0.2 * np.array(bump)[None]).astype(np.float32)
    else:
        eastings = source.transform.c + 5.0 * (np.arange(220) + 0.5)
        values = np.broadcast_to(eastings, (200, 220))[None].astype(np.float64)
    path = write_raster(tmp_path / "ramp.tif", values, source)
    left, bottom, right, top = source.bounds_in(CRS.from_epsg(crs))
    side = (right - left) / 220
    target = covering((left, bottom, right, top), CRS.from_epsg(crs), side)
    with aligned_reader(path, target, kind) as reader:
        found, valid = reader.read(Window(0, 0, target.width, target.height))
    rows, cols = np.nonzero(valid)
    assert valid.mean() > 0.5
    xs, ys = target.transform @ (cols + 0.5, rows + 0.5)
    eastings, northings = (np.array(axis) for axis in transform(target.crs, UTM, xs, ys))
    left, bottom, right, top = source.bounds
    inside = (eastings > left + 10) & (eastings < right - 10) & (northings > bottom + 10) & (northings < top - 10)
    if kind == "sar":
        distance = np.hypot(eastings - centre[0], northings - centre[1]) / 5
        smooth = inside & (distance > 5)
        assert np.abs(found[0, rows, cols] + 0.2 * distance)[smooth].max() < 0.02  # a tenth of a pixel
    else:
        assert np.abs(found[0, rows, cols] - eastings)[inside].max() < 0.05  # a hundredth of a pixel


@pytest.mark.parametrize("kind", ["image", "classes", "sar"])
@pytest.mark.parametrize("pixel", [1.3, 2.0, 7.0])
def test_windows_read_what_the_whole_reads(tmp_path: Path, kind: str, pixel: float) -> None:
    values = np.random.default_rng(0).normal(-12, 3, (1, 150, 170)).astype(np.float32)
    if kind == "classes":
        values = class_map(150, 170)
    path = write_raster(tmp_path / "a.tif", values, grid(150, 170))
    target = grid(int(300 / pixel), int(340 / pixel), pixel=pixel, left=500_000.9)
    with aligned_reader(path, target, kind) as reader:
        whole, valid = reader.read(Window(0, 0, target.width, target.height))
        for window in (
            Window(-5, -9, 40, 30),
            Window(17, 11, 23, 19),
            Window(target.width - 8, target.height - 9, 20, 20),
        ):
            found, there = reader.read(window)
            rows = np.arange(window.row_off, window.row_off + window.height)
            cols = np.arange(window.col_off, window.col_off + window.width)
            inside = np.ix_((rows >= 0) & (rows < target.height), (cols >= 0) & (cols < target.width))
            outside = there.copy()
            outside[inside] = False
            assert not outside.any()
            at = np.ix_(rows[(rows >= 0) & (rows < target.height)], cols[(cols >= 0) & (cols < target.width)])
            assert np.array_equal(there[inside], valid[at])
            assert np.allclose(found[0][inside][valid[at]], whole[0][at][valid[at]], atol=2e-2 if kind == "sar" else 0)


def test_classes_are_never_interpolated(tmp_path: Path) -> None:
    values = np.random.default_rng(0).choice([3, 40, 200], (1, 60, 60)).astype(np.uint8)
    path = write_raster(tmp_path / "map.tif", values, grid(60, 60))
    for pixel in (0.7, 1.3, 2.9, 7.0):
        with aligned_reader(path, grid(30, 30, pixel=pixel, left=500_000.4), "classes") as reader:
            found, valid = reader.read(Window(0, 0, 30, 30))
        assert set(np.unique(found[0, valid])) <= {3, 40, 200}


def write_map(path: Path, codes: np.ndarray, where: Grid, form: str) -> ClassTable | None:
    """A map of `CLASSES` as codes, in colours, or placed by ground control points only; the table of its colours."""
    if form == "colours":
        colors = np.zeros((6, 3), np.uint8)
        colors[[entry.value for entry in CLASSES]] = [entry.color for entry in CLASSES]
        write_raster(path, colors[codes[0]].transpose(2, 0, 1), where, photometric="RGB")
        return ClassTable("classes.csv", CLASSES)
    if form == "codes":
        write_raster(path, codes, where)
        return None
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=where.height, width=where.width, dtype="uint8"
    ) as file:
        file.write(codes)
        places = [
            (row, col) for row in (0, where.height / 2, where.height) for col in (0, where.width / 2, where.width)
        ]
        file.gcps = ([GroundControlPoint(row, col, *where.transform @ (col, row)) for row, col in places], where.crs)
    assert describe_raster(path).by_points
    return None


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("form", ["codes", "colours", "control points"])
def test_a_coarse_pixel_takes_the_class_of_most_of_its_ground(tmp_path: Path, form: str) -> None:
    """Blocks of 8x8 pixels with another class in their middle, which nearest neighbour would take."""
    most = np.random.default_rng(0).choice([1, 2, 5], (12, 14))
    others = np.array([0, 2, 5, 0, 0, 1])[most]
    inside = np.pad(np.ones((4, 4), bool), 2)
    codes = np.where(np.tile(inside, most.shape), others.repeat(8, 0).repeat(8, 1), most.repeat(8, 0).repeat(8, 1))
    table = write_map(tmp_path / "map.tif", codes[np.newaxis].astype(np.uint8), grid(96, 112), form)
    with aligned_reader(tmp_path / "map.tif", grid(12, 14, pixel=16.0), "classes", colors=table) as reader:
        found, valid = reader.read(Window(0, 0, 14, 12))
    assert valid.all() and np.array_equal(found[0], most)


def test_sar_is_averaged_as_power(tmp_path: Path) -> None:
    values = np.full((1, 64, 64), -20, np.float32)
    values[:, ::2] = 0
    path = write_raster(tmp_path / "sar.tif", values, grid(64, 64))
    with aligned_reader(path, grid(8, 8, pixel=16.0), "sar") as reader:
        found, _ = reader.read(Window(0, 0, 8, 8))
    assert found[0, 4, 4] == pytest.approx(10 * np.log10((1 + 0.01) / 2), abs=0.01)


@pytest.mark.parametrize("form", ["nodata", "mask", "nan", "untagged nan", "alpha"])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_every_way_to_say_no_data_is_understood(tmp_path: Path, form: str, shift: float) -> None:
    where, hole = grid(40, 40), np.zeros((40, 40), bool)
    hole[10:20, 10:20] = True
    values = np.full((1, 40, 40), 100, np.float32 if "nan" in form else np.uint8)
    options: dict = {}
    if form == "nodata":
        values[0, hole], options = 7, {"nodata": 7}
    elif "nan" in form:
        values[0, hole], options = np.nan, {"nodata": None if "untagged" in form else np.nan}
    elif form == "mask":
        options = {"mask": ~hole}
    else:
        values = np.concatenate([values, values, values, np.where(hole, 0, 255).astype(np.uint8)[None]])
        options = {"photometric": "RGB", "alpha": "yes"}
    path = write_raster(tmp_path / "a.tif", values, where, **options)
    with aligned_reader(path, grid(38, 38, left=500_000.0 + shift, top=5_300_000.0 - shift), "image") as reader:
        found, valid = reader.read(Window(0, 0, 38, 38))
    assert not valid[11:18, 11:18].any()
    assert valid[22:, 22:].all() and valid[:8, :8].all()
    assert (found[:, valid] == 100).all()


def test_damaged_pixels_are_named(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (1, 256, 256), dtype=np.uint8)
    profile = {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate"}
    path = write_raster(tmp_path / "a.tif", values, grid(256, 256), **profile)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4000] = b"\0" * 4000
    path.write_bytes(data)
    with (
        aligned_reader(path, grid(256, 256), "image") as reader,
        pytest.raises(RasterError, match=r"a\.tif: pixels cannot be read in rows .*damaged") as caught,
    ):
        reader.read(Window(0, 0, 256, 256))
    assert "\n" not in str(caught.value)


def test_layers_without_crs_cannot_be_warped(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", np.zeros((1, 8, 8), np.uint8), Grid(None, Affine(2, 0, 5, 0, -2, 5), 8, 8))
    with pytest.raises(GridMismatchError, match="a CRS is missing"), aligned_reader(path, grid(8, 8), "image"):
        pass


def test_the_cache_of_gdal_is_no_share_of_the_memory() -> None:
    with gdal_env():
        assert get_gdal_config("GDAL_CACHEMAX") == BLOCK_CACHE <= 2**27


def test_missing_and_foreign_files_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(RasterError, match="no such file"):
        describe_raster(tmp_path / "none.tif")
    foreign = tmp_path / "text.tif"
    foreign.write_text("not a raster")
    with pytest.raises(RasterError, match="cannot be read as a raster"):
        describe_raster(foreign)


@pytest.mark.parametrize(("left", "zone"), [(179.99, 32601), (-180.01, 32660), (255.0, 32613)])
@pytest.mark.parametrize("kind", ["image", "sar"])
def test_longitudes_beyond_180_are_found(tmp_path: Path, left: float, zone: int, kind: str) -> None:
    """A raster across the dateline, or one that counts from 0 to 360, is read whole in UTM."""
    degrees = Affine(1e-4, 0, left, 0, -1e-4, 36.1)
    values = np.broadcast_to(np.arange(200, dtype=np.float32) - 220, (1, 100, 200)).copy()
    path = write_raster(tmp_path / "a.tif", values, Grid(CRS.from_epsg(4326), degrees, 100, 200))
    where = describe_raster(path).grid
    assert local_crs(where).to_epsg() in (zone, 32601, 32660)
    target = covering(where.bounds_in(CRS.from_epsg(zone)), CRS.from_epsg(zone), 9.0)
    with aligned_reader(path, target, kind) as reader:
        found, valid = reader.read(Window(0, 0, target.width, target.height))
    assert valid.mean() > 0.9
    row = found[0, target.height // 2]
    assert row[valid[target.height // 2]][[3, -4]] == pytest.approx([-216, -25], abs=3)


@pytest.mark.parametrize(("left", "top"), [(500_000, 800_000), (0, 384), (-1000, 50)])
@pytest.mark.filterwarnings("error")
def test_coordinates_that_are_no_degrees_are_told(tmp_path: Path, left: float, top: float) -> None:
    """Metres under a geographic CRS, which whoever assigned it took for the right one."""
    values, where = np.zeros((1, 40, 40), np.uint8), Affine(10, 0, left, 0, -10, top)
    path = write_raster(tmp_path / "metres.tif", values, Grid(CRS.from_epsg(4326), where, 40, 40))
    with pytest.raises(
        RasterError, match=r"metres\.tif: lies at x .*, which are no longitudes and latitudes as its CRS EPSG:4326"
    ):
        describe_raster(path)


@pytest.mark.parametrize(
    ("code", "left", "top", "side"),
    [(4326, 0, 105, 5.25), (4326, -360, 90, 4.5), (4807, -200, 100.25, 5), (4326, 170, 128, 6)],
)
def test_grids_that_reach_beyond_the_poles_and_the_dateline_are_read(
    tmp_path: Path, code: int, left: float, top: float, side: float
) -> None:
    """Cells centred on a pole, tiles of a whole number, grads."""
    where = Grid(CRS.from_epsg(code), Affine(side, 0, left, 0, -side, top), 40, 40)
    assert (
        describe_raster(write_raster(tmp_path / "a.tif", np.zeros((1, 40, 40), np.uint8), where)).grid.bounds[0] == left
    )


def test_heights_of_a_crs_do_not_count_in_the_size_of_a_pixel() -> None:
    """PROJ lacks the grid of this geoid, as those of many older elevation models."""
    crs = CRS.from_proj4("+proj=utm +zone=33 +ellps=GRS80 +geoidgrids=egm96_15.gtx +vunits=m")
    assert Grid(crs, Affine(2, 0, 5e5, 0, -2, 5e6), 10, 10).pixel_size == pytest.approx((2.0, 2.0), rel=1e-3)


@pytest.mark.parametrize(("code", "left", "top"), [("EPSG:4326", 9, 95), ("EPSG:32633", 5e8, 5e8)])
def test_a_grid_beside_the_earth_is_told_from_a_crs_without_one(code: str, left: float, top: float) -> None:
    with pytest.raises(RasterError, match=f"the grid's centre has no position on the earth in {code}"):
        _ = Grid(CRS.from_string(code), Affine(1e-3, 0, left, 0, -1e-3, top), 10, 10).pixel_size


def test_bilinear_looks_at_four_pixels_wherever_the_window_lies(tmp_path: Path) -> None:
    """A grid a tenth coarser: GDAL alone would smooth, by block as much as the block seems to shrink."""
    values = np.random.default_rng(0).integers(0, 60_000, (1, 700, 700), dtype=np.uint16)
    base = grid(700, 700)
    write_raster(tmp_path / "image.tif", values, base)
    place = base.transform @ Affine.translation(3.3, 2.6) @ Affine.rotation(1.5) @ Affine.scale(1.1)
    wanted = Grid(UTM, place, 560, 600)
    with aligned_reader(tmp_path / "image.tif", wanted, "image") as reader:
        found, valid = reader.read(Window(0, 0, 600, 560))
    rows, cols = np.mgrid[0:560, 0:600] + 0.5
    at_cols, at_rows = ~base.transform @ place @ (cols, rows)
    row, col = np.floor(at_rows - 0.5).astype(int), np.floor(at_cols - 0.5).astype(int)
    inside = (row >= 0) & (col >= 0) & (row < 699) & (col < 699)
    row, col, down, along = row[inside], col[inside], (at_rows - 0.5 - row)[inside], (at_cols - 0.5 - col)[inside]
    here = values[0].astype(float)
    upper = here[row, col] * (1 - along) + here[row, col + 1] * along
    lower = here[row + 1, col] * (1 - along) + here[row + 1, col + 1] * along
    assert valid[inside].all() and inside.mean() > 0.9
    assert (
        np.abs(found[0][inside] - (upper * (1 - down) + lower * down)).max() < 200
    )  # of 60,000: a thousandth of a pixel


def test_pixels_that_coincide_across_the_dateline_are_copied(tmp_path: Path) -> None:
    """Longitudes from 0 to 360 on a grid from -180 to 180: whole pixels apart, but told in another CRS."""
    values = np.random.default_rng(0).normal(size=(1, 90, 180)).astype(np.float32)
    write_raster(tmp_path / "east.tif", values, Grid(CRS.from_epsg(4326), Affine(2, 0, 0, 0, -2, 90), 90, 180))
    with aligned_reader(
        tmp_path / "east.tif", Grid(CRS.from_epsg(4326), Affine(2, 0, 0, 0, -2, 90), 90, 90), "image"
    ) as reader:
        found, valid = reader.read(Window(0, 0, 90, 90))
    assert valid.mean() > 0.97
    assert np.allclose(found[0][valid], values[0, :, :90][valid], atol=2e-3)


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        ("nan beside a value", "image"),
        *itertools.product(["a value for each band", "a mask beside a value"], ["image", "classes"]),
    ],
)
def test_a_warp_loses_what_is_not_data_and_no_more(tmp_path: Path, form: str, kind: str) -> None:
    """Half a pixel beside a hole of two statements: the pixels that see one of its pixels may miss, no others."""
    dtype = np.float32 if form == "nan beside a value" else np.uint8
    values = np.full((2, 40, 40), 100, dtype)
    path = tmp_path / "layer.tif"
    values[:, 10, 10] = np.nan if form == "nan beside a value" else 7
    values[1, 30, 30] = 9 if form == "a value for each band" else 100
    base, shifted = grid(40, 40), grid(40, 40, left=500_000.8, top=5_299_999.2)
    if form == "a value for each band":
        for number in (1, 2):
            write_raster(tmp_path / f"{number}.tif", values[number - 1 : number], base, nodata=7 if number == 1 else 9)
        values[1, 10, 10] = 100
        path = _stacked(tmp_path)
    else:
        mask = np.ones((40, 40), bool)
        mask[20, 20] = False
        write_raster(path, values, base, nodata=9 if form == "nan beside a value" else 7)
        if form == "a mask beside a value":
            with rasterio.open(path, "r+") as dataset:
                dataset.write_mask(mask)
    with aligned_reader(path, shifted, kind) as reader:
        found, valid = reader.read(Window(0, 0, 40, 40))
    assert not valid[10, 10] and valid[1:8, 1:38].all()
    assert valid.sum() >= 39 * 39 - 3 * 9
    assert (found[:, valid] == 100).all()


def _stacked(folder: Path) -> Path:
    """A virtual raster of two files that say no data by different values."""
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{number}"><NoDataValue>{value}</NoDataValue><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">{number}.tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        "</VRTRasterBand>"
        for number, value in ((1, 7), (2, 9))
    )
    with rasterio.open(folder / "1.tif") as first:
        place = ", ".join(str(value) for value in first.transform.to_gdal())
        text = f'<VRTDataset rasterXSize="40" rasterYSize="40"><SRS>{first.crs.to_wkt()}</SRS>'
    path = folder / "both.vrt"
    path.write_text(f"{text}<GeoTransform>{place}</GeoTransform>{bands}</VRTDataset>")
    return path


def test_ground_that_has_no_place_in_a_crs_is_no_error() -> None:
    """A raster of the world, most of which a projection of one hemisphere does not show."""
    world = Grid(CRS.from_epsg(4326), Affine(10, 0, -180, 0, -5, 90), 36, 36)
    view = CRS.from_string("+proj=geos +h=35785831 +lon_0=0 +sweep=y +type=crs")
    left, bottom, right, top = world.bounds_in(view)
    assert -6e6 < left < -4e6 and 4e6 < right < 6e6 and bottom < -4e6 and top > 4e6
    xs, ys = positions_in(CRS.from_epsg(4326), view, [0.0, 180.0], [0.0, 0.0])
    assert np.isfinite(xs).tolist() == [True, False] and np.isfinite(ys).tolist() == [True, False]
