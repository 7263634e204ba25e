"""Classes of an input and classes of a model: the same ground may carry other codes."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from rasterio.windows import Window

from geop2p.raster.aligned import Reader
from geop2p.raster.class_table import class_name
from geop2p.raster.encoding import Array, MapClass, Mask

log = logging.getLogger(__name__)

Codes = Mapping[int, int]


def match_classes(path: str, names: Mapping[int, str], classes: Sequence[MapClass]) -> Codes:
    """The codes of `codes_by_name`; what differs from the input's own is logged.

    Args:
        path: The input, for messages.
        names: Names of the input's codes, as far as they are known.
        classes: Those of the model.
    """
    theirs = {entry.value: entry.name for entry in classes}
    matched, changed = _matched(names, classes), codes_by_name(names, classes)
    told = [
        f"{code} {names[code]} is the model's {value}" for code, value in sorted(changed.items()) if value in theirs
    ]
    lost = sorted(code for code, value in changed.items() if value not in theirs)
    told += [f"{code} {names.get(code, '')}".strip() + " is none of them" for code in lost]
    if told:
        log.info("%s: classes by their names: %s", path, ", ".join(told))
    other = [code for code in sorted(names) if code in theirs and code not in {*matched, *changed}]
    other = [code for code in other if _folded(names[code]) != _folded(theirs[code])]
    if not matched:  # names may be nothing but words for the codes
        other = [code for code in other if _is_telling(names[code], code) and _is_telling(theirs[code], code)]
    if other:
        told = [f"{code} {names[code]} is the model's {theirs[code]}" for code in other]
        log.warning(
            "%s: classes matched by code, not by name: %s; rename the classes if that is wrong", path, ", ".join(told)
        )
    return changed


def codes_by_name(names: Mapping[int, str], classes: Sequence[MapClass]) -> dict[int, int]:
    """The model's code for every code of an input that is not its own: by name, else by value.

    A code keeps its value where its name tells nothing, or is one of several classes of the model, unless another code
    has its class by name: then it stands for a class that the model does not know, which has a code of its own.

    Args:
        names: Names of the input's codes, as far as they are known.
        classes: Those of the model.
    """
    matched, ours = _matched(names, classes), {entry.value for entry in classes}
    no_class = next(code for code in range(len(ours) + 1) if code not in ours)
    changed = {code: value for code, value in matched.items() if code != value}
    return changed | dict.fromkeys(sorted(set(matched.values()) - set(matched)), no_class)


def _matched(names: Mapping[int, str], classes: Sequence[MapClass]) -> dict[int, int]:
    """The model's code for every code of an input whose name is that of a class of the model."""
    own = {entry.value: _folded(entry.name) for entry in classes}
    often = Counter(own.values())
    by_name = {name: code for code, name in own.items() if name and often[name] == 1}
    found = {}
    for code, name in names.items():
        if (called := _folded(name)) and own.get(code) == called:
            found[code] = code
        elif called in by_name:
            found[code] = by_name[called]
    return found


def _folded(name: str) -> str:
    return name.strip().casefold()


def _is_telling(name: str, code: int) -> bool:
    """Whether a name of a class says more than its code, which is what classes without names are called by."""
    return _folded(name) not in {"", str(code), class_name(code)}


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
