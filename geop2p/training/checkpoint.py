"""What a run keeps on disk to go on: `config.json` and `last.pt`."""

import contextlib
import hashlib
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from geop2p.errors import CheckpointError, ConfigError
from geop2p.raster.atomic import replacing, write_json

CONFIG = "config.json"
LAST = "last.pt"
FORMAT = 1  # of last.pt
FREE = {"patience", "tensorboard"}  # settings that may change from one call for a run to the next


def claim_run(run: Path, settings: dict[str, Any]) -> None:
    """Begin a run, or go on with one that was begun with the same settings.

    Raises:
        ConfigError: The run was begun with other settings; the message names them.
        CheckpointError: The folder holds something else.
    """
    file = run / CONFIG
    if not file.exists():
        if run.exists() and (not run.is_dir() or any(run.iterdir())):
            raise CheckpointError(f"{run}: exists and is not a run; give a new folder")
        write_json(file, settings)
        return
    try:
        earlier = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{file}: not valid JSON ({error}); begin again with --overwrite") from error
    if not (run / LAST).exists():  # nothing was learnt under other settings
        write_json(file, settings)
        return
    names = sorted(set(earlier) | set(settings))
    changed = [name for name in names if settings.get(name) != earlier.get(name)]
    fixed = [name for name in changed if name not in FREE]
    differences = [f"{name} is {settings.get(name)}, there it is {earlier.get(name)}" for name in fixed]
    if differences:
        raise ConfigError(
            f"{run}: begun with other settings ({'; '.join(differences)}); repeat those to continue it, give a new "
            "folder, or --overwrite to begin again"
        )
    if changed:
        write_json(file, settings)


def digest_of(ids: list[str]) -> str:
    """Fingerprint of the names of chips."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]


def check_chips_are_those(run: Path, digest: str, ids: list[str]) -> None:
    """Refuse to go on with other chips than the checkpoint's: order and augmentation would be others.

    Raises:
        CheckpointError: They are others, as more or fewer of them cannot be read than before.
    """
    if digest != digest_of(ids):
        raise CheckpointError(
            f"{run / LAST}: made with other training chips than the {len(ids)} that can be read now; mend the chip "
            "set, or begin again with --overwrite"
        )


def save_state(run: Path, state: dict[str, Any]) -> None:
    """Write `last.pt` atomically: tensors and plain values only."""
    with replacing(run / LAST) as temporary:
        torch.save({"geop2p": FORMAT} | state, temporary)


def load_state(run: Path, device: torch.device) -> dict[str, Any] | None:
    """Read `last.pt` without unpickling code; None if there is none yet.

    Raises:
        CheckpointError: It is damaged, foreign, of a newer format, or holds more than tensors and plain values.
    """
    file = run / LAST
    if not file.exists():
        return None
    try:
        state: Any = torch.load(file, map_location=device, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{file}: not a checkpoint of geop2p ({first}); delete it to begin again") from error
    if not isinstance(state, dict) or not isinstance(state.get("geop2p"), int):
        raise CheckpointError(f"{file}: not a checkpoint of geop2p (a foreign file); delete it to begin again")
    if state["geop2p"] > FORMAT:
        raise CheckpointError(f"{file}: made by a newer geop2p (format {state['geop2p']}); upgrade geop2p")
    return state


@contextlib.contextmanager
def fitting_state(run: Path) -> Iterator[None]:
    """Say in one line that the checkpoint does not fit the networks of the run.

    Raises:
        CheckpointError: It does not.
    """
    try:
        yield
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise CheckpointError(
            f"{run / LAST}: does not fit the networks of this run ({first}); delete it to begin again"
        ) from error
