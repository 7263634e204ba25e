"""`--init-from`: what is alike keeps its weights, what is new is drawn, and another architecture is refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import image_encoding

from geop2p import TileConfig, TrainConfig, tile, train
from geop2p.errors import CheckpointError, ConfigError, OutputError
from geop2p.models import GENERATORS
from geop2p.raster.encoding import Band, Encoding, MapClass
from geop2p.tiling.chips import ChipSet
from geop2p.training.checkpoint import chips_digest
from geop2p.training.finetuning import begin_with
from geop2p.training.networks import build_networks
from geop2p.translator import Card, Translator, read_card

TINY = TrainConfig(recipe="pix2pix", epochs=1, batch_size=8, width=2, downs=4, device="cpu")

GENERATOR_ARGUMENTS: dict[str, dict[str, Any]] = {
    "unet": {"downs": 2, "width": 2, "norm": "batch"},
    "unet pixelshuffle": {"downs": 2, "width": 2, "up": "pixelshuffle"},
    "unet resize": {"downs": 2, "width": 2, "up": "resize", "padding": "reflect"},
    "resnet": {"blocks": 6, "width": 2},
    "smp": {"architecture": "unet", "encoder": "resnet18", "norm": "batch"},
}


def a_map(*names: str) -> Encoding:
    classes = tuple(MapClass(value, name, (value, 0, 0)) for value, name in enumerate(names, start=1))
    return dataclasses.replace(image_encoding(bands=1), kind="classes", classes=classes)


def bands(*names: str) -> Encoding:
    encoding = image_encoding(bands=len(names))
    named = [dataclasses.replace(band, name=name) for band, name in zip(encoding.bands, names, strict=True)]
    return dataclasses.replace(encoding, bands=tuple(named))


def built(key: str, source: Encoding, target: Encoding, seed: int, **changes: Any) -> tuple[torch.nn.Module, Card]:
    name = key.split()[0]
    arguments = GENERATOR_ARGUMENTS[key] | {"in_channels": source.channels, "out_channels": target.channels}
    arguments |= {"head": "logits" if target.is_classes else "tanh"} | changes
    torch.manual_seed(seed)
    generator = GENERATORS[name](**arguments)
    return generator, Card(name, arguments, source, target, None, 64, generator.stride, 0, "none", "pix2pix", {})


@pytest.mark.parametrize("key", GENERATOR_ARGUMENTS)
def test_only_what_changed_begins_anew(key: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Classes in another order, one gone and one new; a band more: everything between the ends is the old model's."""
    old, old_card = built(key, a_map("water", "meadow", "road"), bands("red", "green"), seed=0)
    Translator(old, old_card).save(tmp_path / "old.safetensors")
    source, target = a_map("road", "forest", "water"), bands("green", "near infrared", "red")
    new, card = built(key, source, target, seed=1)
    with caplog.at_level("INFO", "geop2p"):
        begin_with(new, card, tmp_path / "old.safetensors")
    assert "the first layer is begun anew for source forest; road, water keep theirs" in caplog.text
    assert "the first layer forgets meadow of the model's source, which the chips lack" in caplog.text
    assert "the last layer is begun anew for target near infrared; green, red keep theirs" in caplog.text
    assert "the last layer forgets" not in caplog.text
    state, there = new.state_dict(), old.state_dict()
    differing = [name for name in state if not torch.equal(state[name], there[name])]
    assert 1 < len(differing) <= 3  # the weights of the first layer, weights and bias of the last
    old.eval(), new.eval()
    with torch.no_grad():
        values = torch.rand(1, 2, 64, 64)
        nothing = torch.zeros(1, 1, 64, 64)
        made = new(torch.cat([values[:, :1], nothing, values[:, 1:]], dim=1))
        before = old(torch.cat([values[:, 1:], nothing, values[:, :1]], dim=1))
    assert torch.allclose(made[:, [2, 0]], before, atol=1e-5)  # red and green of road and water as ever


