"""The judge where the source is no map: it reads the source's values, and its features give the Frechet distance."""

import dataclasses
import itertools
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from conftest import CLASSES, grid, write_raster
from geop2p_cli.main import main
from scipy import ndimage

from geop2p import CompareConfig, EvaluateConfig, TileConfig, TrainConfig, compare, tile, train
from geop2p.evaluation.features import FeatureDistance
from geop2p.evaluation.judge import find_judge, reading
from geop2p.evaluation.pretrained_scores import PretrainedScores
from geop2p.evaluation.scored_chips import ScoredChips, load_scored_chips
from geop2p.evaluation.scoring import NO_CLASSES, Scorer
from geop2p.evaluation.value_scores import ValueScores
from geop2p.metrics import BlockScores
from geop2p.raster.encoding import Array, Band, Encoding
from geop2p.tiling.chips import ChipSet
from geop2p.training.data import Batch
from geop2p.training.feeding import Feed

STEPS = 40
HEIGHT, WIDTH = 300, 420


pytestmark = pytest.mark.usefixtures("few_draws")


@pytest.fixture(autouse=True)
def few_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch-norm statistics from few chips: quick, and good enough here."""
    monkeypatch.setattr("geop2p.evaluation.judge_training.STATISTICS_CHIPS", 32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("value_judge")


def tiled(folder: Path, name: str, source: Array, target: Array) -> ChipSet:
    """A chip set of two rasters of the same shape; where the target is 0 there is no data."""
    where = grid(HEIGHT, WIDTH)
    first = write_raster(folder / f"{name}_source.tif", source, where)
    second = write_raster(folder / f"{name}_target.tif", target, where, nodata=0)
    tile(first, second, folder / name, TileConfig(size=32, stride=16, split="2:1:2", min_valid=0.5, format="packed"))
    return ChipSet.open(folder / name)


def fields() -> tuple[Array, Array]:
    """Two bands of patches, and five of their mixtures with fine texture; a hole."""
    draw = np.random.default_rng(0)
    source = draw.uniform(0, 1, (2, HEIGHT // 24 + 1, WIDTH // 24 + 1)).repeat(24, 1).repeat(24, 2)
    source = source[:, :HEIGHT, :WIDTH]
    target = np.tensordot(draw.uniform(-1, 1, (5, 2)), source, 1) + draw.normal(0, 0.15, (5, HEIGHT, WIDTH))
    target = (np.clip(target, -2.5, 2.5) * 1000 + 3000).astype(np.uint16)
    target[:, 100:140, 200:260] = 0
    return (source * 4000 + 200).astype(np.uint16), target


@pytest.fixture
def chips(folder: Path) -> ChipSet:
    """One chip set of two bands to five for the whole module, its judges in `judges`."""
    return ChipSet.open(folder / "chips") if (folder / "chips").exists() else tiled(folder, "chips", *fields())


def ground_of(chips: ChipSet) -> ScoredChips:
    return load_scored_chips(chips, (chips.source, chips.target), "test", None)


def scorer_of(chips: ChipSet, folder: Path) -> Scorer:
    judge = find_judge(chips, "pspnet", STEPS, folder / "judges", "cpu")
    return Scorer(ground_of(chips), judge, PretrainedScores(chips.target, EvaluateConfig()))


def blurred(values: Array) -> Array:
    return ndimage.gaussian_filter(values, (0, 3, 3))


def test_real_imagery_lies_at_the_floor_and_blurred_or_wrong_imagery_far_above(chips: ChipSet, folder: Path) -> None:
    scorer = scorer_of(chips, folder)
    ground, draw = scorer.ground, np.random.default_rng(0)
    assert (chips.source.channels, chips.target.channels) == (2, 5) and not ground.arrays.valid[:].all()
    changes = {
        "truth": lambda values: values,
        "noised": lambda values: (values + draw.normal(0, 10, values.shape)).astype(values.dtype),
        "blurred": blurred,
        "wrong": lambda values: values[::-1],
    }
    found = {}
    for name, change in changes.items():
        scores = scorer.score(name, lambda rows, c=change: [c(ground.arrays.target[row]) for row in rows], 4)
        found[name] = scorer.figures(name, scores)
        assert found[name]["judge"] is None and found[name]["reasons"]["judge"] == NO_CLASSES
        assert "frechet" not in found[name]["reasons"]
    floor = found["truth"]["frechet"]["real"]
    distances = {name: figures["frechet"]["generated"] for name, figures in found.items()}
    assert distances["truth"] == floor > 0
    assert distances["noised"] == pytest.approx(floor, rel=0.1)
    assert distances["blurred"] > 2 * floor and distances["wrong"] > 2 * floor, distances
    judge = found["truth"]["frechet"]["judge"]
    assert judge["l1"] < 0.7 * judge["constant_l1"] and judge["steps"] == STEPS
    assert judge == found["wrong"]["frechet"]["judge"]


def test_a_judge_is_one_of_chips_whose_nodata_is_not_a_number(folder: Path, tmp_path: Path) -> None:
    where, heights = grid(HEIGHT, WIDTH), fields()[0][:1].astype(np.float32)
    source = write_raster(folder / "heights.tif", heights, where, nodata=np.nan)
    target = write_raster(folder / "shade.tif", fields()[1][:3].astype(np.uint8), where)
    tile(source, target, folder / "nan", TileConfig(size=32, split="2:1:2", format="packed"))
    chips = ChipSet.open(folder / "nan")
    assert (
        find_judge(chips, "pspnet", 1, tmp_path, "cpu").digest == find_judge(chips, "pspnet", 1, tmp_path, "cpu").digest
    )


def test_a_judge_of_values_is_used_again_and_is_none_of_classes(
    chips: ChipSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a description does not tell them apart."""
    first = find_judge(chips, "pspnet", 1, tmp_path, "cpu")
    (file,) = tmp_path.iterdir()
    made = file.stat().st_mtime_ns
    assert find_judge(chips, "pspnet", 1, tmp_path, "cpu").digest == first.digest
    assert file.stat().st_mtime_ns == made
    assert (first.card.source, first.card.target) == (chips.target, chips.source)
    as_map = dataclasses.replace(chips, source=dataclasses.replace(chips.source, kind="classes", classes=CLASSES))
    monkeypatch.setattr("geop2p.evaluation.judge.train_judge", lambda *_: pytest.fail("another is trained"))
    find_judge(chips, "pspnet", 1, tmp_path, "cpu")
    with pytest.raises(pytest.fail.Exception, match="another is trained"):
        find_judge(as_map, "pspnet", 1, tmp_path, "cpu")


