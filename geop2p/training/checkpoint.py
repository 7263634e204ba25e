"""What a run keeps on disk to go on: `config.json` and `last.pt`."""

import contextlib
import errno
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from geop2p.errors import CheckpointError
from geop2p.models.memory import is_out_of_memory
from geop2p.raster.atomic import replacing
from geop2p.tiling.chips import description_digest
from geop2p.tiling.rows import digest_of

CONFIG = "config.json"
LAST = "last.pt"
FORMAT = 1  # of last.pt
AGAIN = "begin again with --overwrite"


def chips_digest(folder: Path) -> str:
    """The start of the hash of a chip set's description."""
    return description_digest(folder)[:16]


def check_chips_are_those(run: Path, digest: str, ids: list[str]) -> None:
    """Refuse to go on with other chips than the checkpoint's: order and augmentation would be others.

    Raises:
        CheckpointError: They are others, as more or fewer of them cannot be read than before.
    """
    if digest != digest_of(ids):
        raise CheckpointError(
            f"{run / LAST}: made with other training chips than the {len(ids)} that can be read now; mend the chip "
            f"set, or {AGAIN}"
        )


def check_same_to_all(run: Path, steps: list[int]) -> None:
    """Refuse to go on where processes found checkpoints of different steps: they would train different networks.

    Args:
        run: Folder of the run.
        steps: Of the checkpoint that each process found there; 0: none.

    Raises:
        CheckpointError: The steps differ.
    """
    if len(set(steps)) > 1:
        raise CheckpointError(
            f"{run / LAST}: not the same file to all processes, which found checkpoints of the steps "
            f"{', '.join(map(str, steps))} (0: none); give a run in a folder that all machines share"
        )


def save_state(run: Path, state: dict[str, Any]) -> None:
    """Write `last.pt` atomically: tensors and plain values only.

    Raises:
        OutputError: The disk is full, or the place is read-only.
    """
    with replacing(run / LAST, lasting=True) as temporary:
        try:
            torch.save({"geop2p": FORMAT} | state, temporary)
        except RuntimeError as error:
            if "inline_container" not in str(error):  # where torch writes files
                raise
            raise OSError("it broke off while it was written") from error


def load_state(run: Path, device: torch.device) -> dict[str, Any] | None:
    """Read `last.pt` without unpickling code; None if there is none yet.

    Raises:
        CheckpointError: It is damaged, foreign, of a newer format, or holds more than tensors and plain values.
    """
    file = run / LAST
    if not file.exists():
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the protocol of a foreign pickle
            state: Any = torch.load(file, map_location=device, weights_only=True)
    except Exception as error:  # foreign bytes can break torch's reader anywhere; its words advise to trust them
        if is_out_of_memory(error):
            raise
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # which is a place before the file's beginning
            raise CheckpointError(f"{file}: cannot be read ({error.strerror})") from error
        raise CheckpointError(
            f"{file}: not a checkpoint of geop2p (damaged, or more than tensors and plain values); {AGAIN}"
        ) from error
    if not isinstance(state, dict) or not isinstance(state.get("geop2p"), int):
        raise CheckpointError(f"{file}: not a checkpoint of geop2p (a foreign file); {AGAIN}")
    if state["geop2p"] > FORMAT:
        raise CheckpointError(f"{file}: made by a newer geop2p (format {state['geop2p']}); upgrade geop2p")
    if type(state.get("step")) is not int or state["step"] < 0 or not isinstance(state.get("seconds"), int | float):
        raise CheckpointError(f"{file}: damaged (does not tell the steps done and their time); {AGAIN}")
    return state


@contextlib.contextmanager
def fitting_state(run: Path) -> Iterator[None]:
    """Say in one line that the checkpoint does not fit the networks of the run.

    Raises:
        CheckpointError: The checkpoint does not fit.
    """
    try:
        yield
    except (AttributeError, LookupError, ValueError, TypeError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{run / LAST}: does not fit the networks of this run ({first}); {AGAIN}") from error
