"""Imagery to map: the map itself is scored, in `evaluate` and in `compare`."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from conftest import class_map, grid, write_raster
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from geop2p import (
    CompareConfig,
    EvaluateConfig,
    TileConfig,
    TrainConfig,
    Translator,
    compare,
    evaluate,
    evaluate_mosaic,
    predict,
    tile,
    train,
)
from geop2p.errors import ChipSetError, ConfigError
from geop2p.evaluation.description import describe
from geop2p.raster.class_table import hex_color
from geop2p.raster.encoding import Band, Encoding
from geop2p.tiling.chips import ChipSet

SMALL = {"batch_size": 4, "width": 4, "downs": 2, "lr": 4e-3}
CODES = (1, 2, 5)


pytestmark = pytest.mark.usefixtures("few_draws")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chips of an image with a hole and its whole map, and two models: one that has learned, one that has not."""
    place = tmp_path_factory.mktemp("maps")
    codes, where = class_map(300, 420), grid(300, 420)
    image = 40 * codes + np.random.default_rng(1).integers(0, 60, (2, 300, 420))
    valid = np.ones((300, 420), bool)
    valid[100:130, 60:200] = False
    write_raster(place / "image.tif", image.astype(np.uint8), where, mask=valid)
    write_raster(place / "map.tif", codes, where)
    config = TileConfig(size=32, min_valid=0.3, split="2:1:1", format="packed")
    tile(place / "image.tif", place / "map.tif", place / "chips", config)
    train(place / "chips", place / "good", TrainConfig(recipe="pix2pix", steps=30, **SMALL))
    train(place / "chips", place / "poor", TrainConfig(recipe="pix2pix", steps=1, **SMALL))
    return place


def test_a_model_that_makes_a_map_is_scored_by_its_map(folder: Path, tmp_path: Path) -> None:
    chips, model = ChipSet.open(folder / "chips"), Translator.load(folder / "good")
    counts = np.zeros((6, 6))
    for entry in chips.entries("test"):
        chip = chips.read("test", entry.id)
        np.add.at(counts, (chip.target[0, chip.valid], model(chip.source, chip.valid)[0, chip.valid]), 1)
    counts = counts[np.ix_(CODES, CODES)]
    config = EvaluateConfig(batch_size=1)
    result = evaluate(folder / "good", folder / "chips", tmp_path / "report.html", config)
    hits, real, made = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    assert result["pixels"] == counts.sum() < chips.counts["test"] * 32 * 32
    assert result["confusion"] == counts.tolist()
    wanted = {
        "accuracy": hits.sum() / counts.sum(),
        "class_accuracy": (hits / real).mean(),
        "miou": (hits / (real + made - hits)).mean(),
        "f1": (2 * hits / (real + made)).mean(),
    }
    assert {name: result[name] for name in wanted} == pytest.approx(wanted)
    low, high = result["intervals"]["miou"]
    assert low < result["miou"] < high and result["miou"] > result["baseline"]["miou"] > 0
    assert list(result["where"]["by_class"].values()) == pytest.approx(list(1 - hits / real))
    assert result["l1"] is None and "bands" not in result
    page = (tmp_path / "report.html").read_text()
    assert f"<b>{result['miou']:.4g}</b><span>mIoU</span>" in page and "<th>share wrong</th>" in page


def test_a_judge_of_maps_is_not_made_and_the_page_says_why(folder: Path, tmp_path: Path) -> None:
    config = EvaluateConfig(judge="pspnet", judge_steps=1, sample=2)
    result = evaluate(folder / "poor", folder / "chips", tmp_path / "report.html", config)
    assert result["judge"] is result["frechet"] is None
    assert result["reasons"]["judge"] == "the map itself is scored" and not (tmp_path / "judges").exists()
    page = (tmp_path / "report.html").read_text()
    assert "Not given: judge (the map itself is scored)" in page and "<h2>The judge</h2>" not in page


