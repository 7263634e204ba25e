"""`ChipTable`: the rows of an index in memory, without pandas, which takes longer to load than many layers."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.crs import CRS

from geop2p.config import SPLITS
from geop2p.tiling.rows import digest_of

if TYPE_CHECKING:
    import geopandas

Column = npt.NDArray[Any]


@dataclass(frozen=True)
class ChipTable:
    """A row a chip.

    Attributes:
        columns: Values by name, one for each chip; texts as objects. See `ChipSet.index`.
        shapes: Footprints.
        crs: Of the footprints; None: they are in pixels.
    """

    columns: dict[str, Column]
    shapes: npt.NDArray[np.object_]
    crs: CRS | None

    def __len__(self) -> int:
        return len(self.shapes)

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __getitem__(self, name: str) -> Column:
        return self.columns[name]

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def rows(self, which: Column) -> "ChipTable":
        """Some of the rows, by a mask or their numbers."""
        return ChipTable({name: values[which] for name, values in self.columns.items()}, self.shapes[which], self.crs)

    def of_scenes(self, names: Collection[str]) -> "ChipTable":
        """The chips of some scenes."""
        return self.rows(np.fromiter((scene in names for scene in self["scene"]), bool, len(self)))

    def of_split(self, split: str) -> "ChipTable":
        """The chips of a split."""
        return self.rows(self["split"] == split)

    def assign(self, **columns: Column) -> "ChipTable":
        """The same with further or other columns."""
        return ChipTable(self.columns | columns, self.shapes, self.crs)

    def to_crs(self, crs: CRS) -> "ChipTable":
        """The same with the footprints in another CRS; corners without a place in it are infinite."""
        if crs == self.crs:
            return self

        from pyproj import Transformer  # whose PROJ is a second one, so that it is loaded where there are several CRSs

        assert self.crs is not None, "pixels have no place on the ground"
        here_to_there = Transformer.from_crs(self.crs.to_wkt(), crs.to_wkt(), always_xy=True)

        def project(places: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            return np.column_stack(here_to_there.transform(*places.T))

        return ChipTable(self.columns, shapely.transform(self.shapes, project), crs)

    def frame(self) -> "geopandas.GeoDataFrame":
        """The same for geopandas."""
        import geopandas

        crs = None if self.crs is None else epsg_of(self.crs) or self.crs.to_wkt()
        return geopandas.GeoDataFrame(self.columns, geometry=self.shapes, crs=crs)


def epsg_of(crs: CRS) -> int | None:
    """EPSG code of a CRS where that says all of it."""
    code: int | None = crs.to_epsg()
    return code if code is not None and CRS.from_epsg(code) == crs else None


def count_splits(index: ChipTable) -> dict[str, int]:
    """Chips in each split, zeros included."""
    return {split: int(np.count_nonzero(index["split"] == split)) for split in SPLITS}


def order_of(index: ChipTable) -> dict[str, str]:
    """The digest of the chips of each split, see `ChipSet.order`."""
    return {split: digest_of(index["id"][index["split"] == split]) for split in SPLITS}
