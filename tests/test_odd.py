"""Every oddity of real files, in a small twin: it gives the right chips or one clear line that says why not."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from conftest import Identity, class_map, grid, image_encoding, write_raster
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.windows import Window

import geop2p.mosaic.mosaic as mosaic_module
from geop2p import PredictConfig, TileConfig, check, evaluate_mosaic, predict, tile
from geop2p.errors import GeoP2PError
from geop2p.raster.aligned import aligned_reader
from geop2p.raster.grid import Grid
from geop2p.raster.reading import describe_raster
from geop2p.tiling.chips import ChipSet
from geop2p.tiling.geotiff import chip_path

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

HEIGHT, WIDTH, SIZE = 72, 90, 32
UTM = CRS.from_epsg(32618)
DEGREES = CRS.from_epsg(4326)
NORTH_UP = Affine(300, 0, 400_000, 0, -300, 2_800_000)
TURNED = Affine.translation(500_000, 5_749_000) @ Affine.rotation(45) @ Affine.scale(2.5, -2.5)
DOWN, RIGHT = 1, 2  # pixels that the shifted copy is moved by
HOLE = np.s_[10:30, 5:25]


def noise(dtype: str, bands: int = 1, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Values that tell one pixel from its neighbours."""
    values = np.random.default_rng(0).integers(1, 250, (bands, height, width))
    return values.astype(dtype)


def write(
    path: Path, values: np.ndarray, crs: CRS | None = UTM, transform: Affine | None = NORTH_UP, **profile: Any
) -> None:
    profile |= {"count": len(values), "height": values.shape[1], "width": values.shape[2], "dtype": values.dtype}
    profile |= {} if crs is None else {"crs": crs}
    profile |= {} if transform is None else {"transform": transform}
    with rasterio.open(path, "w", driver="GTiff", **profile) as dataset:
        dataset.write(values)


def with_hole(dtype: str, hole: float, bands: int = 1) -> np.ndarray:
    values = noise(dtype, bands)
    values[:, *HOLE] = hole
    return values


def gcps_only(path: Path) -> None:
    points = [
        GroundControlPoint(row, col, 76 + col / 900 + row / 7000, 11 - row / 900 + col / 9000)
        for row in (0, 24, 48, 72) for col in (0, 30, 60, 90)
    ]  # fmt: skip
    write(path, noise("uint16"), None, None)
    with rasterio.open(path, "r+") as dataset:
        dataset.gcps = (points, CRS.from_epsg(4326))


def palette(path: Path) -> None:
    values = np.random.default_rng(0).choice([0, 11, 95], (1, HEIGHT, WIDTH)).astype(np.uint8)
    write(path, values, CRS.from_epsg(5070), Affine(3000, 0, 3_000_000, 0, -3000, 200_000))
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {0: (0, 0, 0), 11: (70, 100, 160), 95: (110, 160, 190)})


def masked(path: Path, internal: bool) -> None:
    valid = np.ones((HEIGHT, WIDTH), bool)
    valid[HOLE] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal):
        write(path, noise("uint8", 3), photometric="RGB")
        with rasterio.open(path, "r+") as dataset:
            dataset.write_mask(valid)
    assert Path(f"{path}.msk").exists() != internal


def alpha(path: Path, dtype: str, order: tuple[str, ...]) -> None:
    values = np.concatenate([noise(dtype, 3), np.full((1, HEIGHT, WIDTH), np.iinfo(dtype).max, dtype)])
    values[3, *HOLE] = 0
    write(path, values, CRS.from_epsg(26913), Affine(0.15, 0, 519_467, 0, -0.15, 4_311_669))
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [ColorInterp[name] for name in (*order, "alpha")]


def corrupt(path: Path) -> None:
    write(path, noise("uint8", 3), photometric="YCBCR", compress="jpeg", tiled=True, blockxsize=32, blockysize=32)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def overwritten(path: Path) -> None:
    write(path, noise("uint8"), compress="deflate", blockysize=8)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 2000] = b"\0" * 2000
    path.write_bytes(data)


