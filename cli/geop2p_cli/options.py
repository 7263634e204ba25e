"""Options built from the fields of a config dataclass: a default stands in one place."""

import dataclasses
import re
import shlex
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import click
from click.core import ParameterSource

Command = TypeVar("Command", bound=Callable[..., Any])


def config_options(config: type[Any]) -> Callable[[Command], Command]:
    """One option for each field of a config dataclass, with its default and its sentence."""

    def decorate(command: Command) -> Command:
        hints = typing.get_type_hints(config)
        for field in reversed(dataclasses.fields(config)):
            command = click.option(*_names(field), **_declaration(field, hints[field.name]))(command)
        return command

    return decorate


def shared_options(command: Command) -> Command:
    """The options of every command that makes something: `--overwrite` and `--json`."""
    command = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")(command)
    return click.option("--overwrite", is_flag=True, help="Replace what exists under the output's name.")(command)


def build(config: type[Any], values: dict[str, Any]) -> Any:
    """The config from the values of its options."""
    return config(**{field.name: values[field.name] for field in dataclasses.fields(config)})


def as_typed(context: click.Context) -> str:
    """The command that is running, to be typed again: its arguments and the options that were given."""
    arguments, options = list[str](), list[str]()
    for parameter in context.command.params:
        name, value = str(parameter.name), context.params[str(parameter.name)]
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        values = value if isinstance(value, tuple) else (value,)
        if isinstance(parameter, click.Argument):
            arguments += map(str, values)
        elif given and name not in ("overwrite", "as_json"):
            for entry in values:
                options += [parameter.opts[0]] if entry is True else [parameter.opts[0], str(entry)]
    looks_like_one = any(word.startswith("-") for word in arguments)
    words = [*options, "--", *arguments] if looks_like_one else [*arguments, *options]
    return shlex.join(["geop2p", str(context.info_name), *words])


def in_options(text: str, command: click.Command) -> str:
    """A message in which the settings that the library names as Python does are the options of a command.

    Names of one word read alike in both. A name in quotes, that is set with `=`, or that is a part of a path or of a
    list of keys, is left alone.
    """
    if "KEY=VALUE" in text:  # keys of a recipe, of which some are called like options
        return text
    names = [str(parameter.name) for parameter in command.params if isinstance(parameter, click.Option)]
    settings = [name for name in names if "_" in name and name != "as_json"]
    if not settings:
        return text
    return re.sub(
        rf"(?<![\w./\\|:='\"-])({'|'.join(settings)})(?![\w/\\:='\"-]|\.\w)",
        lambda found: "--" + found[1].replace("_", "-"),
        text,
    )


def _names(field: dataclasses.Field[Any]) -> tuple[str, str]:
    return field.name, "--" + field.name.replace("_", "-")


def _declaration(field: dataclasses.Field[Any], hint: Any) -> dict[str, Any]:
    declaration: dict[str, Any] = {"default": field.default, "help": field.metadata["help"]}
    if hint is bool:
        return declaration | {"is_flag": True}
    if typing.get_origin(hint) is tuple:
        return declaration | {"type": typing.get_args(hint)[0], "multiple": True}
    declaration["show_default"] = field.default is not None
    return declaration | {"type": _type(hint)}


class _NumberOrWord(click.ParamType):  # type: ignore[type-arg]
    """A whole number, or one of some words."""

    def __init__(self, *words: str) -> None:
        self._words = words
        self.name = "|".join(["integer", *words])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value in self._words:
            return value
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a whole number nor {' or '.join(self._words)}.", param, ctx)


def _type(hint: Any) -> Any:
    """The click type of a field's annotation."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        entries = [entry for entry in typing.get_args(hint) if entry is not type(None)]
        if len(entries) > 1:
            return _NumberOrWord(*(word for entry in entries for word in typing.get_args(entry)))
        hint = entries[0]
    if typing.get_origin(hint) is Literal:
        return click.Choice(typing.get_args(hint))
    return click.Path() if hint is Path else hint  # of which the config makes paths, but of names with ://
