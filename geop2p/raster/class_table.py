"""`ClassTable`: value, name and colour of every class, and what the colours of a drawn map stand for."""

import colorsys
import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from geop2p.errors import ConfigError
from geop2p.raster.csv_rows import read_rows
from geop2p.raster.encoding import Array, MapClass, Mask

# Euclidean distance of RGB values within which a pixel takes the nearest colour. JPEG at quality 75 moves 99.9 % of
# the pixels that are not at an edge by less than 42, 99 % by less than 32 (measured on patches of 8 pixels).
TOLERANCE = 40.0
DRAWN_COLORS = 32  # an image with at most so many colours is probably a drawn map
FOREIGN = 0.2  # share of pixels in colours of no class above which a picture is no map in these colours
UNLISTED_SHARE = 0.01  # of a map's pixels with colours of no class that is worth a warning
NAMED_COLORS = 3  # unlisted colours that a message names
NAMED_CLASSES = 12  # classes that a message names

_PALETTE = (
    (102, 194, 165), (141, 160, 203), (228, 26, 28), (55, 126, 184), (77, 175, 74), (152, 78, 163),
    (255, 127, 0), (166, 86, 40), (247, 129, 191), (255, 217, 47),
)  # fmt: skip
_SPACING = 1.2207440846057596  # x where x^4 = x + 1
_UNSEEN, _UNLISTED = 255, 254  # in the lookup of colours; below: a place in the table

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassTable:
    """The classes of a map.

    Attributes:
        path: File that it was read from, for messages.
        classes: In order of the file; values, names and colours are unique.
    """

    path: str
    classes: tuple[MapClass, ...]

    def check_colors(self) -> None:
        """Refuse a table that cannot turn colours into 8-bit classes.

        Raises:
            ConfigError: A value is not 0 to 255, there are more than 250, or two classes have one colour.
        """
        bad = [entry.value for entry in self.classes if not 0 <= entry.value <= 255]
        if bad or len(self.classes) > 250:
            raise ConfigError(
                f"{self.path}: has {len(self.classes)} classes{f', one of value {bad[0]}' if bad else ''}; a map in "
                "colours needs at most 250 of values 0 to 255: give them others, such as 1, 2, 3, in this file"
            )
        owners: dict[tuple[int, int, int], MapClass] = {}
        for entry in self.classes:
            if (other := owners.setdefault(entry.color, entry)) is not entry:
                raise ConfigError(
                    f"{self.path}: the classes '{other.name}' and '{entry.name}' have one colour; a map in colours "
                    "needs a colour for each"
                )

    def check_values(self, path: str, dtype: str) -> None:
        """Refuse a table for a map of one integer band that cannot hold its values.

        Raises:
            ConfigError: A class is no value of the type.
        """
        limits = np.iinfo(dtype)
        for entry in self.classes:
            if not limits.min <= entry.value <= limits.max:
                raise ConfigError(
                    f"{path}: holds {dtype}, which has no value {entry.value} for the class '{entry.name}' of "
                    f"{self.path}; expected {limits.min} to {limits.max}"
                )

    @cached_property
    def unlisted(self) -> int:
        """The value that colours of no class get: the highest of 0 to 255 that no class has."""
        used = {entry.value for entry in self.classes}
        return max(set(range(256)) - used)

    @cached_property
    def _lookup(self) -> npt.NDArray[np.uint8]:
        """Place in the table of every colour met so far, by its 24 bits."""
        return np.full(1 << 24, _UNSEEN, np.uint8)

    def codes(self, colors: Array) -> npt.NDArray[np.uint8]:
        """The class that each pixel's colour stands for: the nearest within the tolerance, else `unlisted`.

        Args:
            colors: uint8 red, green and blue (3, rows, cols).

        Returns:
            (1, rows, cols).
        """
        red, green, blue = colors.astype(np.uint32)
        packed = (red << 16) | (green << 8) | blue
        places = self._lookup[packed]
        if (places == _UNSEEN).any():
            new = np.unique(packed[places == _UNSEEN])
            self._lookup[new] = self._nearest(new)
            places = self._lookup[packed]
        values = np.full(256, self.unlisted, np.uint8)
        values[: len(self.classes)] = [entry.value for entry in self.classes]
        codes: npt.NDArray[np.uint8] = values[places][np.newaxis]
        return codes

    def _nearest(self, packed: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
        """Place of the nearest colour for each of some colours given by their 24 bits."""
        colors = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=-1).astype(np.float32)
        best, place = np.full(len(packed), TOLERANCE**2, np.float32), np.full(len(packed), _UNLISTED, np.uint8)
        for number, entry in enumerate(self.classes):
            distance = np.square(colors - np.array(entry.color, np.float32)).sum(axis=-1)
            nearer = distance <= best if number == 0 else distance < best
            best[nearer], place[nearer] = distance[nearer], number
        return place

    def unlisted_share(self, colors: Array, valid: Mask) -> tuple[float, str]:
        """Share of the valid pixels whose colour is of no class, and the most frequent of these colours.

        Args:
            colors: uint8 (3, rows, cols).
            valid: (rows, cols).
        """
        lost = (self.codes(colors)[0] == self.unlisted) & valid
        if not lost.any():
            return 0.0, ""
        found, counts = np.unique(colors[:, lost], axis=1, return_counts=True)
        most = np.argsort(-counts, kind="stable")[:NAMED_COLORS]
        named = ", ".join(hex_color(found[:, place]) for place in most)
        return float(lost.sum() / valid.sum()), named

    def report_unlisted(self, path: str, values: Array, valid: Mask, most: float) -> None:
        """Say how much of a map has colours of no class, as a warning if it is more than a share."""
        share, named = self.unlisted_share(values, valid)
        text = "%s: %.3g %% of the pixels have colours further than %g from those of %s and are left out"
        if share > most:
            log.warning(text + ", most often %s", path, 100 * share, TOLERANCE, self.path, named)
        else:
            log.info(text, path, 100 * share, TOLERANCE, self.path)


