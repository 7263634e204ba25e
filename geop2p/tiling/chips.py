"""`ChipSet`: paired chips on disk, their index and their encodings.

The description and packed chips are read without rasterio and geopandas, so that a training needs neither.
"""

import dataclasses
import hashlib
import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, get_args

from geop2p.config import ChipFormat, Split
from geop2p.errors import ChipSetError
from geop2p.raster.atomic import write_json
from geop2p.raster.encoding import Encoding
from geop2p.tiling.layouts import Chip, SplitReader, layout_of
from geop2p.tiling.rows import digest_of, index_rows

if TYPE_CHECKING:
    import geopandas

    from geop2p.raster.grid import Grid
    from geop2p.tiling.table import ChipTable

FORMAT = 2
DESCRIPTION = "chipset.json"
INDEX = "index.gpkg"
STAGING = ".staging"  # there while a chip set is being made
SIDES = ("source", "target")


@dataclass(frozen=True)
class Scene:
    """Two layers that were cut.

    Attributes:
        id: Name, the stem of the layer that gave the grid.
        place: Grid of its chips, in the form of `Grid.to_dict`.
        pixel_size: (down a row, along a column) in metres; None without a CRS.
        source: Path of the source layer, relative to the folder of the chip set where it is a local file.
        target: Path of the target layer, likewise.
        fingerprint: Size and hash of both files, to know them again.
        options: What decided how they were read: kinds, fields of vector layers, their drawing, tables.
        dropped: Windows that gave no chip, by reason.
        files: Paths, like `source`, of the files that decided how they were read: aoi and table of classes.
    """

    id: str
    place: dict[str, Any]
    pixel_size: tuple[float, float] | None
    source: str
    target: str
    fingerprint: dict[str, Any]
    options: dict[str, Any]
    dropped: dict[str, int]
    files: dict[str, str]

    @cached_property
    def grid(self) -> "Grid":
        """Grid of its chips."""
        from geop2p.raster.grid import Grid

        return Grid.from_dict(self.place)


class Entry(NamedTuple):
    """Where a chip lies, and how often it is drawn where training is balanced (1 is the mean)."""

    id: str
    scene: str
    row_off: int
    col_off: int
    weight: float


def description_digest(folder: Path) -> str:
    """SHA-256 of a chip set's description, by which it is known again, in hexadecimal digits."""
    return hashlib.sha256((folder / DESCRIPTION).read_bytes()).hexdigest()


