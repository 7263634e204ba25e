"""Rule 7 for every type of value: decode(encode(x)) == x, whatever lies under the mask."""

from typing import Any

import numpy as np
import pytest
from conftest import image_encoding
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from geop2p.config import Backscatter
from geop2p.raster.backscatter import from_decibel, from_power, to_decibel, to_power
from geop2p.raster.encoding import Band, Encoding
from geop2p.raster.kinds import guess_backscatter
from geop2p.raster.scaling import add_values, with_statistics
from geop2p.raster.statistics import BandStatistics

INTEGERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]
FLOATS = ["float16", "float32", "float64"]
LARGEST = {"float16": 6e4, "float32": 1e38, "float64": 1e300}


def values_of(dtype: str, shape: tuple[int, int, int] = (2, 4, 5)) -> st.SearchStrategy[np.ndarray]:
    """Arrays over all of a type, or of one value, or near a value."""
    if dtype in INTEGERS:
        limits = np.iinfo(dtype)
        elements = st.integers(int(limits.min), int(limits.max))
        near = elements.flatmap(
            lambda middle: st.integers(max(int(limits.min), middle - 3), min(int(limits.max), middle + 3))
        )
    else:
        width, most = {"float16": 16, "float32": 32, "float64": 64}[dtype], LARGEST[dtype]
        most = float(np.dtype(dtype).type(most))
        ranges = ((-most, most), (0.0, 1.0))
        elements, near = (
            st.floats(*ends, width=width).map(lambda value: value if abs(value) > 1e-280 else 0.0) for ends in ranges
        )
    kinds = [arrays.arrays(dtype, shape, elements=one) for one in (elements, near)]
    return st.one_of(*kinds, elements.map(lambda value: np.full(shape, value, dtype)))


def trained(values: np.ndarray, valid: np.ndarray, **encoding: Any) -> Encoding:
    """The encoding that a layer with these training values gets."""
    draft = Encoding(**{"kind": "image", "dtype": values.dtype.name, "bands": (Band(),) * len(values)} | encoding)
    statistics = [BandStatistics() for _ in draft.bands]
    add_values(statistics, draft, values, valid)
    return with_statistics(draft, statistics)


@pytest.mark.parametrize("dtype", INTEGERS + FLOATS)
@given(data=st.data())
@settings(max_examples=40)
def test_values_inside_the_interval_return(dtype: str, data: st.DataObject) -> None:
    """Within 1e-5 of the range, and at least to the next value of the type; those outside come to its ends."""
    values = data.draw(values_of(dtype))
    valid = data.draw(arrays.arrays(bool, values.shape[1:]))
    encoding = trained(values, valid)
    encoded = encoding.encode(values, valid)
    assert encoded.dtype == np.float32 and np.isfinite(encoded).all() and np.abs(encoded).max() <= 1
    back = encoding.decode(encoded)
    assert back.dtype == values.dtype
    clipped = 0
    for band, one, other in zip(encoding.bands, values[:, valid], back[:, valid], strict=True):
        wide, returned = one.astype(np.float64), other.astype(np.float64)
        inside = (wide >= band.low) & (wide <= band.high)
        step = np.abs(np.spacing(one)) if dtype in FLOATS else np.where(np.abs(wide) < 2**53, 1, np.spacing(wide))
        exact = np.iinfo(dtype).bits <= 16 if dtype in INTEGERS else False
        tolerance = 0 if exact else np.maximum(1e-5 * (band.high - band.low), step)
        assert (np.abs(returned - wide) <= tolerance)[inside].all()
        clipped += (~inside).sum()
    if valid.any():
        assert encoding.clipped_share(values, valid) == pytest.approx(clipped / (2 * valid.sum()))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
@pytest.mark.parametrize("margin", [0, 10])
def test_short_integers_return_exactly_under_any_interval(dtype: str, margin: int) -> None:
    limits = np.iinfo(dtype)
    low, high = limits.min + margin, limits.max - margin
    values = np.arange(low, high + 1).astype(dtype).reshape(1, 1, -1)
    encoding = image_encoding(dtype, 1, low, high)
    valid = np.ones(values.shape[1:], bool)
    assert np.array_equal(encoding.decode(encoding.encode(values, valid)), values)
    assert encoding.clipped_share(values, valid) == 0


@pytest.mark.parametrize("dtype", INTEGERS + FLOATS)
@pytest.mark.parametrize("value", [0, 100])
def test_a_constant_returns(dtype: str, value: int) -> None:
    values, valid = np.full((1, 3, 3), value, dtype), np.ones((3, 3), bool)
    for encoding in (trained(values, valid), image_encoding(dtype, 1, value, value)):
        encoded = encoding.encode(values, valid)
        assert (encoded == -1).all() and np.array_equal(encoding.decode(encoded), values)
        assert encoding.clipped_share(values, valid) == 0


def test_an_interval_whose_inverse_is_no_number_counts_as_one_value() -> None:
    values, valid = np.array([[[0.0, 1e-312]]]), np.ones((1, 2), bool)
    assert (image_encoding("float64", 1, 0, 1e-312).encode(values, valid) == -1).all()


def test_the_ends_of_64_bit_integers_do_not_overflow() -> None:
    for dtype in ("int64", "uint64"):
        limits = np.iinfo(dtype)
        encoding = image_encoding(dtype, 1, float(limits.min), float(limits.max))
        back = encoding.decode(np.array([[[-1.0, 1.0]]], np.float32))[0, 0]
        assert back[0] == limits.min and abs(int(back[1]) - limits.max) <= 2048


