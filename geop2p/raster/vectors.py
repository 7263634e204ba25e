"""Vector layers as maps of classes."""

import logging
import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.features import rasterize
from rasterio.windows import Window

from geop2p.errors import GridMismatchError, RasterError
from geop2p.raster.class_table import class_color, class_name
from geop2p.raster.encoding import Array, MapClass, Mask
from geop2p.raster.features import field_types, read_features, read_polygons
from geop2p.raster.grid import Grid
from geop2p.raster.surroundings import on_ground_of

if TYPE_CHECKING:  # a quarter of a second that only vector layers need
    import geopandas
    import pandas

BACKGROUND = 1  # class of the ground that no feature covers, unless it is taken; 0 is left for no data
BACKGROUND_NAME = "background"
HAIR = 1e-3  # of a pixel by which polygons miss its edge after a way through another CRS; its centre is far
BOUND_PIECES = 64  # of an edge as long as the layer, to find its bounds in another CRS

WHOLE = re.compile(r"\s*-?\d+(\.0*)?\s*")  # a number without fraction, however a field writes it

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VectorLayer:
    """Features and the class of each.

    Attributes:
        path: File it was read from.
        features: One row a feature, with the column `code`: the value to burn.
        classes: Background first, then one entry a value of the class field, in order of the codes.
    """

    path: str
    features: "geopandas.GeoDataFrame"
    classes: tuple[MapClass, ...]

    @property
    def is_empty(self) -> bool:
        """Whether it has no features, as a layer of labels where there is nothing to find."""
        return len(self.features) == 0

    @property
    def thin(self) -> npt.NDArray[np.bool_]:
        """Which features are lines or points, or collections of them."""
        return np.asarray(shapely.get_dimensions(self.features.geometry.to_numpy()) < 2)

    def bounds_in(self, crs: Any) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) of all features in a CRS; without bounds if there are none: all is background."""
        if self.is_empty:
            return -math.inf, -math.inf, math.inf, math.inf
        left, bottom, right, top = in_crs(self.features, crs).total_bounds
        return float(left), float(bottom), float(right), float(top)


def in_crs(features: "geopandas.GeoDataFrame", crs: Any) -> "geopandas.GeoSeries":
    """The shapes of features in a CRS, their edges bent by a few pieces; infinite where it has no place for them."""
    west, south, east, north = features.total_bounds
    pieces = features.geometry
    if (far := max(east - west, north - south)) > 0 and crs != features.crs:  # edges bend
        pieces = pieces.segmentize(far / BOUND_PIECES)
    return pieces.to_crs(crs)


def read_vector(path: str | Path, field: str | None, known: tuple[MapClass, ...] = ()) -> VectorLayer:
    """Read a vector layer whose features become classes; one without features is background everywhere.

    Args:
        path: Any vector file that GDAL opens, and the layer of several; see `read_features`.
        field: Attribute that names the class; None makes all features one class, `feature`.
        known: Classes that other layers of the chip set, or the model, have; their names keep their codes. A name that
            is none of them is taken for one that differs in capitals or blanks alone, unless the layer has both; where
            no name is any of them, whole numbers are taken for their codes: as maps in rasters are matched.

    Raises:
        RasterError: It is missing, unreadable or without CRS, or its features lack the field.
    """
    import geopandas

    features = read_features(path)
    if field is not None and field not in features.columns and not features.empty:
        names = ", ".join(sorted(set(features.columns) - {"geometry"}))
        raise RasterError(f"{path}: has no field '{field}'; it has {names}")
    if field in features.columns:
        valued = features[field].notna() & (features[field].astype(str).str.strip() != "")
        if not valued.all():
            log.warning(
                "%s: %d features without a value in '%s' are left out, as if nothing were drawn there",
                path, (~valued).sum(), field,
            )  # fmt: skip
            features = features[valued]
    labels = ["feature"] * len(features) if field is None or features.empty else _labels(path, features[field])
    same = _same_names(set(labels), [entry.name for entry in known])
    if same:
        told = ", ".join(f"'{label}' for '{name}'" for label, name in sorted(same.items()))
        log.info("%s: takes %s", path, told)
    labels = [same.get(label, label) for label in labels]
    if field is not None and not {entry.name for entry in known} & set(labels):
        by_value = _by_value(path, set(labels), known)
        labels = [by_value.get(label, label) for label in labels]
    codes = {entry.name: entry.value for entry in known}
    if BACKGROUND_NAME not in codes:  # a code of its own
        codes[BACKGROUND_NAME] = BACKGROUND if BACKGROUND not in codes.values() else max(codes.values()) + 1
    if len(set(labels) | set(codes)) > 254:
        raise RasterError(f"{path}: field '{field}' has {len(set(labels))} values, expected at most 254 classes")
    for name in sorted(set(labels) - set(codes)):
        codes[name] = max(codes.values()) + 1
    named = sorted(set(labels) - {BACKGROUND_NAME}, key=lambda name: codes[name])
    classes = [MapClass(codes[BACKGROUND_NAME], BACKGROUND_NAME, (240, 240, 235))]
    classes += [MapClass(codes[name], name, class_color(codes[name])) for name in named]
    burnt = {"code": [codes[label] for label in labels]}
    kept = geopandas.GeoDataFrame(burnt, geometry=features.geometry.array, crs=features.crs)
    return VectorLayer(str(path), kept, tuple(classes))


def _labels(path: str | Path, values: "pandas.Series") -> list[str]:
    """The values of a class field as names of classes, by the type of the field in the file.

    Integers and booleans come as floats from a layer where one is missing, and must not make other classes there.
    """
    if values.dtype.kind != "f":
        return values.astype(str).tolist()
    if values.isin((0, 1)).all() and field_types(path).get(str(values.name)) == "bool":
        return values.astype(bool).astype(str).tolist()
    return [str(int(value)) if value.is_integer() else str(value) for value in values.tolist()]


def _same_names(labels: set[str], known: list[str]) -> dict[str, str]:
    """The known name of each label that differs from exactly one, not in the layer itself, in capitals or blanks alone.

    Two labels that are the same but for those stay two.
    """
    folded = Counter(label.strip().casefold() for label in labels)
    found = {}
    for label in labels - set(known):
        alike = [name for name in known if name.strip().casefold() == label.strip().casefold()]
        if len(alike) == 1 and folded[label.strip().casefold()] == 1:
            found[label] = alike[0]
    return found


def _by_value(path: str | Path, labels: set[str], known: tuple[MapClass, ...]) -> dict[str, str]:
    """The known name of each label if all labels are codes of known classes; else nothing.

    Not where names of classes are numbers themselves, of which others would be other classes; nor for the background,
    whose code chip sets of vector layers choose themselves.
    """
    are_codes = bool(labels) and all(map(WHOLE.fullmatch, labels))
    if not are_codes or any(WHOLE.fullmatch(entry.name) for entry in known):
        return {}
    theirs = {entry.value: entry.name for entry in known if entry.name != BACKGROUND_NAME}
    found = {label: int(float(label)) for label in labels}
    if not set(found.values()) <= set(theirs):
        return {}
    told = ", ".join(f"{value} is {theirs[value]}" for value in sorted(set(found.values())))
    are_named_by_code = all(theirs[value] == class_name(value) for value in found.values())
    log.log(
        logging.INFO if are_named_by_code else logging.WARNING,
        "%s: classes matched by code, not by name: %s; name the classes if that is wrong", path, told,
    )  # fmt: skip
    return {label: theirs[value] for label, value in found.items()}


class Area:
    """Ground inside polygons, on a grid.

    Args:
        path: Vector layer of polygons in any CRS.
        grid: Where to look.

    Raises:
        RasterError: It is missing, unreadable, empty or without CRS, or holds no polygons.
        GridMismatchError: The grid has no CRS.
    """

    def __init__(self, path: str | Path, grid: Grid) -> None:
        if grid.crs is None:
            raise GridMismatchError(f"{path}: cannot be laid over rasters without CRS; leave out --aoi")
        self._path, self._grid = path, grid
        here = on_ground_of(grid, read_polygons(path))
        self._features = here.set_geometry(here.geometry.make_valid())

    def window(self, frame: Window) -> Window:
        """The smallest window of the grid that holds all pixels inside.

        Args:
            frame: Window of the grid to look in.

        Raises:
            GridMismatchError: None are.
        """
        looked_in = self._grid.window(frame)
        box = shapely.box(*looked_in.footprint.bounds)
        places = [shapely.get_coordinates(shapely.intersection(shape, box)) for shape in self._features.geometry]
        found = np.concatenate([np.empty((0, 2)), *places])
        if not len(found):
            raise GridMismatchError(f"{self._path}: none of its polygons lies on {looked_in.describe()}")
        cols, rows = np.array([~self._grid.transform @ tuple(place) for place in found]).T
        left, top = (math.floor(places.min() + HAIR) for places in (cols, rows))
        right, bottom = (math.ceil(places.max() - HAIR) for places in (cols, rows))
        left, top = max(frame.col_off, left), max(frame.row_off, top)
        right, bottom = min(frame.col_off + frame.width, right), min(frame.row_off + frame.height, bottom)
        window = Window(left, top, right - left, bottom - top)
        if right <= left or bottom <= top or not self.mask(window).any():
            raise GridMismatchError(f"{self._path}: no pixel of {looked_in.describe()} has its centre in its polygons")
        return window

    def mask(self, window: Window) -> Mask:
        """Pixels of a window of the grid whose centre is inside (rows, cols)."""
        here = self._grid.window(window)
        found = self._features.geometry.iloc[self._features.sindex.query(here.footprint)]
        inside = np.zeros((here.height, here.width), np.uint8)
        if len(found):
            rasterize(found, out=inside, transform=here.transform)
        return inside > 0


class VectorReader:
    """Windows of a vector layer burnt on a grid, later features over earlier ones; valid everywhere.

    Args:
        layer: Features and classes.
        grid: Where to read.
        background: Code of the ground that no feature covers; None: the layer's own.
    """

    def __init__(self, layer: VectorLayer, grid: Grid, background: int | None = None) -> None:
        self.grid = grid
        self._background = layer.classes[0].value if background is None else background
        self._dtype = np.uint8 if max(self._background, *(entry.value for entry in layer.classes)) < 256 else np.int32
        if grid.crs is None:
            raise GridMismatchError(f"{layer.path}: cannot be burnt on a grid without CRS")
        self._features = on_ground_of(grid, layer.features)
        self._index = self._features.sindex

    def read(self, window: Window) -> tuple[Array, Mask]:
        """Classes (1, rows, cols), uint8 if these are below 256 else int32, and valid pixels (rows, cols), all true."""
        here = self.grid.window(window)
        shape = (here.height, here.width)
        hits = np.sort(self._index.query(here.footprint))
        found = self._features.iloc[hits]
        burnt = np.full(shape, self._background, self._dtype)
        if len(found):
            pairs = zip(found.geometry, found["code"], strict=True)
            rasterize(pairs, out=burnt, transform=here.transform)
        return burnt[np.newaxis], np.ones(shape, bool)
