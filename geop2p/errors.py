"""What can go wrong, by what a caller would do about it.

Every message is one line: which file, what was found, what was expected, what to do.
"""


class GeoP2PError(Exception):
    """Base of all errors that geop2p raises on purpose; the command line prints it and exits with 1."""


class RasterError(GeoP2PError):
    """A raster or vector layer cannot be used: missing, unreadable, without CRS, or of the wrong shape."""


class GridMismatchError(GeoP2PError):
    """Two layers do not fit together on the ground."""


class ChipSetError(GeoP2PError):
    """A chip set is missing, damaged, of another format, or cannot be made as asked."""


class NoGroundError(ChipSetError, GridMismatchError):
    """Two layers give no chip: they have no valid ground in common, or no split has room for it."""


class CheckpointError(GeoP2PError):
    """A model or checkpoint is missing, damaged, foreign, or of a newer format."""


class ConfigError(GeoP2PError):
    """Settings contradict each other or the data."""


class OutputError(GeoP2PError):
    """A file or folder cannot be written: it exists, the disk is full, or the place is read-only."""


def one_line(error: BaseException) -> str:
    """The message of an error without line breaks."""
    return " ".join(str(error).split())


def first_line(error: BaseException) -> str:
    """The first line of the message of an error; its type, if it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)
