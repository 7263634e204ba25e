"""Rule 6: splits that do not leak, whatever the rule, the stride, the buffer and the scenes before."""

import csv
import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from conftest import UTM, class_map, grid, lattice, write_raster
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.windows import Window
from shapely.geometry import Point, box

from geop2p import TileConfig, check, tile
from geop2p.config import SPLITS
from geop2p.errors import ChipSetError, ConfigError, GeoP2PError
from geop2p.raster.grid import Grid
from geop2p.tiling.blocks import FREE, ChipLattice, assign_blocks, dilated, split_block_side
from geop2p.tiling.chips import ChipSet, Scene
from geop2p.tiling.geotiff import chip_path
from geop2p.tiling.index import joined
from geop2p.tiling.splits import find_leaks, split_chips
from geop2p.tiling.table import ChipTable

OFFSETS = ("row_off", "col_off")
SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}
DEGREES = Grid(CRS.from_epsg(4326), Affine(2.5e-5, 0, 9.001, 0, -2.5e-5, 47.852), 260, 340)  # inside `grid`'s ground
ZONE_33 = Grid(CRS.from_epsg(32633), Affine(1.7, 0.4, 51_750, 0.4, -1.7, 5_317_150), 300, 300)  # so is this, turned


def chip_table(where: Grid, config: TileConfig, name: str = "a", density: float = 1.0, seed: int = 0):
    """The index of a scene as staging leaves it: a row for each window, some left out at random."""
    draws = np.random.default_rng(seed)
    places = [place for place in lattice(where, config) if draws.random() <= density]
    columns = {
        "id": [f"{name}_{row}_{col}" for row, col in places],
        "row_off": [row for row, _ in places],
        "col_off": [col for _, col in places],
        "valid": draws.uniform(0.95, 1, len(places)),
    }
    constants = {"scene": name} | dict.fromkeys(("shift_rows", "shift_cols", "shift_confidence"), np.nan)
    shapes = [where.window(Window(col, row, config.size, config.size)).footprint for row, col in places]
    columns |= {name: [value] * len(places) for name, value in constants.items()}
    arrays = {name: np.array(values, object if name in ("id", "scene") else None) for name, values in columns.items()}
    return ChipTable(arrays, np.array(shapes, object), where.crs)


def split_scenes(tables: list[ChipTable], grids: list[Grid], config: TileConfig):
    """The index of several scenes that are added one by one, and what each lost."""
    index, lost = add_scenes(tables, grids, config)
    return index.frame(), lost


def add_scenes(tables: list[ChipTable], grids: list[Grid], config: TileConfig) -> tuple[ChipTable, list[dict]]:
    index, lost = tables[0].rows(np.arange(0)).assign(split=np.empty(0, object)), []
    for table, where in zip(tables, grids, strict=True):
        scene = Scene(table["scene"][0], where.to_dict(), None, "", "", {}, {}, {}, {})
        kept, dropped = split_chips(table, scene, index, config)
        assert len(kept) + sum(dropped.values()) == len(table)
        before = index
        index = joined(index, kept)
        for name in ("id", "split"):  # a new scene changes nothing
            assert np.array_equal(index[name][: len(before)], before[name])
        lost.append(dropped)
    return index, lost


def count_leaks(index: geopandas.GeoDataFrame, distance: float) -> int:
    """Pairs of chips of different splits that share more than a sliver of ground or are nearer than a distance."""
    shapes, splits = index.to_crs(UTM).geometry.to_numpy(), index["split"].to_numpy()
    found = 0
    for number, name in enumerate(SPLITS):
        for other in SPLITS[number + 1 :]:
            pairs = np.array(np.meshgrid(np.flatnonzero(splits == name), np.flatnonzero(splits == other)))
            one, two = shapes[pairs[0].ravel()], shapes[pairs[1].ravel()]
            found += int((shapely.distance(one, two) < distance - 0.1).sum())
            touching = shapely.intersects(one, two)
            found += int((shapely.area(shapely.intersection(one[touching], two[touching])) > 3).sum())
    return found


