"""`--init-from`: weights of an earlier model as the first ones of another."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geop2p.errors import ConfigError
from geop2p.models import GENERATORS
from geop2p.raster.encoding import Encoding
from geop2p.translator import Card, Translator

log = logging.getLogger(__name__)

Start = dict[str, Any]  # what the card of a model tells of the one that its training began with
FREE = {"in_channels", "out_channels", "head", "dropout"}  # arguments on which no weight between the ends depends


@dataclass(frozen=True)
class _Match:
    """Channels of a side that the new network has from the old one: (place there, place here)."""

    pairs: list[tuple[int, int]]
    kept: list[str]
    new: list[str]
    lost: list[str]


def begin_with(generator: nn.Module, card: Card, model: str | Path) -> Start:
    """Put the weights of a model into a generator.

    What source or target does not share with the model's, by the names of bands and classes, keeps the weights it has
    been drawn: channels of the first or last layer alone. A line of the log says which, what the model has besides,
    and which bands keep weights that were learnt on another scale.

    Args:
        generator: Fresh network.
        card: What it is.
        model: Run folder or `model.safetensors`.

    Returns:
        Name and SHA-256 of the model, name and digest of the chip set that it learned on, as far as it tells, and the
        same of the model that it began with, if there was one.

    Raises:
        CheckpointError: The model is missing, damaged or foreign.
        ConfigError: It is of another architecture.
    """
    earlier = Translator.load(model)
    _check_architecture(earlier.card, card, model)
    state, there = generator.state_dict(), earlier.generator.state_dict()
    sides = {"in_channels": ("source", "first"), "out_channels": ("target", "last")}
    of_side: dict[str, tuple[int, _Match, int]] = {}
    for argument, (side, layer) in sides.items():
        there_and_here: tuple[Encoding, Encoding] = getattr(earlier.card, side), getattr(card, side)
        match = _matching(*there_and_here)
        _say(side, layer, match, model)
        _say_scaling(side, *there_and_here, match, model)
        if argument == "in_channels":  # of noise they have as many
            ends = earlier.card.source.channels, card.source.channels
            match.pairs.extend((ends[0] + place, ends[1] + place) for place in range(card.noise))
        for name, axis in _axes(card, argument).items():
            of_side[name] = (axis, match, card.arguments[argument])
    for name, tensor in state.items():
        if name in of_side:
            axis, match, channels = of_side[name]
            _copy_channels(there[name], tensor, axis, match, tensor.shape[axis] // channels)
        else:
            tensor.copy_(there[name])
    known = earlier.card.provenance
    start: Start = {"model": Path(model).name, "sha256": earlier.digest}
    start |= {key: str(known.get(key, "")) for key in ("chips", "chips_digest")}
    return start | ({"init_from": known["init_from"]} if known.get("init_from") else {})


def _check_architecture(there: Card, here: Card, model: str | Path) -> None:
    one, other = ({**card.arguments, "generator": card.generator, "noise": card.noise} for card in (there, here))
    names = sorted((set(one) | set(other)) - FREE)
    changed = [name for name in names if one.get(name) != other.get(name)]
    differences = [f"{name} is {one.get(name)} there and {other.get(name)} here" for name in changed]
    if differences:
        raise ConfigError(f"init_from {model}: of another architecture ({'; '.join(differences)}); set these alike")


def _matching(there: Encoding, here: Encoding) -> _Match:
    """Channels of the same name; those without one of their own match only where nothing has changed."""
    names = _shown_names(here)
    if there.kind != here.kind:
        return _Match([], [], names, [])
    old, new = _given_names(there), _given_names(here)
    if old == new:
        return _Match([(place, place) for place in range(len(new))], names, [], [])
    alone = {name for name in new if name and old.count(name) == new.count(name) == 1}
    pairs = [(old.index(name), place) for place, name in enumerate(new) if name in alone]
    kept = [place for _, place in pairs]
    fresh = [name for place, name in enumerate(names) if place not in kept]
    taken = {place for place, _ in pairs}
    lost = [name for place, name in enumerate(_shown_names(there)) if place not in taken]
    return _Match(pairs, [names[place] for place in kept], fresh, lost)


def _given_names(encoding: Encoding) -> list[str]:
    return [entry.name for entry in encoding.classes] if encoding.is_classes else encoding.given_names


def _shown_names(encoding: Encoding) -> list[str]:
    return _given_names(encoding) if encoding.is_classes else encoding.band_names


def _say(side: str, layer: str, match: _Match, model: str | Path) -> None:
    new, kept, lost = (", ".join(names) for names in (match.new, match.kept, match.lost))
    if new:
        whose = f"{kept} keep theirs" if kept else "none keeps its own"
        log.info("init_from %s: the %s layer is begun anew for %s %s; %s", model, layer, side, new, whose)
    if kept and lost:
        log.info(
            "init_from %s: the %s layer forgets %s of the model's %s, which the chips lack", model, layer, lost, side
        )


def _say_scaling(side: str, there: Encoding, here: Encoding, match: _Match, model: str | Path) -> None:
    """Tell of bands that keep their weights though the same value of the network means other values on the ground."""
    if here.is_classes or there.is_classes:
        return
    scales = [(_scale(there, old), _scale(here, new), here.band_names[new]) for old, new in match.pairs]
    changed = [f"{name} from {old} to {new}" for old, new, name in scales if old != new]
    if changed:
        log.warning(
            "init_from %s: the weights of the %s are kept, but its values are scaled otherwise than the model's: %s",
            model,
            side,
            ", ".join(changed),
        )


def _scale(encoding: Encoding, place: int) -> str:
    """The values that become -1 and +1, in physical units."""
    band = encoding.bands[place]
    factor, offset = (1.0, 0.0) if encoding.is_linear_sar else (band.scale, band.offset)
    relief = "" if encoding.relief is None else f" of relief within {encoding.relief:g} m"
    return f"{band.low * factor + offset:.6g}..{band.high * factor + offset:.6g}{relief}"


def _axes(card: Card, argument: str) -> dict[str, int]:
    """The tensors whose shape depends on the channels of a side, and along which axis."""
    build = GENERATORS[card.generator]
    with torch.device("meta"):
        one = build(**card.arguments).state_dict()
        more = build(**card.arguments | {argument: card.arguments[argument] + 1}).state_dict()
    changed = {name: [a != b for a, b in zip(one[name].shape, more[name].shape, strict=True)] for name in one}
    return {name: axes.index(True) for name, axes in changed.items() if any(axes)}


def _copy_channels(old: Tensor, new: Tensor, axis: int, match: _Match, each: int) -> None:
    """Copy the channels that match; each is `each` entries in a row, as a pixel shuffle has four for one."""
    for there, here in match.pairs:
        part = old.narrow(axis, there * each, each)
        new.narrow(axis, here * each, each).copy_(part)
