"""What the index of a chip set says, read as rows. Neither rasterio nor shapely is needed."""

import hashlib
import re
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from geop2p.config import Split
from geop2p.errors import ChipSetError


def index_rows(index: Path, split: Split, columns: str = "*") -> list[sqlite3.Row]:
    """The rows of a split in the order of an index.

    Args:
        index: Its file.
        split: Which chips.
        columns: Names of columns, a comma between; all.

    Raises:
        ChipSetError: The index is missing or damaged.
    """
    query = f"SELECT {columns} FROM chips WHERE split = ? ORDER BY fid"
    try:
        with closing(sqlite3.connect(f"file:{quote(str(index))}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            return connection.execute(query, (split,)).fetchall()
    except sqlite3.Error as error:
        raise ChipSetError(f"{index}: missing or damaged ({error}); tile again with --overwrite") from error


def share_columns(table: Iterable[Any]) -> list[str]:
    """The columns of an index, or the names of an entry of it, that hold class shares."""
    return [name for name in table if re.fullmatch(r"(source|target)_-?\d+", name)]


def class_columns(table: Iterable[Any], side: str) -> dict[int, str]:
    """The columns that hold the class shares of a side, by the code of the class."""
    return {int(name.removeprefix(f"{side}_")): name for name in share_columns(table) if name.startswith(f"{side}_")}


def digest_of(names: Iterable[str]) -> str:
    """Fingerprint of the names of chips and of their order."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
