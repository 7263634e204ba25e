"""Make the sample data: a land-cover map, an aerial image, a radar image and buildings.

All four show the same invented ground. Run `python make_sample.py --help` for the options.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import geopandas
import numpy as np
import pyogrio
import rasterio
import shapely
from landscape import (
    APRON_M,
    NORTH,
    SUN_AZIMUTH_DEG,
    SUN_ELEVATION_DEG,
    WEST,
    WOOD_THRESHOLD,
    Floats,
    GroundField,
    Landscape,
    Look,
    fractal_noise,
    make_landscape,
)
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.features import rasterize
from rasterio.transform import Affine, from_origin
from rasterio.warp import reproject, transform_bounds

CRS = "EPSG:32632"
MAP_PIXEL_M = 2.0
IMAGE_PIXEL_M = 1.8
IMAGE_SHIFT_M = (3.7, 5.3)  # east and south of the corner of the land cover
SUBPIXELS = 2  # image pixels are means of SUBPIXELS x SUBPIXELS samples
BLOCK = 512  # pixels rendered at once along each side
SAR_PIXEL_DEG = (6.7e-5, 4.5e-5)  # east and north; about 5 m
SAR_LOOKS = 4
TILE_STEP_M = 0.5
TILE_SIDE = 1024  # samples of a repeating texture along each side
FILES = ("landcover.tif", "landcover.tif.aux.xml", "image.tif", "sar.tif", "buildings.gpkg")

SMALLEST_SIDE = 128  # land-cover pixels
TILING = {"tiled": True, "blockxsize": 256, "blockysize": 256}

CLASSES = {
    "nodata": (0, 0, 0),
    "water": (84, 140, 178),
    "forest": (58, 102, 62),
    "meadow": (166, 196, 120),
    "grain": (226, 202, 132),
    "row crop": (150, 160, 62),
    "bare ground": (178, 148, 118),
    "road": (120, 120, 124),
    "building": (180, 76, 66),
}
CLASS_NAMES = list(CLASSES)


class Style(NamedTuple):
    """How a look is drawn.

    Attributes:
        cover: land-cover class; "nodata" leaves the class below it on the map.
        colour: red, green, blue in full light.
        rows: distance between crop rows in metres; 0 for none.
        row_depth: relative strength of the rows.
        mottle: relative strength of patches some tens of metres wide.
        grain: relative strength of texture of a few metres.
        backscatter: VV and VH in dB.
    """

    cover: str
    colour: tuple[int, int, int]
    rows: float
    row_depth: float
    mottle: float
    grain: float
    backscatter: tuple[float, float]


STYLES = {
    Look.MEADOW: Style("meadow", (116, 130, 78), 7.0, 0.018, 0.075, 0.045, (-12.5, -19.0)),
    Look.GARDEN: Style("meadow", (104, 120, 76), 0.0, 0.0, 0.06, 0.075, (-11.5, -17.5)),
    Look.MARGIN: Style("nodata", (120, 128, 84), 0.0, 0.0, 0.05, 0.06, (-12.5, -19.0)),
    Look.GRAIN: Style("grain", (184, 167, 118), 5.6, 0.035, 0.05, 0.03, (-14.5, -21.5)),
    Look.ROW_CROP: Style("row crop", (92, 112, 62), 5.6, 0.10, 0.07, 0.04, (-9.5, -16.0)),
    Look.SOIL: Style("bare ground", (146, 124, 100), 4.8, 0.045, 0.085, 0.04, (-11.0, -21.0)),
    Look.GRAVEL: Style("bare ground", (174, 168, 152), 0.0, 0.0, 0.09, 0.06, (-12.5, -21.0)),
    Look.FOREST: Style("forest", (76, 95, 58), 0.0, 0.0, 0.06, 0.05, (-8.5, -13.2)),
    Look.WATER: Style("water", (58, 78, 76), 0.0, 0.0, 0.05, 0.02, (-21.0, -27.0)),
    Look.TRACK: Style("road", (168, 154, 128), 0.0, 0.0, 0.05, 0.06, (-13.5, -21.0)),
    Look.LANE: Style("road", (136, 134, 131), 0.0, 0.0, 0.03, 0.03, (-15.5, -22.5)),
    Look.MAIN_ROAD: Style("road", (126, 126, 127), 0.0, 0.0, 0.03, 0.025, (-16.0, -23.0)),
    Look.YARD: Style("road", (150, 147, 140), 0.0, 0.0, 0.05, 0.05, (-13.0, -20.0)),
    Look.ROOF_TILE: Style("building", (164, 104, 82), 0.0, 0.0, 0.02, 0.035, (-4.5, -12.5)),
    Look.ROOF_BROWN: Style("building", (134, 100, 82), 0.0, 0.0, 0.02, 0.035, (-4.5, -12.5)),
    Look.ROOF_SLATE: Style("building", (108, 106, 106), 0.0, 0.0, 0.02, 0.03, (-4.5, -12.5)),
    Look.ROOF_METAL: Style("building", (190, 189, 184), 0.0, 0.0, 0.02, 0.02, (-2.0, -11.0)),
}
EVERY_STYLE = [STYLES[look] for look in Look]
COVER = np.array([CLASS_NAMES.index(style.cover) for style in EVERY_STYLE], dtype=np.uint8)


@dataclass(frozen=True)
class Textures:
    """Repeating patterns on the ground.

    Attributes:
        mottle: patches some tens of metres wide, unit variance.
        grain: texture of a few metres, unit variance.
        stands: where the forest is coniferous (above 0) or broad-leaved.
        broadleaf: crowns of broad-leaved trees.
        conifer: crowns of conifers.
    """

    mottle: GroundField
    grain: GroundField
    stands: GroundField
    broadleaf: Canopy
    conifer: Canopy


@dataclass(frozen=True)
class Canopy:
    """A repeating piece of forest seen from above: height in metres, light, and tint per crown."""

    height: GroundField
    light: GroundField
    tint: GroundField


def grow_canopy(
    rng: np.random.Generator,
    spacing: float,
    radii: tuple[float, float],
    heights: tuple[float, float],
    pointed: bool,
) -> Canopy:
    """Grow a repeating canopy of crowns at random places.

    Args:
        rng: source of randomness.
        spacing: mean distance between trees in metres.
        radii: smallest and largest crown radius in metres.
        heights: lowest and highest tree in metres.
        pointed: whether crowns are cones rather than domes.
    """
    height = np.zeros((TILE_SIDE, TILE_SIDE), dtype=np.float32)
    tint = np.zeros_like(height)
    side = TILE_SIDE * TILE_STEP_M
    cells = round(side / spacing)
    for cell_row, cell_col in np.ndindex(cells, cells):
        row, col = (np.array([cell_row, cell_col]) + rng.uniform(0, 1, 2)) * spacing / TILE_STEP_M
        size = rng.uniform(0, 1)
        radius = radii[0] + size * (radii[1] - radii[0])
        top = heights[0] + (0.6 * size + 0.4 * rng.uniform()) * (heights[1] - heights[0])
        reach = int(np.ceil(radius / TILE_STEP_M))
        rows, cols = (np.arange(-reach, reach + 1) + int(centre) for centre in (row, col))
        away = np.hypot(rows[:, None] - row, cols - col) * TILE_STEP_M / radius
        fall = away * 1.5 if pointed else 1 - np.sqrt(np.clip(1 - away**2, 0, 1))
        crown = np.where(away < 1, top - fall * radius, 0)
        window = np.ix_(rows % TILE_SIDE, cols % TILE_SIDE)
        tint[window] = np.where(crown > height[window], rng.normal(), tint[window])
        height[window] = np.maximum(height[window], crown)
    return Canopy(*(GroundField(part, TILE_STEP_M) for part in (height, light_on(height, TILE_STEP_M, 0.45), tint)))


def light_on(height: Floats, step: float, strength: float = 1.0) -> Floats:
    """Light received by a surface relative to level ground, from its height (rows, cols).

    Args:
        height: metres, rows from north to south, repeating beyond its edges.
        step: distance between samples in metres.
        strength: factor on the slopes.
    """
    east = (np.roll(height, -1, 1) - np.roll(height, 1, 1)) * strength / (2 * step)
    north = (np.roll(height, 1, 0) - np.roll(height, -1, 0)) * strength / (2 * step)
    azimuth, elevation = np.radians(SUN_AZIMUTH_DEG), np.radians(SUN_ELEVATION_DEG)
    toward_sun = east * np.sin(azimuth) + north * np.cos(azimuth)
    light = (1 - toward_sun / np.tan(elevation)) / np.sqrt(1 + east**2 + north**2)
    return np.asarray(np.clip(light, 0.0, 2.0), dtype=np.float32)


def make_textures(seed: int) -> Textures:
    """Make the repeating patterns, the same for every size of the landscape."""
    rng = np.random.default_rng([seed, 1])
    shape = (TILE_SIDE, TILE_SIDE)
    return Textures(
        GroundField(fractal_noise(rng, shape, 2.0, 90.0, 1.6, shortest=5.0), 2.0),
        GroundField(fractal_noise(rng, shape, TILE_STEP_M, 5.0, 1.3, shortest=0.7), TILE_STEP_M),
        GroundField(fractal_noise(rng, shape, 8.0, 420.0, 2.4, shortest=20.0), 8.0),
        grow_canopy(rng, 5.4, (2.6, 5.6), (11.0, 18.0), pointed=False),
        grow_canopy(rng, 4.2, (1.9, 3.2), (13.0, 20.0), pointed=True),
    )


@dataclass(frozen=True)
class Relief:
    """Light and height of what stands on the ground, each (rows, cols), and a tint of the crowns."""

    height: Floats
    light: Floats
    tint: Floats


class Painter:
    """Draws a landscape on any north-up grid of its reference system."""

    def __init__(self, landscape: Landscape, textures: Textures) -> None:
        """Index the surfaces and trees of `landscape` for drawing block by block."""
        self.landscape = landscape
        self.textures = textures
        surfaces = landscape.surfaces
        self.outlines = np.array([surface.polygon for surface in surfaces])
        self.look = np.array([surface.look for surface in surfaces], dtype=np.intp)
        numbers = [(s.tone, s.warmth, s.angle, s.height, s.shade) for s in surfaces]
        self.tone, self.warmth, self.angle, self.height, self.shade = np.array(numbers, dtype=np.float32).T
        trees = [(t.east, t.north, t.radius, t.height) for t in landscape.trees] or [(0.0, 0.0, 1.0, 1.0)]
        self.trees = np.array(trees)
        self.crowns = shapely.buffer(shapely.points(self.trees[:, :2]), self.trees[:, 2])
        self.surface_index = shapely.STRtree(self.outlines)
        self.crown_index = shapely.STRtree(self.crowns)
        terrain = landscape.elevation
        self.hillshade = GroundField(light_on(terrain.values, terrain.step, 1.4), terrain.step)
        self.rise = GroundField(np.gradient(terrain.values, terrain.step, axis=1), terrain.step)

    def surfaces_at(self, eastings: Floats, northings: Floats) -> NDArray[np.int32]:
        """The index of the topmost surface on each sample (rows, cols)."""
        return burn(self.surface_index, self.outlines, eastings, northings, fill=0)

    def wooded(self, index: NDArray[np.int32], eastings: Floats, northings: Floats) -> NDArray[np.bool_]:
        """Where the forest is: painted forest, and meadows with a strong tendency to be wooded."""
        look = self.look[index]
        wood = self.landscape.wood.on_grid(eastings, northings)
        wood += 0.05 * self.textures.mottle.on_grid(eastings, northings)
        return np.asarray((look == Look.FOREST) | ((look == Look.MEADOW) & (wood > WOOD_THRESHOLD)))

    def cover(self, eastings: Floats, northings: Floats) -> NDArray[np.uint8]:
        """The land-cover class of each sample (rows, cols)."""
        mapped = np.flatnonzero(COVER[self.look] > 0)
        index = burn(self.surface_index, self.outlines, eastings, northings, fill=0, allowed=mapped)
        cover = COVER[self.look[index]]
        cover[self.wooded(index, eastings, northings)] = CLASS_NAMES.index("forest")
        return cover

    def relief(self, index: NDArray[np.int32], eastings: Floats, northings: Floats) -> Relief:
        """What stands on the ground: roofs, forest and single trees."""
        height, light = self.height[index], self.shade[index]
        forest = self.wooded(index, eastings, northings)
        scale = np.where(self.look[index] == Look.FOREST, height, 1.0).astype(np.float32)
        conifers = self.textures.stands.on_grid(eastings, northings) > 0.1
        tint = np.zeros_like(height)
        for kind, here in (
            (self.textures.broadleaf, forest & ~conifers),
            (self.textures.conifer, forest & conifers),
        ):
            height = np.where(here, scale * kind.height.on_grid(eastings, northings), height)
            light = np.where(here, kind.light.on_grid(eastings, northings), light)
            tint = np.where(here, kind.tint.on_grid(eastings, northings), tint)
        tint -= 1.6 * (forest & conifers)
        return self.add_trees(Relief(height, light, tint), eastings, northings)

    def add_trees(self, relief: Relief, eastings: Floats, northings: Floats) -> Relief:
        """Put the domes of the single trees on a relief."""
        number = burn(self.crown_index, self.crowns, eastings, northings, fill=-1)
        rows, cols = np.nonzero(number >= 0)
        east, north, radius, top = self.trees[number[rows, cols]].T
        away_east, away_north = (eastings[cols] - east) / radius, (northings[rows] - north) / radius
        azimuth = np.radians(SUN_AZIMUTH_DEG)
        facing = away_east * np.sin(azimuth) + away_north * np.cos(azimuth)
        relief.height[rows, cols] = top * (0.6 + 0.4 * np.sqrt(np.clip(1 - away_east**2 - away_north**2, 0, 1)))
        relief.light[rows, cols] = 1.0 + 0.5 * facing
        relief.tint[rows, cols] = np.sin(number[rows, cols] * 2.4)
        return relief

    def colours(self, index: NDArray[np.int32], eastings: Floats, northings: Floats) -> Floats:
        """Colours of the bare ground, fields and roofs in full light, (3, rows, cols)."""
        look = self.look[index]
        mottle = self.textures.mottle.on_grid(eastings, northings)
        grain = self.textures.grain.on_grid(eastings, northings)
        rows, depth, mottled, grained = (
            np.array([getattr(style, name) for style in EVERY_STYLE], dtype=np.float32)[look]
            for name in ("rows", "row_depth", "mottle", "grain")
        )
        angle = self.angle[index]
        across = (northings - NORTH).astype(np.float32)[:, None] * np.cos(angle)
        across -= (eastings - WEST).astype(np.float32) * np.sin(angle)
        ridges = depth * np.sin(2 * np.pi * across / np.maximum(rows, 1) + 0.4 * mottle)
        tramlines = -2.6 * depth * ((across % 22.4) < 1.8) * (rows > 0)
        strength = 1 + 0.055 * self.tone[index] + mottled * mottle + grained * grain + ridges + tramlines
        tilt = 0.03 * self.warmth[index] + 0.25 * mottled * mottle
        base = np.array([style.colour for style in EVERY_STYLE], dtype=np.float32)[look]
        tinted = np.stack([base[..., 0] * (1 + tilt), base[..., 1], base[..., 2] * (1 - tilt)])
        return np.asarray(tinted * strength)

    def photograph(self, eastings: Floats, northings: Floats) -> Floats:
        """Red, green and blue as seen from above, (3, rows, cols), in 0 to 255.

        Only shadows of things within the grid are drawn, so leave a margin of `APRON_M`.
        """
        index = self.surfaces_at(eastings, northings)
        relief = self.relief(index, eastings, northings)
        colours = self.colours(index, eastings, northings)
        green = relief.tint != 0
        foliage = np.array(STYLES[Look.FOREST].colour, dtype=np.float32)[:, None, None]
        warmth = np.array([0.10, 0.07, 0.04], dtype=np.float32)[:, None, None]
        mottle = self.textures.mottle.on_grid(eastings, northings)
        leaves = foliage * (1 + warmth * relief.tint) * (1 + 0.05 * mottle)
        colours = np.where(green, leaves, colours)
        light = relief.light * self.hillshade.on_grid(eastings, northings)
        dark = cast_shadows(relief.height, eastings[1] - eastings[0])
        ambient = np.array([0.30, 0.34, 0.42], dtype=np.float32)[:, None, None]
        lit = ambient + (1 - ambient) * light * (1 - 0.88 * dark)
        haze = np.array([12, 14, 18], dtype=np.float32)[:, None, None]
        return np.asarray(colours * lit + haze)

    def backscatter(self, eastings: Floats, northings: Floats) -> Floats:
        """Radar backscatter VV and VH as linear power, (2, rows, cols), seen from the west."""
        index = self.surfaces_at(eastings, northings)
        look = self.look[index]
        level = np.moveaxis(np.array([s.backscatter for s in EVERY_STYLE], dtype=np.float32)[look], -1, 0)
        relief = self.relief(index, eastings, northings)
        forest = self.wooded(index, eastings, northings)
        forest_level = np.array(STYLES[Look.FOREST].backscatter, dtype=np.float32)[:, None, None]
        level = np.where(forest, forest_level + 0.5 * relief.tint, level)
        level += np.where(relief.tint == 0, 1.1 * self.tone[index], 0)
        level += 0.5 * self.textures.mottle.on_grid(eastings, northings)
        toward = np.roll(relief.height, -3, 1) - relief.height
        level += np.array([0.95, 0.6], dtype=np.float32)[:, None, None] * np.clip(toward, -8, 12)
        level += 14.0 * self.rise.on_grid(eastings, northings)
        return np.asarray(10 ** (level / 10))


def burn(
    tree: shapely.STRtree,
    outlines: NDArray[np.object_],
    eastings: Floats,
    northings: Floats,
    fill: int,
    allowed: NDArray[np.intp] | None = None,
) -> NDArray[np.int32]:
    """Write the index of the last outline covering each sample into an array (rows, cols).

    Args:
        tree: index of `outlines`.
        outlines: polygons in painting order.
        eastings: of the cols, evenly spaced.
        northings: of the rows, evenly spaced downward.
        fill: value outside all outlines.
        allowed: sorted indices of the outlines to draw, all by default.
    """
    step = eastings[1] - eastings[0]
    west, north = eastings[0] - step / 2, northings[0] + step / 2
    shape = (northings.size, eastings.size)
    found = np.sort(tree.query(shapely.box(west, north - shape[0] * step, west + shape[1] * step, north)))
    if allowed is not None:
        found = np.intersect1d(found, allowed, assume_unique=True)
    shapes = [(outlines[index], int(index)) for index in found if not outlines[index].is_empty]
    if not shapes:
        return np.full(shape, fill, dtype=np.int32)
    transform = from_origin(west, north, step, step)
    return np.asarray(rasterize(shapes, shape, fill, transform=transform, dtype=np.int32))


def cast_shadows(height: Floats, step: float) -> Floats:
    """Find the samples in the shadow of higher ones toward the sun; 1 in full shadow, (rows, cols)."""
    azimuth, slope = np.radians(SUN_AZIMUTH_DEG), np.tan(np.radians(SUN_ELEVATION_DEG))
    overshoot = np.full_like(height, -np.inf)
    rows, cols = height.shape
    for count in range(1, int(height.max() / slope / step) + 2):
        down, right = -round(count * np.cos(azimuth)), round(count * np.sin(azimuth))
        caster = height[down:, right:] - count * step * slope
        target = overshoot[: rows - down, : cols - right]
        np.maximum(target, caster, out=target)
    return np.clip((overshoot - height) / 1.0, 0, 1)


def blocks(rows: int, cols: int) -> Iterator[tuple[slice, slice]]:
    """Cut an array into blocks of at most `BLOCK` rows and cols."""
    for row in range(0, rows, BLOCK):
        for col in range(0, cols, BLOCK):
            yield slice(row, min(row + BLOCK, rows)), slice(col, min(col + BLOCK, cols))


def centres(transform: Affine, rows: slice, cols: slice, split: int = 1, margin: int = 0) -> tuple[Floats, Floats]:
    """Eastings of the cols and northings of the rows of a block, each pixel split into `split` samples.

    Args:
        transform: of the whole grid, north-up.
        rows: rows of the block.
        cols: cols of the block.
        split: samples along the side of a pixel.
        margin: further pixels on each side of the block.
    """
    along_cols = np.arange((cols.start - margin) * split, (cols.stop + margin) * split) + 0.5
    along_rows = np.arange((rows.start - margin) * split, (rows.stop + margin) * split) + 0.5
    return transform.c + along_cols / split * transform.a, transform.f + along_rows / split * transform.e


def draw_map_and_radar(painter: Painter, side: int) -> tuple[NDArray[np.uint8], Floats]:
    """Draw the land cover (rows, cols) and the backscatter (2, rows, cols) on the grid of the map."""
    transform = from_origin(WEST, NORTH, MAP_PIXEL_M, MAP_PIXEL_M)
    cover = np.zeros((side, side), dtype=np.uint8)
    power = np.zeros((2, side, side), dtype=np.float32)
    margin = 4
    for rows, cols in blocks(side, side):
        cover[rows, cols] = painter.cover(*centres(transform, rows, cols))
        seen = painter.backscatter(*centres(transform, rows, cols, margin=margin))
        power[:, rows, cols] = seen[:, margin:-margin, margin:-margin]
    return cover, power


def draw_image(painter: Painter, transform: Affine, side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw the aerial image (3, rows, cols): area means of finer samples, with little sensor noise."""
    image = np.zeros((3, side, side), dtype=np.uint8)
    margin = int(np.ceil(APRON_M / 1.5 / IMAGE_PIXEL_M))
    for rows, cols in blocks(side, side):
        fine = painter.photograph(*centres(transform, rows, cols, SUBPIXELS, margin))
        bands, height, width = fine.shape
        fine = fine.reshape(bands, height // SUBPIXELS, SUBPIXELS, width // SUBPIXELS, SUBPIXELS)
        block = fine.mean(axis=(2, 4))[:, margin:-margin, margin:-margin]
        block += rng.normal(0, 1.0, block.shape)
        image[:, rows, cols] = np.clip(np.rint(block), 1, 255)
    return image


def swath_mask(side: int) -> NDArray[np.bool_]:
    """Valid pixels (rows, cols) of an image that ends at a slanted swath edge in its lower left."""
    row, col = np.ogrid[:side, :side]
    return col / 0.24 + (side - row) / 0.42 > side


def write_landcover(path: Path, cover: NDArray[np.uint8]) -> None:
    """Write the land cover with its colours, and its class names beside it."""
    profile = {"width": cover.shape[1], "height": cover.shape[0], "count": 1, "dtype": "uint8", "nodata": 0}
    grid = {"crs": CRS, "transform": from_origin(WEST, NORTH, MAP_PIXEL_M, MAP_PIXEL_M)}
    with rasterio.open(path, "w", driver="GTiff", compress="deflate", **TILING, **profile, **grid) as target:
        target.write(cover, 1)
        target.write_colormap(1, {value: (*rgb, 255) for value, rgb in enumerate(CLASSES.values())})
        target.set_band_description(1, "land cover")
    categories = "".join(f"      <Category>{name}</Category>\n" for name in CLASSES)
    path.with_name(path.name + ".aux.xml").write_text(
        '<PAMDataset>\n  <PAMRasterBand band="1">\n    <CategoryNames>\n'
        f"{categories}    </CategoryNames>\n  </PAMRasterBand>\n</PAMDataset>\n"
    )


def write_image(path: Path, image: NDArray[np.uint8], valid: NDArray[np.bool_], transform: Affine) -> None:
    """Write the aerial image with its validity as an internal mask."""
    profile = {"count": 3, "dtype": "uint8", "height": image.shape[1], "width": image.shape[2]}
    packing = {
        "compress": "deflate",
        "predictor": 2,
        "zlevel": 9,
        "photometric": "RGB",
        "interleave": "pixel",
    }
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", driver="GTiff", crs=CRS, transform=transform, **profile, **packing, **TILING
        ) as target,
    ):
        target.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
        target.write(image * valid)
        target.write_mask(valid)


