"""Classes of an input and classes of a model: the same ground may carry other codes."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
from rasterio.windows import Window

from geop2p.raster.aligned import Reader
from geop2p.raster.class_table import class_name
from geop2p.raster.encoding import Array, MapClass, Mask

log = logging.getLogger(__name__)

Codes = Mapping[int, int]


def match_classes(path: str, names: Mapping[int, str], classes: Sequence[MapClass]) -> Codes:
    """The model's code for every code of an input that is not its own: by name, else by value.

    A code keeps its value where its name tells nothing, unless another code has that class by name: then it stands for
    a class that the model does not know.

    Args:
        path: The input, for messages.
        names: Names of the input's codes, as far as they are known.
        classes: Those of the model.
    """
    ours = {entry.name.strip().casefold(): entry.value for entry in classes}
    by_name = {code: ours[name.strip().casefold()] for code, name in names.items() if name.strip().casefold() in ours}
    taken, theirs = set(by_name.values()), {entry.value: entry.name for entry in classes}
    no_class = next(code for code in range(len(theirs) + 1) if code not in theirs)
    changed = {code: value for code, value in by_name.items() if code != value}
    changed |= dict.fromkeys(sorted(taken - set(by_name)), no_class)
    told = [f"{code} {names[code]} is the model's {by_name[code]}" for code in sorted(set(by_name) & set(changed))]
    told += [
        f"{code} {names.get(code, '')}".strip() + " is none of them" for code in sorted(set(changed) - set(by_name))
    ]
    if told:
        log.info("%s: classes by their names: %s", path, ", ".join(told))
    other = [code for code in sorted(names) if code in theirs and code not in by_name and code not in changed]
    if not by_name:  # names may be nothing but words for the codes
        other = [code for code in other if _is_telling(names[code], code) and _is_telling(theirs[code], code)]
    if other:
        told = [f"{code} {names[code]} is the model's {theirs[code]}" for code in other]
        log.warning(
            "%s: classes matched by code, not by name: %s; rename the classes if that is wrong", path, ", ".join(told)
        )
    return changed


def _is_telling(name: str, code: int) -> bool:
    """Whether a name of a class says more than its code, which is what classes without names are called by."""
    return name.strip().casefold() not in {"", str(code), class_name(code)}


def recoded(values: Array, codes: Codes) -> Array:
    """Values (1, rows, cols) or any other shape in the codes of the model, which may need a wider type."""
    if not codes:
        return values
    result = values.astype(np.result_type(values.dtype, *map(np.min_scalar_type, codes.values())))
    for code, value in codes.items():
        result[values == code] = value
    return result


class RecodedReader:
    """Windows of a map in the codes of the model."""

    def __init__(self, reader: Reader, codes: Codes) -> None:
        self.grid = reader.grid
        self._reader, self._codes = reader, codes

    def read(self, window: Window) -> tuple[Array, Mask]:
        """Values (1, rows, cols) and valid pixels (rows, cols)."""
        values, valid = self._reader.read(window)
        return recoded(np.asarray(values), self._codes), valid