def scaled(path: Path) -> None:
    crs = CRS.from_proj4("+proj=utm +zone=10 +a=6378137 +b=6356752 +units=m +no_defs")
    write(path, with_hole("int16", 0, 2), crs, Affine(428.9, 0, 300_000, 0, -428.9, 4_200_000), nodata=0)
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (0.0001, 0.01), (0.0, -5.0)


def dateline(path: Path) -> None:
    write(path, noise("uint16"), CRS.from_epsg(32660), Affine(5e3, 0, 6e5, 0, -5e3, 5e6))


def eckert(path: Path) -> None:
    values, crs = with_hole("float64", -32768), CRS.from_epsg(8858)
    write(path, values, crs, Affine(120, 0, 3e6, 0, -120, -3e6), nodata=-32768)


def nans(path: Path) -> None:
    values = with_hole("float32", 0)
    values[0, 40:44, 50:60] = np.nan
    write(path, values, nodata=0)


@dataclass(frozen=True)
class Odd:
    """An odd file.

    Attributes:
        make: Writes it.
        message: What the one line says that refuses it; empty if it gives chips.
        pixel_grid: Whether it needs that setting.
        holes: Whether HOLE is not valid.
    """

    make: Callable[[Path], None]
    message: str = ""
    pixel_grid: bool = False
    holes: bool = False


NO_CRS = r"has no CRS, so its place on the ground is unknown; assign one .*--pixel-grid"
LOCAL = CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1,AUTHORITY["EPSG","9001"]],AXIS["x",EAST],AXIS["y",NORTH]]')
OLD = CRS.from_proj4("+proj=utm +zone=25 +south +ellps=GRS80 +towgs84=0,0,0,0,0,0,0 +units=m +no_defs")
SMALL_GRID = Affine(100, 0, 0, 0, 100, 0)
NOT_SQUARE = Affine(3, 0, -175, 0, -1.5, 80)

FILES = {
    "rotated": Odd(lambda path: write(path, noise("uint8"), CRS.from_epsg(32631), TURNED)),
    "rotated without CRS": Odd(lambda path: write(path, noise("uint8"), None, TURNED), NO_CRS),
    "rotated without CRS by pixel": Odd(lambda path: write(path, noise("uint8"), None, TURNED), pixel_grid=True),
    "control points only": Odd(gcps_only),
    "no CRS": Odd(lambda path: write(path, noise("uint8"), None, None), NO_CRS),
    "no CRS by pixel": Odd(lambda path: write(path, noise("uint8"), None, None), pixel_grid=True),
    "int64 without CRS": Odd(lambda path: write(path, noise("int64"), None, None), pixel_grid=True),
    "palette": Odd(palette),
    "internal mask": Odd(lambda path: masked(path, True), holes=True),
    "external mask": Odd(lambda path: masked(path, False), holes=True),
    "alpha": Odd(lambda path: alpha(path, "uint8", ("red", "green", "blue")), holes=True),
    "16-bit alpha, blue first": Odd(lambda path: alpha(path, "uint16", ("blue", "green", "red")), holes=True),
    "complex": Odd(
        lambda path: write(path, noise("complex64"), CRS.from_epsg(32631), TURNED), "type complex64; expected one real"
    ),
    "all nodata": Odd(lambda path: write(path, noise("uint16", 4) * 0, nodata=0), "no window of 32 pixels has 30%"),
    "truncated JPEG": Odd(corrupt, r"cannot be read( in rows| as a raster)"),
    "damaged block": Odd(overwritten, r"cannot be read( in rows| as a raster)"),
    "not square": Odd(lambda path: write(path, noise("float32"), DEGREES, NOT_SQUARE)),
    "across the dateline": Odd(dateline),
    "beyond 180 degrees": Odd(lambda path: write(path, noise("uint8"), DEGREES, Affine(0.01, 0, 179.6, 0, -0.01, 36))),
    "NaN pixels and nodata 0": Odd(nans, holes=True),
    "NaN nodata, 3x2": Odd(
        lambda path: write(path, noise("float32", 1, 2, 3), None, SMALL_GRID, nodata=np.nan), NO_CRS
    ),
    "NaN nodata, 3x2 by pixel": Odd(
        lambda path: write(path, noise("float32", 1, 2, 3), None, SMALL_GRID, nodata=np.nan),
        "no window of 32 pixels has 30% valid ground on a grid of 3x2 no CRS", pixel_grid=True,
    ),
    "2x2": Odd(
        lambda path: write(path, noise("uint16", 1, 2, 2), CRS.from_string("ESRI:102039")),
        "no window of 32 pixels has 30% valid ground on a grid of 2x2 ESRI:102039",
    ),
    "scale and offset, unknown datum": Odd(scaled, holes=True),
    "old CRS": Odd(lambda path: write(path, noise("uint8", 6), OLD)),
    "local CRS": Odd(lambda path: write(path, noise("uint8"), LOCAL), r"\.tif: .* has no relation to the earth"),
    "nodata -32768 in Eckert IV": Odd(eckert, holes=True),
}  # fmt: skip


