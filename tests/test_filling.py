"""Ground without data takes what lies nearest."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.fill import fillnodata

from geop2p.errors import GeoP2PError
from geop2p.raster import filling
from geop2p.raster.filling import fill_from_nearest


@given(st.integers(0, 2**31), st.integers(1, 70), st.integers(1, 70), st.sampled_from((0.02, 0.3, 0.9)), st.data())
def test_channels_are_filled_from_the_pixel_that_gdal_finds(
    seed: int, rows: int, cols: int, share: float, data: st.DataObject
) -> None:
    generator, depth = np.random.default_rng(seed), data.draw(st.sampled_from((1, 3, 16, 64)))
    valid = generator.random((rows, cols)) < share
    values = np.where(valid, generator.normal(size=(3, rows, cols)), 0).astype(np.float32)
    mask = valid.astype(np.uint8)
    each = [fillnodata(plane.copy(), mask, max_search_distance=depth, INTERPOLATION="NEAREST") for plane in values]
    np.testing.assert_array_equal(fill_from_nearest(values, valid, depth), each)


def test_what_lies_deeper_keeps_its_values() -> None:
    valid = np.zeros((9, 40), bool)
    valid[4, 2] = True
    values = np.full((2, 9, 40), 7, np.float32)
    values[:, 4, 2] = 1, 2
    filled = fill_from_nearest(values, valid, 3)
    assert filled[:, 4, 5].tolist() == [1, 2]
    far = (np.abs(np.arange(9)[:, None] - 4) > 3) | (np.abs(np.arange(40) - 2) > 3)
    assert (filled[:, far] == 7).all()


def test_more_pixels_than_can_be_told_apart_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "MOST", 15)
    with pytest.raises(ValueError, match="more than 15 pixels"):
        fill_from_nearest(np.zeros((1, 4, 4), np.float32), np.ones((4, 4), bool), 1)


def test_a_gdal_that_averages_instead_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As rasterio 1.4.3 does, whatever it is told."""
    monkeypatch.setattr(filling, "fillnodata", lambda *args, **known: fillnodata(*args, known["max_search_distance"]))
    valid = np.ones((9, 9), bool)
    valid[2:7, 2:7] = False
    with pytest.raises(GeoP2PError, match=r"does not fill with the nearest value.*install rasterio 1\.4\.4"):
        fill_from_nearest(np.zeros((1, 9, 9), np.float32), valid, 8)
