"""An invented landscape: terrain, water, roads, villages, fields and woods as fields and polygons.

Everything here lives in ground coordinates (EPSG:32632, metres), so that each product can be
drawn on its own grid from the same ground. A larger landscape holds more of the same features at
the same ground size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise, product
from typing import TypeVar

import numpy as np
import shapely
import shapely.ops
from numpy.typing import NDArray
from shapely import LineString, Point, Polygon
from shapely.affinity import rotate, translate
from shapely.geometry.base import BaseGeometry

Floats = NDArray[np.floating]
T = TypeVar("T", bound=BaseGeometry)

WEST, NORTH = 640_000.0, 5_312_000.0  # upper left corner of the ground
APRON_M = 60.0  # drawn ground outside the products, for shadows that fall into them
TERRAIN_STEP_M = 8.0
RELIEF_M = 26.0  # standard deviation of the elevation
RIVER_SPACING_M = 2600.0
RIVER_WIDTH_M = 21.0
MEANDER_LENGTH_M = 330.0
SITE_SPACING_M = 1024.0
LATTICE_TURN = 0.33  # radians
WOOD_THRESHOLD = 0.42
SUN_AZIMUTH_DEG, SUN_ELEVATION_DEG = 140.0, 40.0


class Look(IntEnum):
    """How a piece of ground looks; several looks share one land-cover class."""

    MEADOW = 0
    GARDEN = 1
    MARGIN = 2
    GRAIN = 3
    ROW_CROP = 4
    SOIL = 5
    GRAVEL = 6
    FOREST = 7
    WATER = 8
    TRACK = 9
    LANE = 10
    MAIN_ROAD = 11
    YARD = 12
    ROOF_TILE = 13
    ROOF_BROWN = 14
    ROOF_SLATE = 15
    ROOF_METAL = 16


@dataclass(frozen=True)
class Surface:
    """A polygon painted on the ground.

    Attributes:
        polygon: outline in ground coordinates.
        look: what it is made of.
        tone: brightness relative to the look, in standard deviations.
        warmth: shift from blue to red, in standard deviations.
        angle: direction of crop rows, in radians anticlockwise from east.
        height: height of a roof above the ground in metres; of trees relative to tall forest.
        shade: light received relative to level ground.
    """

    polygon: BaseGeometry
    look: Look
    tone: float = 0.0
    warmth: float = 0.0
    angle: float = 0.0
    height: float = 0.0
    shade: float = 1.0


@dataclass(frozen=True)
class Tree:
    """A single tree outside the woods: crown centre, crown radius and height, in metres."""

    east: float
    north: float
    radius: float
    height: float


@dataclass(frozen=True)
class Building:
    """A building of one or two rectangular wings.

    Attributes:
        wings: rectangles as (east, north, angle, length, width); the ridge runs along the length.
        kind: "house", "barn" or "hall".
        height: height of the ridge above the ground, in metres.
        roof: look of the roof.
    """

    wings: tuple[tuple[float, float, float, float, float], ...]
    kind: str
    height: float
    roof: Look

    @property
    def footprint(self) -> BaseGeometry:
        """The outline of all wings together."""
        return shapely.union_all([rectangle(*wing) for wing in self.wings])


@dataclass(frozen=True)
class GroundField:
    """A smooth quantity on a regular grid of the ground, repeating beyond its edges.

    Attributes:
        values: array (rows, cols), rows from north to south.
        step: distance between samples in metres.
    """

    values: Floats
    step: float

    def on_grid(self, eastings: Floats, northings: Floats) -> Floats:
        """Interpolate linearly on the grid of `northings` (rows) by `eastings` (cols)."""
        row, col = (NORTH - northings) / self.step, (eastings - WEST) / self.step
        first_row, first_col = np.floor(row).astype(int), np.floor(col).astype(int)
        row_part = (row - first_row).astype(np.float32)[:, None]
        col_part = (col - first_col).astype(np.float32)
        rows, cols = self.values.shape
        upper, lower = self.values[first_row % rows], self.values[(first_row + 1) % rows]
        line = upper + (lower - upper) * row_part
        left, right = line[:, first_col % cols], line[:, (first_col + 1) % cols]
        values: Floats = left + (right - left) * col_part
        return values

    def at(self, point: Point) -> float:
        """The value at one point."""
        return float(self.on_grid(np.array([point.x]), np.array([point.y]))[0, 0])


@dataclass(frozen=True)
class Landscape:
    """Everything on the ground, in painting order.

    Attributes:
        side: length of the side of the ground in metres.
        elevation: metres above sea level.
        wood: tendency to be wooded; meadows above `WOOD_THRESHOLD` carry trees.
        surfaces: polygons, later ones covering earlier ones.
        trees: single trees.
        buildings: buildings whose footprints and roofs are among the surfaces.
    """

    side: float
    elevation: GroundField
    wood: GroundField
    surfaces: list[Surface]
    trees: list[Tree]
    buildings: list[Building]


def fractal_noise(
    rng: np.random.Generator,
    shape: tuple[int, int],
    step: float,
    longest: float,
    roughness: float,
    shortest: float = 0.0,
) -> Floats:
    """Draw periodic noise (rows, cols) of unit variance with a power-law spectrum.

    Args:
        rng: source of randomness.
        shape: rows and cols.
        step: distance between samples in metres.
        longest: wavelength in metres above which the spectrum is flat.
        roughness: exponent of the fall of the amplitude with frequency; smaller is rougher.
        shortest: wavelength in metres below which the noise is smoothed away.
    """
    rows, cols = shape
    frequency = np.hypot(np.fft.fftfreq(rows, step)[:, None], np.fft.rfftfreq(cols, step))
    amplitude = (frequency**2 + longest**-2) ** (-roughness / 2) * np.exp(-((frequency * shortest) ** 2))
    amplitude[0, 0] = 0.0
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) * amplitude, s=shape)
    noise /= noise.std()
    return np.asarray(noise, dtype=np.float32)


def smooth_series(values: Floats, width: int) -> Floats:
    """Smooth a series with a moving average of `width` samples, repeating its ends."""
    padded = np.pad(values, width, mode="edge")
    for _ in range(2):
        padded = np.convolve(padded, np.full(width, 1 / width), mode="same")
    return padded[width:-width]


def random_series(rng: np.random.Generator, length: int, width: int) -> Floats:
    """Draw a smooth series of unit variance whose samples are related over `width` samples."""
    series = smooth_series(rng.standard_normal(length + 4 * width), width)[2 * width : -2 * width]
    return np.asarray(series / (series.std() + 1e-9))


def lowest_path(elevation: Floats) -> NDArray[np.intp]:
    """Find the row in each col of the path from west to east with the lowest mean elevation."""
    cols = elevation.shape[1]
    total = elevation.astype(np.float64)
    for col in range(1, cols):
        before = np.pad(total[:, col - 1], 1, constant_values=np.inf)
        total[:, col] += np.minimum(np.minimum(before[:-2], before[2:]), before[1:-1])
    path = np.empty(cols, dtype=np.intp)
    path[-1] = total[:, -1].argmin()
    for col in range(cols - 2, -1, -1):
        first = max(path[col + 1] - 1, 0)
        path[col] = first + total[first : path[col + 1] + 2, col].argmin()
    return path


def carve_valleys(elevation: Floats, side: float) -> tuple[Floats, list[Floats]]:
    """Sink a valley along the lowest path of each belt of the terrain.

    Args:
        elevation: array (rows, cols) on the terrain grid.
        side: length of the side of the ground in metres.

    Returns:
        The elevation with valleys, and for each valley the row of its axis in each col.
    """
    rows, cols = elevation.shape
    belts = max(1, round(side / RIVER_SPACING_M))
    edges = np.linspace(0, side / TERRAIN_STEP_M, belts + 1).astype(int)
    axes = []
    for first, last in pairwise(edges):
        inset = (last - first) // 5
        path = first + inset + lowest_path(elevation[first + inset : last - inset])
        axis = smooth_series(path.astype(np.float64), 41)
        floor = smooth_series(elevation[axis.astype(int), np.arange(cols)], 61)
        distance = (np.arange(rows)[:, None] - axis) * TERRAIN_STEP_M
        weight = np.exp(-((distance / 210.0) ** 2))
        elevation = elevation * (1 - weight) + (floor - 14.0) * weight
        axes.append(axis)
    return elevation.astype(np.float32), axes


def offset_line(east: Floats, north: Floats, offset: Floats | float, shift: Floats | float = 0.0) -> Floats:
    """Move the vertices of a line to its left by `offset` and forward by `shift`; (vertices, 2)."""
    forward = np.stack([np.gradient(east), np.gradient(north)])
    forward /= np.hypot(*forward) + 1e-9
    left = np.stack([-forward[1], forward[0]])
    return (np.stack([east, north]) + left * offset + forward * shift).T


def meander(rng: np.random.Generator, axis: Floats) -> Floats:
    """Wind a river about its valley axis; returns vertices (vertices, 2) about 6 m apart."""
    east = WEST + np.arange(-30, axis.size + 30) * TERRAIN_STEP_M
    north = NORTH - np.pad(axis, 30, mode="edge") * TERRAIN_STEP_M
    position = np.arange(0, east.size - 1, 0.6)
    east = np.interp(position, np.arange(east.size), east)
    north = np.interp(position, np.arange(north.size), north)
    pace = 1 + 0.35 * random_series(rng, east.size, 90)
    phase = np.cumsum(2 * np.pi * 0.6 * TERRAIN_STEP_M / MEANDER_LENGTH_M * pace)
    size = np.clip(36 + 22 * random_series(rng, east.size, 80), 20, 75)
    wound = offset_line(east, north, size * np.sin(phase), -0.45 * size * np.sin(2 * phase))
    line = LineString(wound)
    steps = np.arange(0, line.length, 6.0)
    return shapely.get_coordinates(shapely.line_interpolate_point(line, steps))


def draw_river(rng: np.random.Generator, axis: Floats) -> tuple[LineString, BaseGeometry, BaseGeometry]:
    """Draw a river of changing width along a valley axis; returns its line, water and gravel bars."""
    vertices = meander(rng, axis)
    east, north = (smooth_series(part, 5) for part in vertices.T)
    heading = np.unwrap(np.arctan2(np.gradient(north), np.gradient(east)))
    bend = smooth_series(np.gradient(heading), 9) / 6.0
    tightness = np.clip(np.abs(bend) * 60.0, 0, 1)
    wild = random_series(rng, east.size, 14)
    width = RIVER_WIDTH_M * np.clip(0.8 + 0.35 * tightness + 0.16 * wild, 0.5, 1.6)
    segments = shapely.linestrings(np.stack([vertices[:-1], vertices[1:]], axis=1))
    water = shapely.union_all(shapely.buffer(segments, width[:-1] / 2, quad_segs=6))
    inner = np.sign(bend) * (width / 2 + 1.0)
    barred = (tightness > 0.45) & (random_series(rng, east.size, 25) > -0.4)
    bars = shapely.points(offset_line(east, north, inner)[barred])
    radius = width[barred] * 0.42 * (tightness[barred] - 0.2)
    gravel = shapely.union_all(shapely.buffer(bars, radius)).difference(water)
    return LineString(np.column_stack([east, north])), water, gravel


def draw_blob(rng: np.random.Generator, centre: Point, radius: float) -> Polygon:
    """Draw a rounded, irregular outline such as a pond or a pit."""
    bearing = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    reach = np.ones_like(bearing)
    for order in range(2, 7):
        reach += rng.normal(0, 0.28 / order) * np.cos(order * bearing + rng.uniform(0, 2 * np.pi))
    stretch, turn = rng.uniform(1.1, 1.7), rng.uniform(0, np.pi)
    corners = np.column_stack([reach * np.cos(bearing) * stretch, reach * np.sin(bearing)]) * radius
    return translate(rotate(Polygon(corners), turn, use_radians=True, origin=(0, 0)), centre.x, centre.y)


@dataclass(frozen=True)
class Site:
    """A village or hamlet: where its roads meet and how far its houses reach, in metres."""

    place: Point
    reach: float


def choose_sites(
    rng: np.random.Generator, side: float, rivers: BaseGeometry, elevation: GroundField
) -> dict[tuple[int, int], Site]:
    """Place one settlement in each cell of a coarse lattice, level and away from rivers.

    The lattice is turned against the grid and reaches beyond the ground, so that roads lead out of it.
    """
    cells = round(side / SITE_SPACING_M)
    around = 1 + int(np.ceil(0.15 * cells))
    lattice = np.arange(-around, cells + around)
    reaches = rng.permuted(np.resize([360.0, 130.0, 270.0, 190.0], lattice.size**2))
    cos, sin = np.cos(LATTICE_TURN), np.sin(LATTICE_TURN)
    sites = {}
    for (row, col), reach in zip(product(lattice, lattice), reaches, strict=True):
        draws = (rng.uniform(0.2, 0.8, (14, 2)) + np.array([col, row])) * SITE_SPACING_M - side / 2
        turned = draws @ np.array([[cos, sin], [-sin, cos]]) + side / 2
        places = shapely.points(WEST + turned[:, 0], NORTH - turned[:, 1])
        costs = [elevation.at(p) / 40.0 + 3.0 * (rivers.distance(p) < 170.0) for p in places]
        sites[int(row), int(col)] = Site(places[int(np.argmin(costs))], float(reach))
    return sites


def curve_through(before: Point, start: Point, end: Point, after: Point, sway: float) -> LineString:
    """Draw the smooth piece from `start` to `end` of a curve through four points (Catmull-Rom)."""
    p0, p1, p2, p3 = (np.array(point.coords[0]) for point in (before, start, end, after))
    t = np.linspace(0, 1, 121)[:, None]
    curve = 0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3)
    bow = sway * (np.sin(np.pi * t) * np.sin(2 * np.pi * t)).ravel()
    return LineString(offset_line(curve[:, 0], curve[:, 1], bow))


def connect_sites(
    rng: np.random.Generator, sites: dict[tuple[int, int], Site], rivers: BaseGeometry
) -> tuple[list[LineString], list[LineString]]:
    """Join neighbouring settlements by roads; returns main roads and lanes."""
    main, lanes = [], []
    for row, col in sites:
        for step in ((0, 1), (1, 0)):
            chain = [sites.get((row + k * step[0], col + k * step[1])) for k in (-1, 0, 1, 2)]
            before, start, end, after = chain
            if start is None or end is None:
                continue
            line = curve_through(
                (before or start).place, start.place, end.place, (after or end).place, rng.normal(0, 55)
            )
            is_main = row % 3 == 0 if step == (0, 1) else col % 3 == 1
            if is_main:
                main.append(line)
            elif line.intersection(rivers).length < 70.0 and rng.random() < 0.8:
                lanes.append(line)
    return main, lanes


def branch_streets(rng: np.random.Generator, site: Site, stems: list[LineString], depth: int = 2) -> list[LineString]:
    """Let village streets branch off the roads of a settlement and again off these streets."""
    ground = site.place.buffer(site.reach)
    grown = list(stems)
    streets: list[LineString] = []
    front = lines_of(line.intersection(ground) for line in stems)
    for _ in range(depth):
        sprouts = []
        for stem in front:
            for along in np.arange(rng.uniform(20, 50), stem.length - 15, 24.0):
                street = sprout_street(rng, stem, along, site)
                if street is None:
                    continue
                outer = shapely.ops.substring(street, 36.0, street.length)
                if min(outer.distance(line) for line in grown) > 33.0:
                    sprouts.append(street)
                    grown.append(street)
        streets += sprouts
        front = sprouts
    return streets


def sprout_street(rng: np.random.Generator, stem: LineString, along: float, site: Site) -> LineString | None:
    """Draw a gently bent street leaving `stem` at `along` metres, or None where it would be too short."""
    foot, ahead = stem.interpolate(along), stem.interpolate(along + 2.0)
    side = rng.choice([-1.0, 1.0])
    heading = np.arctan2(ahead.y - foot.y, ahead.x - foot.x) + side * np.pi / 2 + rng.normal(0, 0.08)
    run = np.arange(0, rng.uniform(90, 260), 6.0)
    headings = heading + rng.normal(0, 0.0016) * run
    east = foot.x + np.cumsum(np.cos(headings)) * 6.0 - 6.0 * np.cos(heading)
    north = foot.y + np.cumsum(np.sin(headings)) * 6.0 - 6.0 * np.sin(heading)
    inside = np.hypot(east - site.place.x, north - site.place.y) < site.reach
    length = int(inside.size if inside.all() else inside.argmin())
    return LineString(np.column_stack([east, north])[:length]) if length > 10 else None


def rectangle(east: float, north: float, angle: float, length: float, width: float) -> Polygon:
    """Build a rectangle about a centre, its length pointing along `angle` (radians from east)."""
    along = np.array([np.cos(angle), np.sin(angle)]) * length / 2
    across = np.array([-np.sin(angle), np.cos(angle)]) * width / 2
    corners = [along + across, across - along, -along - across, along - across]
    return Polygon(np.array(corners) + np.array([east, north]))


def design_building(rng: np.random.Generator, east: float, north: float, angle: float, kind: str) -> Building:
    """Choose size, wings, height and roof of a building at a place."""
    roofs, shares = [Look.ROOF_TILE, Look.ROOF_BROWN, Look.ROOF_SLATE], [0.55, 0.27, 0.18]
    if kind == "hall":
        wing = (east, north, angle, rng.uniform(38, 62), rng.uniform(22, 30))
        return Building((wing,), kind, rng.uniform(7, 10), Look.ROOF_METAL)
    roof = Look(rng.choice(roofs, p=shares))
    if kind == "barn":
        wing = (east, north, angle, rng.uniform(22, 32), rng.uniform(13, 16))
        return Building((wing,), kind, rng.uniform(9, 12), roof)
    length, width = rng.uniform(13, 17), rng.uniform(10, 11.5)
    wings = [(east, north, angle, length, width)]
    if rng.random() < 0.3:
        reach, wide = rng.uniform(8, 10) + width / 2, width * 0.72
        sign, push = rng.choice([-1.0, 1.0]), (length - wide) / 2 * rng.choice([-1.0, 1.0])
        cos, sin = np.cos(angle), np.sin(angle)
        wing_east = east + cos * push - sin * sign * reach / 2
        wing_north = north + sin * push + cos * sign * reach / 2
        wings.append((wing_east, wing_north, angle + np.pi / 2, reach, wide))
    return Building(tuple(wings), kind, rng.uniform(7.5, 9.5), roof)


def line_streets(rng: np.random.Generator, site: Site, street: LineString, half_width: float) -> Iterator[Building]:
    """Propose buildings on both sides of a street, in one or two rows, facing it."""
    for side in (-1.0, 1.0):
        along = rng.uniform(12, 22)
        while along < street.length - 4:
            foot, ahead = street.interpolate(along), street.interpolate(along + 1.0)
            heading = np.arctan2(ahead.y - foot.y, ahead.x - foot.x)
            rim = foot.distance(site.place) / site.reach
            chances = [0.62, 0.32, 0.06] if rim > 0.7 or site.reach < 130 else [0.9, 0.1, 0.0]
            kind = str(rng.choice(["house", "barn", "hall"], p=chances))
            turn = np.pi / 2 if kind != "hall" and rng.random() < 0.3 else 0.0
            setback = half_width + {"house": 12.5, "barn": 15.0, "hall": 25.0}[kind] + rng.uniform(0, 3)
            for row in range(2 if kind == "house" and rng.random() < 0.4 else 1):
                reach = side * (setback + turn * 2.0 + row * rng.uniform(23, 28))
                east, north = foot.x - np.sin(heading) * reach, foot.y + np.cos(heading) * reach
                yield design_building(rng, east, north, heading + turn + rng.normal(0, 0.03), kind)
            along += {"house": 23.0, "barn": 33.0, "hall": 58.0}[kind] + rng.uniform(0, 6)


def keep_apart(proposals: list[Building], blocked: BaseGeometry) -> list[Building]:
    """Keep the buildings that touch neither `blocked` ground nor a building kept before."""
    footprints = [building.footprint for building in proposals]
    spaced = shapely.buffer(np.array(footprints, dtype=object), 3.0, join_style="mitre")
    shapely.prepare(blocked)
    free = ~shapely.intersects(blocked, spaced)
    clashes: dict[int, list[int]] = {}
    for one, other in shapely.STRtree(spaced).query(spaced, predicate="intersects").T:
        clashes.setdefault(int(one), []).append(int(other))
    kept: set[int] = set()
    for index in np.flatnonzero(free):
        if kept.isdisjoint(clashes[int(index)]):
            kept.add(int(index))
    return [proposals[index] for index in sorted(kept)]


def roof_surfaces(building: Building) -> Iterator[Surface]:
    """Split a building into roof sides, each lit by the sun according to its slope."""
    sun_east, sun_north = np.sin(np.radians(SUN_AZIMUTH_DEG)), np.cos(np.radians(SUN_AZIMUTH_DEG))
    flatness = np.tan(np.radians(SUN_ELEVATION_DEG))
    pitch = np.radians(8.0 if building.kind == "hall" else 36.0)
    yield Surface(building.footprint, building.roof, height=building.height)
    for east, north, angle, length, width in building.wings:
        for side in (-1.0, 1.0):
            out_east, out_north = -np.sin(angle) * side, np.cos(angle) * side
            facing = out_east * sun_east + out_north * sun_north
            light = np.cos(pitch) + np.sin(pitch) * facing / flatness
            half = rectangle(east + out_east * width / 4, north + out_north * width / 4, angle, length, width / 2)
            shade = 0.45 + 0.55 * max(light, 0.0)
            yield Surface(half, building.roof, height=building.height, shade=shade)


def split_ground(
    rng: np.random.Generator,
    piece: Polygon,
    angle: float,
    target: float,
    stretch: float = 1.0,
    track_above: float = np.inf,
) -> tuple[list[Polygon], list[LineString]]:
    """Split a polygon again and again across its longer side, in a frame turned by `angle`.

    Args:
        rng: source of randomness.
        piece: polygon to split.
        angle: direction of the frame in radians.
        target: area in square metres below which a piece stays whole.
        stretch: above 1 the pieces are long along the frame's second axis, below 1 along its first.
        track_above: area in square metres above which a track runs along the cut.

    Returns:
        The pieces and the tracks.
    """
    waiting = [rotate(piece, -angle, origin=(WEST, NORTH), use_radians=True)]
    pieces: list[Polygon] = []
    tracks: list[BaseGeometry] = []
    while waiting:
        part = waiting.pop()
        if part.area < target * rng.uniform(0.6, 1.5):
            pieces.append(part)
            continue
        west, south, east, north = part.bounds
        where = rng.choice([0.5, 0.5, 0.36, 0.64]) + rng.uniform(-0.06, 0.06)
        if (east - west) * stretch * rng.uniform(0.8, 1.25) > north - south:
            cut = west + where * (east - west)
            halves = [shapely.box(west, south, cut, north), shapely.box(cut, south, east, north)]
            line = LineString([(cut, south), (cut, north)])
        else:
            cut = south + where * (north - south)
            halves = [shapely.box(west, south, east, cut), shapely.box(west, cut, east, north)]
            line = LineString([(west, cut), (east, cut)])
        if part.area > track_above:
            tracks.append(line.intersection(part))
        for half in halves:
            waiting += [p for p in shapely.get_parts(part.intersection(half)) if isinstance(p, Polygon)]

    def turn_back(geometry: T) -> T:
        return rotate(geometry, angle, origin=(WEST, NORTH), use_radians=True)

    return [turn_back(part) for part in pieces], [turn_back(track) for track in lines_of(tracks)]


def long_direction(polygon: Polygon) -> float:
    """The direction of the longer side of a polygon, in radians from east."""
    corners = shapely.get_coordinates(polygon.minimum_rotated_rectangle)
    sides = np.diff(corners[:3], axis=0)
    east, north = sides[np.hypot(*sides.T).argmax()]
    return float(np.arctan2(north, east))


def draw_parcels(
    rng: np.random.Generator, ground: Polygon, dividers: list[LineString]
) -> tuple[list[tuple[Polygon, float]], list[LineString]]:
    """Divide the ground between roads and rivers into parcels; returns (parcel, direction), and tracks."""
    lines = shapely.union_all([ground.exterior, *dividers])
    parcels, tracks = [], []
    for block in shapely.ops.polygonize(lines.intersection(ground)):
        angle = long_direction(block) + rng.normal(0, 0.1)
        target, stretch = rng.uniform(1.1e4, 3.2e4), np.exp(rng.uniform(-0.9, 0.9))
        pieces, cuts = split_ground(rng, block, angle, target, stretch, track_above=1.1e5)
        parcels += [(piece, angle) for piece in pieces]
        tracks += cuts
    return parcels, tracks


def use_parcel(
    rng: np.random.Generator, parcel: Polygon, wood: float, river_distance: float, near_village: bool
) -> Look:
    """Choose what grows on a parcel from its size, its woodiness and its surroundings."""
    if wood > WOOD_THRESHOLD and not near_village:
        return Look.FOREST
    if river_distance < 45.0 or parcel.area < 2500.0:
        return Look.MEADOW
    meadow = 0.5 if river_distance < 140.0 else 0.2
    crops = np.array([0.45, 0.33, 0.22]) * (1 - meadow)
    looks = [Look.MEADOW, Look.GRAIN, Look.ROW_CROP, Look.SOIL]
    return Look(rng.choice(looks, p=[meadow, *crops]))


def plant_garden(rng: np.random.Generator, lot: Polygon, taken: BaseGeometry) -> Iterator[Tree]:
    """Plant a few trees in a garden lot, clear of roads and buildings."""
    west, south, east, north = lot.bounds
    for _ in range(rng.poisson(lot.area / 380.0)):
        radius = rng.uniform(2.0, 3.8)
        tree = Tree(rng.uniform(west, east), rng.uniform(south, north), radius, radius * rng.uniform(1.8, 2.4))
        crown = Point(tree.east, tree.north).buffer(radius)
        if lot.contains(crown.centroid) and not taken.intersects(crown):
            yield tree


def plant_avenue(rng: np.random.Generator, road: LineString, offset: float) -> Iterator[Tree]:
    """Plant a row of trees beside a stretch of road."""
    start = rng.uniform(0, 0.5) * road.length
    stretch = shapely.ops.substring(road, start, start + rng.uniform(150, 380))
    side = shapely.offset_curve(stretch, offset * rng.choice([-1.0, 1.0]))
    for along in np.arange(0, side.length, 12.0):
        place = side.interpolate(along + rng.normal(0, 1.2))
        radius = rng.uniform(2.6, 4.0)
        yield Tree(place.x, place.y, radius, radius * 2.2)


def wooded_banks(rng: np.random.Generator, river: LineString) -> BaseGeometry:
    """Draw strips of trees of changing width along parts of a river."""
    steps = np.arange(0, river.length, 7.0)
    places = shapely.line_interpolate_point(river, steps + rng.normal(0, 3, steps.size))
    reach = 9.0 + 11.0 * random_series(rng, steps.size, 14) + rng.normal(0, 3, steps.size)
    chosen = reach > 4.0
    return shapely.union_all(shapely.buffer(places[chosen], RIVER_WIDTH_M / 2 + reach[chosen], quad_segs=3))


def lines_of(geometries: Iterable[BaseGeometry]) -> list[LineString]:
    """Take the plain lines out of possibly empty or multi-part geometries."""
    parts = [part for geometry in geometries for part in shapely.get_parts(geometry)]
    return [part for part in parts if isinstance(part, LineString) and part.length > 1.0]


def shape_terrain(
    rng: np.random.Generator, side: float
) -> tuple[GroundField, GroundField, list[LineString], BaseGeometry, BaseGeometry]:
    """Make elevation, woodiness, river lines, river water and gravel bars."""
    samples = int((side + 640.0) / TERRAIN_STEP_M)
    shape = (samples, samples)
    hills = fractal_noise(rng, shape, TERRAIN_STEP_M, 1800.0, 2.6, shortest=110.0)
    elevation, axes = carve_valleys(520.0 + RELIEF_M * hills, side)
    rivers = [draw_river(rng, axis) for axis in axes]
    patches = fractal_noise(rng, shape, TERRAIN_STEP_M, 700.0, 2.0, shortest=25.0)
    height = (elevation - elevation.mean()) / elevation.std()
    wood = (0.75 * patches + 0.45 * height).astype(np.float32)
    water = shapely.union_all([water for _, water, _ in rivers])
    gravel = shapely.union_all([gravel for _, _, gravel in rivers])
    lines = [line for line, _, _ in rivers]
    return GroundField(elevation, TERRAIN_STEP_M), GroundField(wood, TERRAIN_STEP_M), lines, water, gravel


def place_ponds(rng: np.random.Generator, side: float, river: BaseGeometry, roads: BaseGeometry) -> list[Polygon]:
    """Place lakes on free ground near rivers: about one in each 2 square kilometres."""
    ponds: list[Polygon] = []
    for _ in range(max(2, round(side**2 / 2.0e6))):
        for _ in range(60):
            east, north = rng.uniform(120, side - 120, 2)
            pond = draw_blob(rng, Point(WEST + east, NORTH - north), rng.uniform(45, 95))
            near = [roads.distance(pond) > 25.0, 25.0 < river.distance(pond) < 260.0]
            if all(near) and all(pond.distance(other) > 60.0 for other in ponds):
                ponds.append(pond)
                break
    return ponds


def make_landscape(seed: int, side: float) -> Landscape:
    """Invent a landscape.

    Args:
        seed: the same seed and side give the same landscape.
        side: length of the side of the square ground in metres.
    """
    terrain_rng, site_rng, street_rng, house_rng, pond_rng, field_rng, tree_rng = np.random.default_rng(seed).spawn(7)
    ground = shapely.box(WEST, NORTH - side, WEST + side, NORTH).buffer(APRON_M, join_style="mitre")
    elevation, wood, rivers, river_water, gravel = shape_terrain(terrain_rng, side)

    sites = choose_sites(site_rng, side, river_water, elevation)
    main_lines, lane_lines = connect_sites(site_rng, sites, river_water)
    streets: list[LineString] = []
    proposals: list[Building] = []
    for site in sites.values():
        if site.place.distance(ground) > site.reach:
            continue
        reach = site.place.buffer(site.reach)
        stems = lines_of(line.intersection(reach) for line in main_lines + lane_lines)
        grown = branch_streets(street_rng, site, stems)
        streets += grown
        for street in stems + grown:
            proposals += line_streets(house_rng, site, street, 4.5 if street in stems else 3.0)

    main = shapely.buffer(np.array(main_lines, dtype=object), 4.6)
    lanes = shapely.buffer(np.array(lane_lines + streets, dtype=object), 3.0)
    paved = shapely.union_all([*main, *lanes])
    ponds = place_ponds(pond_rng, side, river_water, paved)
    water = shapely.union_all([river_water, *ponds])
    blocked = shapely.union_all([paved.buffer(3.0), water.buffer(20.0), gravel])
    buildings = [b for b in keep_apart(proposals, blocked) if ground.intersects(b.footprint)]

    gardens, lots = lay_gardens(field_rng, buildings, streets, water)
    dividers = [*main_lines, *lane_lines, *rivers]
    parcels, tracks = draw_parcels(field_rng, ground, dividers)
    surfaces = [Surface(ground.buffer(200.0), Look.MEADOW)]
    surfaces += paint_parcels(field_rng, parcels, wood, rivers, gardens)
    banks = shapely.union_all([wooded_banks(tree_rng, river) for river in rivers])
    surfaces += paint_woods(tree_rng, surfaces, banks, ponds, gardens)
    surfaces += [Surface(lot, Look.GARDEN, *field_rng.normal(0, 1.5, 2)) for lot in lots]
    shores = [pond.buffer(7.0) for pond in ponds[::2]]
    surfaces += [Surface(part, Look.GRAVEL) for part in [*shapely.get_parts(gravel), *shores]]
    waters = [*cut_by_cells(river_water), *ponds]
    surfaces += [Surface(part, Look.WATER) for part in waters]
    surfaces += paint_tracks(tracks, [*waters, *shapely.get_parts(gardens)])
    surfaces += paint_yards(buildings)
    surfaces += [Surface(lane, Look.LANE) for lane in lanes]
    surfaces += [Surface(road, Look.MAIN_ROAD) for road in main]
    for building in buildings:
        surfaces += roof_surfaces(building)

    taken = shapely.union_all([paved, water, *(b.footprint for b in buildings)])
    shapely.prepare(taken)
    trees = [tree for lot in lots for tree in plant_garden(tree_rng, lot, taken)]
    for road in main_lines + lane_lines:
        if tree_rng.random() < 0.6:
            avenue = plant_avenue(tree_rng, road, 8.5)
            trees += [t for t in avenue if not taken.intersects(Point(t.east, t.north).buffer(t.radius))]
    return Landscape(side, elevation, wood, surfaces, trees, buildings)


def lay_gardens(
    rng: np.random.Generator, buildings: list[Building], streets: list[LineString], water: BaseGeometry
) -> tuple[BaseGeometry, list[Polygon]]:
    """Lay gardens around the buildings and split them into lots; returns the whole and the lots."""
    around = [b.footprint.buffer(14.0, join_style="mitre") for b in buildings]
    closed = shapely.union_all(around).buffer(24.0).buffer(-24.0)
    filled = shapely.union_all([Polygon(part.exterior) for part in shapely.get_parts(closed)])
    whole = filled.difference(water.buffer(8.0))
    lines = [whole.boundary, *(street.intersection(whole) for street in streets)]
    lots: list[Polygon] = []
    for block in shapely.ops.polygonize(shapely.union_all(lines)):
        if whole.contains(block.representative_point()):
            lots += split_ground(rng, block, long_direction(block), 800.0)[0]
    return whole, lots


def paint_parcels(
    rng: np.random.Generator,
    parcels: list[tuple[Polygon, float]],
    wood: GroundField,
    rivers: list[LineString],
    gardens: BaseGeometry,
) -> Iterator[Surface]:
    """Paint the parcels with crops, meadow or forest, and narrow grass margins between crops."""
    river = shapely.union_all(rivers)
    village = gardens.buffer(45.0)
    shapely.prepare(village)
    margins = []
    for parcel, angle in parcels:
        middle = parcel.representative_point()
        look = use_parcel(rng, parcel, wood.at(middle), river.distance(parcel), village.intersects(parcel))
        tone, warmth = np.clip(rng.normal(0, 1, 2), -2, 2)
        along = angle if rng.random() < 0.75 else angle + np.pi / 2
        yield Surface(parcel, look, tone, warmth, along, height=float(look == Look.FOREST))
        if look in (Look.GRAIN, Look.ROW_CROP, Look.SOIL):
            margins.append(Surface(parcel.exterior.buffer(0.9), Look.MARGIN))
    yield from margins


def paint_woods(
    rng: np.random.Generator,
    parcels: list[Surface],
    banks: BaseGeometry,
    ponds: list[Polygon],
    gardens: BaseGeometry,
) -> Iterator[Surface]:
    """Paint wooded river banks, trees about lakes, and hedges along some field edges."""
    village = gardens.buffer(15.0)
    for part in shapely.get_parts(banks):
        yield Surface(part, Look.FOREST, height=0.6)
    for pond in ponds:
        rim = pond.exterior.segmentize(9.0)
        places = np.array(shapely.points(shapely.get_coordinates(rim)))
        chosen = random_series(rng, places.size, 8) > 0.1
        yield Surface(shapely.union_all(shapely.buffer(places[chosen], 14.0, quad_segs=3)), Look.FOREST, height=0.6)
    for parcel in parcels:
        edge = shapely.get_exterior_ring(parcel.polygon)
        if edge is not None and parcel.look in (Look.MEADOW, Look.GRAIN) and rng.random() < 0.14:
            start = rng.uniform(0, edge.length)
            hedge = shapely.ops.substring(edge, start, start + rng.uniform(60, 220))
            yield Surface(hedge.buffer(rng.uniform(3.5, 5.0)).difference(village), Look.FOREST, height=0.35)


def cut_by_cells(geometry: BaseGeometry, cell: float = 512.0) -> list[BaseGeometry]:
    """Cut a large geometry into pieces by square cells, so that each is quick to draw."""
    west, south, east, north = geometry.bounds
    corners = product(np.arange(west, east, cell), np.arange(south, north, cell))
    pieces = [geometry.intersection(shapely.box(x, y, x + cell, y + cell)) for x, y in corners]
    return [piece for piece in pieces if piece.area > 0]


def paint_tracks(tracks: list[LineString], barred: list[BaseGeometry]) -> Iterator[Surface]:
    """Paint farm tracks where the ground is not `barred`."""
    near = shapely.STRtree(barred)
    for track in shapely.buffer(np.array(tracks, dtype=object), 2.0):
        around = shapely.union_all([barred[index] for index in near.query(track)])
        yield Surface(track.difference(around), Look.TRACK)


def paint_yards(buildings: list[Building]) -> Iterator[Surface]:
    """Paint paved yards about halls and barns."""
    for building in buildings:
        if building.kind != "house":
            reach = 9.0 if building.kind == "hall" else 4.0
            yield Surface(building.footprint.buffer(reach, join_style="mitre"), Look.YARD)