def shifted(path: Path) -> Path:
    """A copy that lies whole pixels further down and right."""
    copy = path.with_name("shifted.tif")
    shutil.copy(path, copy)
    if Path(f"{path}.msk").exists():
        shutil.copy(f"{path}.msk", f"{copy}.msk")
    with rasterio.open(copy, "r+") as dataset:
        if dataset.gcps[0]:
            points, crs = dataset.gcps
            moved = [GroundControlPoint(point.row - DOWN, point.col - RIGHT, point.x, point.y) for point in points]
            dataset.gcps = (moved, crs)
        elif dataset.crs is not None:
            dataset.transform = dataset.transform @ Affine.translation(RIGHT, DOWN)
    return copy


def truth(path: Path, down: int, right: int) -> tuple[np.ndarray, np.ndarray]:
    """What a file holds by GDAL itself, moved and padded by 64: values without alpha, and where all bands are valid."""
    with rasterio.open(path) as dataset:
        bands = [band for band in dataset.indexes if dataset.colorinterp[band - 1] != ColorInterp.alpha]
        values, valid = dataset.read(bands), (dataset.read_masks(bands) > 0).all(axis=0)
    valid &= np.isfinite(values).all(axis=0)
    margin = ((64 + down, 64 - down), (64 + right, 64 - right))
    return np.pad(values, ((0, 0), *margin)), np.pad(valid, margin)


@pytest.mark.parametrize("against", ["itself", "a shifted copy"])
@pytest.mark.parametrize("name", FILES)
def test_odd_files_give_the_right_chips_or_one_clear_line(tmp_path: Path, name: str, against: str) -> None:
    odd, path, chips = FILES[name], tmp_path / "odd.tif", tmp_path / "chips"
    odd.make(path)
    readable = odd.message == "" or "cannot be read" not in odd.message
    is_moved = against != "itself" and readable
    source = shifted(path) if is_moved else path
    config = TileConfig(size=SIZE, split="1:0:0", min_valid=0.3, pixel_grid=odd.pixel_grid)
    if odd.message:
        message = "no common ground" if is_moved and name == "2x2" else odd.message
        with pytest.raises(GeoP2PError, match=message) as caught:
            tile(source, path, chips, config)
        assert "\n" not in str(caught.value) and not chips.exists()
        return
    tile(source, path, chips, config)
    assert check(chips) == []
    chipset = ChipSet.open(chips)
    index = chipset.index()
    assert len(index)
    if describe_raster(path).by_points:
        assert len(index) >= 4 and (is_moved or all(_same(chipset, row) for row in index.itertuples()))
        return
    step = (DOWN, RIGHT) if is_moved and not odd.pixel_grid else (0, 0)
    (values, valid), (other, there) = truth(path, 0, 0), truth(path, *step)
    assert bool(odd.holes) == bool((~valid[64 : 64 + HEIGHT, 64 : 64 + WIDTH])[HOLE].all())
    origin = chipset.scenes[0].grid.offset_in(describe_raster(path).grid)
    assert origin == (step if name != "rotated" else (0, 0))  # the chips begin where both lie, as far as bounds tell
    ends = np.zeros_like(valid)
    ends[: 64 + HEIGHT, : 64 + WIDTH] = True
    for row in index.itertuples():
        chip = chipset.read(row.split, row.id)
        top, left = row.row_off + origin[0] + 64, row.col_off + origin[1] + 64
        at = np.s_[top : top + SIZE, left : left + SIZE]
        assert np.array_equal(chip.valid, (valid & there & ends)[at])
        assert np.array_equal(chip.target[:, chip.valid], values[:, *at][:, chip.valid])
        assert np.array_equal(chip.source[:, chip.valid], other[:, *at][:, chip.valid])


