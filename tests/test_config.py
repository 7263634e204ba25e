"""Settings that somebody makes in Python are held to what their fields say."""

import dataclasses
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import geop2p
from geop2p.config import CompareConfig, EvaluateConfig, PredictConfig, TileConfig, TrainConfig
from geop2p.config.hints import Exactly, alternatives
from geop2p.errors import ConfigError

CONFIGS = (TileConfig, TrainConfig, PredictConfig, EvaluateConfig, CompareConfig)
FIELDS = [(config, field.name) for config in CONFIGS for field in dataclasses.fields(config)]


@pytest.mark.parametrize(("config", "name"), FIELDS, ids=lambda value: getattr(value, "__name__", value))
def test_a_field_takes_nothing_that_it_does_not_say(config: type[Any], name: str) -> None:
    choices = alternatives(typing.get_type_hints(config)[name])
    wrong: list[Any] = [object(), b"text", {}, 1j]
    wrong += ["auto ", "Tile", "foo"] if any(isinstance(choice, Exactly) for choice in choices) else []
    wrong += ["1", 2.5, True] if int in choices else ["1", float("nan"), float("inf")] if float in choices else []
    wrong += [10**400] if float in choices else [""] if Path in choices else []
    wrong += [1, None] if choices == [str] else [1] if Path in choices else [] if name != "set" else ["noise=1", (1,)]
    for value in wrong:
        with pytest.raises(ConfigError, match=f"^{name} is .*, expected "):
            config(**{name: value})


def test_paths_may_be_texts_and_numbers_those_of_numpy() -> None:
    config = TileConfig(classes="a/b.csv", size=np.int64(64), min_valid=np.float32(0.5), line_width=2)  # type: ignore[arg-type]
    assert config.classes == Path("a/b.csv") and (config.size, config.min_valid, config.line_width) == (64, 0.5, 2.0)
    assert type(config.size) is int and type(config.line_width) is float
    assert TileConfig(pixel_grid=np.True_, grid="source").pixel_grid is True  # type: ignore[arg-type]
    assert TrainConfig(set=["noise=1"]) == TrainConfig(set=("noise=1",))  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", " , "])
def test_a_list_that_is_given_names_something(text: str) -> None:
    for config, name in ((TileConfig, "ignore_class"), (EvaluateConfig, "ignore_class"), (PredictConfig, "draw_order")):
        with pytest.raises(ConfigError, match=f"{name} is '{text}', expected names separated by commas"):
            config(**{name: text})
    assert TileConfig().ignored_classes == [] and TileConfig(ignore_class="a, b,").ignored_classes == ["a", "b"]


@pytest.mark.parametrize("config", CONFIGS)
def test_help_tells_what_each_field_is(config: type[Any]) -> None:
    assert config.__doc__ is not None
    for field in dataclasses.fields(config):
        assert f"\n    {field.name}: {field.metadata['help']}\n" in config.__doc__


def test_all_that_the_package_gives_is_listed() -> None:
    assert {"tile", "train", "predict", "evaluate", "compare", "export", "Translator"} <= set(dir(geop2p))


def test_functions_refuse_the_settings_of_others_and_what_is_no_path(tmp_path: Path) -> None:
    some = tmp_path / "some"
    calls: list[Callable[[Any], Any]] = [
        lambda config: geop2p.tile(some, some, some, config),
        lambda config: geop2p.convert(some, tmp_path / "other", config),
        lambda config: geop2p.train(some, tmp_path / "run", config),
        lambda config: geop2p.plan_training(some, config),
        lambda config: geop2p.find_lr(some, tmp_path / "a.png", config),
        lambda config: geop2p.predict(some, some, tmp_path / "a.tif", config),
        lambda config: geop2p.evaluate(some, some, tmp_path / "a.html", config),
        lambda config: geop2p.evaluate_mosaic(some, some, tmp_path / "a.html", config),
        lambda config: geop2p.compare([some], tmp_path / "a.html", config),
    ]
    for call in calls:
        for config in ({"size": 64}, {}, "size=64"):
            with pytest.raises(
                ConfigError, match=r"config is a (dict|str), expected geop2p\.[A-Z][a-z]+Config\(\.\.\.\)"
            ):
                call(config)
    with pytest.raises(TypeError, match="not ndarray"):
        geop2p.predict(some, np.zeros((1, 9, 9)), tmp_path / "a.tif")  # type: ignore[arg-type]