def test_models_that_make_maps_are_compared_by_their_maps(folder: Path, tmp_path: Path) -> None:
    config = CompareConfig(judge="pspnet", judge_steps=1)
    result = compare([folder / "poor", folder / "good"], tmp_path / "table.html", config)
    assert result["columns"] == ["miou", "f1", "class_accuracy", "accuracy", "corner_ratio"]
    assert result["notes"] == ["Not given: judge (the map itself is scored)."]
    assert [row["name"] for row in result["rows"]] == ["good", "poor", "baseline"]
    good, poor, baseline = result["rows"]
    assert (good["miou"]["rank"], poor["miou"]["rank"]) == (1, 2) and not poor["miou"]["tied"]
    assert good["miou"]["interval"][0] > poor["miou"]["interval"][1] and "rank" not in baseline["miou"]
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert [float(row["miou"]) for row in rows] == [row["miou"]["value"] for row in result["rows"]]
    assert not (tmp_path / "judges").exists()
    page = (tmp_path / "table.html").read_text()
    assert page.count('alt="good"') == page.count('alt="poor"') == page.count('alt="truth"') == 5


def test_ground_of_a_class_that_the_training_lacks_counts_as_wrong(tmp_path: Path) -> None:
    """In the chips as in the mosaic, where it is said; so does ground that means unlabelled in neither."""
    codes = class_map(160, 160)
    image = (40 * codes + np.random.default_rng(1).integers(0, 60, codes.shape)).astype(np.uint8)
    other = codes.copy()
    other[:, :, 100:] = 9
    other[:, :20] = 7
    for name, shown, left in (("a", codes, 500_000.0), ("b", other, 700_000.0)):
        write_raster(tmp_path / f"{name}_image.tif", image, grid(160, 160, left=left))
        write_raster(tmp_path / f"{name}_map.tif", shown, grid(160, 160, left=left))
    (tmp_path / "splits.csv").write_text("scene,split\na_map,train\nb_map,val\n")
    config = TileConfig(size=32, split_by="file", split_file=tmp_path / "splits.csv", min_valid=0.01, ignore_class="7")
    for name in "ab":
        tile(tmp_path / f"{name}_image.tif", tmp_path / f"{name}_map.tif", tmp_path / "chips", config)
    train(tmp_path / "chips", tmp_path / "run", TrainConfig(recipe="pix2pix", steps=1, **SMALL))
    result = evaluate(tmp_path / "run", tmp_path / "chips", tmp_path / "chips.html", EvaluateConfig(split="val"))
    validated = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])["val"]
    assert [validated[name] for name in ("accuracy", "miou")] == [result[name] for name in ("accuracy", "miou")]
    model, right, pixels = Translator.load(tmp_path / "run"), 0, 0
    chips = ChipSet.open(tmp_path / "chips")
    for entry in chips.entries("val"):
        chip = chips.read("val", entry.id)
        right += int((model(chip.source, chip.valid)[0] == chip.target[0])[chip.valid].sum())
        pixels += int(chip.valid.sum())
    assert result["pixels"] == pixels == 140 * 160 and result["accuracy"] == pytest.approx(right / pixels)
    assert result["classes"]["class 9"]["iou"] == 0
    assert result["classes"]["class 9"]["share"] == pytest.approx(60 / 160)
    lacking = "No chip that was trained on holds class 9 (37.5 % of the ground)"
    said = f"{lacking}: no model can draw it, and its ground counts as wrong."
    assert result["notes"][-1] == said and said in (tmp_path / "chips.html").read_text()
    assert said in compare([tmp_path / "run"], tmp_path / "table.html", CompareConfig(split="val"))["notes"]

    table = tmp_path / "names.csv"
    table.write_text(
        "value,name,color\n1,water,#0000ff\n2,meadow,#00ff00\n5,road,#ff0000\n7,none,#000000\n9,vineyard,#ff00ff\n"
    )
    named = dataclasses.replace(config, split="1:0:0", split_by="block", split_file=None, classes=table)
    tile(tmp_path / "b_image.tif", tmp_path / "b_map.tif", tmp_path / "named", dataclasses.replace(named, buffer=0))
    told = evaluate(tmp_path / "run", tmp_path / "named", tmp_path / "named.html", EvaluateConfig(split="train"))
    assert f"{lacking.replace('class 9', 'vineyard')}" in told["notes"][-1] and told["classes"]["vineyard"]["iou"] == 0

    mosaic = tmp_path / "mosaic.tif"
    predict(tmp_path / "run", tmp_path / "b_image.tif", mosaic)
    whole = evaluate_mosaic(mosaic, tmp_path / "b_map.tif", tmp_path / "mosaic.html")
    assert whole["pixels"] == pixels and whole["classes"]["class 9"]["iou"] == 0 and "class 7" not in whole["classes"]
    assert whole["share"] == pytest.approx(140 / 160)
    assert "12.5 % of the ground is unlabelled (code 7) and not scored." in whole["notes"]

    with rasterio.open(mosaic) as dataset:
        plain = write_raster(tmp_path / "plain.tif", dataset.read(), grid(160, 160, left=700_000.0))
    for name in ("7", " class 7 "):
        config = EvaluateConfig(ignore_class=name)
        told = evaluate_mosaic(plain, tmp_path / "b_map.tif", tmp_path / "plain.html", config, overwrite=True)
        same = ("accuracy", "class_accuracy", "miou", "f1", "pixels", "share", "confusion")
        assert [told[score] for score in same] == [whole[score] for score in same]
    other = evaluate_mosaic(plain, tmp_path / "b_map.tif", tmp_path / "plain.html", overwrite=True)
    assert other["pixels"] == 160 * 160 and other["classes"]["class 7"]["iou"] == 0
    with pytest.raises(ConfigError, match=r"ignore_class names 'meadow', the rasters have 1 class 1, .*, 9 class 9"):
        evaluate_mosaic(plain, tmp_path / "b_map.tif", tmp_path / "no.html", EvaluateConfig(ignore_class="meadow"))
    with pytest.raises(ConfigError, match=r"ignore_class is for maps of classes, .*b_image.tif holds image"):
        images = [tmp_path / "b_image.tif"] * 2
        evaluate_mosaic(*images, tmp_path / "no.html", EvaluateConfig(ignore_class="7"))


