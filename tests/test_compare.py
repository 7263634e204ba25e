"""Several runs on the same chips: ranks, ties, forms of the table, and runs that cannot be compared."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import class_map, grid, write_raster

from geop2p import CompareConfig, TileConfig, TrainConfig, compare, tile, train
from geop2p.errors import CheckpointError, ChipSetError, ConfigError
from geop2p.evaluation.ablation import ROWS
from geop2p.evaluation.comparison import chip_set_of
from geop2p.evaluation.tables import ranked
from geop2p.training.recipes import recipe_of

SMALL = {"batch_size": 8, "width": 2, "downs": 2, "set": ("patch=16",)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chip set of a map and its colours, and two runs on it: one that has learned, one that has not."""
    place = tmp_path_factory.mktemp("compare")
    codes = class_map(300, 420)
    palette = {1: (40, 90, 160, 255), 2: (150, 190, 110, 255), 5: (90, 90, 90, 255)}
    colors = np.array([palette.get(value, (0, 0, 0, 0))[:3] for value in range(6)], np.uint8)[codes[0]]
    noise = np.random.default_rng(1).integers(-20, 20, colors.shape)
    image = np.clip(colors + noise, 0, 255).astype(np.uint8).transpose(2, 0, 1)
    write_raster(place / "map.tif", codes, grid(300, 420), palette=palette)
    write_raster(place / "image.tif", image, grid(300, 420), photometric="RGB")
    tile(place / "map.tif", place / "image.tif", place / "chips", TileConfig(size=32))
    train(place / "chips", place / "good", TrainConfig(steps=80, lr=4e-3, loss="l1", **SMALL))
    train(place / "chips", place / "poor", TrainConfig(steps=1, loss="l1", **SMALL))
    return place


def test_the_better_run_comes_first_in_every_form_of_the_table(folder: Path, tmp_path: Path) -> None:
    report = tmp_path / "table.html"
    result = compare([folder / "poor", folder / "good"], report, CompareConfig(), commands=["geop2p compare <x>"])
    assert [row["name"] for row in result["rows"]] == ["good", "poor", "baseline"]
    good, poor, baseline = result["rows"]
    assert (good["l1"]["rank"], poor["l1"]["rank"]) == (1, 2) and "rank" not in baseline["l1"]
    assert good["l1"]["interval"][0] < good["l1"]["value"] < good["l1"]["interval"][1] and not poor["l1"]["tied"]
    assert json.loads((tmp_path / "table.json").read_text()) == json.loads(json.dumps(result))
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert float(rows[0]["l1"]) == good["l1"]["value"] and rows[1]["l1_rank"] == "2" and rows[2]["steps"] == ""
    markdown = (tmp_path / "table.md").read_text().splitlines()
    assert markdown[0].startswith("| run | L1 |") and markdown[2].startswith(f"| good | **{good['l1']['value']:.4g}**")
    page = report.read_text()
    assert page.count('alt="good"') == page.count('alt="poor"') == page.count('alt="truth"') == 5
    assert "geop2p compare &lt;x&gt;" in page and 'class="best"' in page


def test_a_judge_adds_its_columns_and_the_ceiling(folder: Path, tmp_path: Path) -> None:
    config = CompareConfig(judge="pspnet", judge_steps=20, sample=9)
    result = compare([folder / "good"], tmp_path / "table.html", config)
    assert result["columns"][0] == "judge_miou" and result["chips"] == 9
    good, baseline, real = result["rows"]
    assert real["name"] == "real imagery" and set(real) & set(result["columns"]) <= {
        "judge_miou", "judge_class_accuracy", "judge_accuracy", "frechet",
    }  # fmt: skip
    assert good["judge_miou"]["interval"] is not None and "rank" not in baseline["judge_miou"]


