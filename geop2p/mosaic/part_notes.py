"""What stands beside finished files of a mosaic in the making, so that one that is cut short is made again."""

import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from geop2p.raster.atomic import reporting_write_errors, write_json

CHUNK = 2**20  # bytes that are read at once


@dataclass(frozen=True)
class Finished:
    """What was noted of finished files.

    Attributes:
        files: Their names in the folder.
        network_pixels: That went through the network for them.
    """

    files: Sequence[str]
    network_pixels: int


def note_finished(folder: Path, name: str, files: Sequence[Path], network_pixels: int = 0) -> None:
    """Note that files in a folder are finished, with their sizes and checksums."""
    stored = {path.relative_to(folder).as_posix(): _on_disk(path) for path in files}
    write_json(folder / f"{name}.json", {"files": stored, "network_pixels": network_pixels})


def finished_files(folder: Path, name: str, thorough: bool = False) -> Finished | None:
    """What was noted under a name; None if nothing was that can be read, or if a file has another size than then.

    Args:
        folder: Where the files lie.
        name: Of the note.
        thorough: Whether the files are read, too: None if one holds something else than then.
    """
    entry = read_json(folder / f"{name}.json")
    try:
        for file, (size, checksum) in entry["files"].items():
            with (folder / file).open("rb") as opened:
                if os.fstat(opened.fileno()).st_size != size or (thorough and _checksum(opened) != checksum):
                    return None
        return Finished(list(entry["files"]), int(entry["network_pixels"]))
    except (OSError, KeyError, ValueError, TypeError, AttributeError):  # a file is gone, or the note damaged
        return None


def read_json(path: Path) -> dict[str, Any]:
    """What a file says; nothing if it is not there, or damaged as by a power cut while it was written."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _on_disk(path: Path) -> tuple[int, int]:
    """Size in bytes and checksum of a file, all of which has reached the disk."""
    with reporting_write_errors(path), path.open("r+b") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size, _checksum(file)


def _checksum(file: BinaryIO) -> int:
    found = 0
    while chunk := file.read(CHUNK):
        found = zlib.crc32(chunk, found)
    return found
