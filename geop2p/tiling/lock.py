"""One process at a time in the folder of a chip set."""

from contextlib import AbstractContextManager
from pathlib import Path

from geop2p.errors import ChipSetError
from geop2p.raster.lock import alone_in


def locked(folder: Path) -> AbstractContextManager[None]:
    """Keep other processes out of the folder of a chip set while it is made.

    Raises:
        ChipSetError: Another process is making it.
        OutputError: The folder cannot be made.
    """
    taken = f"{folder}: another process is making this chip set; wait until it is done, then repeat the command"
    return alone_in(folder, ChipSetError(taken))