def class_name(value: int) -> str:
    """A name for a class that has none."""
    return f"class {value}"


def class_color(value: int) -> tuple[int, int, int]:
    """A colour for a class that has none: of a palette for the first codes, else its own.

    Hue, lightness and saturation of other codes follow the sequence R3 (Roberts, 2018), which keeps neighbours, and
    codes that count in tens or hundreds, apart.
    """
    if 0 <= value < len(_PALETTE):
        return _PALETTE[value]
    hue, lightness, saturation = (value / _SPACING**power % 1 for power in (1, 2, 3))
    parts = colorsys.hls_to_rgb(hue, 0.25 + 0.55 * lightness, 0.35 + 0.55 * saturation)
    red, green, blue = (round(255 * part) for part in parts)
    return red, green, blue


def class_titles(classes: Sequence[MapClass]) -> list[str]:
    """A title for every class, no two alike: its name, with the code where that is not enough."""
    names = Counter(entry.name for entry in classes)
    coded = [f"{entry.name} ({entry.value})" for entry in classes]
    pairs = zip(classes, coded, strict=True)
    titles = [entry.name if names[entry.name] == 1 else longer for entry, longer in pairs]
    return titles if len(set(titles)) == len(titles) else coded  # where a name is another with its code


def listed(entries: Iterable[object]) -> str:
    """The first of some classes for a message, and how many more there are."""
    texts = [str(entry) for entry in entries]
    more = len(texts) - NAMED_CLASSES
    return ", ".join(texts[:NAMED_CLASSES]) + (f" and {more} more" if more > 0 else "")


def hex_color(color: Iterable[int]) -> str:
    """#rrggbb of red, green and blue."""
    return "#" + "".join(f"{int(part):02x}" for part in color)


def count_colors(sample: Array, valid: Mask) -> int:
    """How many colours the valid pixels of a sample have, uint8 (3, rows, cols); at least so many if above 32."""
    red, green, blue = sample[:, valid].astype(np.uint32)
    packed = (red << 16) | (green << 8) | blue
    some = len(np.unique(packed[: 64 * DRAWN_COLORS]))
    return some if some > DRAWN_COLORS else len(np.unique(packed))


def is_photograph(sample: Array, valid: Mask) -> bool:
    """Whether a sample, uint8 (3, rows, cols), has more colours than drawn maps have."""
    return count_colors(sample, valid) > DRAWN_COLORS


def read_class_table(path: Path) -> ClassTable:
    """Read a CSV with the columns value, name and color (#rrggbb, or three numbers from 0 to 255).

    Raises:
        ConfigError: It is missing, lacks a column, or a line cannot be understood or repeats a value or name.
    """
    rows = read_rows(path, ("value", "name", "color"))
    classes: list[MapClass] = []
    for number, row in enumerate(rows, start=2):
        entry = _map_class(row, f"{path}: line {number}")
        for known in classes:
            if entry.value == known.value or entry.name == known.name:
                raise ConfigError(f"{path}: line {number} repeats {known.value} or '{known.name}'; list a class once")
        classes.append(entry)
    return ClassTable(str(path), tuple(classes))


def _map_class(row: dict[str, str], where: str) -> MapClass:
    """The class of a line."""
    text, name, color = row["value"], row["name"], row["color"]
    if not re.fullmatch(r"-?\d+", text) or not name:
        raise ConfigError(f"{where} has value '{text}' and name '{name}', expected an integer and a name")
    if match := re.fullmatch(r"#?([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})", color):
        red, green, blue = (int(part, 16) for part in match.groups())
    elif match := re.fullmatch(r"(\d{1,3})[ ;,]+(\d{1,3})[ ;,]+(\d{1,3})", color):
        red, green, blue = (int(part) for part in match.groups())
    else:
        raise ConfigError(f"{where} has color '{color}', expected #rrggbb or three numbers such as 40 90 160")
    if max(red, green, blue) > 255:
        raise ConfigError(f"{where} has color '{color}', expected numbers from 0 to 255")
    return MapClass(int(text), name, (red, green, blue))
