"""What the file of a chip tells beside its pixels."""

from dataclasses import dataclass, field

from geop2p.raster.encoding import Band


@dataclass(frozen=True)
class ChipMetadata:
    """What the file of a chip tells beside its pixels.

    Attributes:
        palette: Colour table of a one-band 8-bit chip; may be empty.
        bands: Their names, units, scales and offsets; empty: it tells none.
    """

    palette: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    bands: tuple[Band, ...] = ()