def _same(chipset: ChipSet, row: Any) -> bool:
    chip = chipset.read(row.split, row.id)
    return np.array_equal(chip.source, chip.target)


def test_chips_of_an_odd_file_say_where_they_are(tmp_path: Path) -> None:
    """A program that knows nothing of geop2p finds each chip on its ground."""
    FILES["rotated"].make(tmp_path / "odd.tif")
    tile(tmp_path / "odd.tif", tmp_path / "odd.tif", tmp_path / "chips", TileConfig(size=SIZE, split="1:0:0"))
    chipset = ChipSet.open(tmp_path / "chips")
    for row in chipset.index().itertuples():
        with rasterio.open(chip_path(chipset.folder, "target", row.split, row.id)) as chip:
            expected = describe_raster(tmp_path / "odd.tif").grid.window(Window(row.col_off, row.row_off, SIZE, SIZE))
            assert chip.transform.almost_equals(expected.transform, 1e-6)


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("nodata", [None, 0])
@pytest.mark.parametrize(("dtype", "bands"), [("uint8", 1), ("uint8", 3), ("float32", 1)])
def test_a_pixel_is_valid_where_every_statement_of_the_file_says_so(
    tmp_path: Path, mask: bool, alpha: bool, nodata: int | None, dtype: str, bands: int
) -> None:
    expected, values = np.ones((40, 40), bool), np.full((bands + alpha, 40, 40), 9, dtype)
    values[0, :10] = 0
    expected[:10] = nodata is None
    if alpha:
        values[-1] = 255
        values[-1, :, 30:] = 0
        expected[:, 30:] = False
    profile = {"alpha": "yes"} if alpha else {}
    where = grid(40, 40)
    visible = np.arange(40) >= 10
    file = write_raster(
        tmp_path / "a.tif", values, where, mask=np.tile(visible, (40, 1)) if mask else None, nodata=nodata, **profile
    )
    expected &= visible if mask else True
    with aligned_reader(file, where, "image") as reader:
        assert np.array_equal(reader.read(Window(0, 0, 40, 40))[1], expected)
    shifted = grid(30, 30, left=500_003.0, top=5_299_997.0)  # half a pixel off
    around = np.stack([expected[row : row + 30, col : col + 30] for row in (1, 2) for col in (1, 2)])
    for kind in ("sar", "image"):
        with aligned_reader(file, shifted, kind) as reader:
            valid = reader.read(Window(0, 0, 30, 30))[1]
        assert valid[around.all(axis=0)].all() and not valid[~around.any(axis=0)].any()


def test_a_geopackage_may_hold_a_raster(tmp_path: Path) -> None:
    """Told from one of features by what it says of itself, not by its name."""
    where = grid(64, 64)
    image = np.random.default_rng(0).integers(0, 255, (3, 64, 64), dtype=np.uint8)
    with rasterio.open(
        tmp_path / "image.gpkg", "w", driver="GPKG", count=3, dtype="uint8", height=64, width=64, crs=where.crs,
        transform=where.transform, TILE_FORMAT="PNG", BLOCKSIZE=64,
    ) as file:  # fmt: skip
        file.write(image)
    write_raster(tmp_path / "map.tif", class_map(64, 64), where)
    made = tile(tmp_path / "map.tif", tmp_path / "image.gpkg", tmp_path / "chips", TileConfig(size=32, split="1:0:0"))
    assert made.chips == 4
    chipset = ChipSet.open(tmp_path / "chips")
    (first, *_) = chipset.entries("train")
    with chipset.reader("train") as reader:
        assert np.array_equal(
            reader.read(0).target, image[:, first.row_off : first.row_off + 32, first.col_off : first.col_off + 32]
        )