@pytest.mark.parametrize("backscatter", ["dB", "power"])
@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf, -9999.0, 3e38])
def test_nothing_under_the_mask_changes_anything(backscatter: Backscatter, garbage: float) -> None:
    values = np.random.default_rng(0).exponential(0.1, (2, 8, 8)).astype(np.float32)
    valid = np.random.default_rng(1).random((8, 8)) < 0.7
    spoilt = np.where(valid, values, np.float32(garbage))
    clean, other = (trained(side, valid, kind="sar", backscatter=backscatter) for side in (values, spoilt))
    assert clean == other and clean.bands[0].distribution is not None
    assert np.array_equal(clean.encode(values, valid), other.encode(spoilt, valid))
    assert clean.clipped_share(values, valid) == other.clipped_share(spoilt, valid)


@pytest.mark.parametrize(
    ("dtype", "backscatter"), [("float32", "power"), ("float64", "power"), ("uint16", "amplitude")]
)
@given(data=st.data())
@settings(max_examples=40)
def test_linear_backscatter_returns_in_decibels(dtype: str, backscatter: Backscatter, data: st.DataObject) -> None:
    """Within 1e-5 of the interval in dB; integers are also rounded to a whole number."""
    whole = dtype == "uint16"
    elements = st.integers(0, 65535) if whole else st.floats(0, 1e4, width=32)
    values = data.draw(arrays.arrays(dtype, (1, 4, 5), elements=elements))
    valid = np.ones((4, 5), bool)
    encoding = trained(values, valid, kind="sar", backscatter=backscatter)
    band = encoding.bands[0]
    back = encoding.decode(encoding.encode(values, valid))
    assert back.dtype == values.dtype
    before, after = encoding.in_units(values), encoding.in_units(back)
    inside = (before >= band.low) & (before <= band.high)
    assert inside.mean() == pytest.approx(1 - encoding.clipped_share(values, valid))
    tolerance = np.maximum(1e-5 * (band.high - band.low), 10 / np.maximum(values, 1) if whole else 0)
    assert (np.abs(after - before) <= tolerance)[inside].all()
    if whole and band.high - band.low > 1:
        assert np.array_equal(back[inside & (values > 0)], values[inside & (values > 0)])


def test_zero_and_negative_power_become_the_floor() -> None:
    encoding = Encoding("sar", "float32", (Band(low=-50, high=0),), backscatter="power")
    values = np.array([[[-0.01, 0, 1e-9, 1e-5, 1e-3, 1, 10]]], np.float32)
    encoded = encoding.encode(values, np.ones((1, 7), bool))[0, 0]
    assert encoded == pytest.approx([-1, -1, -1, -1, -0.2, 1, 1], abs=1e-6)
    assert encoding.decode(encoded.reshape(1, 1, -1))[0, 0] == pytest.approx([1e-5] * 4 + [1e-3, 1, 1], rel=1e-4)


@pytest.mark.parametrize("stored", ["dB", "power", "amplitude"])
def test_power_of_backscatter_is_the_same_however_stored(stored: Backscatter) -> None:
    power = np.geomspace(1e-4, 100, 20)
    forms = {"dB": 10 * np.log10(power), "power": power, "amplitude": np.sqrt(power)}
    assert to_power(forms[stored], stored) == pytest.approx(power)
    assert from_power(power, stored) == pytest.approx(forms[stored])
    if stored != "dB":
        decibel = to_decibel(forms[stored], stored, step=1e-3)
        assert decibel == pytest.approx(forms["dB"])
        assert from_decibel(decibel, stored) == pytest.approx(forms[stored])


def test_scaled_amplitudes_have_a_floor_of_one_step() -> None:
    bands = (Band(scale=0.01, low=-40, high=20),)
    encoding = Encoding("sar", "uint16", bands, backscatter="amplitude")
    values = np.array([[[0, 1, 100, 1000]]], np.uint16)
    assert encoding.in_units(values)[0, 0] == pytest.approx([-40, -40, 0, 20])
    encoded = encoding.encode(values, np.ones((1, 4), bool))
    assert encoding.decode(encoded)[0, 0].tolist() == [1, 1, 100, 1000]


@pytest.mark.parametrize(
    ("values", "unit", "stored"),
    [
        (np.linspace(-25, 2, 50), "", "dB"),
        (np.linspace(1e-4, 0.8, 50), "", "power"),
        (np.append(np.linspace(1e-4, 0.8, 499), -1e-5), "", "power"),  # noise removal leaves some negative power
        (np.linspace(20, 60, 50), "dB", "dB"),
        (np.arange(50, dtype=np.uint16), "", "amplitude"),
        ((np.linspace(-25, 2, 50) * 100).astype(np.int16), "", "dB"),
    ],
)
def test_how_backscatter_is_stored_is_concluded_with_a_reason(values: np.ndarray, unit: str, stored: str) -> None:
    sample = values.reshape(1, 1, -1)
    found, reason = guess_backscatter(sample, np.ones(sample.shape[1:], bool), (Band(unit=unit),))
    assert found == stored and reason
    assert ("is no dB: is the scale missing" in reason) == (values.min() < -100)
    hundredths = (Band(scale=0.01, unit=unit),)
    assert "is no dB" not in guess_backscatter(sample, np.ones(sample.shape[1:], bool), hundredths)[1]