def write_radar(path: Path, power: Floats, rng: np.random.Generator) -> None:
    """Average the backscatter onto a geographic grid, speckle it and write it in dB.

    Args:
        path: file to write.
        power: linear backscatter (2, rows, cols) on the grid of the land cover.
        rng: source of the speckle.
    """
    ground = from_origin(WEST, NORTH, MAP_PIXEL_M, MAP_PIXEL_M)
    side = power.shape[1] * MAP_PIXEL_M
    west, south, east, north = transform_bounds(CRS, "EPSG:4326", WEST, NORTH - side, WEST + side, NORTH)
    grid = from_origin(west, north, *SAR_PIXEL_DEG)
    shape = (int((north - south) / SAR_PIXEL_DEG[1]), int((east - west) / SAR_PIXEL_DEG[0]))
    mean = np.full((2, *shape), np.nan, dtype=np.float32)
    reproject(
        power,
        mean,
        src_transform=ground,
        src_crs=CRS,
        dst_transform=grid,
        dst_crs="EPSG:4326",
        dst_nodata=np.nan,
        resampling=Resampling.average,
    )
    speckled = 10 * np.log10(mean * rng.gamma(SAR_LOOKS, 1 / SAR_LOOKS, mean.shape))
    stored = (np.rint(speckled * 32) / 32).astype(np.float32)
    profile = {"count": 2, "dtype": "float32", "height": shape[0], "width": shape[1], "nodata": np.nan}
    packing = {"compress": "deflate", "predictor": 2, "zlevel": 9}
    with rasterio.open(
        path, "w", driver="GTiff", crs="EPSG:4326", transform=grid, **profile, **packing, **TILING
    ) as target:
        target.write(stored)
        target.descriptions = ("VV", "VH")
        target.units = ("dB", "dB")


