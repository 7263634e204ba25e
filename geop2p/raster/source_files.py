"""The files that layers are read from, which nothing that is written may replace."""

import contextlib
import os
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from geop2p.errors import RasterError
from geop2p.raster.features import is_vector, vector_parts
from geop2p.raster.layer_names import named_layer
from geop2p.raster.reading import describe_raster


def files_of(path: str | Path) -> list[Path]:
    """The files that a layer is read from: as it was named, then those that it refers to, by way of other VRTs, too.

    Of a raster that cannot be opened it is the name alone; what is wrong is told by whoever reads it.
    """
    if is_vector(path):
        return [Path(named_layer(path)[0]), *map(Path, vector_parts(path))]
    found, todo = dict[str, None](), deque([str(path)])
    while todo:
        name = todo.popleft()
        if name in found:
            continue
        if not found or name.lower().endswith(".vrt"):  # GDAL names what a VRT refers to, but not what that does
            with contextlib.suppress(RasterError):
                todo += describe_raster(name).parts
        found[name] = None
    return [Path(name) for name in found]


def replaced(output: Path, read: Iterable[str | Path]) -> Path | None:
    """The file or folder, of those that are read, that an output would replace; names that are no files are none."""
    if not output.exists():
        return None
    there = output.stat()
    for path in map(Path, read):
        with contextlib.suppress(OSError):
            if os.path.samestat(path.stat(), there):
                return path
    return None
