"""The shares of classes that the index of a chip set holds. Neither rasterio nor shapely is needed."""

import re
from collections.abc import Iterable
from typing import Any


def share_columns(table: Iterable[Any]) -> list[str]:
    """The columns of an index, or the names of an entry of it, that hold class shares."""
    return [name for name in table if re.fullmatch(r"(source|target)_-?\d+", name)]


def class_columns(table: Iterable[Any], side: str) -> dict[int, str]:
    """The columns that hold the class shares of a side, by the code of the class."""
    return {int(name.removeprefix(f"{side}_")): name for name in share_columns(table) if name.startswith(f"{side}_")}
