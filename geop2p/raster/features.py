"""Vector files: how they are known, and the features that GDAL reads from them."""

import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from rasterio.crs import CRS

from geop2p.errors import RasterError
from geop2p.raster.folder import RASTER_SUFFIXES
from geop2p.raster.grid import no_degrees
from geop2p.raster.layer_names import is_missing, named_layer, with_layer

if TYPE_CHECKING:  # a quarter of a second that only vector layers need
    import geopandas

VECTOR_SUFFIXES = (
    ".gpkg", ".geojson", ".geojsonl", ".json", ".shp", ".shz", ".fgb", ".gml", ".kml", ".parquet", ".sqlite", ".gdb",
)  # fmt: skip


def is_vector(path: str | Path) -> bool:
    """Whether a name looks like a vector layer rather than a raster; a GeoPackage or an archive may hold either."""
    file, layer = named_layer(path)
    name = file.lower().rstrip("/")
    if layer is not None:
        return True
    if name.endswith(".zip"):
        return _holds_layers(file)
    return name.endswith(VECTOR_SUFFIXES) and not (name.endswith(".gpkg") and _holds_tiles(path))


def _holds_layers(archive: str) -> bool:
    """Whether a local archive holds vector layers and no rasters."""
    try:
        with zipfile.ZipFile(archive) as file:
            names = [name.lower() for name in file.namelist()]
    except (OSError, zipfile.BadZipFile):
        return False
    return any(name.endswith(VECTOR_SUFFIXES) for name in names) and not any(
        name.endswith(RASTER_SUFFIXES) for name in names
    )


def _holds_tiles(path: str | Path) -> bool:
    """Whether a GeoPackage holds a raster and no features, as its table of contents says."""
    try:
        with closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)) as file:
            kinds = {kind for (kind,) in file.execute("SELECT data_type FROM gpkg_contents")}
    except sqlite3.Error:
        return False
    return "features" not in kinds and bool(kinds & {"tiles", "2d-gridded-coverage"})


def is_geodatabase(path: str | Path) -> bool:
    """Whether a folder is a vector layer itself: a file geodatabase of Esri."""
    return Path(path).suffix.lower() == ".gdb" and Path(path).is_dir()


def vector_parts(path: str | Path) -> list[str]:
    """The further files that hold the attributes and CRS of a shapefile, or the files of a geodatabase."""
    file = Path(named_layer(path)[0])
    if is_geodatabase(file):
        return [str(part) for part in sorted(file.iterdir()) if part.is_file() and part.suffix != ".lock"]
    beside = (file.with_suffix(suffix) for suffix in (".dbf", ".prj"))
    return [str(part) for part in beside if file.suffix.lower() == ".shp" and part.is_file()]


def read_features(path: str | Path) -> "geopandas.GeoDataFrame":
    """All features of a layer that have a geometry, which may be none.

    Args:
        path: Any vector file that GDAL opens; `|layername=NAME` after it says which of its layers.

    Raises:
        RasterError: It is missing, unreadable, a table, without CRS or in another than it says, or it is not said which
            layer.
    """
    import geopandas
    import pyogrio

    file, _ = named_layer(path)
    if is_missing(path):
        raise RasterError(f"{file}: no such file")
    try:
        features = geopandas.read_file(file, layer=_layer_of(path))
    except pyogrio.errors.DataSourceError as error:
        if "not recognized as being" in str(error):  # GDAL goes on about prefixes of drivers
            raise RasterError(f"{path}: is no vector layer; give a GeoPackage, GeoJSON or Shapefile") from error
        raise RasterError(f"{path}: cannot be read as a vector layer: {error}") from error
    if not isinstance(features, geopandas.GeoDataFrame):
        raise RasterError(f"{path}: is a table without geometry")
    features = features[~(features.geometry.is_empty | features.geometry.isna())]
    if features.crs is None:
        raise RasterError(f"{path}: has no CRS; assign one (ogr2ogr -a_srs)")
    if features.crs.is_geographic and len(features):
        left, bottom, right, top = features.total_bounds.tolist()
        wrong = no_degrees(CRS.from_user_input(features.crs), (left, bottom, right, top))
        if wrong is not None:
            raise RasterError(f"{path}: {wrong}; assign the right one (ogr2ogr -a_srs)")
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
    """The layer that is meant; None: the only one.

    Raises:
        RasterError: There are several with places and none is named, or none has the name.
    """
    import pyogrio

    file, named = named_layer(path)
    try:
        layers = pyogrio.list_layers(file)
    except pyogrio.errors.DataSourceError:  # reading it says why
        return named
    places = [str(name) for name, geometry in layers if geometry is not None]
    if named is not None and named not in (str(name) for name, _ in layers):
        raise RasterError(f"{file}: has no layer '{named}'; it has {', '.join(places) or 'tables alone'}")
    if named is None and len(places) > 1:
        raise RasterError(
            f"{file}: has {len(places)} layers ({', '.join(places)}), expected one; say which as QGIS does: "
            f"'{with_layer(file, places[0])}'"
        )
    return named or (places[0] if places and len(layers) > 1 else None)


def field_types(path: str | Path) -> dict[str, str]:
    """Types of a layer's fields by what the file says, as numpy names them: values that lack make integers floats."""
    import pyogrio

    info = pyogrio.read_info(named_layer(path)[0], layer=_layer_of(path))
    return {str(name): str(kind) for name, kind in zip(info["fields"], info["dtypes"], strict=True)}
