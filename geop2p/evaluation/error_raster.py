"""The error of a mosaic as a raster beside it, on its grid, with a style."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rasterio.windows import Window

from geop2p.errors import ConfigError, OutputError
from geop2p.evaluation.report import check_not_read
from geop2p.metrics import error_unit
from geop2p.mosaic.companions import CompanionRaster, put_together
from geop2p.raster.atomic import check_new, make_folder
from geop2p.raster.encoding import Array, Band, Encoding, MapClass, Mask
from geop2p.raster.grid import Grid
from geop2p.raster.lock import alone_in
from geop2p.raster.styles import is_own_style, style_path
from geop2p.raster.vrt import Part, TiledRaster
from geop2p.raster.writing import part_writer

VERDICTS = (MapClass(0, "right", (235, 235, 230)), MapClass(1, "wrong", (190, 40, 60)))


def check_error_raster(path: Path | None, overwrite: bool, inputs: Sequence[str | Path | None]) -> None:
    """Refuse an error raster that would destroy something, before anything is scored.

    Args:
        path: File to write, with its style beside it; None: none.
        overwrite: Whether to replace it.
        inputs: What is read, which is replaced in no case.

    Raises:
        ConfigError: It is read or lies in a folder that is, has the style of what is read, or is not called a GeoTIFF.
        OutputError: The file, its style or its class names exist.
    """
    if path is None:
        return
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise ConfigError(f"{path}: the error raster is a GeoTIFF; give a name that ends in .tif")
    check_not_read(path, inputs)
    for given in (Path(entry) for entry in inputs if entry is not None):
        if given.is_dir() and path.resolve().parent == given.resolve():
            raise ConfigError(f"{path}: lies in the folder that is an input; give a name elsewhere")
        if given.is_file() and style_path(path).resolve() == style_path(given).resolve():
            raise ConfigError(f"{path}: its style {style_path(path).name} is that of {given}; give another name")
    style, names = style_path(path), Path(f"{path}.aux.xml")
    left_over = [] if not is_own_style(style) else [style] if path.exists() else [style, names]
    for file in (path, style, names):
        check_new(file, overwrite or file in left_over)
    make_folder(path.parent)


class ErrorRaster:
    """Collects errors by window; `float32` in the units of the scores, or right and wrong for classes.

    Args:
        folder: For the parts.
        path: What the whole is to be called.
        grid: Of the whole.
        encoding: Of what is compared.
    """

    def __init__(self, folder: Path, path: Path, grid: Grid, encoding: Encoding) -> None:
        self._folder, self._path, self._grid, self._parts = folder, path, grid, list[Part]()
        self._whole: CompanionRaster | None = None
        if encoding.is_classes:
            self._encoding = Encoding("classes", "uint8", (Band("error"),), classes=VERDICTS)
        else:
            self._encoding = Encoding("image", "float32", (Band("mean absolute error", error_unit(encoding) or ""),))

    def add(self, error: Array, valid: Mask, window: Window) -> None:
        """Take in the error (rows, cols) of a window, a whole multiple of blocks except at the border."""
        values = error[np.newaxis].astype(self._encoding.dtype)
        name = f"part_{len(self._parts)}.tif"
        with part_writer(self._folder / name, self._grid.window(window), self._encoding) as write:
            write(0, values, valid)
        self._parts.append(Part(name, window))

    def put_together(self, description: str) -> None:
        """Make one raster of what was added; nothing can be added after it."""
        vrt, tags = self._folder / "error.vrt", {"TIFFTAG_IMAGEDESCRIPTION": description}
        self._whole = put_together(vrt, self._path, TiledRaster(self._grid, self._encoding, self._parts, tags=tags))

    def place(self) -> None:
        """Give the raster its name, with its style and its class names."""
        assert self._whole is not None
        self._whole.place()


@contextmanager
def collected_errors(path: Path | None, grid: Grid, encoding: Encoding) -> Iterator[ErrorRaster | None]:
    """Collect errors, to be put together and placed under the name `path` within the block; None without one.

    Raises:
        OutputError: Another process does, or nothing can be written there.
    """
    if path is None:
        yield None
        return
    folder = path.with_name(f".{path.name}.begun")
    with alone_in(folder, OutputError(f"{path}: another process makes it; wait for it, or give another name")):
        try:
            for left in folder.iterdir():  # by a command that was killed
                left.unlink()
            yield ErrorRaster(folder, path, grid, encoding)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
