"""What stands beside finished files of a mosaic in the making, so that one that is cut short is made again."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geop2p.raster.atomic import write_json, writing


def note_finished(folder: Path, name: str, files: Sequence[Path], **facts: Any) -> None:
    """Note that files in a folder are finished, with their sizes and more facts of them."""
    sizes = {path.relative_to(folder).as_posix(): _on_disk(path) for path in files}
    write_json(folder / f"{name}.json", {"files": sizes} | facts)


def finished(folder: Path, name: str) -> dict[str, Any]:
    """What was noted under a name; nothing if nothing was, or if a file has another size than then."""
    entry = read_json(folder / f"{name}.json")
    for file, size in entry.get("files", {}).items():
        path = folder / file
        if not path.exists() or path.stat().st_size != size:
            return {}
    return entry


def read_json(path: Path) -> dict[str, Any]:
    """What a file says; nothing if it is not there, or if the power went while it was written."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return found


def _on_disk(path: Path) -> int:
    """Size of a file in bytes, all of which have reached the disk."""
    with writing(path), path.open("r+b") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size