@dataclass(frozen=True)
class ChipSet:
    """A folder of paired chips.

    Attributes:
        folder: Where it lies.
        layout: How the chips are stored.
        size: Side of a chip in pixels.
        stride: Distance between chips in pixels.
        settings: The rest of what decided the chips: least valid share, split rule, shares, buffer, seed.
        scenes: What was cut.
        source: Encoding of the source side.
        target: Encoding of the target side.
        counts: Chips in each split.
        order: Digest of the names of the chips of each split as the index lists them, by which arrays are read.
    """

    folder: Path
    layout: ChipFormat
    size: int
    stride: int
    settings: dict[str, Any]
    scenes: tuple[Scene, ...]
    source: Encoding
    target: Encoding
    counts: dict[str, int]
    order: dict[str, str] = dataclasses.field(default_factory=dict)

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
        except ValueError as error:
            raise ChipSetError(f"{file}: not valid JSON ({error}); tile again with --overwrite") from error
        try:
            found = data.get("format", 0)
            if found > FORMAT:
                raise ChipSetError(f"{file}: format {found}, this geop2p reads up to {FORMAT}; upgrade geop2p")
            if found < FORMAT:
                raise ChipSetError(f"{file}: made by an earlier geop2p; tile again with --overwrite")
            if data.get("layout") not in (known := get_args(ChipFormat)):
                raise ChipSetError(f"{file}: layout '{data.get('layout')}' is not one of {', '.join(known)}")
            return cls._from_dict(Path(folder), data)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            wrong = f", {error} is missing or wrong" if isinstance(error, KeyError) else f" ({error})"
            raise ChipSetError(f"{file}: is damaged{wrong}; tile again with --overwrite") from error

    @classmethod
    def _from_dict(cls, folder: Path, data: dict[str, Any]) -> Self:
        return cls(
            folder=folder,
            layout=data["layout"],
            size=data["size"],
            stride=data["stride"],
            settings=data["settings"],
            scenes=tuple(Scene(**scene) for scene in data["scenes"]),
            source=Encoding.from_dict(data["source"]),
            target=Encoding.from_dict(data["target"]),
            counts=data["counts"],
            order=data["order"],
        )

    def save(self, index: "ChipTable") -> None:
        """Write the index, then the description, each atomically."""
        from geop2p.tiling.index import write_index
        from geop2p.tiling.table import order_of

        write_index(self.folder / INDEX, index)
        dataclasses.replace(self, order=order_of(index)).save_description()

    def save_description(self) -> None:
        """Write the description alone, atomically."""
        data = {"format": FORMAT} | {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del data["folder"]
        data |= {"scenes": [dataclasses.asdict(scene) for scene in self.scenes]}
        data |= {side: self.encoding(side).to_dict() for side in SIDES}
        write_json(self.folder / DESCRIPTION, data)

    def index(self) -> "geopandas.GeoDataFrame":
        """One row a chip, in order of scene and place.

        Columns: id, scene, split, block (row_column of its block), row_off, col_off (pixels in the scene's grid),
        valid (share), shift_rows, shift_cols (pixels that the target lies below and right of the source; measured on
        some chips, else NaN), shift_confidence, source_<code> or target_<code> (share of each class), weight
        (how often `--balance` draws it, mean 1 over the training chips), geometry (footprint in the scenes' common CRS,
        else EPSG:4326).
        """
        return self.table().frame()

    def table(self) -> "ChipTable":
        """The same without geopandas."""
        from geop2p.tiling.geopackage import read_table
        from geop2p.tiling.index import KEYS

        table = read_table(self.folder / INDEX, KEYS)
        known = {scene.id for scene in self.scenes}  # a killed run may have written rows of a scene to come
        return table.of_scenes(known)

    def entries(self, split: Split) -> list[Entry]:
        """The chips of a split in the order of the index.

        Raises:
            ChipSetError: The index is missing or damaged, or lists other chips than it did.
        """
        known = {scene.id for scene in self.scenes}
        rows = index_rows(self.folder / INDEX, split, "id, scene, row_off, col_off, weight")
        found = [Entry(*row) for row in rows if row["scene"] in known]
        if self.order.get(split, "") not in ("", digest_of(entry.id for entry in found)):
            raise ChipSetError(
                f"{self.folder / INDEX}: its {split} chips are not those that were cut, or stand in another order; "
                "put the old file back, or tile again with --overwrite"
            )
        return found

    def check_finished(self) -> None:
        """Refuse a chip set whose making was interrupted: its encodings may not be scaled yet.

        Raises:
            ChipSetError: The making was interrupted.
        """
        if (self.folder / STAGING).is_dir():
            raise ChipSetError(f"{self.folder}: tiling was interrupted; repeat the tile command to finish it")

    def encoding(self, side: str) -> Encoding:
        """Encoding of the source or the target."""
        return {"source": self.source, "target": self.target}[side]

    def reader(self, split: Split) -> AbstractContextManager[SplitReader]:
        """Open the chips of a split for reading."""
        return layout_of(self.layout).open_split(self, split)

    def read(self, split: Split, chip: str) -> Chip:
        """Read a pair by its id.

        Raises:
            ChipSetError: The split has none of this id, or see `SplitReader.read`.
            RasterError: See `SplitReader.read`.
        """
        rows = [row for row, entry in enumerate(self.entries(split)) if entry.id == chip]
        if not rows:
            raise ChipSetError(f"{self.folder}: has no {split} chip '{chip}'")
        with self.reader(split) as reader:
            return reader.read(rows[0])

    @property
    def pixel_size(self) -> tuple[float, float] | None:
        """(down a row, along a column) in metres, of the first scene."""
        size = self.scenes[0].pixel_size
        return None if size is None else (size[0], size[1])
