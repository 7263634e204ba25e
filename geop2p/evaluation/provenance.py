"""Which chip set a run was trained on, and whether the ground of chips may be known to it."""

import json
from collections.abc import Iterable
from pathlib import Path

from geop2p.config import Split
from geop2p.errors import CheckpointError
from geop2p.training.checkpoint import CONFIG, chips_digest
from geop2p.training.finetuning import Start
from geop2p.translator import Card


def run_of(model: Path) -> Path:
    """The folder of the run of a model that is given as that, or as one of the files of weights in it."""
    return model.parent if model.is_file() else model


def trained_on(model: Path) -> str:
    """The digest of the chip set that a run was trained on, as the run has it.

    Args:
        model: The run, or one of its files of weights.

    Raises:
        CheckpointError: It is no run, or its settings are damaged.
    """
    file = run_of(model) / CONFIG
    if not file.is_file():
        found = f"no {CONFIG} beside it" if model.is_file() else f"not a run (no {CONFIG})"
        raise CheckpointError(f"{model}: {found}; give runs that geop2p train made, or models in them")
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["chips"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file}: damaged, does not name the chips of the training; train again") from error


def starts_of(cards: Iterable[Card]) -> list[Start]:
    """The models that the trainings of some models began with, those that these began with, and so on."""
    found, todo = list[Start](), [card.provenance.get("init_from") for card in cards]
    while todo:
        start = todo.pop()
        if start:
            found.append(start)
            todo.append(start.get("init_from"))
    return found


def leakage_warning(chips: Path, split: Split, trained: str | None, starts: Iterable[Start] = ()) -> str | None:
    """Why the ground of chips may be known to what was trained; None where it is not.

    Args:
        chips: Folder of the chip set.
        split: Of it.
        trained: Digest of the chip set of the training; None if it is not known.
        starts: The models that trainings began with, see `starts_of`.
    """
    if trained is None:
        return f"Nothing beside the model says that it was trained on {chips}: its ground may be known."
    if chips_digest(chips) != trained:
        return f"{chips} is not what the training saw, or has changed since: its ground may be known."
    if split == "train":
        return "These chips were trained on: the scores say what was learnt by heart, not what other ground would give."
    for start in starts:
        if start.get("chips_digest") != trained:
            learned_on = start.get("chips") or "chips that it does not name"
            return f"The training began with {start['model']}, which learned on {learned_on}: the ground may be known."
    return None