def test_what_is_not_valid_does_not_matter(chips: ChipSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither to what the judge learns nor to the features of what it sees."""
    plain = find_judge(chips, "pspnet", 2, tmp_path / "plain", "cpu")
    batch = Feed.batch

    def soiled(*arguments: Any) -> Batch:
        found = batch(*arguments)
        return Batch(torch.where(found.valid > 0, found.source, 5), found.target, found.valid)

    monkeypatch.setattr(Feed, "batch", soiled)
    other = find_judge(chips, "pspnet", 2, tmp_path / "soiled", "cpu")
    pairs = zip(plain.generator.state_dict().values(), other.generator.state_dict().values(), strict=True)
    assert all(torch.equal(first, second) for first, second in pairs)

    ground = ground_of(chips)
    distances, scores = FeatureDistance(plain, ground.blocks), [ValueScores(chips.source) for _ in range(2)]
    for row, (values, valid, block) in enumerate(
        zip(ground.arrays.target, ground.arrays.valid, ground.blocks, strict=True)
    ):
        junk = np.where(valid, values, 60_000)
        for name, imagery in {None: values, "junk": junk}.items():
            distances.add(name, imagery, valid, block)
        real = ground.arrays.source[row]
        scores[0].add(plain(values, valid), real, valid)
        scores[1].add(np.where(valid, plain(junk, valid), 7), np.where(valid, real, 9), valid)
    found = distances.distance("junk")
    assert found["generated"] == found["real"] > 0
    assert scores[0].result() == scores[1].result()
    holed, mask = FeatureDistance(plain, ["a", "b"]), np.ones((32, 32), bool)
    mask[3, 5] = mask[30, ::8] = False  # one of the 16 places of its stride, and four
    for name, block in itertools.product((None, "made"), "ab"):
        holed.add(name, ground.arrays.target[0], mask, block)
    assert holed.distance("made")["features"] == 11


def test_a_judge_of_noise_is_withheld(tmp_path: Path) -> None:
    draw, (_, target) = np.random.default_rng(1), fields()
    noise = draw.uniform(0, 1, (1, HEIGHT, WIDTH)).astype(np.float32)
    scorer = scorer_of(tiled(tmp_path, "noise", noise, target), tmp_path)
    ground = scorer.ground
    truth = scorer.figures("truth", scorer.score("truth", lambda rows: [ground.arrays.target[row] for row in rows], 4))
    assert truth["judge"] is truth["frechet"] is None and truth["reasons"]["judge"] == NO_CLASSES
    assert "not surely better than chance on real imagery (L1 0." in truth["reasons"]["frechet"]


@pytest.mark.parametrize(
    ("learned", "blocks", "said"),
    [(0.0, 6, "not surely better than chance"), (0.5, 6, None), (0.5, 1, "lie in one block of ground")],
)
def test_a_judge_that_knows_but_the_median_has_learned_nothing(
    chips: ChipSet, folder: Path, learned: float, blocks: int, said: str | None
) -> None:
    """Of values whose median, which is what L1 learns, is far better everywhere than their mean."""
    encoding, draw = Encoding("image", "float32", (Band(low=0, high=10),)), np.random.default_rng(0)
    real, valid = draw.exponential(1, (blocks, 1, 40, 40)).astype(np.float32), np.ones((40, 40), bool)
    median = np.full_like(real, np.median(real))
    assert np.abs(real - median).mean() < 0.95 * np.abs(real - real.mean()).mean()
    scores = BlockScores(partial(ValueScores, encoding))
    for block in range(blocks):
        scores.add(median[block] + learned * (real - median)[block], real[block], valid, str(block))
    found = reading(find_judge(chips, "pspnet", STEPS, folder / "judges", "cpu"), scores)
    assert found["reason"] is None if said is None else said in found["reason"]
    assert found["l1"] == pytest.approx((1 - learned) * found["constant_l1"], rel=0.01)


def test_the_best_constant_is_the_median() -> None:
    encoding = Encoding("image", "uint8", (Band(), Band(low=0, high=100)))
    draw, scores = np.random.default_rng(0), ValueScores(encoding)
    parts = [(draw.integers(0, 100, (2, 9, 7)) ** 2 // 100).astype(np.uint8) for _ in range(4)]
    valid = draw.uniform(size=(9, 7)) > 0.3
    for made, real in itertools.pairwise(parts):
        scores.add(made, real, valid)
    real, made = (np.concatenate([part[:, valid] for part in some], axis=1) for some in (parts[1:], parts[:-1]))
    real, made = real / [[127.5], [50]], made / [[127.5], [50]]
    found = scores.result()
    assert found["l1"] == pytest.approx(np.abs(real - made).mean())
    assert found["constant_l1"] == pytest.approx(np.abs(real - np.median(real, axis=1, keepdims=True)).mean(), rel=2e-3)
    assert found["pixels"] == 3 * valid.sum() and ValueScores(encoding).result()["l1"] is None


def evaluated(run: Path, chips: Path, report: Path, steps: int, judges: Path) -> Result:
    """What the command says."""
    judge = ["--judge", "pspnet", "--judge-steps", str(steps), "--judge-folder", str(judges), "--json"]
    return CliRunner().invoke(main, ["evaluate", str(run), str(chips), str(report), *judge], catch_exceptions=False)


def test_evaluate_and_compare_show_the_distance_beside_the_floor(chips: ChipSet, folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(chips.folder, run, TrainConfig(recipe="pix2pix", steps=2, batch_size=4, width=2, downs=2, set=("patch=16",)))
    judge = {"judge": "pspnet", "judge_steps": STEPS, "judge_folder": folder / "judges"}
    told = evaluated(run, chips.folder, tmp_path / "report.html", STEPS, folder / "judges")
    result, page = json.loads(told.stdout), (tmp_path / "report.html").read_text()
    apart = result["frechet"]
    assert f"frechet real     {apart['real']:.4g}" in told.stderr and f" {apart['generated']:.4g}" in told.stderr
    assert result["judge"] is None and apart["generated"] > apart["real"] > 0
    assert "<h2>The judge</h2>" in page and f"{apart['real']:.4g} from real to real imagery" in page
    assert f"judge ({NO_CLASSES})" in page
    table = compare([run], tmp_path / "table.html", CompareConfig(chips=chips.folder, **judge))
    assert table["columns"][0] == "frechet" and "judge_miou" not in table["columns"]
    row, baseline, real = table["rows"]
    assert real["name"] == "real imagery" and real["frechet"]["value"] == apart["real"]
    assert row["frechet"]["value"] == apart["generated"] and "frechet" in baseline
    assert f"Not given: judge ({NO_CLASSES})." in table["notes"]
    unlearned = evaluated(run, chips.folder, tmp_path / "early.html", 1, tmp_path)
    assert json.loads(unlearned.stdout)["frechet"] is None and "frechet real" not in unlearned.stderr
    assert "the judge is not surely better than chance" in unlearned.stderr
    header, *lines = (tmp_path / "table.md").read_text().splitlines()
    assert "Fréchet distance" in header and any(line.startswith("| real imagery | ") for line in lines)