def test_a_map_that_is_learnt_as_a_picture_comes_out_in_its_colours(tmp_path: Path) -> None:
    """Chips keep what was drawn; predictions have the colours of the table alone, overviews included."""
    colors = {1: (0, 0, 250), 2: (0, 240, 0), 5: (250, 10, 10)}
    codes = class_map(700, 700)
    drawn = np.array([colors[code] for code in CODES], np.uint8)[np.searchsorted(CODES, codes[0])].transpose(2, 0, 1)
    image = (40 * codes + np.random.default_rng(1).integers(0, 60, codes.shape)).astype(np.uint8)
    pair = [write_raster(tmp_path / "image.tif", image, grid(700, 700))]
    pair.append(write_raster(tmp_path / "drawn.tif", drawn, grid(700, 700)))
    table = tmp_path / "table.csv"
    names = "".join(f"{code},class {code},{hex_color(color)}\n" for code, color in colors.items())
    table.write_text(f"value,name,color\n{names}")
    config = TileConfig(size=32, stride=96, classes=table, target_kind="image", split="1:0:0")
    tile(*pair, tmp_path / "chips", config)
    chipset = ChipSet.open(tmp_path / "chips")
    assert chipset.target.kind == "image" and set(chipset.target.palette) == set(colors.values())
    assert describe(tmp_path / "chips")["target"]["colors"] == ["#0000fa", "#00f000", "#fa0a0a"]
    train(tmp_path / "chips", tmp_path / "run", TrainConfig(recipe="pix2pix", steps=1, **SMALL))
    predict(tmp_path / "run", pair[0], tmp_path / "map.tif")
    for level in ({}, {"overview_level": 0}):
        with rasterio.open(tmp_path / "map.tif", **level) as dataset:
            found = {tuple(color) for color in dataset.read().reshape(3, -1).T.tolist()}
            assert found <= set(colors.values())
    third = [
        write_raster(tmp_path / f"c_{path.name}", rasterio.open(path).read(), grid(700, 700, left=900_000.0))
        for path in pair
    ]
    tile(*third, tmp_path / "chips", config)
    assert ChipSet.open(tmp_path / "chips").target.palette == chipset.target.palette
    table.write_text(f"value,name,color\n{names}9,other,#101010\n")
    other = [write_raster(tmp_path / "b_image.tif", image, grid(700, 700, left=700_000.0))]
    other.append(write_raster(tmp_path / "b.tif", drawn, grid(700, 700, left=700_000.0)))
    with pytest.raises(ChipSetError, match="is to have other colours than the chip set's target"):
        tile(*other, tmp_path / "chips", config)


