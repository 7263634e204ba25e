"""Several runs on the same chips: ranks, ties, forms of the table, what their pages show, and runs that do not fit."""

import base64
import csv
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import class_map, grid, write_raster
from PIL import Image
from safetensors.torch import load_file

from geop2p import CompareConfig, EvaluateConfig, TileConfig, TrainConfig, Translator, compare, evaluate, tile, train
from geop2p.config import Ablation
from geop2p.errors import CheckpointError, ChipSetError, ConfigError, GeoP2PError, OutputError
from geop2p.evaluation.ablation import ROWS
from geop2p.evaluation.comparison import Comparison, chip_set_of
from geop2p.evaluation.judge import judge_fits, verdict
from geop2p.evaluation.pictures import heat_picture
from geop2p.evaluation.report import even_ranks, write_page
from geop2p.evaluation.tables import headings, ranked, write_csv, write_markdown
from geop2p.raster.rendering import render
from geop2p.tiling.chips import ChipSet
from geop2p.training.checkpoint import chips_digest
from geop2p.training.data import Batch, ChipArrays, Indices
from geop2p.training.history import read_metrics
from geop2p.training.recipes import recipe_of
from geop2p.training.step import TrainingStep
from geop2p.translator import read_card

SMALL = {"batch_size": 8, "width": 2, "downs": 2}
pytestmark = pytest.mark.usefixtures("few_draws")


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
    train(place / "chips", place / "good", TrainConfig(recipe="pix2pix", steps=80, lr=4e-3, loss="l1", **SMALL))
    train(place / "chips", place / "poor", TrainConfig(recipe="pix2pix", steps=1, loss="l1", **SMALL))
    return place


def captions(page: str) -> list[str]:
    return re.findall(r"<figcaption>(\S+: mean error .+?)</figcaption>", page)


