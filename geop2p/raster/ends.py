"""The ends of a file, by which it is known again."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ENDS, PART_ENDS = 2**20, 2**12  # bytes at either end of a file that are looked at


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

    A change in the middle of a larger file that moves nothing is not noticed. Names that are no local file (URLs,
    `/vsi…`) have only their name.

    Args:
        path: File or GDAL name, or a folder, of which only the parts count.
        parts: Further files that belong to it; of each the size and 4 KiB at either end count.
    """
    found: dict[str, Any] = {}
    if Path(path).is_file():
        found["size"], found["sha256_ends"] = file_ends(Path(path), ENDS)
    elif not Path(path).is_dir():
        return {"name": str(path)}
    if parts:
        ends = [file_ends(Path(part), PART_ENDS) if Path(part).is_file() else part for part in parts]
        found["parts"] = hashlib.sha256(repr(ends).encode()).hexdigest()
    return found