@pytest.mark.parametrize("place", [Affine(0.5, 0, 7000, 0, -0.5, 900), TURNED, None])
@pytest.mark.parametrize("keep_parts", [False, True])
def test_a_mosaic_lies_where_a_file_without_crs_says(
    tmp_path: Path, make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, place: Affine | None,
    keep_parts: bool,
) -> None:  # fmt: skip
    """The file, its parts and what is made beside them; what it lies on is compared by pixels all the same."""
    monkeypatch.setattr(mosaic_module, "choose_part_side", lambda *_: 64)
    write(tmp_path / "in.tif", noise("uint8", 3), None, place)
    write(tmp_path / "like.tif", noise("uint8", 1, 40, 50), None, place)
    expected = place or Affine.identity()
    settings = PredictConfig(tile_size=64, no_resample=True, keep_parts=keep_parts, seam_map=tmp_path / "seams.tif")
    output, model = tmp_path / ("out.vrt" if keep_parts else "out.tif"), make_model(Identity, image_encoding())
    predict(model, tmp_path / "in.tif", output, settings)
    files = {output: (0, 0), tmp_path / "seams.tif": (0, 0)}
    if keep_parts:
        places = ((0, 64), (64, 0))
        files |= {tmp_path / "out_parts" / f"part_r{row:07d}_c{col:07d}.tif": (row, col) for row, col in places}
    for file, (row, col) in files.items():
        with rasterio.open(file) as dataset:
            there = Affine.translation(col, row) if place is not None else Affine.identity()
            assert dataset.crs is None and dataset.transform.almost_equals(expected @ there, 1e-6)
    asked = PredictConfig(no_resample=True, like=tmp_path / "like.tif")
    predict(model, tmp_path / "in.tif", tmp_path / "cut.tif", asked)
    with rasterio.open(tmp_path / "cut.tif") as dataset, rasterio.open(tmp_path / "in.tif") as whole:
        assert dataset.transform.almost_equals(expected, 1e-6)
        assert np.array_equal(dataset.read(), whole.read(window=Window(0, 0, 50, 40)))


def upside_down(where: Grid) -> Grid:
    """The same pixels with rows from south to north."""
    return Grid(where.crs, where.transform @ Affine(1, 0, 0, 0, -1, where.height), where.height, where.width)