def pictures(page: str, name: str) -> list[np.ndarray]:
    found = re.findall(rf'src="data:image/\w+;base64,([^"]+)" alt="{name}"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int) for data in found]


def provenance(page: str) -> dict[str, Any]:
    (found,) = re.findall(r"<h2>Settings and provenance</h2>\s*<details>.*?<pre>(.*?)</pre>", page, flags=re.DOTALL)
    return json.loads(found)


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
    assert markdown[0].startswith("| run | L1, DN | RMSE, DN |") and markdown[2].startswith(
        f"| good | **{good['l1']['value']:.4g}**"
    )
    page = report.read_text()
    assert page.count('alt="good"') == page.count('alt="poor"') == page.count('alt="truth"') == 5
    assert "geop2p compare &lt;x&gt;" in page and 'class="best"' in page
    assert provenance(page) == {name: read_card(folder / name).provenance for name in ("good", "poor")}
    ranks = [f"rank {rank + 1} of {result['chips']}{word}" for rank, word in places(result["chips"])]
    assert [caption.split(", ", 1)[1] for caption in captions(page)] == ranks
    errors = [float(caption.split()[3].rstrip(",")) for caption in captions(page)]
    chips, runs = ChipSet.open(folder / "chips"), [Translator.load(folder / name) for name in ("good", "poor")]
    for caption, error in zip(captions(page), errors, strict=True):
        chip = chips.read("test", caption.split(":")[0])
        means = [np.abs(run(chip.source).astype(int) - chip.target).mean() for run in runs]
        assert error == pytest.approx(np.mean(means), rel=0.01)
    assert errors == sorted(errors) and errors[0] < errors[-1]


def test_tables_and_page_take_their_names_together(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    config = CompareConfig(sample=3)
    for name in ("write_csv", "write_page"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(f"geop2p.evaluation.comparison.{name}", killed)
            compare([folder / "good"], tmp_path / "table.html", config)
        assert not list(tmp_path.iterdir())
    compare([folder / "good"], tmp_path / "table.html", config)
    assert {path.suffix for path in tmp_path.iterdir()} == {".html", ".md", ".csv", ".json"}


def places(count: int) -> list[tuple[int, str]]:
    """Five ranks of many, and what is said of them."""
    words = (", best", "", ", median", "", ", worst")
    return [((count - 1) * place // 4, word) for place, word in enumerate(words)]


@pytest.mark.parametrize(
    ("count", "wanted"),
    [
        (0, []),
        (1, ["rank 1 of 1, best"]),
        (2, ["rank 1 of 2, best", "rank 2 of 2, worst"]),
        (3, ["rank 1 of 3, best", "rank 2 of 3, median", "rank 3 of 3, worst"]),
        (9, ["rank 1 of 9, best", "rank 3 of 9", "rank 5 of 9, median", "rank 7 of 9", "rank 9 of 9, worst"]),
    ],
)
def test_places_lie_at_even_ranks_from_the_best_to_the_worst(count: int, wanted: list[str]) -> None:
    assert [said for _, said in even_ranks(count)] == wanted
    assert [f"rank {rank + 1} of {count}" for rank, _ in even_ranks(count)] == [said.split(",")[0] for said in wanted]


def test_a_map_of_errors_is_lightest_where_they_are_most() -> None:
    values = np.ones((64, 64))
    values[:8, 56:], values[56:, :8], values[:, 30:32] = 9, 5, np.nan
    picture = heat_picture(values).astype(int)
    light = picture.sum(axis=2)
    assert picture.shape == (256, 256, 3)
    assert (picture[:32, 224:] == (240, 249, 33)).all() and (light[:32, 224:].min() > light[:, :224]).all()
    assert (light[224:, :32] > light[64:192, :64].max()).all() and (picture[64:192, :64] == (13, 8, 80)).all()
    assert (picture[:, 120:128] == 128).all()
    assert (heat_picture(np.full((64, 64), 3.0)) == (13, 8, 80)).all()


@pytest.mark.parametrize("side", [20, 95, 100])
def test_a_map_of_errors_leaves_no_row_and_no_column_out(side: int) -> None:
    values = np.zeros((side, side))
    values[-1, 0] = values[0, -1] = 9
    light = heat_picture(values).sum(axis=2) > 400
    assert light[-1, 0] and light[0, -1] and not light[0, 0] and not light[-1, -1]


def test_the_page_of_an_evaluation_shows_places_by_rank_and_the_bad_corners(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chips are the better the later they come, and bad in two corners."""
    chips = ChipSet.open(folder / "chips")
    truth = ChipArrays.load(chips, "test")
    count, corners = len(truth), np.zeros((32, 32), int)
    corners[:4, :4] = corners[-4:, -4:] = 100

    def predict(_: Translator, arrays: ChipArrays, rows: Indices) -> list[np.ndarray]:
        return [arrays.target[row] + corners + count - row for row in rows]

    monkeypatch.setattr("geop2p.evaluation.evaluator.predict_chips", predict)
    config = EvaluateConfig(batch_size=3)
    result = evaluate(folder / "good", folder / "chips", tmp_path / "report.html", config)
    page, everywhere = (tmp_path / "report.html").read_text(), (count + 1) / 2
    assert "at even ranks; not picked by eye" in page
    wanted = [
        f"{truth.ids[count - 1 - rank]}: mean error {rank + 1 + 3.125:.3g}, rank {rank + 1} of {count}{word}"
        for rank, word in places(count)
    ]
    assert captions(page) == wanted
    for picture, (rank, _) in zip(pictures(page, "truth"), places(count), strict=True):
        row = count - 1 - rank
        assert np.abs(picture - render(truth.target[row], truth.valid[row], chips.target)).mean() < 10
    ratio = (everywhere + 50) / everywhere
    assert result["corner_ratio"] == pytest.approx(ratio) and f"Corners over centre: {ratio:.4g}" in page
    (position,) = pictures(page, "error by position")
    light = position.sum(axis=2) > 400
    assert light[:32, :32].all() and light[-32:, -32:].all() and light.sum() == 2 * 32 * 32
    told, model = provenance(page), Translator.load(folder / "good")
    assert told["model"] == json.loads(json.dumps(model.card.provenance)) | {"recipe": "pix2pix"}
    assert told["sha256"] == model.digest and {"chips", "steps", "torch"} <= set(told["model"])
    assert told["evaluation"]["split"] == "test" and told["evaluation"]["batch_size"] == "3"
    assert "sample" not in told["evaluation"]


def test_a_judge_adds_its_columns_and_the_ceiling(folder: Path, tmp_path: Path) -> None:
    config = CompareConfig(judge="pspnet", judge_steps=20, sample=9)
    result = compare([folder / "good"], tmp_path / "table.html", config)
    assert result["columns"][0] == "judge_miou" and result["chips"] == 9
    good, baseline, real = result["rows"]
    assert real["name"] == "real imagery" and set(real) & set(result["columns"]) <= {
        "judge_miou", "judge_class_accuracy", "judge_accuracy", "frechet",
    }  # fmt: skip
    assert good["judge_miou"]["interval"] is not None and "rank" not in baseline["judge_miou"]


def test_no_name_of_a_run_changes_its_figures(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three copies of a run, two of them called as rows and features are that belong to no run."""
    for name in ("good", "real", "baseline"):
        shutil.copytree(folder / "good", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    config = CompareConfig(chips=folder / "chips", split="train", sample=40, judge="pspnet", judge_steps=20)
    result = compare(["good", "real", "baseline"], "table.html", config)
    *runs, baseline, _ = result["rows"]
    assert [row["name"] for row in runs] == ["good", "real", str(tmp_path / "baseline")]
    assert {"judge_miou", "frechet", "l1"} <= set(result["columns"]) and baseline["name"] == "baseline"
    for name in result["columns"]:
        assert runs[0][name] == runs[1][name] == runs[2][name] and runs[0][name] != baseline[name]


def test_a_judge_that_is_withheld_is_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chance(*arguments: Any) -> dict[str, Any]:
        return verdict(*arguments) | {"generated": None, "reason": "pspnet is no better than chance"}

    monkeypatch.setattr("geop2p.evaluation.scoring.verdict", chance)
    config = CompareConfig(judge="pspnet", judge_steps=20, sample=3)
    result = compare([folder / "good", folder / "poor"], tmp_path / "table.html", config)
    assert not {"judge_miou", "frechet"} & set(result["columns"]) and "l1" in result["columns"]
    assert all("frechet" not in row for row in result["rows"])
    told = "Not given: judge (pspnet is no better than chance)."
    assert result["notes"].count(told) == 1 and told in (tmp_path / "table.html").read_text()
    assert {row["name"] for row in result["rows"]} == {"good", "poor", "baseline"}


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


def test_a_run_without_error_stands_before_all_that_have_a_psnr(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = Translator.load(folder / "good").digest

    def predict(run: Translator, arrays: ChipArrays, rows: Indices) -> list[np.ndarray]:
        return [arrays.target[row] // (1 if run.digest == exact else 2) for row in rows]

    monkeypatch.setattr("geop2p.evaluation.comparison.predict_chips", predict)
    result = compare([folder / "good", folder / "poor"], tmp_path / "table.html", CompareConfig(sample=3))
    good, poor, _ = result["rows"]
    assert (good["name"], good["rmse"]["rank"]) == ("good", 1) and "psnr" not in good
    assert poor["psnr"]["rank"] == 2 and not poor["psnr"]["tied"]
    assert result["notes"] == ["good: No error at all, so that its PSNR is not given and is better than all that are."]


def test_what_has_no_draws_is_said_to_be_untested(folder: Path, tmp_path: Path) -> None:
    """Corners over centre are drawn like the scores; a mean over chips such as LPIPS has no draws."""
    result = compare([folder / "good", folder / "poor"], tmp_path / "table.html")
    first, second = sorted(result["rows"][:2], key=lambda row: row["corner_ratio"]["rank"])
    assert first["corner_ratio"]["tied"] and isinstance(second["corner_ratio"]["tied"], bool)
    rows = [{"name": name, "lpips": {"value": value, "interval": None}} for name, value in (("a", 1), ("b", 2))]
    rows = ranked(rows, ["lpips"])
    assert [row["lpips"]["tied"] for row in rows] == [True, None]
    result |= {"columns": ["lpips"], "rows": rows}
    write_markdown(tmp_path / "a.md", result)
    assert "| b | ? 2 |" in (tmp_path / "a.md").read_text()
    result["rows"][1]["name"] = "<b>|&"
    write_markdown(tmp_path / "a.md", result)
    assert r"| &lt;b&gt;\|&amp; | ? 2 |" in (tmp_path / "a.md").read_text()
    write_csv(tmp_path / "a.csv", result)
    table = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert [row["lpips_tied"] for row in table] == ["yes", ""]
    write_page(tmp_path / "a.html", Comparison("a", result, headings(result)), "comparison.html.j2")
    assert "<td>? 2</td>" in (tmp_path / "a.html").read_text()


def test_runs_that_cannot_be_compared_are_refused(folder: Path, tmp_path: Path) -> None:
    tile(folder / "map.tif", folder / "image.tif", folder / "others", TileConfig(size=32, seed=1))
    train(folder / "others", folder / "other", TrainConfig(recipe="pix2pix", steps=1, set=("patch=16",), **SMALL))
    report = tmp_path / "table.html"
    with pytest.raises(ChipSetError, match=r"different chip sets.*good on chips.*other on others"):
        compare([folder / "good", folder / "other"], report)
    with pytest.raises(ConfigError, match=r"good: the same run as .*good; give each once"):
        compare([folder / "good", folder / "good"], report)
    for name in (".", "", "/"):
        with pytest.raises(ConfigError, match="the report is a page; give a name that ends in"):
            compare([folder / "good"], name)
    with pytest.raises(CheckpointError, match=r"not a run \(no config.json\)"):
        compare([folder / "chips"], report)
    shutil.copytree(folder / "good", tmp_path / "bad")
    for junk in ("{", "{}", "[]", "3"):
        (tmp_path / "bad" / "config.json").write_text(junk)
        with pytest.raises(CheckpointError, match=r"config.json: damaged, does not name the chips") as caught:
            compare([tmp_path / "bad"], report)
        assert "\n" not in str(caught.value)
    (tmp_path / "table.csv").write_text("mine")
    with pytest.raises(OutputError, match=r"table.csv: exists; give another name or --overwrite"):
        compare([folder / "good"], report)
    assert not report.exists()


def test_the_chip_set_is_found_beside_the_runs_or_given(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "good").symlink_to(folder / "good")
    found, digest = chip_set_of([tmp_path / "away" / "good"], None)
    assert found.folder == folder / "chips" and digest == chips_digest(folder / "chips")
    tile(folder / "map.tif", folder / "image.tif", tmp_path / "elsewhere", TileConfig(size=32, seed=3))
    found, digest = chip_set_of([folder / "good"], tmp_path / "elsewhere")
    assert found.folder == tmp_path / "elsewhere" and digest == chips_digest(folder / "chips")
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
        return recipe_of(TrainConfig(recipe="pix2pix", loss=loss, set=changes))

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
    with pytest.raises(ConfigError, match=r"begun with other settings.*, or remove this one \(train: --overwrite\)$"):
        compare([folder / "chips"], tmp_path / "patch.html", longer, overwrite=True)
    with pytest.raises(ConfigError, match="trains on one chip set, 2 names were given"):
        compare([folder / "chips", folder / "good"], tmp_path / "b.html", config)


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """A chip set of 25 chips, 15 of them for training."""
    codes, noise = class_map(160, 160), np.random.default_rng(0).integers(0, 40, (3, 160, 160))
    write_raster(tmp_path / "map.tif", codes, grid(160, 160))
    write_raster(tmp_path / "image.tif", (codes * 40 + noise).astype(np.uint8), grid(160, 160), photometric="RGB")
    config = TileConfig(size=32, split="3:1:1", format="packed")
    tile(tmp_path / "map.tif", tmp_path / "image.tif", tmp_path / "few", config)
    return tmp_path / "few"


@pytest.mark.parametrize(
    ("chips", "settings", "wanted"),
    [
        ("single", {}, r"has no test chips \(train has \d+\); choose with --split"),
        ("plain", {"judge": "fcn"}, "the source, which has one class; leave --judge out"),
        ("few", {"lpips_file": Path("a.pth"), "lpips_heads": Path("b.pth")}, "a.pth: no such file"),
    ],
)
def test_what_does_not_fit_is_found_before_anything_is_trained(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chips: str, settings: dict[str, Any], wanted: str
) -> None:
    source = tmp_path / "map.tif"
    if chips == "plain":
        source = write_raster(tmp_path / "plain.tif", np.ones((1, 160, 160), np.uint8), grid(160, 160))
    if chips != "few":
        config = TileConfig(
            size=32, split="1:0:0" if chips == "single" else "3:1:1", format="packed", source_kind="classes"
        )
        tile(source, tmp_path / "image.tif", tmp_path / chips, config)
    monkeypatch.setattr("geop2p.evaluation.comparison.train_rows", lambda *_: pytest.fail("trained"))
    with pytest.raises(GeoP2PError, match=wanted):
        compare([tmp_path / chips], tmp_path / "a.html", CompareConfig(ablation="losses", **settings))


def test_files_of_weights_are_looked_for_before_a_judge_learns(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geop2p.evaluation.evaluator.judge_of", lambda *_: pytest.fail("the judge learns"))
    config = EvaluateConfig(judge="fcn", lpips_file=tmp_path / "a.pth", lpips_heads=tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match=r"a\.pth: no such file"):
        evaluate(folder / "good", folder / "chips", tmp_path / "a.html", config)


def test_without_training_chips_there_is_no_baseline_and_no_judge(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "splits.csv").write_text("scene,split\nimage,test\n")
    config = TileConfig(size=32, split_by="file", split_file=tmp_path / "splits.csv", format="packed")
    tile(folder / "map.tif", folder / "image.tif", tmp_path / "chips", config)
    result = evaluate(folder / "good", tmp_path / "chips", tmp_path / "a.html", EvaluateConfig(sample=3))
    page = (tmp_path / "a.html").read_text()
    assert result["baseline"] is None and result["reasons"]["baseline"] == "no training chips"
    assert "baseline (no training chips)" in page and 'alt="baseline"' not in page and 'alt="prediction"' in page
    table = compare(str(folder / "good"), tmp_path / "b.html", CompareConfig(chips=tmp_path / "chips", sample=3))
    assert [row["name"] for row in table["rows"]] == ["good"]
    assert "Left out: baseline (no training chips)." in table["notes"]
    with pytest.raises(ConfigError, match="a judge learns from training chips, it has none; leave --judge out"):
        judge_fits(ChipSet.open(tmp_path / "chips"))


# row: terms of its loss, channels that the discriminator sees (None: there is none), whether its levels are joined
TERMS = {
    "losses": {
        "l1": ({"l1"}, None, True),
        "gan": ({"gan", "d"}, 3, True),
        "cgan": ({"gan", "d"}, 6, True),
        "l1+gan": ({"l1", "gan", "d"}, 3, True),
        "l1+cgan": ({"l1", "gan", "d"}, 6, True),
    },
    "generators": {
        "encoder-decoder_l1": ({"l1"}, None, False),
        "encoder-decoder_l1+cgan": ({"l1", "gan", "d"}, 6, False),
        "u-net_l1": ({"l1"}, None, True),
        "u-net_l1+cgan": ({"l1", "gan", "d"}, 6, True),
    },
}


@pytest.mark.parametrize("table", ["losses", "generators"])
def test_every_row_of_an_ablation_is_trained_as_it_is_called(few: Path, table: Ablation, tmp_path: Path) -> None:
    result = compare([few], tmp_path / "a.html", CompareConfig(ablation=table, steps=1, width=2, sample=2))
    assert {row["name"] for row in result["rows"]} == {*ROWS[table], "baseline"} and result["notes"] == []
    found = {}
    for run in (tmp_path / "a_runs").iterdir():
        (entry,) = read_metrics(run)
        state = torch.load(run / "last.pt", weights_only=True).get("discriminator")
        seen = None if state is None else next(iter(state.values())).shape[1]
        found[run.name] = set(entry["losses"]), seen, read_card(run).arguments["skips"]
    assert found == TERMS[table]
    page = (tmp_path / "a.html").read_text()
    assert all(page.count(f'alt="{name}"') == 2 for name in ROWS[table])


def test_an_ablation_interrupted_in_its_second_row_goes_on_in_the_middle_of_it(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ROWS, "losses", {name: (name, ("downs=2",)) for name in ("l1", "l1+cgan", "cgan")})
    monkeypatch.setattr("geop2p.training.loop.CHECKPOINT_SECONDS", 0)
    config, done, step = CompareConfig(ablation="losses", steps=6, width=2, sample=2), [], TrainingStep.__call__

    def count(self: TrainingStep, batch: Batch, number: int) -> dict[str, torch.Tensor]:
        if len(done) == limit:
            raise KeyboardInterrupt
        done.append((self.config.loss, number))
        return step(self, batch, number)

    monkeypatch.setattr(TrainingStep, "__call__", count)
    limit = 6 + 3
    with pytest.raises(KeyboardInterrupt):
        compare([few], tmp_path / "a.html", config)
    (first, *_), (second, *_) = done[0], done[-1]
    assert done == [(first, number) for number in range(6)] + [(second, number) for number in range(3)]
    assert not list(tmp_path.glob("a.*"))

    done, limit = [], -1
    assert len(compare([few], tmp_path / "a.html", config)["rows"]) == 4
    (third,) = set(ROWS["losses"]) - {first, second}
    rest = {(second, number) for number in range(3, 6)} | {(third, number) for number in range(6)}
    assert set(done) == rest and len(done) == len(rest)

    train(few, tmp_path / "whole", TrainConfig(recipe="pix2pix", loss=second, set=("downs=2",), steps=6, width=2))
    once, twice = (load_file(run / "model.safetensors") for run in (tmp_path / "whole", tmp_path / "a_runs" / second))
    assert all(torch.equal(once[name], twice[name]) for name in once | twice)


def test_a_table_never_replaces_the_settings_of_a_run_or_a_chip_set(folder: Path) -> None:
    before = {path: path.read_bytes() for path in (folder / "good" / "config.json", folder / "chips" / "chipset.json")}
    for path in before:
        for config in (CompareConfig(), CompareConfig(chips=folder / "chips")):
            with pytest.raises(ConfigError, match=f"{path.name}: is an input; give another name"):
                compare([folder / "good"], path.with_suffix(".html"), config, overwrite=True)
        assert path.read_bytes() == before[path]


def test_settings_that_mean_nothing_for_what_is_compared_are_refused(folder: Path) -> None:
    for name in ("steps", "width", "seed"):
        with pytest.raises(ConfigError, match=f"^{name} is for --ablation; leave --{name} out"):
            CompareConfig(**{name: 7})
    for make, settings, wanted in (
        (CompareConfig, {"judge_steps": 7}, "^--judge-steps has no effect without --judge; leave it out"),
        (
            EvaluateConfig,
            {"judge_steps": 7, "judge_folder": folder},
            "^--judge-steps, --judge-folder have no effect without --judge; leave them",
        ),
        (
            EvaluateConfig,
            {"rgb": "1,2,3", "judge": "fcn"},
            "^--rgb has no effect without --lpips-file or --inception-file; leave it out",
        ),
    ):
        with pytest.raises(ConfigError, match=wanted):
            make(**settings)
    with pytest.raises(ConfigError, match="chips is not for --ablation"):
        CompareConfig(ablation="losses", chips=folder / "chips")


def test_a_file_of_weights_is_a_row_beside_its_run(folder: Path, tmp_path: Path) -> None:
    run, best = shutil.copytree(folder / "good", tmp_path / "run"), tmp_path / "run" / "best.safetensors"
    shutil.copy(folder / "poor" / "model.safetensors", best)
    (tmp_path / "chips").symlink_to(folder / "chips")
    config, report = CompareConfig(sample=5), tmp_path / "table.html"
    first, second, baseline = compare([best, run], report, config)["rows"]
    assert [first["name"], second["name"], baseline["name"]] == ["run", "run/best.safetensors", "baseline"]
    assert (first["path"], second["path"]) == (str(run), str(best)) and (first["steps"], second["steps"]) == (80, 1)
    assert chip_set_of([best], None)[0].folder == tmp_path / "chips"
    poor = next(row for row in compare([folder / "poor"], tmp_path / "poor.html", config)["rows"])
    assert second["l1"]["value"] == poor["l1"]["value"] != first["l1"]["value"]
    assert report.read_text().count('alt="run/best.safetensors"') == 5
    again = shutil.copytree(run, tmp_path / "again" / "run") / "best.safetensors"
    rows = compare([best, again], tmp_path / "two.html", CompareConfig(sample=2, chips=folder / "chips"))["rows"]
    assert {row["name"] for row in rows[:2]} == {str(best), str(again)}
    with pytest.raises(ConfigError, match=r"model\.safetensors: the same run as .*; give each once"):
        compare([run, run / "model.safetensors"], tmp_path / "none.html")
    with pytest.raises(ConfigError, match=r"config\.json: is an input; give another name"):
        compare([best], run / "config.html", overwrite=True)
    alone = shutil.copy(best, tmp_path / "alone.safetensors")
    with pytest.raises(CheckpointError, match=r"alone\.safetensors: no config\.json beside it"):
        compare([alone], tmp_path / "none.html")