@given(
    size=st.sampled_from([32, 48]),
    stride=st.sampled_from([12, 16, 24, 32, 40]),
    buffer=st.sampled_from([0, 5, 32, 50]),
    density=st.floats(0.3, 1),
    seed=st.integers(0, 100),
    rule=st.sampled_from(["block", "scene", "random"]),
    others=st.permutations([DEGREES, ZONE_33, grid(250, 200, left=500_141.0, top=5_299_777.0)]),
)
@settings(max_examples=40)
def test_no_split_sees_the_ground_of_another(
    size: int, stride: int, buffer: int, density: float, seed: int, rule, others: list[Grid]
) -> None:
    config = TileConfig(size=size, stride=stride, buffer=buffer, seed=seed, split_by=rule)
    grids = [grid(330, 410), *others[:2]]
    tables = [chip_table(where, config, name, density, seed) for where, name in zip(grids, "abc", strict=True)]
    index, _ = split_scenes(tables, grids, config)
    smallest = min(min(where.pixel_size) for where in grids)
    assert count_leaks(index, buffer * smallest) == 0
    again, _ = split_scenes(tables, grids, config)
    assert index[["id", "split"]].equals(again[["id", "split"]])
    assert index["split"].isin(SPLITS).all()


@pytest.mark.parametrize("rule", ["block", "random"])
def test_another_seed_gives_another_split(rule) -> None:
    where, config = grid(330, 410), TileConfig(size=32, split_by=rule)
    table = chip_table(where, config)
    found = []
    for seed in (0, 1, 0):
        index, _ = split_scenes([table], [where], dataclasses.replace(config, seed=seed))
        found.append({split: frozenset(group["id"]) for split, group in index.groupby("split")})
    assert found[0] == found[2] and set(found[0]) == set(SPLITS)
    assert all(found[0][split] != found[1][split] for split in SPLITS)


@pytest.mark.parametrize("buffer", [0, 40])
def test_a_chip_is_dropped_for_a_stronger_split_only(buffer: int) -> None:
    """No test chip goes, a validation chip for a test chip, a training chip for either that stays."""
    config = TileConfig(size=32, stride=24)
    table = chip_table(grid(330, 410), config)
    splits = np.random.default_rng(0).choice(np.array(SPLITS, object), len(table), p=[0.7, 0.2, 0.1])
    dropped = find_leaks(table.assign(split=splits), buffer, grid(330, 410))
    apart = shapely.distance(table.shapes[:, None], table.shapes[None])
    close = (apart < 2.0 * buffer - 0.1) | (shapely.area(shapely.intersection(table.shapes[:, None], table.shapes)) > 1)
    for split, stronger in (("test", ()), ("val", ("test",)), ("train", ("val", "test"))):
        reasons = np.isin(splits, stronger) & ~dropped
        assert np.array_equal(dropped[splits == split], close[splits == split][:, reasons].any(axis=1))
    assert {split: bool(dropped[splits == split].any()) for split in SPLITS} == {
        "train": True,
        "val": True,
        "test": False,
    }


@pytest.mark.parametrize(
    "where",
    [
        Grid(UTM, Affine(10, 0, 500_000, 0, -10, 5_300_000), 640, 640),  # a metre on the map is 1.0004 m on the ground
        Grid(CRS.from_epsg(4326), Affine(1e-4, 0, 9, 0, -1e-4, 60), 640, 640),
        Grid(UTM, Affine(10, 0, 500_000, 0, -40, 5_300_000), 640, 640),
        Grid(UTM, Affine(30, 10, 500_000, 5, -15, 5_300_000), 640, 640),
    ],
)
def test_the_buffer_is_pixels_along_rows_and_columns_and_the_check_agrees(tmp_path: Path, where: Grid) -> None:
    source = write_raster(tmp_path / "map.tif", class_map(640, 640), where)
    target = write_raster(tmp_path / "image.tif", np.zeros((1, 640, 640), np.uint8), where)
    config = TileConfig(size=32, stride=16, buffer=48, format="virtual", target_kind="image", split="6:2:2")
    tile(source, target, tmp_path / "chips", config)
    assert check(tmp_path / "chips") == []
    index = ChipSet.open(tmp_path / "chips").table()
    places = np.stack([index[name] for name in OFFSETS])
    gaps = np.maximum(abs(places[:, :, None] - places[:, None]) - 32, 0)  # along rows and columns, of every two chips
    apart = index["split"][:, None] != index["split"]
    distances = np.hypot(*gaps)[apart]
    assert distances.min() >= 48
    straight = [np.where(gaps[1 - axis] == 0, gaps[axis], 9999)[apart].min() for axis in (0, 1)]
    assert straight == [48, 48]  # nor more than was asked for


