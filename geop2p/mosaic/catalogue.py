"""The STAC item of a mosaic that is left in parts: where it lies, what it holds and how it was made."""

import importlib.util
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import shapely
from rasterio.crs import CRS
from rasterio.enums import WktVersion
from rasterio.warp import transform_geom
from shapely.affinity import affine_transform
from shapely.geometry.base import BaseGeometry
from shapely.geometry.polygon import orient

from geop2p.errors import ConfigError
from geop2p.raster.atomic import write_json
from geop2p.raster.encoding import Encoding
from geop2p.raster.grid import Grid, positions_in
from geop2p.raster.surroundings import in_one_stretch
from geop2p.raster.vrt import BandSummary, Part, TiledRaster
from geop2p.raster.writing import fill_value

PROCESSING = "https://stac-extensions.github.io/processing/v1.2.0/schema.json"
WHOLE, OVERVIEW = "mosaic", "overview"  # names of assets; the latter is a role too
LONLAT = CRS.from_epsg(4326)
PIECES = 32  # of the longer side of the mosaic: a straight edge of the grid is curved in degrees
DECIMALS = 7  # of degrees: a centimetre


def require_stac() -> None:
    """Refuse to make an item where the package for it is missing.

    Raises:
        ConfigError: The package is missing.
    """
    if importlib.util.find_spec("pystac") is None:
        raise ConfigError("keep_parts: the STAC item needs pystac, which is not installed; pip install 'geop2p[stac]'")


def item_path(output: Path) -> Path:
    """Where the item of a mosaic lies."""
    return output.with_suffix(".json")


def write_item(output: Path, raster: TiledRaster, figures: dict[str, Any]) -> None:
    """Write the STAC item of a VRT and its parts. Its time is that of its making: no input says when it was seen.

    Args:
        output: The VRT.
        raster: The parts, and what they hold.
        figures: Numbers that it tells.
    """
    import pystac
    from pystac.extensions.projection import ProjectionExtension
    from pystac.extensions.raster import RasterExtension

    grid, overview = raster.grid, raster.overview
    outline = footprint(grid, raster.parts)
    now = datetime.now(UTC).replace(microsecond=0)
    item = pystac.Item(
        id=output.stem,
        geometry=None if outline is None else shapely.geometry.mapping(outline),
        bbox=None if outline is None else bounding_box(outline),
        datetime=now,
        properties={"created": pystac.utils.datetime_to_str(now)} | _provenance(figures, raster.tags),
        stac_extensions=[PROCESSING],
    )
    files = [(WHOLE, output.name, pystac.MediaType.XML, grid)] + [
        (Path(part.file).stem, part.file, pystac.MediaType.COG, grid.window(part.window)) for part in raster.parts
    ]
    if overview is not None:
        files.append((OVERVIEW, overview.file, pystac.MediaType.COG, overview.grid))
    for key, file, media_type, _ in files:
        role = OVERVIEW if key == OVERVIEW else "data"
        item.add_asset(key, pystac.Asset(href=f"./{quote(file)}", media_type=media_type, roles=[role]))
    epsg = None if grid.crs is None else grid.crs.to_epsg()
    wkt = None if grid.crs is None else grid.crs.to_wkt(version=WktVersion.WKT2_2019)
    on_ground = ProjectionExtension.ext(item, add_if_missing=True)
    on_ground.apply(epsg=epsg, wkt2=wkt, shape=[grid.height, grid.width], transform=_coefficients(grid))
    for key, _, _, place in files:
        place_of = ProjectionExtension.ext(item.assets[key])
        place_of.shape, place_of.transform = [place.height, place.width], _coefficients(place)
        if grid.crs is not None:
            place_of.bbox = list(place.bounds)
    bands = [_band(raster.encoding, number, summary) for number, summary in enumerate(raster.summaries)]
    RasterExtension.ext(item.assets[WHOLE], add_if_missing=True).apply(bands)
    write_json(item_path(output), item.to_dict(include_self_link=False, transform_hrefs=False))


def _coefficients(grid: Grid) -> list[float]:
    return list(grid.georeference or grid.transform)[:6]