def write_buildings(path: Path, landscape: Landscape) -> None:
    """Write the footprints of the buildings on the ground with their class and height."""
    ground = shapely.box(WEST, NORTH - landscape.side, WEST + landscape.side, NORTH)
    inside = [b for b in landscape.buildings if ground.intersects(b.footprint)]
    table = geopandas.GeoDataFrame(
        {"class": [b.kind for b in inside], "height": [round(b.height, 1) for b in inside]},
        geometry=[b.footprint for b in inside],
        crs=CRS,
    )
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": "2024-01-01T00:00:00.000Z"})
    table.to_file(path, layer="buildings", driver="GPKG")


def make_sample(out: Path, side: int, seed: int) -> None:
    """Make all files of the sample data in the folder `out`, of `side` land-cover pixels per side."""
    landscape = make_landscape(seed, side * MAP_PIXEL_M)
    painter = Painter(landscape, make_textures(seed))
    noise_rng, speckle_rng = np.random.default_rng([seed, 2]).spawn(2)
    cover, power = draw_map_and_radar(painter, side)
    write_landcover(out / "landcover.tif", cover)
    write_radar(out / "sar.tif", power, speckle_rng)
    write_buildings(out / "buildings.gpkg", landscape)
    east, south = IMAGE_SHIFT_M
    transform = from_origin(WEST + east, NORTH - south, IMAGE_PIXEL_M, IMAGE_PIXEL_M)
    image_side = int((side * MAP_PIXEL_M - max(IMAGE_SHIFT_M)) / IMAGE_PIXEL_M)
    image = draw_image(painter, transform, image_side, noise_rng)
    write_image(out / "image.tif", image, swath_mask(image_side), transform)


def main() -> None:
    """Read the command line and make the sample data."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder for the files")
    parser.add_argument("--size", type=int, default=1024, help="land-cover pixels per side")
    parser.add_argument("--seed", type=int, default=9, help="another seed makes another landscape")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    options = parser.parse_args()
    if options.size < SMALLEST_SIDE:
        parser.error(f"--size must be at least {SMALLEST_SIDE}, not {options.size}")
    existing = [name for name in FILES if (options.out / name).exists()]
    if existing and not options.overwrite:
        parser.error(f"{options.out} already holds {', '.join(existing)}; use --overwrite to replace")
    for name in existing:
        (options.out / name).unlink()
    options.out.mkdir(parents=True, exist_ok=True)
    make_sample(options.out, options.size, options.seed)


if __name__ == "__main__":
    main()
