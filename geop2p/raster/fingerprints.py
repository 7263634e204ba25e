"""Fingerprints: size and a hash of the first and last MiB of a file, or what a server says of it."""

import hashlib
import logging
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from geop2p.raster.layer_names import named_layer

log = logging.getLogger(__name__)

ENDS, PART_ENDS = 2**20, 2**12  # bytes at either end of a file that are looked at
PATIENCE = 30  # seconds until a server has answered
PAUSES = (1, 4)  # seconds after which a server that failed is asked again
RESERVED = ":/?#[]@!$&'()*+,;=%~"  # characters that mean something in a URL
SAID = ("ETag", "Last-Modified", "Content-Length")  # headers that change with a file


def file_ends(file: Path, length: int) -> tuple[int, str]:
    """Size of a file and hash of its first and last bytes."""
    size, digest = file.stat().st_size, hashlib.sha256()
    with file.open("rb") as stream:
        digest.update(stream.read(length))
        stream.seek(max(0, size - length))
        digest.update(stream.read())
    return size, digest.hexdigest()


def fingerprint(path: str | Path, parts: Sequence[str] = ()) -> dict[str, Any]:
    """Size and hash of the first and last MiB of a file: whether an input is the same, wherever it lies.

    A change in the middle of a larger file that moves nothing is not noticed. Of a file on a web server it is what the
    server says of it, of one in a local archive (`/vsizip/…`) that of the archive; other names (`/vsis3/…`, archives on
    servers) count alone.

    Args:
        path: File or GDAL name, or a folder, of which only the parts count; and the layer of several, which counts.
        parts: Further files that belong to it; of each the size and 4 KiB at either end count.
    """
    name, layer = named_layer(path)
    file, found = Path(name), dict[str, Any]()
    if layer is not None:
        found["layer"] = layer
    if file.is_file():
        found["size"], found["sha256_ends"] = file_ends(file, ENDS)
    elif not file.is_dir():
        return {"name": str(path)} | _said_by_server(name) | _archive(name)
    if parts:
        ends = [file_ends(Path(part), PART_ENDS) if Path(part).is_file() else part for part in parts]
        found["parts"] = hashlib.sha256(repr(ends).encode()).hexdigest()
    return found


def _said_by_server(name: str) -> dict[str, Any]:
    """Entity tag, date and length of a file on a web server, as far as it tells them.

    One that fails, and does not refuse, is asked again: to have been told nothing would look like a change.
    """
    url = name.removeprefix("/vsicurl/")
    if not url.startswith(("http://", "https://")):
        return {}
    import http.client  # here: they take longer to load than most files to look at
    import urllib.error
    import urllib.request

    for pause in (*PAUSES, 0):
        try:
            asked = urllib.request.Request(quote(url, safe=RESERVED), method="HEAD")
            with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
                return {header: answer.headers[header] for header in SAID if answer.headers[header]}
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = error
        if isinstance(reason, urllib.error.HTTPError):
            reason.close()
            if reason.code < 500:  # it may allow reading and not this
                break
        if isinstance(reason, ValueError):  # no address
            break
        time.sleep(pause)
    log.warning("%s: the server tells nothing of it (%s), so a change will not be noticed", name, reason)
    return {}


def _archive(name: str) -> dict[str, Any]:
    """Size and hash of the local archive that a file lies in, if it does."""
    inside = re.sub(r"^(/vsi(zip|tar|gzip|7z|rar)/|(zip|tar|gzip)(\+file)?://)", "", name)
    if inside == name:
        return {}
    place = Path(re.sub("[{}]", "", inside).replace("!", "/"))
    archive = next((path for path in (place, *place.parents) if path.is_file()), None)
    if archive is None:
        return {}
    size, digest = file_ends(archive, ENDS)
    return {"size": size, "sha256_ends": digest}
