"""The manifest of a folder of parts: all that decides their pixels, and which process puts them together."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from geop2p.errors import ConfigError, OutputError, RasterError
from geop2p.mosaic.kept import COGS
from geop2p.mosaic.part_notes import read_json
from geop2p.raster.atomic import remove_folder, write_json
from geop2p.raster.lock import alone_in

MANIFEST = "parts.json"
_OPTIONS = {"part_side": "side of a part, which --memory and the tile size decide", "version": "version of geop2p"}


def claim_folder(folder: Path, claim: dict[str, Any], overwrite: bool, shared: bool) -> None:
    """Begin the parts of a mosaic, or go on with those that were begun in the same way.

    Args:
        folder: Where they lie.
        claim: All that decides their pixels: model, input, grid, settings.
        overwrite: Whether to begin again if they were made in another way.
        shared: Whether other processes may be at work on them: then they are never removed.

    Raises:
        ConfigError: They were made in another way.
        RasterError: The folder holds something else.
    """
    manifest = folder / MANIFEST
    if folder.exists() and not folder.is_dir():
        raise RasterError(f"{folder}: is where the parts go, but is a file; move it or name another output")
    if not manifest.exists() and _foreign(folder) and not manifest.exists():  # another process may have begun
        raise RasterError(f"{folder}: is where the parts go, but holds something else; move it or name another output")
    if manifest.exists() or _has_work(folder):  # without a manifest it is of an unknown making
        there = _read_claim(folder)
        apart = differences(there, claim)
        if not apart:
            return
        if not _goes_on(there, claim):
            if shared or not overwrite:
                hint = "delete the folder" if shared else "delete the folder or give --overwrite"
                found = f"left by a run with another {', '.join(apart)}; repeat that run to finish it, or"
                if not there:
                    found = f"the manifest {MANIFEST} is missing or damaged, so how the parts were made is unknown;"
                raise ConfigError(f"{folder}: {found} {hint} to begin again")
            with _locked(folder):
                remove_folder(folder)
    write_json(manifest, claim)


@contextlib.contextmanager
def put_together_alone(folder: Path, claim: dict[str, Any]) -> Iterator[None]:
    """Keep other processes from putting the same parts together; they may make them at the same time.

    Raises:
        ConfigError: Another process does so, or has done so.
    """
    with _locked(folder), while_claimed(folder, claim):
        if differences(_read_claim(folder), claim):
            raise ConfigError(f"{folder}: goes on with --skip-bad in another process; wait until that is done")
        yield


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep a folder of parts from being put together, or removed, by two processes.

    Raises:
        ConfigError: Another process is at it.
    """
    taken = (
        f"{folder}: another process is putting the parts together; wait until it is done, and repeat the command if "
        "there is no mosaic then"
    )
    with alone_in(folder, ConfigError(taken)):
        yield


@contextlib.contextmanager
def while_claimed(folder: Path, claim: dict[str, Any]) -> Iterator[None]:
    """Work on the parts of a run; where the folder is gone, an error says that rather than which file it was.

    Raises:
        ConfigError: The folder was removed meanwhile, or begun again in another way.
    """
    check_claim(folder, claim)
    try:
        yield
    except (OutputError, RasterError):
        check_claim(folder, claim)
        raise


def check_claim(folder: Path, claim: dict[str, Any]) -> None:
    """Refuse to add a part to those of another run."""
    if not _goes_on(claim, _read_claim(folder)):
        with contextlib.suppress(OSError):  # it holds something
            folder.rmdir()  # who did not know that it is gone has made it again
        raise ConfigError(
            f"{folder}: was removed meanwhile, by the run that put the parts together or with --overwrite; repeat the "
            "command if there is no mosaic yet"
        )


def _read_claim(folder: Path) -> dict[str, Any]:
    """The claim that a folder has; nothing if it cannot be read."""
    found = read_json(folder / MANIFEST)
    return found if isinstance(found.get("settings"), dict) else {}


def _foreign(folder: Path) -> bool:
    """Whether a folder holds anything that is not of a mosaic's making."""
    ours = ("part_", "parts.", "seams", "mosaic.", "norm_", "int8", COGS, ".")
    return folder.exists() and not all(entry.name.startswith(ours) for entry in folder.iterdir())


def _has_work(folder: Path) -> bool:
    """Whether a folder holds parts, statistics or a network, which a process that came too late may have left."""
    return any(entry.name.startswith(("part_", "norm_", "int8")) for entry in folder.glob("*"))


def differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """What differs between two claims, in words."""
    found = [name for name in ("model", "input", "grid") if there.get(name) != here.get(name)]
    inputs = [claim.get("input", {}) for claim in (there, here)]
    old, new = (given.get("nodata") for given in inputs)
    if old != new and {**inputs[0], "nodata": new} == inputs[1]:
        found[found.index("input")] = f"nodata value of the input ({old}, now {new})"
    earlier, later = there.get("settings", {}), here.get("settings", {})
    for name in sorted({*earlier, *later}):
        old, new = earlier.get(name), later.get(name)
        if old != new:
            found.append(f"{_OPTIONS.get(name, name)} ({old}, now {new})")
    return found


def _goes_on(earlier: dict[str, Any], later: dict[str, Any]) -> bool:
    """Whether parts of one claim are parts of another: those made without --skip-bad met no bad block."""
    skipping = earlier | {"settings": earlier.get("settings", {}) | {"skip_bad": True}}
    return not differences(earlier, later) or not differences(skipping, later)
