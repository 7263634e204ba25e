"""What the windows of a region hold, and which of them become chips. Done by the threads that read them."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from geop2p.config import TileConfig
from geop2p.raster.encoding import Encoding, Mask
from geop2p.raster.grid import Grid
from geop2p.raster.kinds import check_count
from geop2p.raster.layers import Layer
from geop2p.raster.threads import MOST_THREADS, cores, in_order
from geop2p.tiling.alignment import TRUSTED, Shift, measure_shift
from geop2p.tiling.chips import SIDES
from geop2p.tiling.counting import Counts, class_counts, true_pixels
from geop2p.tiling.cutting import Region, RegionPair, open_ground
from geop2p.tiling.layouts import Writer

SHIFTS_MEASURED = 32  # about so many chips of a scene, unless --max-shift asks for all

Shares = npt.NDArray[np.float64]


@dataclass
class RegionResult:
    """What a region gave, as a line of the journal.

    Attributes:
        entries: Rows of the index, without geometry, of the chips that were staged.
        dropped: Windows that gave no chip, by reason.
        shifts: (rows, cols, confidence) where the shift was measured, on dropped chips too.
        most_valid: Largest share of valid ground of a window.
    """

    entries: list[dict[str, Any]] = field(default_factory=list)
    dropped: dict[str, int] = field(
        default_factory=lambda: {"too little valid ground": 0, "nearly one class": 0, "shifted": 0}
    )
    shifts: list[tuple[float, float, float]] = field(default_factory=list)
    most_valid: float = 0.0


@dataclass(frozen=True)
class Survey:
    """Looks at the regions of a scene.

    Attributes:
        scene: Its name.
        layers: Source and target.
        drafts: Their encodings so far.
        config: Which windows become chips.
        regions: How many there are.
        likely: Classes seen so far on each side.
    """

    scene: str
    layers: tuple[Layer, Layer]
    drafts: tuple[Encoding, ...]
    config: TileConfig
    regions: int
    likely: dict[str, set[int]] = field(default_factory=lambda: {side: set() for side in SIDES})

    def run(
        self, grid: Grid, regions: list[Region], done: int, open_writer: Callable[[], Writer]
    ) -> Iterator[RegionResult]:
        """Read and examine regions in order, without the first `done`, and write their chips.

        As many threads as cores, four at most, do it; but one alone where a row of strips is read in parts, which
        GDAL's cache then holds for the next part.

        Raises:
            RasterError: A layer cannot be read.
            ConfigError: A map has far too many values.
        """
        jobs = list(enumerate(regions))[done:]
        in_strips = max(layer.block_on(grid)[1] for layer in self.layers) >= grid.width
        parts = in_strips and len({region.cols for region in regions}) > 1
        threads = 1 if parts else min(cores(), MOST_THREADS, len(jobs))
        yield from in_order(jobs, partial(self._open, grid, open_writer), threads)

    @contextmanager
    def _open(
        self, grid: Grid, open_writer: Callable[[], Writer]
    ) -> Iterator[Callable[[tuple[int, Region]], RegionResult]]:
        with open_ground(grid, self.layers, self.config.aoi) as read, closing(open_writer()) as writer:

            def work(job: tuple[int, Region]) -> RegionResult:
                return self.add_chips(job[0], read(job[1]), writer)

            yield work

    def add_chips(self, number: int, ground: RegionPair, writer: Writer) -> RegionResult:
        """Write the windows of a region that become chips."""
        found = self.examine(number, ground)
        for entry in found.entries:
            row, col = entry["row_off"], entry["col_off"]
            writer.add(entry["id"], row, col, partial(ground.chip, row, col))
        return found

    def examine(self, number: int, ground: RegionPair) -> RegionResult:
        """Which windows of a region become chips."""
        found = RegionResult()
        rows, cols, size = ground.region.rows, ground.region.cols, ground.region.size
        tops, lefts = [row - rows[0] for row in rows], [col - cols[0] for col in cols]
        valid = None if ground.is_whole else ground.valid
        whole = np.full((len(rows), len(cols)), size * size)
        pixels = whole if valid is None else true_pixels(valid, tops, lefts, size)
        enough = pixels / (size * size) >= self.config.min_valid
        found.most_valid = int(pixels.max()) / (size * size)
        names, shares = self._shares(ground, valid, tops, lefts, pixels) if enough.any() else ([], np.zeros(0))
        for at in np.ndindex(pixels.shape):
            if not enough[at]:
                found.dropped["too little valid ground"] += 1
                continue
            here = shares[:, *at]
            own = {names[place]: float(here[place]) for place in np.flatnonzero(here)}
            if any(share > self.config.max_share for share in own.values()):
                found.dropped["nearly one class"] += 1
                continue
            row, col = rows[at[0]], cols[at[1]]
            entry = {"id": f"{self.scene}_r{row:06d}_c{col:06d}", "scene": self.scene, "row_off": row, "col_off": col}
            entry["valid"] = int(pixels[at]) / (size * size)
            found.entries.append(entry | own)
        self._measure_shifts(number, ground, found)
        return found

    def _shares(
        self, ground: RegionPair, valid: Mask | None, tops: list[int], lefts: list[int], pixels: Counts
    ) -> tuple[list[str], Shares]:
        """Columns of the index, and the share of each in every window's valid pixels (columns, rows, cols)."""
        names, found = [], []
        for side, draft, layer in zip(SIDES, self.drafts, self.layers, strict=True):
            if draft.is_classes:
                codes, likely = getattr(ground, side)[0], list(self.likely[side])
                counts = class_counts(codes, valid, tops, lefts, ground.region.size, likely, pixels)
                self.likely[side].update(counts)
                check_count(layer.path, len(self.likely[side]))
                names += [f"{side}_{value}" for value in sorted(counts)]
                found += [counts[value] for value in sorted(counts)]
        return names, np.array(found).reshape(-1, *pixels.shape) / np.maximum(pixels, 1)

    def _measure_shifts(self, number: int, ground: RegionPair, found: RegionResult) -> None:
        """Add the shift of some chips; of all where those that are shifted are to be dropped."""
        classes, most = (self.drafts[0].is_classes, self.drafts[1].is_classes), self.config.max_shift
        measured = _spread(len(found.entries), self._measured_in(number)) if most is None else range(len(found.entries))
        look, kept = ground.chip_alone if most is None else ground.chip, []
        for place, entry in enumerate(found.entries):
            shift = Shift(math.nan, math.nan, math.nan)
            if place in measured:
                chip = look(entry["row_off"], entry["col_off"])
                shift = measure_shift(chip.source, chip.target, chip.valid, classes)
                found.shifts.append(dataclasses.astuple(shift))
            if most is not None and shift.confidence >= TRUSTED and max(abs(shift.rows), abs(shift.cols)) > most:
                found.dropped["shifted"] += 1
                continue
            columns = {"shift_rows": shift.rows, "shift_cols": shift.cols, "shift_confidence": shift.confidence}
            kept.append(entry | columns)
        found.entries[:] = kept

    def _measured_in(self, number: int) -> int:
        """How many chips of a region have their shift measured: about `SHIFTS_MEASURED` in all."""
        if number % math.ceil(self.regions / SHIFTS_MEASURED):
            return 0
        return math.ceil(SHIFTS_MEASURED / self.regions)


def _spread(count: int, wanted: int) -> set[int]:
    """About so many of the places 0 to count - 1, evenly."""
    return set(np.linspace(0, count - 1, min(count, wanted)).astype(int).tolist())