def test_ties_are_judged_by_the_same_draws() -> None:
    generator = np.random.default_rng(0)
    ground = generator.normal(10, 5, 200)  # what all rows share: no reason to call them tied
    rows = [
        {"name": name, "l1": {"value": value, "draws": list(ground + value + generator.normal(0, spread, 200))}}
        for name, value, spread in (("a", 1.0, 0.1), ("b", 1.05, 0.1), ("c", 2.0, 0.1))
    ]
    rows.append({"name": "d"})
    found = ranked(rows, ["l1"])
    assert [row["name"] for row in found] == ["a", "b", "c", "d"]
    assert [row["l1"]["tied"] for row in found[:3]] == [True, True, False]
    assert [
        row["corner_ratio"]["rank"]
        for row in ranked([{"corner_ratio": {"value": v}} for v in (1.3, 0.9)], ["corner_ratio"])
    ] == [1, 2]


def test_runs_that_cannot_be_compared_are_refused(folder: Path, tmp_path: Path) -> None:
    tile(folder / "map.tif", folder / "image.tif", folder / "others", TileConfig(size=32, seed=1))
    train(folder / "others", folder / "other", TrainConfig(steps=1, **SMALL))
    report = tmp_path / "table.html"
    with pytest.raises(ChipSetError, match=r"different chip sets.*good on chips.*other on others"):
        compare([folder / "good", folder / "other"], report)
    with pytest.raises(ConfigError, match="2 runs were given: expected at least one, and each once"):
        compare([folder / "good", folder / "good"], report)
    with pytest.raises(CheckpointError, match=r"not a run \(no config.json\)"):
        compare([folder / "chips"], report)
    (tmp_path / "table.csv").write_text("mine")
    with pytest.raises(ConfigError, match=r"table.csv: exists; give another name or --overwrite"):
        compare([folder / "good"], report)
    assert not report.exists()


def test_the_chip_set_is_found_beside_the_runs_or_given(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "good").symlink_to(folder / "good")
    found, notes = chip_set_of([tmp_path / "away" / "good"], None)
    assert found.folder == folder / "chips" and notes == []
    tile(folder / "map.tif", folder / "image.tif", tmp_path / "elsewhere", TileConfig(size=32, seed=3))
    found, notes = chip_set_of([folder / "good"], tmp_path / "elsewhere")
    assert found.folder == tmp_path / "elsewhere" and "is not what the runs were trained on" in notes[0]
    (tmp_path / "copy").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "copy" / name).write_bytes((folder / "good" / name).read_bytes())
    with pytest.raises(ConfigError, match=r"does not lie beside them; give it with --chips"):
        chip_set_of([tmp_path / "copy"], None)
    monkeypatch.chdir(folder)
    assert chip_set_of([tmp_path / "copy"], None)[0].folder == folder / "chips"


def test_the_rows_of_the_ablations_are_the_papers() -> None:
    def recipe(table: str, row: str):
        loss, changes = ROWS[table][row]
        return recipe_of(TrainConfig(loss=loss, set=changes))

    assert recipe("losses", "l1").adversarial == "none" and recipe("losses", "gan").pixel_weight == 0
    assert not recipe("losses", "l1+gan").conditional and recipe("losses", "l1+cgan").conditional
    assert not recipe("generators", "encoder-decoder, l1").skips and recipe("generators", "u-net, l1").skips
    assert [recipe("patch", row).patch for row in ROWS["patch"]] == [1, 16, 70, 286]


def test_an_ablation_trains_what_fits_and_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        ROWS, "patch", {f"patch {size}": ("l1+cgan", (f"patch={size}", "downs=2")) for size in (1, 286)}
    )
    config = CompareConfig(ablation="patch", steps=1, width=2, sample=2)
    result = compare([folder / "chips"], tmp_path / "patch.html", config)
    assert [row["name"] for row in result["rows"]] == ["patch 1", "baseline"]
    assert [note.split(" (")[0] for note in result["notes"]] == ["Left out: patch 286"]
    model = tmp_path / "patch_runs" / "patch_1" / "model.safetensors"
    made = model.stat().st_mtime_ns
    compare([folder / "chips"], tmp_path / "patch.html", config, overwrite=True)
    assert model.stat().st_mtime_ns == made
    longer = CompareConfig(ablation="patch", steps=2, width=2)
    with pytest.raises(ConfigError, match="begun with other settings"):
        compare([folder / "chips"], tmp_path / "patch.html", longer, overwrite=True)
    with pytest.raises(ConfigError, match="trains on one chip set, 2 names were given"):
        compare([folder / "chips", folder / "good"], tmp_path / "b.html", config)
