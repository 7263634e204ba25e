"""Tables that people write: CSV files with named columns."""

import csv
from collections.abc import Sequence
from pathlib import Path

from geop2p.errors import ConfigError


def read_rows(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> list[dict[str, str]]:
    """The lines of a CSV in UTF-8, a dict each of the values of its columns, without spaces around them; "" for none.

    Values are separated by commas, or by the semicolons of spreadsheets where numbers have decimal commas.

    Args:
        path: The file.
        columns: Names that its first line must have, among others.
        optional: Names that it may have.

    Raises:
        ConfigError: It is missing, no text, has no lines or lacks a column.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; expected {_described(columns, optional)}")
    try:
        header, *lines = path.read_text(encoding="utf-8-sig").splitlines() or [""]
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    separator = ";" if ";" in header and "," not in header else ","
    names = [name.strip() for name in next(csv.reader([header], delimiter=separator), [])]
    if not set(columns) <= set(names):
        raise ConfigError(f"{path}: has the columns '{header}', expected {_described(columns, optional)}")
    rows = [
        {name: (row.get(name) or "").strip() for name in (*columns, *optional)}
        for row in csv.DictReader(lines, names, delimiter=separator)
    ]
    if not rows:
        raise ConfigError(f"{path}: has no lines below its columns; expected {_described(columns, optional)}")
    return rows


def _described(columns: Sequence[str], optional: Sequence[str]) -> str:
    also = f" and, if wanted, {', '.join(optional)}" if optional else ""
    return f"a CSV with the columns {', '.join(columns)}{also}"
