"""What the annotation of a field allows."""

import dataclasses
import math
import numbers
import os
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from geop2p.errors import ConfigError

NO_MATCH = object()


@dataclass(frozen=True)
class Exactly:
    """One value of a closed vocabulary."""

    value: Any


def alternatives(hint: Any) -> list[Any]:
    """A hint as its alternatives: the members of unions and literals, each by itself."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [choice for part in typing.get_args(hint) for choice in alternatives(part)]
    if typing.get_origin(hint) is Literal:
        return [Exactly(value) for value in typing.get_args(hint)]
    return [hint]


def described(hint: Any) -> str:
    """What a hint allows, for people."""
    return " or ".join(_name(choice) for choice in alternatives(hint))


def _name(choice: Any) -> str:
    if isinstance(choice, Exactly):
        return str(choice.value)
    if typing.get_origin(choice) is tuple:
        first, *others = typing.get_args(choice)
        return "a tuple of texts" if others == [...] else ",".join(_name(part) for part in (first, *others))
    names = {types.NoneType: "none", bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return names.get(choice, "a path")


def coerce_fields(config: Any) -> None:
    """Hold every field of a config to its annotation.

    Texts in the place of paths become paths, and numbers of other libraries Python's own.

    Raises:
        ConfigError: A field is of another type, none of its words, or no finite number: what is not a number compares
            with nothing and so would pass every bound.
    """
    hints = typing.get_type_hints(type(config))
    for name in (field.name for field in dataclasses.fields(config)):
        value, hint = getattr(config, name), hints[name]
        found = next(
            (fit for choice in alternatives(hint) if (fit := _fitting(value, choice)) is not NO_MATCH), NO_MATCH
        )
        if found is NO_MATCH:
            raise ConfigError(f"{name} is {value!r}, expected {described(hint)}")
        if isinstance(found, float) and not math.isfinite(found):
            raise ConfigError(f"{name} is {found}, expected a finite number")
        object.__setattr__(config, name, found)


def _fitting(value: Any, choice: Any) -> Any:
    """The value as one alternative of a hint holds it."""
    if isinstance(choice, Exactly):
        return choice.value if isinstance(value, str) and value == choice.value else NO_MATCH
    if typing.get_origin(choice) is tuple:
        fits = isinstance(value, (tuple, list)) and all(isinstance(entry, str) for entry in value)
        return tuple(value) if fits else NO_MATCH
    if choice is Path:
        if isinstance(value, str) and "://" in value:  # a name that GDAL knows, in which a path would lose a slash
            return value
        return Path(value) if isinstance(value, os.PathLike) or (isinstance(value, str) and value) else NO_MATCH
    if choice in (int, float):
        fits = isinstance(value, numbers.Integral if choice is int else numbers.Real) and not isinstance(value, bool)
        try:
            return choice(value) if fits else NO_MATCH
        except OverflowError:  # a whole number beyond what floats reach
            return NO_MATCH
    if choice is bool and str(getattr(value, "dtype", "")) == "bool" and not value.ndim:  # numpy's
        return bool(value)
    return value if isinstance(value, choice) else NO_MATCH