def test_the_same_contract_gives_the_same_network(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old, card = built("unet", bands("", ""), a_map("a", "b"), seed=0)
    Translator(old, card).save(tmp_path / "old.safetensors")
    new, _ = built("unet", bands("", ""), a_map("a", "b"), seed=1)
    begin_with(new, card, tmp_path / "old.safetensors")
    assert all(torch.equal(one, new.state_dict()[name]) for name, one in old.state_dict().items())
    assert "begun anew" not in caplog.text


@pytest.mark.parametrize(
    ("band", "said"),
    [
        (Band("red", low=0, high=255), None),
        (Band("red", low=0, high=2550, scale=0.1), None),  # the same values, stored otherwise
        (Band("red", low=0, high=10_000), "red from 0..255 to 0..10000"),
        (Band("red", low=0, high=255, scale=0.5), "red from 0..255 to 0..127.5"),
    ],
)
def test_another_scale_of_the_same_bands_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, band: Band, said: str | None
) -> None:
    old, old_card = built("unet", a_map("a"), bands("green", "red"), seed=0)
    Translator(old, old_card).save(tmp_path / "old.safetensors")
    target = bands("green", "red")
    new, card = built("unet", a_map("a"), dataclasses.replace(target, bands=(target.bands[0], band)), seed=1)
    begin_with(new, card, tmp_path / "old.safetensors")
    assert all(torch.equal(one, new.state_dict()[name]) for name, one in old.state_dict().items())
    assert caplog.messages == ([] if said is None else [caplog.messages[0]])
    assert (
        said is None
        or f"of the target are kept, but its values are scaled otherwise than the model's: {said}"
        in (caplog.messages[0])
    )


@pytest.mark.parametrize(("name", "shown"), [("", "band"), ("bands", "bands")])
def test_bands_that_have_only_numbers_are_not_taken_for_each_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, shown: str
) -> None:
    old, old_card = built("unet", bands(name, name), bands("red"), seed=0)
    Translator(old, old_card).save(tmp_path / "old.safetensors")
    new, card = built("unet", bands(name, name, name), a_map("red"), seed=1)
    fresh = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    with caplog.at_level("INFO", "geop2p"):
        begin_with(new, card, tmp_path / "old.safetensors")
    assert f"for source {shown} 1, {shown} 2, {shown} 3; none keeps its own" in caplog.text
    assert "for target red; none keeps its own" in caplog.text  # a class is no band
    kept = [name for name, tensor in new.state_dict().items() if torch.equal(tensor, fresh[name]) and tensor.ndim == 4]
    assert len(kept) == 2


def test_another_architecture_is_refused_by_what_differs(tmp_path: Path) -> None:
    old, old_card = built("unet", bands("a"), bands("b"), seed=0)
    Translator(old, old_card).save(tmp_path / "old.safetensors")
    new, card = built("unet", bands("a"), bands("b"), seed=1, width=4, up="resize")
    message = r"another architecture \(up is None there and resize here; width is 2 there and 4 here\)"
    with pytest.raises(ConfigError, match=message):
        begin_with(new, card, tmp_path / "old.safetensors")
    noisy = dataclasses.replace(old_card, arguments=old_card.arguments | {"noise": 1})
    with pytest.raises(ConfigError, match=r"another architecture \(noise is 0 there and 1 here\)"):
        begin_with(old, noisy, tmp_path / "old.safetensors")
    new, card = built("resnet", bands("a"), bands("b"), seed=1)
    with pytest.raises(ConfigError, match="generator is unet there and resnet here"):
        begin_with(new, card, tmp_path / "old.safetensors")


def test_training_begins_with_the_model_and_its_card_says_so(pair: tuple[Path, Path], tmp_path: Path) -> None:
    tile(*pair, tmp_path / "chips", TileConfig(size=64, min_valid=0.5))
    chipset = ChipSet.open(tmp_path / "chips")
    train(tmp_path / "chips", tmp_path / "old", dataclasses.replace(TINY, lr=2e-3))
    config = dataclasses.replace(TINY, init_from=tmp_path / "old", lr=1e-30, epochs=200, steps=1)
    train(tmp_path / "chips", tmp_path / "new", config)
    old, new = Translator.load(tmp_path / "old"), Translator.load(tmp_path / "new")
    chip = np.random.default_rng(0).choice([1, 2, 5], (1, 64, 64)).astype(np.uint8)
    assert np.array_equal(old(chip), new(chip))
    start = read_card(tmp_path / "new").provenance["init_from"]
    assert start == {
        "model": "old",
        "sha256": old.digest,
        "chips": "chips",
        "chips_digest": chips_digest(chipset.folder),
    }
    assert json.loads((tmp_path / "new" / "config.json").read_text())["init_from"]["sha256"] == old.digest
    assert train(tmp_path / "chips", tmp_path / "new", config).steps == 1  # repeated, it goes on
    with pytest.raises(ConfigError, match="begun with other settings"):
        train(tmp_path / "chips", tmp_path / "new", dataclasses.replace(config, init_from=None))
    with pytest.raises(OutputError, match=r"--init-from reads the model of the run that --overwrite replaces"):
        train(tmp_path / "chips", tmp_path / "old", config, overwrite=True)
    assert Translator.load(tmp_path / "old").digest == old.digest
    (tmp_path / "pickled.pt").write_bytes((tmp_path / "old" / "last.pt").read_bytes())
    with pytest.raises(CheckpointError, match=r"pickled\.pt: not a whole safetensors file"):
        build_networks(chipset, dataclasses.replace(config, init_from=tmp_path / "pickled.pt"))
