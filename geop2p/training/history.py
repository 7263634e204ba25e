"""`metrics.jsonl`: a line an epoch, and what the lines say together."""

import json
from pathlib import Path
from typing import Any

from geop2p.config import BestBy
from geop2p.errors import CheckpointError
from geop2p.raster.atomic import write_text

METRICS = "metrics.jsonl"
SMALLER_IS_BETTER: set[BestBy] = {"l1", "rmse"}

History = list[dict[str, Any]]


def append_metrics(run: Path, entry: dict[str, Any]) -> None:
    """Add a line to `metrics.jsonl`."""
    with (run / METRICS).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(entry, allow_nan=False) + "\n")


def read_metrics(run: Path) -> History:
    """All whole lines of `metrics.jsonl`, oldest first.

    Raises:
        CheckpointError: One of them is not JSON.
    """
    file = run / METRICS
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").split("\n")
    try:
        return [json.loads(line) for line in lines[:-1]]
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{file}: damaged ({error}); begin again with --overwrite") from error


def rewind_metrics(run: Path, step: int) -> History:
    """Forget what was logged after the checkpoint that the run goes on from; what is left."""
    kept = [entry for entry in read_metrics(run) if entry["step"] <= step]
    write_text(run / METRICS, "".join(json.dumps(entry) + "\n" for entry in kept))
    return kept


def best_epoch(history: History, metric: BestBy) -> dict[str, Any] | None:
    """Metric, value, epoch and step of the best validation, the first of equal ones; None where none has a value."""
    scored = [entry for entry in history if entry["val"] is not None and entry["val"][metric] is not None]
    if not scored:
        return None
    entry = (min if metric in SMALLER_IS_BETTER else max)(scored, key=lambda entry: entry["val"][metric])
    return {"metric": metric, "value": entry["val"][metric], "epoch": entry["epoch"], "step": entry["step"]}


def epochs_without_gain(history: History, metric: BestBy) -> int:
    """Epochs since the best one, or since the beginning where none has a value."""
    best = best_epoch(history, metric)
    return len(history) if best is None else sum(entry["epoch"] > best["epoch"] for entry in history)
