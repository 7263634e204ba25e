"""The features of vector files, as GDAL reads them."""

from pathlib import Path
from typing import TYPE_CHECKING

from geop2p.errors import RasterError

if TYPE_CHECKING:  # a quarter of a second that only vector layers need
    import geopandas


def read_features(path: str | Path) -> "geopandas.GeoDataFrame":
    """All features of a layer that have a geometry, which may be none."""
    import geopandas
    import pyogrio

    if "://" not in str(path) and not str(path).startswith("/vsi") and not Path(path).exists():
        raise RasterError(f"{path}: no such file")
    try:
        features = geopandas.read_file(path, layer=_layer_of(path))
    except pyogrio.errors.DataSourceError as error:
        if "not recognized as being" in str(error):  # GDAL goes on about prefixes of drivers
            raise RasterError(f"{path}: is no vector layer; give a GeoPackage, GeoJSON or Shapefile") from error
        raise RasterError(f"{path}: cannot be read as a vector layer: {error}") from error
    if not isinstance(features, geopandas.GeoDataFrame):
        raise RasterError(f"{path}: is a table without geometry")
    features = features[~(features.geometry.is_empty | features.geometry.isna())]
    if features.crs is None:
        raise RasterError(f"{path}: has no CRS; assign one (ogr2ogr -a_srs)")
    return features


def read_polygons(path: str | Path) -> "geopandas.GeoDataFrame":
    """The polygons of a vector layer with their attributes.

    Raises:
        RasterError: It is missing, unreadable, empty or without CRS, or holds no polygons.
    """
    features = read_features(path)
    if features.empty:
        raise RasterError(f"{path}: has no features with a geometry, expected polygons")
    features = features[features.geometry.geom_type.isin(("Polygon", "MultiPolygon"))]
    if features.empty:
        raise RasterError(f"{path}: has no polygons")
    return features


def _layer_of(path: str | Path) -> str | None:
    """The one layer of a file that has places, if it has tables too; None: the only one.

    Raises:
        RasterError: It has several.
    """
    import pyogrio

    try:
        layers = pyogrio.list_layers(path)
    except pyogrio.errors.DataSourceError:  # reading it says why
        return None
    places = [str(name) for name, geometry in layers if geometry is not None]
    if len(places) > 1:
        raise RasterError(
            f"{path}: has {len(places)} layers ({', '.join(places)}), expected one; extract the one that is meant: "
            f"ogr2ogr -f GPKG one.gpkg {path} LAYER"
        )
    return places[0] if places and len(layers) > 1 else None


def is_boolean(path: str | Path, field: str) -> bool:
    """Whether a field of a layer holds booleans by what the file says."""
    import pyogrio

    info = pyogrio.read_info(path, layer=_layer_of(path))
    return dict(zip(info["fields"], info["dtypes"], strict=True)).get(field) == "bool"
