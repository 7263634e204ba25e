"""`metrics.jsonl`: a line an epoch, and what the lines say together."""

import json
import math
import os
from pathlib import Path
from typing import Any

from geop2p.config import BestBy
from geop2p.errors import CheckpointError
from geop2p.raster.atomic import reporting_write_errors, write_text

METRICS = "metrics.jsonl"
SMALLER_IS_BETTER: set[BestBy] = {"l1", "rmse"}

History = list[dict[str, Any]]


def append_metrics(run: Path, entry: dict[str, Any]) -> None:
    """Add a line to `metrics.jsonl`.

    Raises:
        OutputError: The disk is full, or the place is read-only.
    """
    file = run / METRICS
    with reporting_write_errors(file), file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(entry, allow_nan=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def read_metrics(run: Path) -> History:
    """All whole lines of `metrics.jsonl`, oldest first.

    Raises:
        CheckpointError: One of them is not what a training writes.
    """
    file = run / METRICS
    if not file.exists():
        return []
    try:
        entries = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")[:-1]]
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: damaged ({error}); begin again with --overwrite") from error
    for number, entry in enumerate(entries, start=1):
        if not _is_epoch(entry):
            raise CheckpointError(f"{file}: damaged (line {number} tells of no epoch); begin again with --overwrite")
    return entries


def _is_epoch(entry: Any) -> bool:
    """Whether a line is what `append_metrics` is given."""
    if not isinstance(entry, dict) or not all(type(entry.get(name)) is int for name in ("epoch", "step")):
        return False
    has_figures = all(isinstance(entry.get(name), dict) for name in ("losses", "checks"))
    return has_figures and isinstance(entry.get("val", 0), dict | None)


def rewind_metrics(run: Path, step: int) -> History:
    """Forget what was logged after the checkpoint that the run goes on from; what is left."""
    kept = [entry for entry in read_metrics(run) if entry["step"] <= step]
    write_text(run / METRICS, "".join(json.dumps(entry) + "\n" for entry in kept))
    return kept


def best_epoch(history: History, metric: BestBy) -> dict[str, Any] | None:
    """Metric, value, epoch and step of the best validation, the first of equal ones; None where none has a value.

    An epoch without any error has no PSNR (None), and none is better.
    """
    scored = [entry for entry in history if is_scored(entry, metric)]
    if not scored:
        return None

    def value(entry: dict[str, Any]) -> float:
        found = entry["val"][metric]
        return math.inf if found is None else float(found)

    entry = (min if metric in SMALLER_IS_BETTER else max)(scored, key=value)
    return {"metric": metric, "value": entry["val"][metric], "epoch": entry["epoch"], "step": entry["step"]}


def is_scored(entry: dict[str, Any], metric: BestBy) -> bool:
    """Whether the validation of an epoch tells how good it was."""
    scores = entry["val"]
    return scores is not None and (scores[metric] is not None or (metric == "psnr" and scores["rmse"] == 0))


def epochs_without_gain(history: History, metric: BestBy) -> int:
    """Epochs with a value since the best one."""
    best = best_epoch(history, metric)
    return 0 if best is None else sum(entry["epoch"] > best["epoch"] and is_scored(entry, metric) for entry in history)
