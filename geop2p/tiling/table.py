"""`ChipTable`: the rows of an index in memory, without pandas, which takes longer to load than many layers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.crs import CRS
from rasterio.warp import transform as transform_points

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

    def of_split(self, split: str) -> "ChipTable":
        """The chips of a split."""
        return self.rows(self["split"] == split)

    def assign(self, **columns: Column) -> "ChipTable":
        """The same with further or other columns."""
        return ChipTable(self.columns | columns, self.shapes, self.crs)

    def to_crs(self, crs: CRS) -> "ChipTable":
        """The same with the footprints in another CRS."""
        if crs == self.crs:
            return self

        def project(places: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            return np.column_stack(transform_points(self.crs, crs, *places.T))

        return ChipTable(self.columns, shapely.transform(self.shapes, project), crs)

    def frame(self) -> "geopandas.GeoDataFrame":
        """The same for geopandas."""
        import geopandas

        crs = None if self.crs is None else self.crs.to_string()
        return geopandas.GeoDataFrame(self.columns, geometry=self.shapes, crs=crs)
