"""Rasters beside the mosaic: put together of their parts, and given their names when all is whole."""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

from geop2p.mosaic.seams import survey
from geop2p.raster.aligned import aligned_reader
from geop2p.raster.atomic import discard_leftovers, replacing, reporting_write_errors, write_text
from geop2p.raster.categories import write_categories
from geop2p.raster.encoding import Encoding
from geop2p.raster.styles import Ramp, style_path, write_style
from geop2p.raster.vrt import BandSummary, TiledRaster, vrt_xml
from geop2p.raster.writing import write_cog


class CompanionRaster:
    """A raster beside the mosaic that waits for its name.

    Args:
        cog: The file.
        output: Its name to be.
        encoding: What it holds.
        summaries: Statistics of its bands.
        ramp: How its style draws it.
    """

    def __init__(
        self, cog: Path, output: Path, encoding: Encoding, summaries: Sequence[BandSummary], ramp: Ramp | None
    ) -> None:
        self._cog, self._output, self._encoding = cog, output, encoding
        self._summaries, self._ramp = summaries, ramp

    @property
    def name(self) -> str:
        """Its name to be, in full."""
        return str(self._output.resolve())

    def place(self) -> None:
        """Give it its name, at once even on another file system, and a style and the names of its classes."""
        discard_leftovers(self._output)  # of a process that was killed while it moved one there
        discard_leftovers(style_path(self._output))
        remove_companions(self._output)
        write_style(self._output, self._encoding, self._summaries, self._ramp)
        if self._encoding.is_classes:
            write_categories(self._output, self._encoding)
        with replacing(self._output) as temporary:
            shutil.move(self._cog, temporary)


def put_together(vrt: Path, output: Path, raster: TiledRaster, ramp: Ramp | None = None) -> CompanionRaster:
    """Make a COG of parts, with statistics.

    Args:
        vrt: Virtual raster to write in the folder of the parts; the COG goes beside it.
        output: What the COG is to be called in the end.
        raster: The parts and what they hold.
        ramp: How its style draws it; None: in grey, or as its bands are coloured.
    """
    write_text(vrt, vrt_xml(raster))
    with aligned_reader(vrt, raster.grid, raster.encoding.kind) as reader:
        summaries, _ = survey(reader, raster.encoding, None)
    write_text(vrt, vrt_xml(dataclasses.replace(raster, summaries=summaries)))
    cog = vrt.with_suffix(".tif")
    write_cog(vrt, cog, raster.encoding)
    return CompanionRaster(cog, output, raster.encoding, summaries, ramp)


def remove_companions(output: Path) -> None:
    """Remove the files that GDAL reads with a raster: of one that is replaced they would say what is no longer true."""
    with reporting_write_errors(output):
        for suffix in (".aux.xml", ".msk", ".ovr"):
            Path(f"{output}{suffix}").unlink(missing_ok=True)
