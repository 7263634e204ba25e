"""Rule 7: decode(encode(x)) == x."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from conftest import CLASSES, image_encoding
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from geop2p.config import Backscatter
from geop2p.errors import ConfigError
from geop2p.raster.class_table import class_color
from geop2p.raster.encoding import Band, Encoding
from geop2p.raster.kinds import guess_kind
from geop2p.raster.statistics import BandStatistics


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
def test_integers_return_exactly_under_dtype_range(dtype: str) -> None:
    limits = np.iinfo(dtype)
    values = np.arange(limits.min, limits.max + 1).astype(dtype).reshape(1, -1, 16)
    encoding = image_encoding(dtype, 1, limits.min, limits.max)
    valid = np.ones(values.shape[1:], bool)
    assert np.array_equal(encoding.decode(encoding.encode(values, valid)), values)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint32"])
@given(data=st.data())
@settings(max_examples=25)
def test_wide_types_return_within_1e5_of_the_range(dtype: str, data: st.DataObject) -> None:
    low, high = 0.0 if dtype == "uint32" else -1000.0, 3000.0
    elements = st.floats(low, high, width=32) if dtype.startswith("f") else st.integers(int(low), int(high))
    values = data.draw(arrays.arrays(dtype, (2, 3, 5), elements=elements))
    encoding = image_encoding(dtype, 2, low, high)
    back = encoding.decode(encoding.encode(values, np.ones((3, 5), bool)))
    assert back.dtype == values.dtype
    assert np.abs(back.astype(float) - values.astype(float)).max() <= 1e-5 * (high - low)


@pytest.mark.parametrize(
    "codes",
    [range(256), (*range(10, 101, 10), 95), range(100, 2001, 100), (-100_000, 0, 70_000)],
    ids=["bytes", "tens", "hundreds", "far"],
)
def test_classes_without_colours_get_colours_that_differ(codes: Sequence[int]) -> None:
    colors = np.array([class_color(code) for code in codes])
    apart = np.abs(colors[:, None] - colors).sum(axis=2)[~np.eye(len(codes), dtype=bool)]
    assert apart.min() >= (9 if len(codes) == 256 else 30) and 0 <= colors.min() <= colors.max() <= 255


@pytest.mark.parametrize(("stored", "factor"), [("power", 10), ("amplitude", 20)])
def test_linear_backscatter_has_the_scale_and_offset_of_its_bands(stored: Backscatter, factor: int) -> None:
    bands = (Band(scale=0.5, offset=3.0, low=-20, high=60), Band(scale=-2.0, offset=900.0, low=0, high=70))
    encoding = Encoding("sar", "uint16", bands, backscatter=stored)
    values = np.array([[[10, 200]], [[10, 400]]], np.uint16)
    physical = np.array([[[8.0, 103.0]], [[880.0, 100.0]]])
    wanted = factor * np.log10(physical)
    assert encoding.on_scale(values) == pytest.approx(wanted) and encoding.in_units(values) == pytest.approx(wanted)
    assert encoding.unit_range.tolist() == [80, 70]  # of dB, which the bands' scale has no part in
    back = encoding.decode(encoding.encode(values, np.ones((1, 2), bool)))
    assert back.dtype == np.uint16 and np.abs(back.astype(int) - values.astype(int)).max() <= 1


def test_units_of_values_with_a_scale_and_of_an_interval_without_width() -> None:
    encoding = Encoding("image", "int16", (Band(scale=-0.01, offset=7.0, low=-50, high=150), Band(low=9, high=9)))
    values = np.array([[[100]], [[100]]], np.int16)
    assert encoding.in_units(values).tolist() == [[[1.0]], [[100.0]]]  # a difference has no offset and no sign
    assert encoding.data_range.tolist() == [200, 1] and encoding.unit_range.tolist() == [2, 1]


def test_values_outside_the_interval_are_clipped_and_counted() -> None:
    encoding = image_encoding("float32", 1, 0, 10)
    values = np.array([[[-5.0, 0, 5, 10, 20]]], np.float32)
    valid = np.ones((1, 5), bool)
    assert encoding.encode(values, valid)[0, 0].tolist() == [-1, -1, 0, 1, 1]
    assert encoding.clipped_share(values, valid) == pytest.approx(0.4)


def test_classes_are_one_hot_and_return() -> None:
    encoding = Encoding("classes", "uint8", (Band(),), classes=CLASSES)
    values = np.array([[[1, 2, 5, 3, 1]]], np.uint8)
    valid = np.array([[True, True, True, True, False]])
    encoded = encoding.encode(values, valid)
    assert encoded[:, 0].T.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert encoding.decode(encoded)[0, 0, :3].tolist() == [1, 2, 5]


def test_nothing_under_the_mask_reaches_the_network() -> None:
    encoding = image_encoding("float32", 1)
    valid = np.array([[True, False]])
    first = encoding.encode(np.array([[[7, np.nan]]], np.float32), valid)
    second = encoding.encode(np.array([[[7, 1e30]]], np.float32), valid)
    assert np.array_equal(first, second)


def test_wrong_band_count_is_refused() -> None:
    with pytest.raises(ConfigError, match="array has 2 bands, the encoding has 3"):
        image_encoding().encode(np.zeros((2, 4, 4), np.uint8), np.ones((4, 4), bool))


def test_json_form_returns() -> None:
    encoding = Encoding("sar", "float32", (Band("VV", "dB", low=-25.5, high=3),), nodata=float("nan"))
    again = Encoding.from_dict(encoding.to_dict())
    assert again.bands == encoding.bands and np.isnan(again.nodata)
    classes = Encoding("classes", "uint8", (Band(),), nodata=0.0, classes=CLASSES, color_interp=("palette",))
    assert Encoding.from_dict(classes.to_dict()) == classes


@pytest.mark.parametrize(
    ("values", "band", "kind"),
    [
        (np.array([[[1, 2, 3]]], np.int16), Band(), "classes"),
        (np.arange(32, dtype=np.uint8).reshape(1, 4, 8), Band(), "classes"),
        (np.arange(33, dtype=np.uint8).reshape(1, 3, 11), Band(), "image"),
        (np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8), Band(), "image"),
        (np.arange(64, dtype=np.uint8).reshape(1, 8, 8), Band(), "image"),
        (np.arange(64, dtype=np.uint16).reshape(1, 8, 8) * 50, Band(), "image"),  # reflectance
        (np.arange(64, dtype=np.int16).reshape(1, 8, 8) * 50, Band(), "elevation"),  # SRTM
        (np.arange(64, dtype=np.uint16).reshape(1, 8, 8) * 50, Band(unit="m"), "elevation"),
        (np.arange(192, dtype=np.int16).reshape(3, 8, 8) * 50, Band(), "image"),  # Sentinel-2 as int16
        (np.linspace(-25, 2, 64, dtype=np.float32).reshape(1, 8, 8), Band(), "sar"),
        (np.linspace(-25, 2, 128, dtype=np.float64).reshape(2, 8, 8), Band(), "sar"),
        (np.linspace(-2500, 200, 64).reshape(1, 8, 8).astype(np.int16), Band(scale=0.01), "sar"),
        (np.linspace(20, 60, 64, dtype=np.float32).reshape(1, 8, 8), Band(unit="dB"), "sar"),
        (np.linspace(-25, 2, 64, dtype=np.float32).reshape(1, 8, 8), Band(unit="m"), "elevation"),  # polder
        (np.linspace(-1, 0.2, 64, dtype=np.float32).reshape(1, 8, 8), Band(), "image"),  # NDVI of water
        (np.linspace(200, 900, 64, dtype=np.float32).reshape(1, 8, 8), Band(), "elevation"),
        (np.linspace(-400, 8800, 64, dtype=np.float64).reshape(1, 8, 8), Band(), "elevation"),
        (np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8), Band(), "image"),
        (np.linspace(0, 1, 256, dtype=np.float32).reshape(4, 8, 8), Band(), "image"),
    ],
)
def test_kind_is_concluded_with_a_reason(values: np.ndarray, band: Band, kind: str) -> None:
    bands = (band,) * len(values)
    found, reason = guess_kind(values, np.ones(values.shape[1:], bool), bands)
    assert found == kind and reason and "linear power" not in reason


def test_heights_of_flat_ground_are_hinted_at() -> None:
    valid = np.ones((40, 60), bool)
    heights = np.rint(100 + 6 * np.sin(np.arange(60) / 9) + np.arange(40)[:, None] / 10).astype(np.int16)
    codes = np.random.default_rng(0).integers(1, 12, (40, 60)).astype(np.int16)
    for values, hinted in ((heights, True), (codes, False)):
        found, reason = guess_kind(values[np.newaxis], valid)
        assert found == "classes" and ("heights of flat ground" in reason) == hinted


def test_a_kind_without_valid_pixels_is_called_a_guess() -> None:
    for values in (np.zeros((1, 4, 4), np.float32), np.zeros((1, 4, 4), np.uint8), np.zeros((2, 4, 4), np.int16)):
        found, reason = guess_kind(values, np.zeros((4, 4), bool))
        assert found == "image" and "without a valid pixel" in reason


def test_statistics_of_a_stream() -> None:
    values = np.random.default_rng(0).normal(-12, 5, 200_000).astype(np.float32)
    statistics = BandStatistics()
    for part in np.array_split(values, 7):
        statistics.add(part)
    assert (statistics.minimum, statistics.maximum) == (values.min(), values.max())
    assert statistics.mean == pytest.approx(values.mean(dtype=float), rel=1e-9)
    assert statistics.std == pytest.approx(values.std(dtype=float), rel=1e-9)
    for percent in (0.1, 5, 50, 99.9):
        expected = float(np.percentile(values, percent))
        assert statistics.percentiles([percent])[0] == pytest.approx(expected, abs=abs(expected) / 256)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
def test_statistics_of_short_integers_are_exact(dtype: str) -> None:
    limits = np.iinfo(dtype)
    values = np.random.default_rng(0).integers(limits.min, limits.max, 20_000, dtype, endpoint=True)
    values[:2] = limits.min, limits.max
    statistics = BandStatistics()
    for part in np.array_split(values, 7):
        statistics.add(part)
    assert (statistics.count, statistics.percentile_error) == (20_000, 0)
    assert (statistics.minimum, statistics.maximum) == (limits.min, limits.max)
    assert statistics.mean == pytest.approx(values.mean(dtype=float), rel=1e-12)
    assert statistics.std == pytest.approx(values.std(dtype=float), rel=1e-12)
    percents = [0, 0.1, 1, 25, 50, 75, 99.9, 100]
    ranks = [max(math.ceil(Fraction(str(percent)) * len(values) / 100), 1) for percent in percents]  # not in binary
    assert statistics.percentiles(percents) == np.sort(values)[np.array(ranks) - 1].tolist()


def test_statistics_survive_fill_values_that_no_file_declares() -> None:
    statistics = BandStatistics()
    statistics.add(np.append(np.arange(1000.0), [-1.7976931348623157e308, 3.4e38]))
    assert np.isfinite([statistics.mean, statistics.std, *statistics.percentiles([0, 100])]).all()
    assert statistics.percentiles([50]) == [pytest.approx(500, abs=2)]


@pytest.mark.parametrize(
    ("names", "roles", "expected"),
    [
        (("B02", "", "B04"), (), ["B02", "band 2", "B04"]),
        (("", "", ""), ("red", "green", "blue"), ["red", "green", "blue"]),
        (("bands", "bands", "B04"), (), ["bands 1", "bands 2", "B04"]),
        (("bands", "bands", "bands 1"), (), ["bands 1", "bands 2", "bands 1 3"]),
        (("", "band 1"), (), ["band 1", "band 1 2"]),
        (("red", "", ""), ("undefined", "red", "green"), ["red 1", "red 2", "green"]),
    ],
)
def test_every_band_has_a_name_of_its_own(names: tuple[str, ...], roles: tuple[str, ...], expected: list[str]) -> None:
    encoding = Encoding("image", "uint8", tuple(map(Band, names)), color_interp=roles)
    assert encoding.band_names == expected
    assert [band.name for band in encoding.bands] == list(names)
