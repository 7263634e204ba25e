"""What the settings are made of: closed vocabularies, fields with a sentence, checks."""

import dataclasses
import inspect
from collections.abc import Collection
from typing import Any, Literal, TypeVar

from geop2p.errors import ConfigError

Settings = TypeVar("Settings")
Kind = Literal["image", "classes", "sar", "elevation"]
KindChoice = Literal["auto", "image", "classes", "sar", "elevation"]
Scaling = Literal["dtype", "percentiles"]
ScalingChoice = Literal["auto", "dtype", "percentiles"]
Backscatter = Literal["dB", "power", "amplitude"]
Split = Literal["train", "val", "test"]
SplitRule = Literal["block", "scene", "polygon", "random", "file"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16"]
ChipFormat = Literal["geotiff", "packed", "virtual"]
FormatChoice = Literal["geotiff", "packed", "virtual", "side-by-side"]
Direction = Literal["AtoB", "BtoA"]
RecipeName = Literal["pix2pix", "pix2pix-paper", "pix2pix-geo"]
NormStats = Literal["auto", "tile", "global", "field"]
Engine = Literal["auto", "torch", "torch-bf16", "onnx", "openvino", "openvino-int8"]
UncertaintyBy = Literal["auto", "d4", "tiles", "dropout"]
LossPreset = Literal["l1", "gan", "cgan", "l1+gan", "l1+cgan"]
BestBy = Literal["l1", "rmse", "psnr", "ssim", "accuracy", "class_accuracy", "miou"]
Ablation = Literal["losses", "generators", "patch"]
JudgeName = Literal["fcn", "unet", "linknet", "fpn", "pspnet", "deeplabv3plus", "upernet", "segformer"]

SPLITS: tuple[Split, ...] = ("train", "val", "test")
LEAST_SIZE = 16  # pixels of the side of a chip


def option(default: Any, help: str) -> Any:
    """A dataclass field with its default and the sentence that explains it."""
    return dataclasses.field(default=default, metadata={"help": help})


def documented(config: type[Settings]) -> type[Settings]:
    """A config class whose docstring holds the sentences of its fields."""
    entries: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(config)  # type: ignore[arg-type]
    told = "".join(f"\n    {entry.name}: {entry.metadata['help']}" for entry in entries)
    config.__doc__ = f"{inspect.cleandoc(str(config.__doc__))}\n\nAttributes:{told}\n"
    return config


def names(text: str | None) -> list[str]:
    """The entries of a list separated by commas."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def check_list(name: str, text: str | None) -> None:
    """Refuse a list that is given and names nothing.

    Raises:
        ConfigError: The list is empty.
    """
    if text is not None and not names(text):
        raise ConfigError(f"{name} is '{text}', expected names separated by commas")


def check_seed(seed: int) -> None:
    """Refuse a seed that is none.

    Raises:
        ConfigError: It is negative or has more than 31 bits.
    """
    if not 0 <= seed < 2**31:
        raise ConfigError(f"seed is {seed}, expected 0 to {2**31 - 1}")


def at_least(name: str, value: int, least: int) -> None:
    """Refuse a value that is too small.

    Raises:
        ConfigError: The value is less than the least.
    """
    if value < least:
        raise ConfigError(f"{name} is {value}, expected at least {least}")


def config_or_default(given: Settings | None, kind: type[Settings]) -> Settings:
    """Settings as they were given to a function, or those by default.

    Raises:
        ConfigError: They are of another kind.
    """
    if given is not None and not isinstance(given, kind):
        raise ConfigError(f"config is a {type(given).__name__}, expected geop2p.{kind.__name__}(...)")
    return kind() if given is None else given


def changed(config: Any) -> list[str]:
    """Names of the fields that somebody set to another value than their default."""
    return [field.name for field in dataclasses.fields(config) if getattr(config, field.name) != field.default]


def refuse_unused(config: Any, used: Collection[str], where: str) -> None:
    """Refuse settings that somebody made and that have no effect.

    Args:
        config: The settings.
        used: Names of the fields that have one.
        where: In which case, as the error says it.

    Raises:
        ConfigError: Another field is not at its default.
    """
    idle = ["--" + name.replace("_", "-") for name in changed(config) if name not in used]
    if idle:
        has, them = ("has", "it") if len(idle) == 1 else ("have", "them")
        raise ConfigError(f"{', '.join(idle)} {has} no effect {where}; leave {them} out")