def test_names_may_be_long(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    """A file beside it that could not have its name is not there; what is to be written must have one."""
    file = write_raster(tmp_path / f"{'n' * 246}.tif", class_map(40, 40), grid(40, 40))
    assert describe_raster(file).categories == {}
    with pytest.raises(GeoP2PError, match="is a name of 250 letters, expected at most 220 bytes"):
        predict(make_model(Identity, image_encoding(bands=1)), file, file.with_name(f"{'m' * 246}.tif"))


@pytest.mark.parametrize("pixel", [1.8, 2.0, 2.5, 7.0])
@pytest.mark.parametrize("kind", ["image", "sar", "classes"])
def test_warps_do_not_depend_on_the_order_of_rows(tmp_path: Path, kind: str, pixel: float) -> None:
    """Not even where the centre of a pixel lies on the border between two rows."""
    where, other = grid(90, 70), grid(100, 90, pixel=pixel)
    values = class_map(90, 70) if kind == "classes" else np.random.default_rng(0).random((2, 90, 70), np.float32) - 9
    write_raster(tmp_path / "plain.tif", values, where)
    write_raster(tmp_path / "turned.tif", values[:, ::-1], upside_down(where))
    found = []
    for name in ("plain", "turned"):
        with aligned_reader(tmp_path / f"{name}.tif", other, kind) as reader:
            found.append(reader.read(Window(0, 0, 90, 100)))
    assert np.array_equal(found[0][0], found[1][0]) and np.array_equal(found[0][1], found[1][1])


@pytest.mark.parametrize("kind", ["image", "sar", "classes"])
def test_rows_from_south_to_north_are_read_from_the_north(tmp_path: Path, kind: str) -> None:
    """Bit for bit, on any window of the grid, with what is not valid."""
    where = grid(90, 70)
    values = class_map(90, 70) if kind == "classes" else np.random.default_rng(0).random((2, 90, 70), np.float32) - 9
    values[:, 20:50, 30:44] = 0
    plain = write_raster(tmp_path / "plain.tif", values, where, nodata=0)
    turned = write_raster(tmp_path / "turned.tif", values[:, ::-1], upside_down(where), nodata=0)
    assert upside_down(where).unmirrored == where == where.unmirrored
    for window in (Window(0, 0, 70, 90), Window(-5, 13, 40, 30), Window(60, 80, 20, 20)):
        found = []
        for path in (plain, turned):
            with aligned_reader(path, where, kind) as reader:
                found.append(reader.read(window))
        assert np.array_equal(found[0][0], found[1][0]) and np.array_equal(found[0][1], found[1][1])
        assert not found[0][1].all()


class Lopsided(Identity):
    """What it makes of a pixel depends on the one below."""

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        return (source + torch.cat([source[:, :, 1:], source[:, :, -1:]], dim=2)) / 2


def test_a_raster_from_south_to_north_is_cut_and_predicted_like_any(
    tmp_path: Path, make_model: Callable[..., Path]
) -> None:
    where, layers = grid(HEIGHT, WIDTH), ("map.tif", "image.tif")
    (tmp_path / "turned").mkdir()
    for name, values in zip(layers, (class_map(HEIGHT, WIDTH), noise("uint8", 3)), strict=True):
        write_raster(tmp_path / name, values, where)
        write_raster(tmp_path / "turned" / name, values[:, ::-1], upside_down(where))
    for folder in (tmp_path, tmp_path / "turned"):
        tile(*(folder / name for name in layers), folder / "chips", TileConfig(size=32, split="1:0:0"))
    plain, turned = (ChipSet.open(folder / "chips") for folder in (tmp_path, tmp_path / "turned"))
    assert plain.scenes[0].grid == turned.scenes[0].grid
    with plain.reader("train") as one, turned.reader("train") as other:
        for row in range(4):
            assert np.array_equal(one.read(row).target, other.read(row).target)
            assert np.array_equal(one.read(row).source, other.read(row).source)
    model = make_model(Lopsided, image_encoding())
    for folder in (tmp_path, tmp_path / "turned"):
        predict(model, folder / "image.tif", folder / "out.tif")
    like = PredictConfig(like=tmp_path / "turned" / "image.tif")
    predict(model, tmp_path / "image.tif", tmp_path / "like.tif", like)
    made = []
    for path in (tmp_path / "out.tif", tmp_path / "turned" / "out.tif", tmp_path / "like.tif"):
        with rasterio.open(path) as dataset:
            assert dataset.transform == where.transform
            made.append(dataset.read())
    assert np.array_equal(made[0], made[1]) and np.array_equal(made[0], made[2])
    score = evaluate_mosaic(tmp_path / "out.tif", tmp_path / "turned" / "out.tif", tmp_path / "r.html")
    assert score["l1"] == 0 and not score["warped"]


@pytest.mark.parametrize("turn", [Affine(-1, 0, WIDTH, 0, -1, HEIGHT), Affine.rotation(30), Affine(0, 1, 0, -1, 0, 0)])
def test_networks_see_no_mirror_image_whichever_way_a_raster_is_turned(
    tmp_path: Path, make_model: Callable[..., Path], turn: Affine
) -> None:
    where, values, model = grid(HEIGHT, WIDTH), noise("uint8", 3), make_model(Lopsided, image_encoding())
    turned = Grid(where.crs, where.transform @ turn, HEIGHT, WIDTH)
    assert turned.unmirrored is turned and upside_down(turned).unmirrored == turned
    write_raster(tmp_path / "turned.tif", values, turned)
    write_raster(tmp_path / "mirrored.tif", values[:, ::-1], upside_down(turned))
    made = []
    for name in ("turned", "mirrored"):
        predict(model, tmp_path / f"{name}.tif", tmp_path / f"{name}_out.tif")
        with rasterio.open(tmp_path / f"{name}_out.tif") as dataset:
            assert dataset.transform.almost_equals(turned.transform, 1e-6)
            made.append(dataset.read())
    assert np.array_equal(*made) and not np.array_equal(made[0], values)
