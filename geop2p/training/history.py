"""`metrics.jsonl`: a line an epoch, and what the lines say together."""

import json
from pathlib import Path
from typing import Any

from geop2p.raster.atomic import write_text

METRICS = "metrics.jsonl"


def append_metrics(run: Path, entry: dict[str, Any]) -> None:
    """Add a line to `metrics.jsonl`."""
    with (run / METRICS).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(entry, allow_nan=False) + "\n")


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """All whole lines of `metrics.jsonl`, oldest first."""
    file = run / METRICS
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def rewind_metrics(run: Path, step: int) -> None:
    """Forget what was logged after the checkpoint that the run goes on from."""
    kept = [entry for entry in read_metrics(run) if entry["step"] <= step]
    write_text(run / METRICS, "".join(json.dumps(entry) + "\n" for entry in kept))


def best_epoch(history: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Metric, value and epoch of the best validation: lowest L1, or highest mIoU for classes; None without any."""
    validated = [entry for entry in history if entry["val"] is not None]
    if not validated:
        return None
    metric = "l1" if "l1" in validated[0]["val"] else "miou"
    entry = (min if metric == "l1" else max)(validated, key=lambda item: item["val"][metric] or 0.0)
    return {"metric": metric, "value": entry["val"][metric], "epoch": entry["epoch"]}
