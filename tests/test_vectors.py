"""Vector layers: the classes of their features, and the ground that these cover in another CRS."""

from pathlib import Path

import geopandas
import pandas as pd
import pytest
from conftest import UTM
from shapely.geometry import box

from geop2p.raster.vectors import read_vector

SHAPES = [box(number, 0, number + 1, 1) for number in range(3)]


@pytest.mark.parametrize("suffix", ["gpkg", "geojson"])
@pytest.mark.parametrize(
    ("values", "dtype", "labels"),
    [
        ([1, 2, 3], "Int64", ["1", "2", "3"]),
        ([1, None, 3], "Int64", ["1", "3"]),
        ([614897908, None, -7], "Int64", ["614897908", "-7"]),
        ([0.5, None, 2.0], "float64", ["0.5", "2"]),
        ([True, None, False], "boolean", ["True", "False"]),
        (["1.0", None, "nan"], "object", ["1.0", "nan"]),
    ],
)
def test_a_gap_in_a_field_changes_no_name_of_a_class(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str, values: list, dtype: str, labels: list[str]
) -> None:
    path = tmp_path / f"a.{suffix}"
    geopandas.GeoDataFrame({"num": pd.array(values, dtype=dtype)}, geometry=SHAPES, crs=UTM).to_file(path)
    layer = read_vector(path, "num")
    names = {entry.value: entry.name for entry in layer.classes}
    assert [names[code] for code in layer.features["code"]] == labels
    assert ("1 features without a value in 'num' are left out" in caplog.text) == (None in values)