def test_scenes_of_several_crs_keep_the_buffer_in_pixels_of_the_later_one(tmp_path: Path) -> None:
    config = TileConfig(size=32, buffer=40, format="virtual", target_kind="image", split_by="scene", split="1:1:1")
    beside = Grid(CRS.from_epsg(4326), Affine(2.5e-5, 0, 9.0115, 0, -2.5e-5, 47.852), 260, 340)
    for number, where in enumerate((grid(300, 400), beside, ZONE_33)):
        shape = (where.height, where.width)
        source = write_raster(tmp_path / f"map{number}.tif", class_map(*shape), where)
        target = write_raster(tmp_path / f"image{number}.tif", np.zeros((1, *shape), np.uint8), where)
        tile(source, target, tmp_path / "chips", config)
    assert check(tmp_path / "chips") == []


def test_a_buffer_wider_than_the_scene_is_told_at_once(pair: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ChipSetError, match=r"no chip is left for .*a smaller --buffer"):
        tile(*pair, tmp_path / "chips", TileConfig(size=32, buffer=10**9))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 60), st.integers(0, 99))
@settings(max_examples=50)
def test_ground_within_reach_is_what_a_look_at_every_cell_finds(height: int, width: int, reach: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.02
    rows, cols = np.indices(mask.shape)
    expected = np.zeros_like(mask)
    for row, col in np.argwhere(mask):
        expected |= np.maximum(abs(rows - row), abs(cols - col)) <= reach
    assert np.array_equal(dilated(mask, reach), expected)


@pytest.mark.parametrize("stride", [32, 16])
def test_blocks_of_test_chips_stay_whole(stride: int) -> None:
    config, where = TileConfig(size=32, stride=stride, buffer=20), grid(400, 440)
    table = chip_table(where, config, density=0.8)
    index, lost = split_scenes([table], [where], config)
    side = split_block_side(
        list(zip(table["row_off"] // stride, table["col_off"] // stride, strict=True)), 32 // stride
    )
    blocks = np.array(
        [f"{row}_{col}" for row, col in zip(*(table[name] // stride // side for name in OFFSETS), strict=True)]
    )
    tested = index[index["split"] == "test"]
    assert lost[0]["near another split"] and len(tested)
    assert set(table["id"][np.isin(blocks, tested["block"])]) == set(tested["id"])


@given(
    areas=st.dictionaries(
        st.tuples(st.integers(0, 30), st.integers(0, 30)), st.floats(0.1, 64), min_size=40, max_size=200
    ),
    key=st.text(max_size=5),
)
@settings(max_examples=50)
def test_blocks_are_balanced_by_area(areas: Mapping, key: str) -> None:
    rows, cols = np.array(list(areas)).T
    values = np.array(list(areas.values()))
    chips = ChipLattice(rows, cols, values, np.full(len(areas), FREE, np.int8), side=1, reach=0)
    codes, stays = assign_blocks(chips, SHARES, key)
    assert stays.all()
    for code, (split, share) in enumerate(SHARES.items()):
        area = values[codes == code].sum()
        assert abs(area - share * values.sum()) <= (2 if split == "train" else 1) * values.max() + 1e-6


@given(
    side=st.integers(1, 8), across=st.integers(7, 12), overlap=st.integers(1, 3), buffer=st.booleans(), key=st.text()
)
@settings(max_examples=50)
def test_what_is_left_is_balanced_when_chips_overlap(
    side: int, across: int, overlap: int, buffer: bool, key: str
) -> None:
    """At least 49 equal blocks, at least a chip wide: what is left is within 10 points of 8:1:1, mostly within 7."""
    steps = side * overlap
    rows, cols = (axis.ravel() for axis in np.indices((across * steps, across * steps)))
    chips = ChipLattice(
        rows, cols, np.ones(len(rows)), np.full(len(rows), FREE, np.int8), steps, overlap - 1 + (buffer and side > 2)
    )
    codes, stays = assign_blocks(chips, SHARES, key)
    for code, share in enumerate(SHARES.values()):
        assert abs((stays & (codes == code)).sum() / stays.sum() - share) < 0.1


def test_block_side_is_the_largest_that_leaves_forty() -> None:
    def square(side: int) -> list[tuple[int, int]]:
        return [(row, col) for row in range(side) for col in range(side)]

    assert split_block_side(square(5)) == 1
    assert split_block_side(square(13)) == 2
    assert split_block_side(square(56)) == 8
    assert split_block_side(square(200)) == 8
    assert split_block_side(square(200), across=2) == 16  # eight chips side by side, as above
    assert split_block_side(square(14), across=4) == 4  # a block is never smaller than a chip


def test_overlapping_chips_cost_less_than_a_third_of_the_chips(tmp_path: Path) -> None:
    """1521 windows of 256 pixels every 128: 88 % are left, in the shares that were asked for."""
    config = TileConfig(size=256, stride=128)
    where = grid(4992, 4992)
    index, _ = split_scenes([chip_table(where, config)], [where], config)
    shares = index["split"].value_counts(normalize=True)
    assert len(index) > 0.85 * 38 * 38 and abs(shares["train"] - 0.8) < 0.05


def test_overlapping_scenes_take_the_split_of_the_ground_they_lie_on() -> None:
    """The same ground twice, on other grids and CRSs: what lies on one split's ground alone stays with that split."""
    config = TileConfig(size=32)
    grids = [grid(330, 410), DEGREES]
    tables = [chip_table(where, config, name) for where, name in zip(grids, "ab", strict=True)]
    index, lost = split_scenes(tables, grids, config)
    first, second = (index[index["scene"] == name].to_crs(UTM) for name in "ab")
    inner = second.buffer(-0.1)
    for name in SPLITS:
        beside = inner.intersects(first[first["split"] == name].union_all())
        assert set(second.loc[beside, "split"]) <= {name}
    everywhere = tables[1].frame().to_crs(UTM).buffer(-0.1)
    sides = [everywhere.intersects(first[first["split"] == name].union_all()) for name in SPLITS]
    assert lost[1]["near another split of an earlier scene"] == (np.sum(sides, axis=0) > 1).sum()


def test_a_scene_on_the_ground_of_another_joins_its_split(caplog: pytest.LogCaptureFixture) -> None:
    config = TileConfig(size=32, split_by="scene", split="1:1:1")
    places = [500_000.0, 503_000.0, 503_100.0, 500_050.0, 501_300.0]
    grids = [grid(100, 100, left=left) for left in places]
    tables = [chip_table(where, config, name) for where, name in zip(grids, "abcde", strict=True)]
    index, lost = split_scenes(tables, grids, config)
    found = {name: set(group["split"]) for name, group in index.groupby("scene")}
    assert found == {"a": {"train"}, "b": {"val"}, "c": {"val"}, "d": {"train"}, "e": {"test"}}
    assert sum(sum(dropped.values()) for dropped in lost) == 0 and "overlaps" not in caplog.text
    bridge = grid(100, 1600, left=500_100.0)  # on the ground of training, validation and test
    table = chip_table(bridge, config, "f")
    index, lost = split_scenes([*tables, table], [*grids, bridge], config)
    assert index.loc[index["scene"] == "f", "split"].nunique() == 1
    assert lost[-1]["near another split of an earlier scene"] > 0 and count_leaks(index, 0) == 0
    assert "scene 'f' overlaps: 36 of its val chips are dropped, 12 near train chips of 'a'" in caplog.text


def write_split_file(path: Path, *rows: tuple[str, ...]) -> Path:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([("scene", "split", "group"), *rows])
    return path


def test_scenes_of_a_split_file_that_overlap_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write_split_file(tmp_path / "split.csv", ("a", "train", "east"), ("b", "val", "west"), ("c", "train", ""))
    config = TileConfig(size=32, split_by="file", split_file=file)
    grids = [grid(96, 96), grid(96, 96, left=500_000.0 + 2 * 70), grid(96, 96, left=505_000.0)]
    tables = [chip_table(where, config, name) for where, name in zip(grids, "abc", strict=True)]
    index, lost = split_scenes(tables, grids, config)
    assert lost[1]["near another split of an earlier scene"] == 3 and len(index) == 9 + 6 + 9
    assert "scene 'b' overlaps: 3 of its val chips are dropped, 3 near train chips of 'a'" in caplog.text
    fixed, _ = add_scenes(tables[:2], grids[:2], config)
    write_split_file(file, ("a", "val", "east"), ("b", "val", "west"), ("c", "val", "east"))
    with pytest.raises(ChipSetError, match=r"scene 'a' is in val, the chip set has it in train; put the row back"):
        split_chips(
            tables[2],
            Scene("c", grids[2].to_dict(), None, "", "", {}, {}, {}, {}),
            fixed,
            config,
        )


@given(
    groups=st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from(SPLITS)), min_size=2, max_size=6),
    seed=st.integers(0, 9),
)
@settings(max_examples=25)
def test_a_group_of_a_split_file_never_spans_splits(
    tmp_path_factory: pytest.TempPathFactory, groups: list[tuple[str, str]], seed: int
) -> None:
    names = [f"s{number}" for number in range(len(groups))]
    rows = [(name, split, group) for name, (group, split) in zip(names, groups, strict=True)]
    file = write_split_file(tmp_path_factory.mktemp("split") / "split.csv", *rows)
    config = TileConfig(size=32, split_by="file", split_file=file)
    shifts = np.random.default_rng(seed).uniform(0, 400, len(groups))
    grids = [grid(80, 80, left=500_000 + shift) for shift in shifts]
    tables = [chip_table(where, config, name) for where, name in zip(grids, names, strict=True)]
    if any(len({split for group, split in groups if group == name}) > 1 for name in "xyz"):
        with pytest.raises(ChipSetError, match="a group has one split"):
            split_scenes(tables, grids, config)
        return
    index, _ = split_scenes(tables, grids, config)
    assert count_leaks(index, 0) == 0
    given_to = index.assign(group=index["scene"].map({name: group for name, _, group in rows}))
    assert given_to.groupby("group")["split"].nunique().max() == 1


def write_areas(path: Path, where: Grid, splits: list, *, field: str = "split") -> Path:
    """Vertical strips of a grid, one for each value, in degrees."""
    left, bottom, right, top = where.bounds
    edges = np.linspace(left, right, len(splits) + 1)
    shapes = [box(edges[number], bottom, edges[number + 1], top) for number in range(len(splits))]
    geopandas.GeoDataFrame({field: splits}, geometry=shapes, crs=where.crs).to_crs(4326).to_file(path)
    return path


def test_polygons_say_the_split(pair: tuple[Path, Path], tmp_path: Path) -> None:
    areas = write_areas(tmp_path / "areas.gpkg", grid(300, 420), ["train", "train", "val", "test"], field="role")
    config = TileConfig(size=32, aoi=areas, split_by="polygon", split_field="role", min_valid=0.5)
    tile(*pair, tmp_path / "chips", config)
    chipset = ChipSet.open(tmp_path / "chips")
    index = chipset.index()
    found = {split: sorted(set(group["col_off"])) for split, group in index.groupby("split")}
    # strips end at columns 105, 210, 315 and 420; a chip across two of training is a chip of training
    assert found == {"train": [0, 32, 64, 96, 128, 160], "val": [224, 256], "test": [320, 352, 384]}
    assert chipset.scenes[0].dropped["on the areas of several splits"] == 2 * 9
    assert count_leaks(index, 0) == 0 and check(tmp_path / "chips") == []


def test_a_chip_at_the_outer_edge_of_a_polygon_is_of_its_split(pair: tuple[Path, Path], tmp_path: Path) -> None:
    where = grid(300, 420)
    left, top = where.transform.c, where.transform.f
    shapes = [box(left, top - 200, left + 100, top), box(left + 150, top - 200, left + 300, top)]
    areas = geopandas.GeoDataFrame({"split": ["train", "val"]}, geometry=shapes, crs=UTM)
    areas.to_file(tmp_path / "areas.gpkg")
    config = TileConfig(size=32, aoi=tmp_path / "areas.gpkg", split_by="polygon", min_valid=0.5)
    tile(*pair, tmp_path / "chips", config)
    chipset = ChipSet.open(tmp_path / "chips")
    found = {split: sorted(set(group["col_off"])) for split, group in chipset.index().groupby("split")}
    assert found == {"train": [0, 32], "val": [64, 96, 128]}  # columns 32 to 50 and 75 to 96 of two chips are inside
    chip = chipset.read("train", "image_r000064_c000032")
    assert chip.valid[:, :18].all() and not chip.valid[:, 18:].any()


def test_bad_split_polygons_are_one_line(pair: tuple[Path, Path], tmp_path: Path) -> None:
    where, file = grid(300, 420), tmp_path / "areas.gpkg"
    config = TileConfig(size=32, aoi=file, split_by="polygon")

    def fails(message: str) -> None:
        with pytest.raises(GeoP2PError, match=message) as caught:
            tile(*pair, tmp_path / "chips", config)
        assert "\n" not in str(caught.value) and not (tmp_path / "chips").exists()

    write_areas(file, where, ["train", "val"], field="role")
    fails(r"areas\.gpkg: has no field 'split'; it has role; choose one with --split-field")
    write_areas(file, where, ["train", "Validation", None, "dev"])
    fails(r"areas\.gpkg: field 'split' holds '', 'Validation', 'dev', expected train, val, test")
    write_areas(file, grid(300, 420, left=600_000.0), ["train", "val"])
    fails(r"areas\.gpkg: no polygon lies over the scene's grid of 420x300")
    geopandas.GeoDataFrame({"split": ["train"]}, geometry=[Point(0, 0)], crs=UTM).to_file(file)
    fails("has no polygons")
    with pytest.raises(ConfigError, match="'polygon' needs aoi"):
        TileConfig(split_by="polygon")


def with_class(table, code: int, chips: np.ndarray):
    """A column of the share of a class that these chips hold."""
    return table.assign(**{f"source_{code}": np.where(chips, 0.3, 0.0)})


@pytest.mark.parametrize("stride", [32, 16])
@pytest.mark.parametrize("seed", range(6))
def test_training_holds_every_class_that_one_block_has(stride: int, seed: int) -> None:
    config = TileConfig(size=32, stride=stride, seed=seed)
    where = grid(448, 448)
    plain = chip_table(where, config)
    without, _ = split_scenes([plain], [where], config)
    held_out = without[without["split"] != "train"]
    for number in range(0, len(held_out), 7):  # a class that the balance alone would keep from training
        row = held_out.iloc[number]
        rare = with_class(plain, 4, plain["id"] == row["id"])
        rare = with_class(rare, 9, np.ones(len(rare), bool))
        index, _ = split_scenes([rare], [where], config)
        train = index[index["split"] == "train"]
        assert (train["source_4"] > 0).any() and (train["source_9"] > 0).any()
        assert set(index["split"]) == set(SPLITS) and abs(len(train) / len(index) - 0.8) < 0.08
        again, _ = split_scenes([rare], [where], config)
        assert index[["id", "split"]].equals(again[["id", "split"]])


def test_a_class_that_earlier_training_has_moves_nothing() -> None:
    config, where = TileConfig(size=32), grid(448, 448)
    plain = chip_table(where, config, "b")
    grids = [grid(448, 448, left=600_000.0), where]
    first = with_class(chip_table(grids[0], config, "a"), 4, np.ones(14 * 14, bool))
    index, _ = split_scenes([first, plain], grids, config)
    held_out = index[(index["scene"] == "b") & (index["split"] == "test")]["id"]
    rare = with_class(plain, 4, np.isin(plain["id"], held_out.to_numpy()))
    assert split_scenes([first, rare], grids, config)[0]["split"].equals(index["split"])


@pytest.mark.parametrize("rule", ["block", "scene", "polygon", "random", "file"])
def test_the_check_finds_a_planted_leak_for_every_rule(tmp_path: Path, rule) -> None:
    config = TileConfig(size=32, split="1:1:1")
    grids = [grid(100, 100, left=500_000 + 1000.0 * number) for number in range(3)]
    for number, where in enumerate(grids):
        write_raster(tmp_path / f"map{number}.tif", class_map(100, 100, number), where)
        write_raster(tmp_path / f"s{number}.tif", np.zeros((3, 100, 100), np.uint8), where)
    extras = {}
    if rule == "file":
        rows = [(f"s{number}", split, "") for number, split in enumerate(SPLITS)]
        extras = {"split_file": write_split_file(tmp_path / "split.csv", *rows)}
    if rule == "polygon":
        extras = {"aoi": write_areas(tmp_path / "areas.gpkg", grid(100, 1100), list(SPLITS))}
    config = dataclasses.replace(config, split_by=rule, **extras)
    for number in range(3):
        tile(tmp_path / f"map{number}.tif", tmp_path / f"s{number}.tif", tmp_path / "chips", config)
    assert check(tmp_path / "chips") == []
    chipset = ChipSet.open(tmp_path / "chips")
    index = chipset.table()
    moved, held = (np.flatnonzero(index["split"] == split)[0] for split in ("train", "test"))
    index.shapes[moved] = index.shapes[held]
    chipset.save(index)
    assert f"{index['id'][moved]} (train) shares ground with test chips, or comes too near" in check(tmp_path / "chips")
    assert f"{index['id'][held]} (test) shares ground with train chips, or comes too near" in check(tmp_path / "chips")


def test_the_check_finds_files_of_other_chips(pair: tuple[Path, Path], tmp_path: Path) -> None:
    tile(*pair, tmp_path / "chips", TileConfig(size=32, format="geotiff"))
    assert check(tmp_path / "chips") == []
    train, val = (sorted((tmp_path / "chips" / "source" / split).glob("*.tif"))[0] for split in ("train", "val"))
    shutil.copy(val, train)
    (found,) = check(tmp_path / "chips")
    assert found.startswith(f"{train}: lies on 32x32 ") and found.endswith("; it is of another chip")


def test_the_check_finds_pixels_that_the_index_does_not_know(pair: tuple[Path, Path], tmp_path: Path) -> None:
    tile(*pair, tmp_path / "chips", TileConfig(size=32, format="packed"))
    assert check(tmp_path / "chips") == []
    for change, told in (
        (99, "source_1 is 0 % of it, the index says"),
        (0, "valid is 0 % of it, the index says"),
    ):
        shutil.copytree(tmp_path / "chips", tmp_path / f"changed{change}")
        array = np.load(
            file := tmp_path / f"changed{change}" / f"train_{'source' if change else 'valid'}.npy", mmap_mode="r+"
        )
        array[2] = change
        array.flush()
        (found,) = check(file.parent)
        assert told in found and found.startswith(ChipSet.open(file.parent).entries("train")[2].id)
    for name in ("train_source", "val_target"):
        np.save(tmp_path / "chips" / f"{name}.npy", np.zeros(3))
    found = check(tmp_path / "chips")
    assert len(found) == 2 and "train_source.npy" in found[0] and "val_target.npy" in found[1]


def test_the_check_finds_two_chips_of_one_name(pair: tuple[Path, Path], tmp_path: Path) -> None:
    tile(*pair, tmp_path / "chips", TileConfig(size=32, format="virtual"))
    chipset = ChipSet.open(tmp_path / "chips")
    index = chipset.table()
    first, other = index["id"][:2]
    index["id"][1] = first
    chipset.save(index)
    assert check(tmp_path / "chips") == [f"{first} is the name of 2 chips, expected one"], other


@pytest.mark.parametrize("rule", ["scene", "file"])
def test_the_check_finds_a_scene_in_two_splits(tmp_path: Path, rule) -> None:
    where = grid(100, 100)
    source = write_raster(tmp_path / "map.tif", class_map(100, 100), where)
    target = write_raster(tmp_path / "a.tif", np.zeros((3, 100, 100), np.uint8), where)
    file = write_split_file(tmp_path / "split.csv", ("a", "train", "east")) if rule == "file" else None
    tile(source, target, tmp_path / "chips", TileConfig(size=32, split_by=rule, split_file=file))
    chipset = ChipSet.open(tmp_path / "chips")
    index = chipset.table()
    for side in ("source", "target"):
        moved = chip_path(chipset.folder, side, "val", index["id"][-1])
        moved.parent.mkdir()
        chip_path(chipset.folder, side, "train", index["id"][-1]).rename(moved)
    index["split"][-1] = "val"
    dataclasses.replace(chipset, counts={"train": len(index) - 1, "val": 1, "test": 0}).save(index)
    assert check(tmp_path / "chips") == ["scene 'a' is in train and val, though its rule gives a scene one split"]


def test_shifts_that_an_index_lacks_were_not_measured() -> None:
    first, second = (
        chip_table(grid(96, 96), TileConfig(size=32), name).assign(split=np.full(9, "train")) for name in "ab"
    )
    first, second = (table.assign(block=np.full(9, "0_0")) for table in (first, second))
    del first.columns["shift_rows"]
    second.columns["source_3"] = np.ones(9)
    both = joined(first, second)
    assert np.isnan(both["shift_rows"][:9]).all() and (both["source_3"] == [0.0] * 9 + [1.0] * 9).all()
