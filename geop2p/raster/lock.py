"""One process at a time in a folder."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from geop2p.errors import GeoP2PError
from geop2p.raster.atomic import make_folder

if sys.platform != "win32":  # there nothing keeps two processes apart
    import fcntl


@contextmanager
def alone_in(folder: Path, taken: GeoP2PError) -> Iterator[None]:
    """Keep other processes out of a folder, which is made if it is not there and goes again if it stays empty.

    The lock is on the folder itself, so it leaves no file, and the system takes it from a process that dies. Who only
    reads there needs none.

    Args:
        folder: To lock.
        taken: What to raise where another process is at work in the folder.

    Raises:
        GeoP2PError: `taken`.
        OutputError: The folder cannot be made.
    """
    if folder.exists() and not folder.is_dir():  # nothing to lock; whoever writes there says so
        yield
        return
    is_new = not folder.exists()
    handle = _lock(folder, taken)
    try:
        yield
    finally:
        if is_new:
            with suppress(OSError):  # it holds something
                folder.rmdir()
        if handle is not None:
            os.close(handle)


def _lock(folder: Path, taken: GeoP2PError) -> int | None:
    """Make and lock a folder; None where the system, or the disk it lies on, has no locks."""
    make_folder(folder)
    if sys.platform == "win32":
        return None
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # it may not be listed
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if folder.is_dir() and os.path.samestat(os.fstat(handle), folder.stat()):
            return handle
    except BlockingIOError as error:
        os.close(handle)
        raise taken from error
    except OSError:  # no locks on this disk
        os.close(handle)
        return None
    os.close(handle)
    return _lock(folder, taken)  # the folder was another's, who has removed it since