def test_a_table_of_classes_is_the_map_s_whatever_the_target_is_asked_for_as(tmp_path: Path) -> None:
    """Not the photograph's, whose colours it would reduce to its own."""
    photo = write_raster(
        tmp_path / "photo.tif", np.random.default_rng(0).integers(0, 255, (3, 96, 96), dtype=np.uint8), grid(96, 96)
    )
    codes = write_raster(tmp_path / "codes.tif", class_map(96, 96), grid(96, 96))
    table = tmp_path / "table.csv"
    table.write_text("value,name,color\n1,water,#0000fa\n2,meadow,#00f000\n5,road,#fa0a0a\n")
    config = TileConfig(size=32, classes=table, target_kind="image", split="1:0:0")
    tile(codes, photo, tmp_path / "chips", config)
    chipset = ChipSet.open(tmp_path / "chips")
    assert chipset.target.palette == () and [entry.name for entry in chipset.source.classes] == [
        "water",
        "meadow",
        "road",
    ]
    with pytest.raises(ConfigError, match="neither side looks like a map"):
        tile(photo, photo, tmp_path / "none", dataclasses.replace(config, source_kind="image"))


def test_values_are_snapped_to_the_nearest_colour_of_a_palette() -> None:
    palette = ((0, 0, 0), (255, 255, 255), (200, 0, 0))
    encoding = Encoding("image", "uint8", (Band(low=0, high=255),) * 3, palette=palette)
    values = np.random.default_rng(0).random((3, 9, 11), np.float32) * 2.2 - 1.1
    stored = dataclasses.replace(encoding, palette=()).decode(values).astype(int)
    apart = np.array(
        [
            [np.square(stored[:, row, col] - np.array(color)).sum() for color in palette]
            for row in range(9)
            for col in range(11)
        ]
    )
    assert (np.array(palette)[apart.argmin(axis=1)] == encoding.decode(values).reshape(3, -1).T).all()
    assert Encoding.from_dict(json.loads(json.dumps(encoding.to_dict()))) == encoding


def test_what_to_beware_of_is_said_of_the_runs_that_it_is_true_of(folder: Path, tmp_path: Path) -> None:
    chips = ChipSet.open(folder / "chips")
    one = folder / "one class"
    if not one.exists():
        shutil.copytree(folder / "good", one)
        weights = load_file(one / "model.safetensors")
        with safe_open(one / "model.safetensors", "pt") as file:
            metadata = file.metadata()
        last = max((name for name in weights if name.endswith("bias")), key=lambda name: weights[name].shape == (3,))
        weights[last] = torch.tensor([0.0, 1e6, 0.0])
        save_file(weights, one / "model.safetensors", metadata)
    said = "The prediction shows only one class (class 2), the reference class 1, class 2, class 5."
    both = compare([folder / "good", one], tmp_path / "a.html", CompareConfig(chips=chips.folder))
    assert f"one class: {said}" in both["notes"] and said in (tmp_path / "a.html").read_text()
    alone = compare([one], tmp_path / "b.html", CompareConfig(chips=chips.folder))
    assert said in alone["notes"] and said in (tmp_path / "b.md").read_text()


def test_an_ablation_of_maps_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="an ablation is for imagery, the target is a map"):
        compare([folder / "chips"], tmp_path / "table.html", CompareConfig(ablation="losses", steps=1))
    assert list(tmp_path.iterdir()) == []
