"""A table of runs: ranks, and the forms that other programs read."""

import csv
import html
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from geop2p.metrics import IN_UNITS
from geop2p.metrics.blocks import interval
from geop2p.raster.atomic import write_text

# name: what it is called, and the sign of what is better (0: the nearer to 1)
COLUMNS: dict[str, tuple[str, int]] = {
    "judge_miou": ("judge's mIoU", 1),
    "judge_class_accuracy": ("judge's class accuracy", 1),
    "judge_accuracy": ("judge's pixel accuracy", 1),
    "frechet": ("Fréchet distance", -1),
    "miou": ("mIoU", 1),
    "f1": ("F1", 1),
    "class_accuracy": ("class accuracy", 1),
    "accuracy": ("pixel accuracy", 1),
    "l1": ("L1", -1),
    "rmse": ("RMSE", -1),
    "psnr": ("PSNR, dB", 1),
    "ssim": ("SSIM", 1),
    "ms_ssim": ("MS-SSIM", 1),
    "correlation": ("correlation", 1),
    "sam": ("SAM, degrees", -1),
    "ergas": ("ERGAS", -1),
    "lpips": ("LPIPS", -1),
    "fid": ("FID", -1),
    "kid": ("KID", -1),
    "corner_ratio": ("corners over centre", 0),
}

MARKS = {True: "≈ ", False: "", None: "? "}  # of a score that is not the best, by whether it is tied with it
TIES = {True: "yes", False: "no", None: ""}

Row = dict[str, Any]


def ranked(rows: Sequence[Row], columns: Sequence[str]) -> list[Row]:
    """The rows in the order of their ranks in the first column that has any, with `rank` and `tied` for every score.

    Tied with the best is a row whose difference to it, over the same draws of blocks, has an interval that includes 0;
    where there are no draws nothing is tested, and `tied` is None. A row without any error has no PSNR, which would be
    infinite, and stands before all that have one.

    Args:
        rows: Scores by name, each with `value` and, where blocks were drawn, `draws`.
        columns: Names of the scores.
    """
    for name in columns:
        good, known = _goodness(name), [row for row in rows if name in row]
        best = max(known, key=lambda row: good(row[name]["value"]))[name]
        ahead = sum(row.get("rmse", {}).get("value") == 0 for row in rows) if name == "psnr" else 0
        for row in known:
            mine = row[name]
            mine["rank"] = 1 + ahead + sum(good(other[name]["value"]) > good(mine["value"]) for other in known)
            pairs = zip(mine.get("draws", ()), best.get("draws", ()), strict=True)
            apart = interval(good(a) - good(b) for a, b in pairs if a is not None and b is not None)
            told = None if apart is None else apart[0] <= 0 <= apart[1] and not ahead
            mine["tied"] = True if mine["rank"] == 1 else told
    return sorted(rows, key=lambda row: row[columns[0]]["rank"] if columns and columns[0] in row else len(rows) + 1)


def _goodness(name: str) -> Callable[[float], float]:
    sign = COLUMNS[name][1]
    return lambda value: sign * value if sign else -abs(value - 1)


def headings(result: Row) -> dict[str, str]:
    """What the columns of a comparison are called, by their names."""
    units = {name: f", {result['unit']}" for name in IN_UNITS if result["unit"]}
    return {name: COLUMNS[name][0] + units.get(name, "") for name in result["columns"]}


def write_markdown(path: Path, result: Row) -> None:
    """Write the table of a comparison, the best of each column in bold."""
    head = ["run", *headings(result).values()]
    lines = [head, ["---", *("---:" for _ in result["columns"])]]
    lines += [[_escaped(row["name"]), *(_cell(row.get(name)) for name in result["columns"])] for row in result["rows"]]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    said = f"{result['chips']} {result['split']} chips of {_escaped(result['chip_set'])}. Below each score stands its "
    said += "95 % interval over blocks of ground. Bold: best; ≈: not told apart from the best; ?: not tested.\n"
    write_text(path, "\n".join([text, said, *(f"{note}\n" for note in result["notes"])]))


def _cell(score: Row | None) -> str:
    if score is None:
        return "–"
    value = f"{score['value']:.4g}"
    if "rank" in score:
        value = f"**{value}**" if score["rank"] == 1 else f"{MARKS[score['tied']]}{value}"
    if score["interval"] is None:
        return value
    low, high = score["interval"]
    return f"{value}<br>{low:.4g} – {high:.4g}"


def _escaped(text: str) -> str:
    return html.escape(text, quote=False).replace("|", "\\|")


def write_csv(path: Path, result: Row) -> None:
    """Write the table of a comparison, a row a run: value, interval, rank and tie of each score."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    parts = ("", "_low", "_high", "_rank", "_tied")
    writer.writerow(["run", "path", "recipe", "steps", *(name + part for name in result["columns"] for part in parts)])
    for row in result["rows"]:
        cells = [row.get(name) for name in ("name", "path", "recipe", "steps")]
        for name in result["columns"]:
            score = row.get(name, {})
            low, high = score.get("interval") or (None, None)
            cells += [score.get("value"), low, high, score.get("rank"), TIES[score.get("tied")]]
        writer.writerow(cells)
    write_text(path, stream.getvalue())
