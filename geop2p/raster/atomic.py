"""Files that appear whole under their name or not at all."""

import contextlib
import glob
import io
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from geop2p.errors import OutputError, one_line
from geop2p.raster.layer_names import is_elsewhere

UMASK = os.umask(0)  # of the process; reading it means setting it, which threads must not do
os.umask(UMASK)


@contextlib.contextmanager
def reporting_write_errors(path: Path) -> Iterator[None]:
    """Say in one line that `path` cannot be written, whatever the system says.

    Raises:
        OutputError: The disk is full, or the place is read-only.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({one_line(error)}); is the disk full or the folder read-only?"
        ) from error


def write_all(file: io.RawIOBase, data: bytes | bytearray | memoryview) -> None:
    """Write all bytes to an unbuffered file, which may take them in parts."""
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[file.write(rest) :]


@contextlib.contextmanager
def replacing(path: Path, lasting: bool = False) -> Iterator[Path]:
    """A temporary name beside `path` that takes its place when the block ends without error.

    Args:
        path: File to replace.
        lasting: Wait until the disk has the new content, so that a loss of power leaves the old or the new.

    Raises:
        OutputError: It cannot be written there.
    """
    temporary = path
    try:
        with reporting_write_errors(path):
            make_folder(path.parent)
            handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
            os.close(handle)
            temporary = Path(name)
            yield temporary
            temporary.chmod(0o666 & ~UMASK)
            if lasting:
                _flush(temporary)
            temporary.replace(path)
    finally:
        if temporary != path:
            _discard(temporary)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def leftovers(path: Path) -> list[Path]:
    """What processes that were killed while they replaced `path` have left beside it."""
    ours = re.compile(rf"\.{re.escape(path.stem)}\.[a-z0-9_]{{8}}{re.escape(path.suffix)}")  # as `mkstemp` names them
    there = path.parent.iterdir() if path.parent.is_dir() else ()
    return [other for other in there if ours.fullmatch(other.name)]


def discard_leftovers(path: Path) -> None:
    """Remove the `leftovers` of a path; no other process may be replacing it."""
    for temporary in leftovers(path):
        _discard(temporary)


def is_bare(folder: Path, first: Path) -> bool:
    """Whether a folder is not there, empty, or holds leftovers alone of the first file that is written in it."""
    if not folder.is_dir():
        return not folder.exists()
    known = {*leftovers(first), *first.parents}
    return all(path in known for path in folder.rglob("*"))


def check_is_here(path: Path) -> None:
    """Refuse an output that is a URL or a name of GDAL's.

    Raises:
        OutputError: The path is no place on a disk of this machine.
    """
    if is_elsewhere(path):
        raise OutputError(f"{path}: results are written to disks of this machine; give a path there and copy them")


def check_new(path: Path, overwrite: bool) -> None:
    """Refuse an output that exists, unless it may be replaced, or that cannot be written.

    Raises:
        OutputError: It exists, its folder is read-only, or it lies on no disk of this machine.
    """
    check_is_here(path)
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: exists; give another name or --overwrite")
    if path.parent.is_dir() and not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path.parent}: nothing can be written there; is it read-only? Give another place")


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, unless it is there.

    Raises:
        OutputError: A file is in the way, the place is read-only, or it is none of this machine's disks.
    """
    check_is_here(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made a folder ({error.strerror}); give another place") from error


def remove_folder(folder: Path) -> None:
    """Remove a folder, if it is there; killed meanwhile, it leaves nothing under the folder's name."""
    with reporting_write_errors(folder), contextlib.suppress(FileNotFoundError):
        folder.rename(folder.with_name(f"{_removed(folder)}{uuid.uuid4().hex}"))
    discard_removed(folder)


def discard_removed(folder: Path) -> None:
    """Remove what is left of a folder that was being removed, by this process or one that was killed."""
    for away in folder.parent.glob(f"{glob.escape(_removed(folder))}*"):
        shutil.rmtree(away, ignore_errors=True)  # another process may be at it


def _removed(folder: Path) -> str:
    """How the names begin that a folder takes while it is removed."""
    return f".{folder.name}.removed-"


def _discard(temporary: Path) -> None:
    temporary.unlink(missing_ok=True)
    Path(f"{temporary}.aux.xml").unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n")