def _provenance(figures: dict[str, Any], tags: Mapping[str, str]) -> dict[str, Any]:
    """What the item says of the making: the words of the tags, the numbers of the figures."""
    ours = {key.removeprefix("GEOP2P_").lower(): value for key, value in tags.items() if key.startswith("GEOP2P_")}
    name, version = tags["TIFFTAG_SOFTWARE"].split()
    said = tags["TIFFTAG_IMAGEDESCRIPTION"]
    properties = {"description": said, "processing:lineage": said, "processing:software": {name: version}}
    return properties | {f"geop2p:{key}": value for key, value in (ours | figures | {"synthetic": True}).items()}


def _band(encoding: Encoding, number: int, summary: BandSummary) -> Any:
    from pystac.extensions.raster import DataType, NoDataStrings, RasterBand, Statistics

    band, nodata = encoding.bands[number], fill_value(encoding)
    made = RasterBand.create(
        data_type=DataType(encoding.dtype),
        nodata=NoDataStrings.NAN if nodata is not None and math.isnan(nodata) else nodata,
        unit=band.unit or None,
        scale=band.scale,
        offset=band.offset,
        statistics=Statistics.create(
            minimum=summary.minimum,
            maximum=summary.maximum,
            mean=summary.mean,
            stddev=summary.std,
            valid_percent=summary.valid_percent,
        ),
    )
    made.properties["name"] = encoding.band_names[number]
    return made


def footprint(grid: Grid, parts: Sequence[Part]) -> BaseGeometry | None:
    """Outline of the parts in longitude and latitude, cut at the antimeridian; None without parts or CRS.

    Its rings run as RFC 7946 has them, outer ones counterclockwise.
    """
    if grid.crs is None or not parts:
        return None
    windows = [part.window for part in parts]
    boxes = [
        shapely.box(here.col_off, here.row_off, here.col_off + here.width, here.row_off + here.height)
        for here in windows
    ]
    pixels = shapely.segmentize(shapely.union_all(boxes), max(grid.height, grid.width) / PIECES)
    ground = affine_transform(pixels, grid.transform.to_shapely())
    there = _on_less_than_half_the_earth(ground, grid.crs)
    if there is None:
        across = transform_geom(grid.crs, LONLAT, shapely.geometry.mapping(ground), precision=DECIMALS)
        there = shapely.geometry.shape(across)
    turned = [orient(polygon) for polygon in getattr(there, "geoms", [there])]
    return shapely.MultiPolygon(turned) if len(turned) > 1 else turned[0]


def _on_less_than_half_the_earth(ground: BaseGeometry, crs: CRS) -> BaseGeometry | None:
    """Longitudes and latitudes of an outline, in two pieces where it crosses the antimeridian.

    GDAL does not cut it there in every CRS. None where the outline takes half of all longitudes or more, as around a
    pole, or has no place.
    """
    places = shapely.get_coordinates(ground)
    longitudes, latitudes = positions_in(crs, LONLAT, *places.T)
    if not np.isfinite(longitudes).all():
        return None
    longitudes = in_one_stretch((np.array(longitudes) + 180) % 360 - 180, 360)
    if np.ptp(longitudes) >= 180:
        return None
    degrees = np.round(np.column_stack([longitudes, latitudes]), DECIMALS)
    outline = shapely.transform(ground, lambda _: degrees)
    world, turn = shapely.box(-180, -90, 180, 90), [1, 0, 0, 1, 360, 0]
    pieces = [outline & world, affine_transform(outline & affine_transform(world, turn), [1, 0, 0, 1, -360, 0])]
    polygons = [part for part in shapely.get_parts(pieces) if part.area]  # not lines where one side touches the other
    return shapely.union_all(polygons)


def bounding_box(outline: BaseGeometry) -> list[float]:
    """[west, south, east, north] of an outline; west is beyond east if it lies on both sides of the antimeridian."""
    west, south, east, north = outline.bounds
    if east - west > 180:
        pieces = [piece.bounds for piece in shapely.get_parts(outline)]
        wests = [bounds[0] for bounds in pieces if bounds[0] > 0]
        easts = [bounds[2] for bounds in pieces if bounds[2] < 0]
        if wests and easts and max(easts) + 360 - min(wests) < east - west:  # else it goes around the world
            west, east = min(wests), max(easts)
    return [west, south, east, north]
