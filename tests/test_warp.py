"""Rule 5 in warps: what is valid does not depend on how a file says it, nor on what stands where nothing is."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from conftest import UTM, grid, write_raster
from pyproj import Transformer
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.warp import transform, transform_bounds
from rasterio.windows import Window

from geop2p.config import Kind
from geop2p.raster import blockwise
from geop2p.raster.aligned import COARSEST, aligned_reader
from geop2p.raster.blockwise import READ_BYTES, SIDE, Blockwise, block_side
from geop2p.raster.class_table import ClassTable
from geop2p.raster.encoding import Array, MapClass, Mask
from geop2p.raster.grid import Grid
from geop2p.raster.reading import gdal_env
from geop2p.raster.reproject import FLOAT_BYTES, FLOATS, MARGIN, Resampler

SIZE = 200  # pixels of 2 m
RGB = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
WEST, _, _, NORTH = transform_bounds(UTM, CRS.from_epsg(3035), *grid(SIZE, SIZE).bounds)
GRIDS = {
    "finer": grid(300, 300, 1.3),
    "shifted": Grid(UTM, Affine(2, 0, 500_000.9, 0, -2, 5_299_999.3), 190, 190),
    "coarser": grid(50, 50, 8.0),
    "another CRS": Grid(CRS.from_epsg(3035), Affine(2, 0, WEST - 10, 0, -2, NORTH + 10), 220, 220),
}


def look(path: Path, where: Grid, kind: Kind = "image", colors: ClassTable | None = None) -> tuple[Array, Mask]:
    with aligned_reader(path, where, kind, colors=colors) as reader:
        return reader.read(Window(0, 0, where.width, where.height))


def written(folder: Path, values: np.ndarray, valid: np.ndarray, told: str) -> Path:
    """Values whose holes, (rows, cols) or (bands, rows, cols), are told in one way, or in several."""
    hidden, everywhere = np.broadcast_to(~valid, values.shape), valid.all(axis=0) if valid.ndim == 3 else valid
    nothing = {"nodata": 0.0, "nan": np.nan, "undeclared": np.nan, "-9999": -9999.0}
    values, profile, mask = values.copy(), {}, None
    if told in nothing:
        values[hidden] = nothing[told]
        profile = {} if told == "undeclared" else {"nodata": nothing[told]}
    elif told == "nan and -9999":
        values[hidden] = np.where(np.arange(hidden.sum()) % 2, np.nan, -9999)
        profile = {"nodata": -9999}
    elif told in ("mask and nodata", "mask and nan"):
        upper = np.arange(SIZE)[:, None] < SIZE // 2
        values[hidden & ~upper] = 0 if told == "mask and nodata" else np.nan
        values[hidden & upper] = 77
        profile, mask = {"nodata": 0} if told == "mask and nodata" else {}, everywhere | ~upper
    else:
        values[hidden], mask = 77, everywhere
    return write_raster(folder / f"{told}.tif", values, grid(SIZE, SIZE), mask=mask, **profile)


@pytest.mark.parametrize("where", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize(
    ("kind", "bands", "dtype", "ways"),
    [
        ("image", 1, "uint8", ["mask", "nodata", "mask and nodata"]),
        ("image", 3, "uint16", ["mask", "nodata", "mask and nodata"]),
        ("classes", 1, "uint8", ["mask", "nodata", "mask and nodata"]),
        ("elevation", 1, "float32", ["mask", "nan", "undeclared", "-9999", "nan and -9999", "mask and nan"]),
        ("image", 2, "float32", ["mask", "nan", "undeclared", "-9999", "nan and -9999", "mask and nan"]),
    ],
)
def test_what_is_valid_in_a_warp_does_not_depend_on_how_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind, bands: int, dtype: str, ways: list[str], where: Grid
) -> None:
    """Specks and a hole; 77 stands under masks alone. Arrays are read in small blocks."""
    monkeypatch.setattr(blockwise, "READ_BYTES", 2**19)
    random = np.random.default_rng(0)
    values = random.integers(1, 6, (bands, SIZE, SIZE)).astype(dtype)
    valid = random.random((SIZE, SIZE)) > 0.02
    valid[40:90, 60:130] = False
    found = {told: look(written(tmp_path, values, valid, told), where, kind) for told in ways}
    expected, there = found["mask"]
    assert 0 < (~there).sum() < there.sum() and expected[:, there].max() <= 5
    for told, (read, known) in found.items():
        assert np.array_equal(known, there), told
        apart = np.abs(read.astype(float) - expected)[:, there]
        assert read[:, known].max() <= 5 and (apart > 1e-3).mean() < 0.005, told  # halves go up or down by a last bit


@pytest.mark.parametrize("where", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize(("dtype", "told"), [("uint8", "nodata"), ("float32", "nan"), ("float32", "undeclared")])
def test_a_pixel_with_a_hole_in_one_band_is_a_hole(tmp_path: Path, where: Grid, dtype: str, told: str) -> None:
    random = np.random.default_rng(0)
    values = random.integers(1, 6, (2, SIZE, SIZE)).astype(dtype)
    valid = random.random((2, SIZE, SIZE)) > 0.01
    valid[0, 40:90, 60:130] = False
    valid[1, 80:120, 20:70] = False
    read, there = look(written(tmp_path, values, valid, told), where)
    expected, known = look(written(tmp_path, values, valid, "mask"), where)
    assert np.array_equal(there, known)
    assert np.abs(read.astype(float) - expected)[:, there].max() <= 1e-4


@pytest.mark.parametrize("where", GRIDS.values(), ids=GRIDS)
def test_masked_ground_of_a_drawn_map_is_no_class(tmp_path: Path, where: Grid) -> None:
    """In 8 bits what means nothing would be the class 255."""
    classes = (MapClass(1, "water", (40, 90, 160)), MapClass(255, "road", (255, 0, 255)))
    colors = np.broadcast_to(np.array(classes[0].color, np.uint8)[:, None, None], (3, SIZE, SIZE))
    valid = np.ones((SIZE, SIZE), bool)
    valid[40:90, 60:130] = False
    path = write_raster(tmp_path / "drawn.tif", colors, grid(SIZE, SIZE), mask=valid, photometric="RGB")
    _, known = look(written(tmp_path, np.ones((1, SIZE, SIZE), np.uint8), valid, "mask"), where, "classes")
    read, there = look(path, where, "classes", ClassTable("table.csv", classes))
    assert np.array_equal(there, known) and not there.all() and (read[0][there] == 1).all()


@pytest.mark.parametrize(
    ("bands", "dtype", "profile"),
    [
        (3, "uint8", {}),
        (3, "uint8", {"nodata": 0}),
        (2, "int16", {"nodata": -32768}),
        (3, "float32", {}),
        (1, "float32", {"nodata": -9999}),
    ],
)
def test_ground_around_a_pole_is_read(tmp_path: Path, bands: int, dtype: str, profile: dict[str, float]) -> None:
    """Its outline goes around the pole, which no outline of a block comes near."""
    world = Grid(CRS.from_epsg(4326), Affine(1, 0, -180, 0, -1, 90), 180, 360)
    path = write_raster(tmp_path / "world.tif", np.full((bands, 180, 360), 7, dtype), world, **profile)
    for pixel, side in ((20e3, 300), (200e3, 30)):
        corner = pixel * side / 2
        where = Grid(CRS.from_epsg(3995), Affine(pixel, 0, -corner, 0, -pixel, corner), side, side)
        values, valid = look(path, where)
        assert valid.all() and (values == 7).all()


@pytest.mark.parametrize("top", [1, 255, 65535])
def test_an_alpha_band_of_any_type_hides_where_it_is_0(tmp_path: Path, top: int) -> None:
    dtype = "uint8" if top < 256 else "uint16"
    valid = np.random.default_rng(0).random((SIZE, SIZE)) > 0.1
    for kind in {dtype, "uint16"}:
        values = np.stack([*np.full((3, SIZE, SIZE), 5, kind), np.where(valid, top, 0).astype(kind)])
        path = write_raster(tmp_path / f"{kind}.tif", values, grid(SIZE, SIZE))
        with rasterio.open(path, "r+") as dataset:
            dataset.colorinterp = [*RGB, ColorInterp.alpha]
        for where in GRIDS.values():
            _, known = look(written(tmp_path, np.ones((1, SIZE, SIZE), np.uint8), valid, "mask"), where)
            read, there = look(path, where)
            assert np.array_equal(there, known) and (read[:, there] == 5).all()


@pytest.mark.parametrize("told", ["mask", "nodata", "mask and nodata", "-9999", "nan"])
def test_overviews_that_are_made_by_one_statement_are_no_source_for_two(tmp_path: Path, told: str) -> None:
    valid, dtype = np.random.default_rng(0).random((SIZE, SIZE)) > 0.1, "uint8" if "nodata" in told else "float32"
    path = written(tmp_path, np.full((1, SIZE, SIZE), 5, dtype), valid, told)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4], Resampling.average)
    for where in (grid(40, 40, 10.0), grid(50, 50, 8.0)):
        values, known = look(path, where)
        assert known.mean() > 0.99 and np.allclose(values[:, known], 5)


def test_the_mask_of_a_single_band_is_applied(tmp_path: Path) -> None:
    write_raster(tmp_path / "map.tif", np.full((1, 30, 30), 5, np.uint8), grid(30, 30))
    write_raster(
        tmp_path / "mask.tif", np.repeat([[0], [255]], 15, 0)[None].repeat(30, 2).astype(np.uint8), grid(30, 30)
    )
    band = '<SimpleSource><SourceFilename relativeToVRT="1">{}</SourceFilename></SimpleSource>'
    transform = ", ".join(map(str, grid(30, 30).transform.to_gdal()))
    (tmp_path / "in.vrt").write_text(
        f'<VRTDataset rasterXSize="30" rasterYSize="30"><SRS>EPSG:32632</SRS><GeoTransform>{transform}</GeoTransform>'
        f'<VRTRasterBand dataType="Byte" band="1">{band.format("map.tif")}<MaskBand><VRTRasterBand dataType="Byte">'
        f"{band.format('mask.tif')}</VRTRasterBand></MaskBand></VRTRasterBand></VRTDataset>"
    )
    for where in (grid(30, 30), grid(30, 30, left=500_000.5)):
        _, there = look(tmp_path / "in.vrt", where)
        assert not there[:15].any() and there[15:, :29].all()


@pytest.mark.parametrize("way", ["gdal", "arrays", "points"])
@pytest.mark.parametrize("pixel", [5.0, 60.0])
def test_positions_are_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, pixel: float) -> None:
    """A raster of its own columns and rows is read where PROJ says, whichever way it is warped."""
    side, crs = 900, CRS.from_epsg(4326)
    where = Grid(crs, Affine(pixel * 1.2e-5, 0, 9.0, 0, -pixel * 0.9e-5, 48.0), side, side)
    values = np.stack(np.meshgrid(np.arange(side), np.arange(side))).astype(np.float64)
    values = values[:1] if way == "gdal" else values  # floats of several bands are warped as arrays
    path, profile = tmp_path / "in.tif", {"count": len(values), "height": side, "width": side, "dtype": "float64"}
    if way == "points":
        corners = [(row, col, *(where.transform @ (col, row))) for row in (0, side) for col in (0, side)]
        profile |= {"gcps": [GroundControlPoint(row, col, x, y) for row, col, x, y in corners], "crs": crs}
    else:
        profile |= {"transform": where.transform, "crs": crs, "nodata": -9999.0 if way == "arrays" else None}
    with gdal_env(), rasterio.open(path, "w", driver="GTiff", **profile) as dataset:
        dataset.write(values)
    (left,), (top,) = transform(crs, UTM, [9.0 + 120 * where.transform.a], [48.0 - 120 * pixel * 0.9e-5])
    wanted = Grid(UTM, Affine(pixel, 0, left, 0, -pixel, top), 512, 512)
    used: list[bool] = []
    monkeypatch.setattr(
        Resampler, "__call__", lambda *given, call=Resampler.__call__: used.append(True) or call(*given)
    )
    read, valid = look(path, wanted)
    assert bool(used) == (way != "gdal")
    xs, ys = wanted.transform @ tuple(np.stack(np.meshgrid(np.arange(512) + 0.5, np.arange(512) + 0.5)).reshape(2, -1))
    east, north = Transformer.from_crs(32632, 4326, always_xy=True).transform(xs, ys)
    exact = np.array(~where.transform @ (east, north)).reshape(2, 512, 512)[: len(values)] - 0.5
    assert valid.mean() > 0.9 and np.abs(read - exact)[:, valid].max() < 0.003


def test_blocks_of_coarse_grids_read_bounded_pieces() -> None:
    """Whatever a pixel of the grid spans."""
    where = grid(4000, 4000)
    for ratio, bands in itertools.product((0.1, 1, 3.9, 4.1, 30, COARSEST), (1, 3, 12, 60)):
        side = block_side(ratio, bands * FLOAT_BYTES, MARGIN)
        assert side == SIDE or bands * ratio > 3
        wanted = grid(side, side, 2 * ratio, left=503_000.0, top=5_297_000.0)
        asked = Resampler(None, bands, "uint8", (4000, 4000), where, None, wanted, FLOATS, Resampling.average)
        window = asked._window_around(wanted)
        assert window is not None and window.height * window.width * bands * FLOAT_BYTES < 1.1 * READ_BYTES
    asked: list[tuple[int, int]] = []

    def read(window: Window) -> tuple[Array, Mask]:
        asked.append((int(window.height), int(window.width)))
        rows, cols = np.mgrid[: window.height, : window.width]
        values = (window.row_off + rows) * 1000 + window.col_off + cols
        return values[None].astype(np.int32), np.ones(values.shape, bool)

    whole = Blockwise(read, (100, 150), 1, "int32")(Window(0, 0, 150, 100))[0]
    asked.clear()
    assert np.array_equal(Blockwise(read, (100, 150), 1, "int32", 32)(Window(5, 7, 120, 90))[0], whole[:, 7:97, 5:125])
    assert max(asked) == (32, 32)
