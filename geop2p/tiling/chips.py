"""`ChipSet`: paired chips on disk, their index and their encodings."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import geopandas
from rasterio.windows import Window

from geop2p.config import SPLITS, Split
from geop2p.errors import ChipSetError
from geop2p.raster.aligned import aligned_reader
from geop2p.raster.atomic import write_json
from geop2p.raster.encoding import Array, Encoding, Mask
from geop2p.raster.grid import Grid
from geop2p.raster.reading import describe_raster
from geop2p.tiling.index import INDEX, read_index, write_index

FORMAT = 1
DESCRIPTION = "chipset.json"
STAGING = ".staging"  # there while a chip set is being made
SIDES = ("source", "target")


@dataclass(frozen=True)
class Scene:
    """Two layers that were cut.

    Attributes:
        id: Name, the stem of the layer that gave the grid.
        grid: Grid of its chips.
        source: Path of the source layer.
        target: Path of the target layer.
        fingerprint: Size and hash of both files, to know them again.
        options: What decided how they were read: kinds, and the field of a vector source.
        dropped: Windows that gave no chip, by reason.
    """

    id: str
    grid: Grid
    source: str
    target: str
    fingerprint: dict[str, Any]
    options: dict[str, Any]
    dropped: dict[str, int]


@dataclass(frozen=True)
class Chip:
    """One pair: stored values (bands, rows, cols) of both sides, and the valid pixels (rows, cols) of both."""

    source: Array
    target: Array
    valid: Mask


@dataclass(frozen=True)
class ChipSet:
    """A folder of paired chips.

    Attributes:
        folder: Where it lies.
        size: Side of a chip in pixels.
        stride: Distance between chips in pixels.
        settings: The rest of what decided the chips: least valid share, split rule, shares, buffer, seed.
        scenes: What was cut.
        source: Encoding of the source side.
        target: Encoding of the target side.
        counts: Chips in each split.
    """

    folder: Path
    size: int
    stride: int
    settings: dict[str, Any]
    scenes: tuple[Scene, ...]
    source: Encoding
    target: Encoding
    counts: dict[str, int]

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Read the description of a chip set.

        Raises:
            ChipSetError: There is none, it is damaged, or of a newer format.
        """
        file = Path(folder) / DESCRIPTION
        if not file.is_file():
            raise ChipSetError(
                f"{folder}: not a chip set (no {DESCRIPTION}); make one: geop2p tile SOURCE TARGET CHIPS"
            )
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ChipSetError(f"{file}: not valid JSON ({error}); tile again with --overwrite") from error
        if data.get("format", 0) > FORMAT:
            raise ChipSetError(f"{file}: format {data['format']}, this geop2p reads up to {FORMAT}; upgrade geop2p")
        try:
            return cls._from_dict(Path(folder), data)
        except (KeyError, TypeError) as error:
            raise ChipSetError(
                f"{file}: is damaged, {error} is missing or wrong; tile again with --overwrite"
            ) from error

    @classmethod
    def _from_dict(cls, folder: Path, data: dict[str, Any]) -> Self:
        scenes = tuple(Scene(**scene | {"grid": Grid.from_dict(scene["grid"])}) for scene in data["scenes"])
        return cls(
            folder=folder,
            size=data["size"],
            stride=data["stride"],
            settings=data["settings"],
            scenes=scenes,
            source=Encoding.from_dict(data["source"]),
            target=Encoding.from_dict(data["target"]),
            counts=data["counts"],
        )

    def save(self, index: geopandas.GeoDataFrame) -> None:
        """Write the index, then the description, each atomically."""
        write_index(self.folder / INDEX, index)
        scenes = [
            {field.name: getattr(scene, field.name) for field in dataclasses.fields(scene)}
            | {"grid": scene.grid.to_dict()}
            for scene in self.scenes
        ]
        data = {
            "format": FORMAT,
            "size": self.size,
            "stride": self.stride,
            "settings": self.settings,
            "scenes": scenes,
            "source": self.source.to_dict(),
            "target": self.target.to_dict(),
            "counts": self.counts,
        }
        write_json(self.folder / DESCRIPTION, data)

    def index(self) -> geopandas.GeoDataFrame:
        """One row a chip, in order of scene and place.

        Columns: id, scene, split, block (row_column of its block), row_off, col_off (pixels in the scene's grid),
        valid (share), shift_rows, shift_cols (pixels that the target lies below and right of the source; measured on
        some chips, else NaN), shift_confidence, source_<code> or target_<code> (share of each class), weight
        (how often `--balance` draws it, mean 1 over the training chips), geometry (footprint in the scenes' common CRS,
        else EPSG:4326).
        """
        table = read_index(self.folder / INDEX)
        known = {scene.id for scene in self.scenes}  # a killed run may have written rows of a scene to come
        return table[table["scene"].isin(known)].reset_index(drop=True)

    def check_finished(self) -> None:
        """Refuse a chip set whose making was interrupted: its encodings may not be scaled yet.

        Raises:
            ChipSetError: It was.
        """
        if (self.folder / STAGING).is_dir():
            raise ChipSetError(f"{self.folder}: tiling was interrupted; repeat the tile command to finish it")

    def encoding(self, side: str) -> Encoding:
        """Encoding of the source or the target."""
        return {"source": self.source, "target": self.target}[side]

    def path(self, side: str, split: Split, chip: str) -> Path:
        """File of one side of a chip."""
        return self.folder / side / split / f"{chip}.tif"

    def read(self, split: Split, chip: str) -> Chip:
        """Read a pair by its id.

        Raises:
            ChipSetError: It does not have the size or the bands that the chip set promises.
            RasterError: A file of it is missing or damaged.
        """
        sides = []
        for side, encoding in zip(SIDES, (self.source, self.target), strict=True):
            path = self.path(side, split, chip)
            info = describe_raster(path)
            found = (info.count, info.grid.height, info.grid.width, info.dtype)
            expected = (len(encoding.bands), self.size, self.size, encoding.dtype)
            if found != expected:
                raise ChipSetError(f"{path}: (bands, rows, columns, type) is {found}, expected {expected}; tile again")
            with aligned_reader(path, info.grid, encoding.kind) as reader:
                sides.append(reader.read(Window(0, 0, self.size, self.size)))
        (source, _), (target, valid) = sides
        return Chip(source, target, valid)

    @property
    def pixel_size(self) -> tuple[float, float] | None:
        """(down a row, along a column) in metres, of the first scene."""
        return self.scenes[0].grid.pixel_size


def count_splits(index: geopandas.GeoDataFrame) -> dict[str, int]:
    """Chips in each split, zeros included."""
    return {split: int((index["split"] == split).sum()) for split in SPLITS}
