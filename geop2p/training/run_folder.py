"""The folder of a run: locked while one trains, its settings checked, and emptied for another run."""

import hashlib
import json
import logging
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from geop2p.errors import CheckpointError, ConfigError
from geop2p.raster.atomic import discard_leftovers, is_bare, reporting_write_errors, write_json
from geop2p.raster.lock import alone_in
from geop2p.training.board import FOLDER as BOARD
from geop2p.training.caching import CACHE
from geop2p.training.checkpoint import CONFIG, LAST
from geop2p.training.finetuning import Start
from geop2p.training.history import METRICS
from geop2p.training.report import REPORT
from geop2p.training.run_writer import BEST, SAMPLES
from geop2p.translator import FILE_NAME, model_file

log = logging.getLogger(__name__)

MARKS = ("recipe", "chips", "set")  # settings by which the `config.json` of a run differs from those of other programs
FREE = {"patience", "tensorboard", "device"}  # settings that may change from one call for a run to the next
VALUES = "recipe_values"  # what the recipe and all that was set of it came to
SET_BY = {"set", "loss", "downs", "batch_size"}
OWNED = (  # what a run leaves beside its settings; the checkpoint first, without which nothing goes on
    LAST,
    FILE_NAME,
    BEST,
    METRICS,
    REPORT,
    f"{SAMPLES}/epoch_*.png",
    f"{BOARD}/events.out.tfevents.*",
    f"{CACHE}/*/*.npy",
)
FOLDERS = (SAMPLES, BOARD, f"{CACHE}/*", CACHE)


class ExistingRun(NamedTuple):
    """What lies where a run is to be.

    Attributes:
        settings: Of the run that goes on; None where one begins.
        is_replaced: Whether a run lies there that makes room.
    """

    settings: dict[str, Any] | None = None
    is_replaced: bool = False


def lock_run(run: Path) -> AbstractContextManager[None]:
    """Keep other trainings out of a folder; reading the run goes on.

    Raises:
        CheckpointError: Another process trains there.
        OutputError: The folder cannot be made.
    """
    taken = f"{run}: another process is training this run; wait until it is done, or give a new folder"
    return alone_in(run, CheckpointError(taken))


def look_at(run: Path, overwrite: bool) -> ExistingRun:
    """Find out what lies where a run is to be; nothing changes.

    Args:
        run: Folder of the run.
        overwrite: Whether a run that is there makes room.

    Raises:
        CheckpointError: The folder holds something else, or a run that has lost its checkpoint.
    """
    if is_bare(run, run / CONFIG):
        return ExistingRun()
    settings = _read_settings(run)
    if overwrite:
        return ExistingRun(is_replaced=True)
    if (run / LAST).exists():
        return ExistingRun(settings)
    if any((run / name).exists() for name in (FILE_NAME, BEST)):
        raise CheckpointError(
            f"{run}: has a model but no {LAST}, so it cannot be continued; give a new folder, or --overwrite to begin "
            "again"
        )
    return ExistingRun()  # nothing was learnt under the settings that are there


def settings_of(run: Path) -> dict[str, Any] | None:
    """The settings of a run; None for what is none."""
    with suppress(CheckpointError):
        return _read_settings(run)
    return None


def _read_settings(run: Path) -> dict[str, Any]:
    """The settings of a run.

    Raises:
        CheckpointError: The folder is not that of a run.
    """
    file, advice = run / CONFIG, "give a new folder"
    if not file.is_file():
        raise CheckpointError(f"{run}: exists and is not a run (no {CONFIG}); {advice}")
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: not valid JSON ({error}), so not known as a run; {advice}") from error
    if not isinstance(settings, dict) or not all(name in settings for name in MARKS):
        raise CheckpointError(f"{run}: exists and is not a run ({CONFIG} does not hold {', '.join(MARKS)}); {advice}")
    return settings


def known_start(found: ExistingRun, init_from: Path | None) -> Start | None:
    """The model that a run began with, if it goes on and the same name is given: its weights are needed no more."""
    start = (found.settings or {}).get("init_from")
    if init_from is None or not isinstance(start, dict) or start.get("model") != Path(init_from).name:
        return None
    with suppress(CheckpointError):  # it is gone
        if hashlib.sha256(model_file(init_from).read_bytes()).hexdigest() != start.get("sha256"):
            log.warning("init_from %s: not the model that the run began with; it goes on without", init_from)
    return start


def check_settings(run: Path, found: ExistingRun, settings: dict[str, Any]) -> None:
    """Refuse to go on with other settings than a run was begun with, or with a recipe that has changed since.

    Raises:
        ConfigError: They are others; the message names them.
    """
    earlier, settings = _by_value(settings if found.settings is None else found.settings), _by_value(settings)
    idle = {"epochs"} if earlier.get("steps") is not None else set()  # which steps stand in for
    names = sorted((set(earlier) | set(settings)) - FREE - idle - {VALUES})
    changed = [name for name in names if settings.get(name) != earlier.get(name)]
    if changed:
        differences = [f"{name} is {settings.get(name)}, there it is {earlier.get(name)}" for name in changed]
        raise ConfigError(
            f"{run}: begun with other settings ({'; '.join(differences)}); repeat those to continue it, begin "
            "in another folder, or remove this one (train: --overwrite)"
        )


def _by_value(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with the values of the recipe instead of what they were set by."""
    return {**{name: value for name, value in settings.items() if name not in SET_BY}, **settings[VALUES]}


def claim_run(run: Path, settings: dict[str, Any]) -> None:
    """Make a folder that of a run with these settings.

    Raises:
        OutputError: It cannot be written there.
    """
    write_json(run / CONFIG, settings)
    discard_leftovers(run / CONFIG)


def check_claimed(run: Path) -> None:
    """Refuse to go on where the folder of a run is gone: what is written now would be no run.

    Raises:
        CheckpointError: The folder, or its settings, are gone.
    """
    if not (run / CONFIG).exists():
        raise CheckpointError(f"{run}: was removed while the training ran, and what it had learnt with it; repeat it")


def make_room(run: Path, cache: Path | None) -> None:
    """Remove what a run has left, but for chips that the next one has packed there; other files stay.

    Its settings stay as well, so that the folder is known as that of a run until they are replaced.

    Raises:
        OutputError: Something cannot be removed.
    """
    with reporting_write_errors(run):
        for pattern in OWNED:
            for file in run.glob(pattern):
                if file.parent != cache:
                    file.unlink()
    for pattern in FOLDERS:
        for folder in run.glob(pattern):
            with suppress(OSError):  # it holds something
                folder.rmdir()
