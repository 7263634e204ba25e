"""What the name of a layer says: a local file, one of the layers in it, a URL, or a name for GDAL alone."""

import re
from pathlib import Path

LAYER = "|layername="  # what QGIS writes between a file and the layer that is meant
STORES = "s3|gs|az|adls?|abfss?|oss|swift|hdfs|webhdfs"
REMOTE = re.compile(rf".*://|/vsi(curl|{STORES})(_streaming)?/")
ELSEWHERE = re.compile(
    rf"(https?|ftps?|file|{STORES}):/|/vsi(mem|curl|zip|tar|gzip|stdout|{STORES})(_streaming)?(/|$)", re.I
)
GDAL_NAME = re.compile(r".*://|/vsi|\w{2,}:")  # a driver's name before the colon, as in NETCDF:file.nc:band; no drive


def named_layer(path: str | Path) -> tuple[str, str | None]:
    """The file of `file.gpkg|layername=roads` and the layer that is meant; None: its only one."""
    file, named, layer = str(path).partition(LAYER)
    return file, layer if named else None


def with_layer(file: str, layer: str | None) -> str:
    """The other way."""
    return file if layer is None else f"{file}{LAYER}{layer}"


def exists(path: str | Path) -> bool:
    """Whether there is a local file or folder of a layer's name."""
    try:
        return Path(named_layer(path)[0]).exists()
    except OSError:  # longer than a file's name may be
        return False


def is_gdal_name(path: str | Path) -> bool:
    """Whether a name is none of a local file but one that GDAL understands: a URL, `/vsi…` or a subdataset."""
    return GDAL_NAME.match(named_layer(path)[0]) is not None and not exists(path)


def is_missing(path: str | Path) -> bool:
    """Whether a layer has the name of a local file that is not there."""
    return not exists(path) and not is_gdal_name(path)


def is_remote(path: str | Path) -> bool:
    """Whether a name is of a file on a server, which may not answer."""
    return REMOTE.match(str(path)) is not None


def is_elsewhere(path: Path) -> bool:
    """Whether an output would lie on no disk of this machine."""
    return ELSEWHERE.match(path.as_posix()) is not None
