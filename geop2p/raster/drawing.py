"""Vector layers drawn as a map would: lines with a width on the ground, classes one above the other."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from geop2p.raster.vectors import VectorLayer

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

log = logging.getLogger(__name__)


def drawn(layer: VectorLayer, line_width: float | None, order: Sequence[str]) -> VectorLayer:
    """The layer with widened lines and points, its features from bottom to top.

    Args:
        layer: Features in any CRS.
        line_width: Width of lines and diameter of points in metres; None leaves them one pixel wide.
        order: Names of classes from bottom to top; features of others lie below them, as in the file.
    """
    if layer.is_empty:
        return layer
    if (layer.features.geom_type == "GeometryCollection").any():  # of lines and polygons, maybe
        layer = dataclasses.replace(layer, features=layer.features.explode(ignore_index=True))
    features, thin = layer.features, layer.thin
    if line_width is not None and thin.any():
        features = _widened(features, thin, line_width)
    elif line_width is not None:
        log.warning("%s: has no lines or points, so --line-width changes nothing", layer.path)
    elif thin.any():
        log.info("%s: lines and points are drawn one pixel wide; --line-width gives them metres", layer.path)
    codes = {entry.name: entry.value for entry in layer.classes}
    unknown = [name for name in order if name not in codes]
    if unknown:
        log.warning("%s: has no class %s to draw in order; it has %s", layer.path, ", ".join(unknown), ", ".join(codes))
    ranks = {codes[name]: rank for rank, name in enumerate(order) if name in codes}
    above = features["code"].map(lambda code: ranks.get(code, -1)).to_numpy()
    return dataclasses.replace(layer, features=features.iloc[np.argsort(above, kind="stable")].reset_index(drop=True))


def _widened(features: "GeoDataFrame", thin: np.ndarray, width: float) -> "GeoDataFrame":
    """Features whose lines and points are polygons of a width in metres, made in the UTM zone of each."""
    shapes = features.geometry.array.copy()
    degrees = features.geometry.to_crs(4326)
    bounds = degrees.bounds
    longitude = ((bounds["minx"] + bounds["maxx"]) / 2).to_numpy()
    south = ((bounds["miny"] + bounds["maxy"]) / 2).to_numpy() < 0
    zones = (32600 + 100 * south + ((longitude + 180) // 6).astype(int) % 60 + 1).astype(int)
    for zone in np.unique(zones[thin]):
        here = thin & (zones == zone)
        metres = features.geometry[here].to_crs(int(zone))
        shapes[here] = metres.buffer(width / 2).to_crs(features.crs).array
    return features.set_geometry(shapes)
