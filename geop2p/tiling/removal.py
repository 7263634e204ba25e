"""Who has the folder of a chip set: one process at a time, a new chip set once the old one is wholly removed."""

import shutil
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from geop2p.config import SPLITS
from geop2p.errors import ChipSetError
from geop2p.raster.atomic import discard_removed, leftovers, remove_folder, reporting_write_errors
from geop2p.raster.lock import alone_in
from geop2p.tiling.chips import DESCRIPTION, INDEX, SIDES, STAGING
from geop2p.tiling.index import INDEX_STYLE
from geop2p.tiling.packed import ARRAYS, array_path
from geop2p.tiling.preview import PREVIEW

REMOVED = "removed chips"  # among what is staged, a name that no scene has: the chip set that makes room


def lock_chips(folder: Path) -> AbstractContextManager[None]:
    """Keep other processes out of the folder of a chip set while it is made.

    Raises:
        ChipSetError: Another process is making it.
        OutputError: The folder cannot be made.
    """
    taken = f"{folder}: another process is making this chip set; wait until it is done, then repeat the command"
    return alone_in(folder, ChipSetError(taken))


def make_room(folder: Path, overwrite: bool) -> None:
    """Finish a removal of a chip set that a kill has cut short; with `overwrite` remove the one that is there."""
    discard_removed(folder / STAGING)
    if overwrite:
        remove(folder)
    else:
        _go_on_removing(folder)


def remove(folder: Path) -> None:
    """Delete a chip set, and nothing else that may lie in its folder.

    It is moved aside first, so that killed meanwhile it is known for what it is; where a part of it cannot be moved, or
    Ctrl-C comes before all is, it stays as it was.

    Raises:
        ChipSetError: The folder holds something else.
        OutputError: It cannot be removed.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / DESCRIPTION).exists() and not (folder / STAGING).exists():
        raise ChipSetError(f"{folder}: exists and is not a chip set, so --overwrite leaves it alone; give a new folder")
    with reporting_write_errors(folder):
        (folder / STAGING / REMOVED).mkdir(parents=True, exist_ok=True)
    _go_on_removing(folder)


def _go_on_removing(folder: Path) -> None:
    """Finish a removal that was begun, if one was."""
    away = folder / STAGING / REMOVED
    if not away.is_dir():
        return
    with reporting_write_errors(folder):
        _move_aside(folder, away)
        shutil.rmtree(away)
    remove_folder(folder / STAGING)


def _move_aside(folder: Path, away: Path) -> None:
    """Move what a chip set consists of into a folder, all or nothing."""
    moved: list[Path] = []
    try:
        for path in filter(Path.exists, _contents(folder)):
            path.rename(away / path.name)
            moved.append(path)
    except BaseException:  # a file that is open, or Ctrl-C
        for path in moved:
            (away / path.name).rename(path)
        if not any(away.iterdir()):  # what an earlier call has moved there is not ours to bring back
            away.rmdir()
            if not any(away.parent.iterdir()):
                away.parent.rmdir()
        raise


def check_removable(folder: Path, read: Iterable[Path]) -> None:
    """Refuse to delete a chip set for another one that is made from files in it.

    Raises:
        ChipSetError: One of the files that are read belongs to it.
    """
    own = [path.resolve() for path in (*_contents(folder), folder / STAGING)]
    inside = next((file for file in read if any(file.resolve().is_relative_to(path) for path in own)), None)
    if inside is not None:
        raise ChipSetError(
            f"{inside}: belongs to the chip set {folder}, which --overwrite deletes; tile into another folder"
        )


def _contents(folder: Path) -> list[Path]:
    """The folders and files that a finished chip set may consist of, whatever its layout; what tells it comes first."""
    arrays = [array_path(folder, split, name) for split in SPLITS for name in ARRAYS]
    told = [folder / name for name in (DESCRIPTION, INDEX, INDEX_STYLE, PREVIEW)]
    return [*told, *(left for path in told for left in leftovers(path)), *(folder / side for side in SIDES), *arrays]
