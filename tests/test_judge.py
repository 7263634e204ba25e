"""The judge of imagery, its Frechet distance, and where a model errs."""

import dataclasses
import hashlib
import itertools
import os
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import rasterio
import torch
from conftest import CLASSES, class_map, grid, image_encoding, write_raster
from scipy import linalg

from geop2p import EvaluateConfig, TileConfig, TrainConfig, evaluate, tile, train
from geop2p.config import JudgeName
from geop2p.errors import CheckpointError, ConfigError
from geop2p.evaluation import judge_training
from geop2p.evaluation.error_breakdown import EDGES, ErrorBreakdown, boundary_bins, by_training_distance
from geop2p.evaluation.features import FeatureDistance, frechet
from geop2p.evaluation.judge import find_judge, judge_fits, verdict
from geop2p.evaluation.pretrained_scores import PretrainedScores
from geop2p.evaluation.scored_chips import ScoredChips, load_scored_chips
from geop2p.evaluation.scoring import Scorer, notes_on
from geop2p.metrics import BlockScores, ClassScores
from geop2p.models import GENERATORS
from geop2p.raster.encoding import Band, Encoding
from geop2p.tiling.chips import ChipSet
from geop2p.training.data import ChipArrays

MAP = Encoding("classes", "uint8", (Band(),), classes=CLASSES)
STEPS = 20
pytestmark = pytest.mark.usefixtures("few_draws")


@pytest.fixture(autouse=True)
def few_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch-norm statistics from few chips: quick, and good enough here."""
    monkeypatch.setattr("geop2p.evaluation.judge_training.STATISTICS_CHIPS", 32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("judge")


@pytest.fixture
def chips(folder: Path, pair: tuple[Path, Path]) -> ChipSet:
    """One chip set and, in `judges`, one judge for the whole module."""
    if not (folder / "chips").exists():
        tile(*pair, folder / "chips", TileConfig(size=32, stride=16))
    return ChipSet.open(folder / "chips")


def ground_of(chips: ChipSet) -> ScoredChips:
    return load_scored_chips(chips, (chips.source, chips.target), "test", None)


def test_the_judge_reads_the_truth_like_itself_and_a_flat_colour_like_chance(chips: ChipSet, folder: Path) -> None:
    judge = find_judge(chips, "pspnet", STEPS, folder / "judges", "cpu")
    ground = ground_of(chips)
    scorer = Scorer(ground, judge, PretrainedScores(chips.target, EvaluateConfig()))
    truth = scorer.score("truth", lambda rows: [ground.arrays.target[row] for row in rows], 4)
    flat = scorer.score("flat", lambda rows: [np.full((3, 32, 32), 90, np.uint8) for _ in rows], 4)
    exact, poor = scorer.figures("truth", truth), scorer.figures("flat", flat)
    judged = exact["judge"]
    assert judged["generated"] == judged["real"] and judged["real"]["miou"] > 2 * judged["chance"]
    assert poor["judge"]["generated"]["miou"] < judged["real"]["miou"] / 2
    assert poor["judge"]["generated"]["miou"] < poor["judge"]["generated"]["intervals"]["miou"][1]
    assert exact["frechet"]["generated"] == exact["frechet"]["real"] < poor["frechet"]["generated"]
    low, high = poor["frechet"]["interval"]
    assert low < poor["frechet"]["generated"] < high and exact["frechet"]["real"] < low
    assert exact["l1"] == 0 and "lpips" in exact["reasons"] and exact["where"]["by_class"]["water"] == 0


def test_a_judge_is_trained_once_for_chips_and_settings(chips: ChipSet, folder: Path) -> None:
    first = find_judge(chips, "pspnet", STEPS, folder / "judges", "cpu")
    (file,) = (folder / "judges").glob("pspnet-*.safetensors")
    made = file.stat().st_mtime_ns
    assert find_judge(chips, "pspnet", STEPS, folder / "judges", "cpu").digest == first.digest
    assert file.stat().st_mtime_ns == made
    find_judge(chips, "pspnet", 1, folder / "judges", "cpu")
    assert len(list((folder / "judges").iterdir())) == 2


def test_a_judge_needs_no_chip_but_those_of_the_training(chips: ChipSet, folder: Path, tmp_path: Path) -> None:
    """Without the chips of the other splits the same judge is made."""
    shutil.copytree(chips.folder, tmp_path / "chips")
    for side, split in itertools.product(("source", "target"), ("val", "test")):
        shutil.rmtree(tmp_path / "chips" / side / split)
    judge = find_judge(ChipSet.open(tmp_path / "chips"), "pspnet", 1, tmp_path / "judges", "cpu")
    assert judge.digest == find_judge(chips, "pspnet", 1, folder / "judges", "cpu").digest
    assert judge.card.provenance["train_chips"] == chips.counts["train"] > chips.counts["test"] > 0


def test_another_chip_set_has_another_judge(
    chips: ChipSet, pair: tuple[Path, Path], folder: Path, tmp_path: Path
) -> None:
    tile(*pair, tmp_path / "chips", TileConfig(size=32, seed=1, format="packed"))
    before = find_judge(chips, "pspnet", 1, folder / "judges", "cpu")
    shutil.copytree(folder / "judges", tmp_path / "judges")
    files = set((tmp_path / "judges").iterdir())
    other = find_judge(ChipSet.open(tmp_path / "chips"), "pspnet", 1, tmp_path / "judges", "cpu")
    (made,) = set((tmp_path / "judges").iterdir()) - files
    assert hashlib.sha256(made.read_bytes()).hexdigest() == other.digest != before.digest
    assert find_judge(chips, "pspnet", 1, tmp_path / "judges", "cpu").digest == before.digest


def test_judges_are_the_same_for_the_same_seed(chips: ChipSet, tmp_path: Path) -> None:
    one, other = (find_judge(chips, "fcn", 2, tmp_path / name, "cpu") for name in "ab")
    pairs = zip(one.generator.state_dict().values(), other.generator.state_dict().values(), strict=True)
    assert all(torch.equal(first, second) for first, second in pairs)


@pytest.mark.parametrize("ending", [signal.SIGTERM, None])
def test_an_interrupted_judge_goes_on_and_is_the_same(
    chips: ChipSet, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: signal.Signals | None
) -> None:
    """Also one with dropout, of which a kill leaves what was saved last."""
    whole = find_judge(chips, "pspnet", 6, folder / "judges", "cpu")
    monkeypatch.setattr(judge_training, "CHECKPOINT_SECONDS", 1e9 if ending else 0.0)
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    def broken(step: int, steps: int) -> float:
        steps_done.append(step)
        if step == 3 and ending:
            os.kill(os.getpid(), ending)
        elif step == 3:
            raise KeyboardInterrupt
        return decay(step, steps)

    steps_done: list[int] = []
    decay = judge_training.decay
    with monkeypatch.context() as patched:
        patched.setattr(judge_training, "decay", broken)
        with pytest.raises(KeyboardInterrupt):
            find_judge(chips, "pspnet", 6, tmp_path / "judges", "cpu")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    (begun,) = (tmp_path / "judges").iterdir()
    assert begun.suffix == ".begun" and steps_done == [0, 1, 2, 3]
    with monkeypatch.context() as patched:
        patched.setattr(judge_training, "decay", lambda step, steps: steps_done.append(step) or decay(step, steps))
        again = find_judge(chips, "pspnet", 6, tmp_path / "judges", "cpu")
    assert steps_done == [0, 1, 2, 3, *range(4 if ending else 3, 6)]
    assert again.digest == whole.digest and not begun.exists()
    begun.mkdir()  # left by a kill after the last step
    (begun / "last.pt").touch()
    find_judge(chips, "pspnet", 6, tmp_path / "judges", "cpu")
    assert not begun.exists()
    begun.mkdir()
    (begun / "last.pt").write_bytes(b"nothing")
    next((tmp_path / "judges").glob("*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match=r"begun: a damaged beginning of a judge; delete it"):
        find_judge(chips, "pspnet", 6, tmp_path / "judges", "cpu")


def scores(real: np.ndarray, predicted: np.ndarray, blocks: int = 4) -> BlockScores:
    found = BlockScores(partial(ClassScores, MAP, True))
    for block in range(blocks):
        found.add(predicted[None], real[None], np.ones(real.shape, bool), str(block))
    return found


def test_a_judge_no_better_than_chance_is_withheld(chips: ChipSet, folder: Path) -> None:
    judge = find_judge(chips, "pspnet", STEPS, folder / "judges", "cpu")
    codes = np.random.default_rng(0).choice([1, 1, 1, 2, 5], (40, 40)).astype(np.uint8)
    blind = verdict(judge, scores(codes, np.ones_like(codes)), scores(codes, codes))
    assert blind["generated"] is None and "not surely better than chance" in blind["reason"]
    assert blind["real"]["miou"] == pytest.approx(blind["chance"])
    seeing = verdict(judge, scores(codes, codes), scores(codes, codes))
    assert seeing["reason"] is None and seeing["generated"]["miou"] == 1
    alone = verdict(judge, scores(codes, codes, 1), scores(codes, codes, 1))
    assert alone["generated"] is None and "in one block of ground: nothing tests that" in alone["reason"]
    unknown = np.full_like(codes, 7)
    nothing = verdict(judge, scores(unknown, codes), scores(unknown, codes))
    assert nothing["generated"] is nothing["chance"] is None and "no pixel" in nothing["reason"]
    one = scores(codes, codes)
    one.add(codes[None], unknown[None], np.ones(codes.shape, bool), "of no class")
    assert verdict(judge, one, one)["generated"]["miou"] == 1


@pytest.mark.parametrize(("generated", "said"), [(0.46, 1), (0.45, 0), (None, 0)])
def test_a_judge_that_reads_generated_imagery_better_is_told(generated: float | None, said: int) -> None:
    judged = {"real": {"miou": 0.45}, "generated": None if generated is None else {"miou": generated}}
    notes = notes_on({"judge": judged})
    assert len(notes) == said and all("its figures have no ceiling here" in note for note in notes)


def test_evaluate_with_a_judge_keeps_it_beside_the_report(chips: ChipSet, folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(chips.folder, run, TrainConfig(recipe="pix2pix", steps=2, batch_size=4, width=2, downs=2, set=("patch=16",)))
    config = EvaluateConfig(judge="pspnet", judge_steps=2, sample=5)
    result = evaluate(run, chips.folder, tmp_path / "report.html", config)
    assert len(list((tmp_path / "judges").glob("pspnet-*.safetensors"))) == 1
    assert result["chips"] == 5 and result["judge"]["architecture"] == "pspnet"
    page = (tmp_path / "report.html").read_text()
    assert "The judge" in page and "pspnet, 2 steps" in page


def test_what_cannot_be_judged_is_said(pair: tuple[Path, Path], tmp_path: Path) -> None:
    tile(pair[1], pair[0], tmp_path / "maps", TileConfig(size=32))
    assert not judge_fits(ChipSet.open(tmp_path / "maps"))
    plain = write_raster(tmp_path / "plain.tif", np.ones((1, 300, 420), np.uint8), grid(300, 420))
    tile(plain, pair[1], tmp_path / "plain", TileConfig(size=32, source_kind="classes"))
    with pytest.raises(ConfigError, match="the source, which has one class; leave --judge out"):
        judge_fits(ChipSet.open(tmp_path / "plain"))


def test_the_frechet_distance_of_five_bands_sees_the_last_like_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, number in (("GROUPS", 2), ("HALVINGS", 1)):
        monkeypatch.setattr(f"geop2p.evaluation.features.{name}", number)
    codes, where = class_map(300, 420), grid(300, 420)
    image = np.random.default_rng(0).normal(2000, 80, (5, 300, 420)) + codes * np.arange(-2, 3)[:, None, None] * 90
    source = write_raster(tmp_path / "map.tif", codes, where, nodata=0)
    target = write_raster(tmp_path / "image.tif", image.astype(np.uint16), where)
    tile(source, target, tmp_path / "chips", TileConfig(size=32, split="2:1:1", format="packed"))
    chips = ChipSet.open(tmp_path / "chips")
    judge, ground = find_judge(chips, "pspnet", 1, tmp_path / "judges", "cpu"), ground_of(chips)
    distances = FeatureDistance(judge, ground.blocks)
    for values, valid, block in zip(ground.arrays.target, ground.arrays.valid, ground.blocks, strict=True):
        first, last = values.copy(), values.copy()
        first[0], last[4] = values[0].max(), values[4].max()
        for name, made in {None: values, "copy": values, "first": first, "last": last}.items():
            distances.add(name, made, valid, block)
    found = {name: distances.distance(name) for name in ("copy", "first", "last")}
    assert found["copy"]["generated"] == found["copy"]["real"] > 0
    for name in ("first", "last"):
        assert found[name]["real"] == found["copy"]["real"] < found[name]["generated"] / 2


def test_the_frechet_distance_is_that_of_its_formula() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(50, 6)), generator.normal(1, 2, (60, 6))
    pair = [(one.mean(axis=0), np.cov(one.T, bias=True)) for one in (first, second)]
    (mean_1, spread_1), (mean_2, spread_2) = pair
    root = linalg.sqrtm(spread_1 @ spread_2).real
    assert frechet(*pair) == pytest.approx(
        np.square(mean_1 - mean_2).sum() + np.trace(spread_1 + spread_2 - 2 * root), rel=1e-6
    )
    assert frechet(pair[0], pair[0]) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("groups", [3, 6])
def test_the_interval_of_the_distance_is_as_wide_as_groups_differ(
    chips: ChipSet, folder: Path, monkeypatch: pytest.MonkeyPatch, groups: int
) -> None:
    judge = find_judge(chips, "pspnet", STEPS, folder / "judges", "cpu")
    monkeypatch.setattr(FeatureDistance, "_features", lambda self, values, valid: values)
    widths = []
    for spread in (0.0, 0.1, 0.2):
        distances, draw = FeatureDistance(judge, [str(number) for number in range(groups)]), np.random.default_rng(0)
        features, tones = draw.normal(size=(200, 3)), draw.normal(size=groups)
        for number, tone in enumerate(tones):
            distances.add(None, features, np.ones(1, bool), str(number))
            distances.add("made", features + 1 + spread * tone, np.ones(1, bool), str(number))
        found = distances.distance("made")
        assert found["generated"] == pytest.approx(3, rel=0.5)
        if groups < 4:
            assert found["interval"] is None
        else:
            low, high = found["interval"]
            assert low <= found["generated"] <= high
            widths.append(high - low)
    assert not widths or (widths[0] < 1e-6 and 0.3 < widths[1] < 0.7 * widths[2])


def test_error_by_class_and_by_distance_to_another_class() -> None:
    codes = np.ones((40, 64), np.uint8)
    codes[:, 32:] = 2
    valid = np.ones(codes.shape, bool)
    codes[:, 60:], valid[:, 60:] = 0, False  # no boundary of classes
    bins = boundary_bins(codes, valid)
    distance = np.concatenate([np.arange(32)[::-1], np.arange(32)])
    wanted = np.searchsorted(EDGES, distance, side="right") - 1
    assert (bins[:, :60] == wanted[:60]).all()
    where = ErrorBreakdown(MAP)
    where.add(np.tile(distance, (40, 1)).astype(float), codes, valid, bins)
    result = where.result()
    assert result["by_class"] == pytest.approx({"water": 15.5, "meadow": 13.5})
    assert [entry["from"] for entry in result["by_boundary_distance"]] == list(EDGES)
    assert result["by_boundary_distance"][3]["error"] == pytest.approx(5.5)
    assert sum(entry["share"] for entry in result["by_boundary_distance"]) == pytest.approx(1)


def test_error_by_distance_from_the_training(chips: ChipSet) -> None:
    thirds = by_training_distance(np.array([1.0, 2, 3, 9, np.nan]), np.array([0.0, 10, 20, np.inf, 5]))
    assert [third["error"] for third in thirds] == [1, 2, 3] and thirds[2]["from"] == 20
    near = by_training_distance(np.array([1.0, 2, 3, 6]), np.array([0.0, 0, 0, 64]))
    assert [(part["to"], part["error"], part["chips"]) for part in near] == [(0, 2, 3), (64, 6, 1)]
    assert by_training_distance(np.array([1.0]), np.array([np.inf])) == []
    index, ground = chips.index(), ground_of(chips)
    training = index[index["split"] == "train"]
    places = index.set_index("id").loc[ground.arrays.ids]
    for (_, place), found in zip(places.iterrows(), ground.distances, strict=True):
        rows, cols = (np.abs(training[name] - place[name]) - 32 for name in ("row_off", "col_off"))
        assert found == np.maximum(np.maximum(rows, cols).min(), 0)


def test_where_no_training_is_near_the_page_says_so(chips: ChipSet) -> None:
    ground = ground_of(chips)
    ground = dataclasses.replace(ground, distances=np.full(len(ground.arrays), np.inf))
    scorer = Scorer(ground, None, PretrainedScores(chips.target, EvaluateConfig()))
    truth = scorer.score("truth", lambda rows: [ground.arrays.target[row] for row in rows], 4)
    figures = scorer.figures("truth", truth)
    assert figures["where"]["by_training_distance"] == []
    assert figures["reasons"]["distance_from_the_training"] == "no training chip lies in the scenes of these"


def test_more_chips_than_there_are(chips: ChipSet, caplog: pytest.LogCaptureFixture) -> None:
    ground = load_scored_chips(chips, (chips.source, image_encoding()), "test", 10_000)
    assert len(ground.rows) == len(ground.arrays) and "10000 were asked for; all are scored" in caplog.text
    few = load_scored_chips(chips, (chips.source, image_encoding()), "test", 3)
    assert few.rows[[0, -1]].tolist() == [0, len(few.arrays) - 1] and len(few.rows) == 3


@pytest.mark.parametrize("architecture", get_args(JudgeName))
def test_every_judge_gives_a_score_for_every_class_and_pixel(architecture: str) -> None:
    with torch.device("meta"):
        network = GENERATORS["smp"](4, 7, architecture=architecture, encoder=judge_training.ENCODER, head="logits")
        assert network(torch.zeros(2, 4, 64, 96)).shape == (2, 7, 64, 96)
    assert isinstance(network.get_submodule("network.encoder"), torch.nn.Module)


def test_a_damaged_judge_is_to_be_deleted(chips: ChipSet, folder: Path, tmp_path: Path) -> None:
    find_judge(chips, "pspnet", STEPS, folder / "judges", "cpu")
    for file in (folder / "judges").glob("pspnet-*.safetensors"):
        (tmp_path / file.name).write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"pspnet-.*: a damaged judge .*; delete it, and it is made again"):
        find_judge(chips, "pspnet", STEPS, tmp_path, "cpu")


def test_what_is_no_judge_of_these_chips_judges_nothing(
    chips: ChipSet, pair: tuple[Path, Path], folder: Path, tmp_path: Path
) -> None:
    find_judge(chips, "pspnet", STEPS, folder / "judges", "cpu")
    tile(*pair[::-1], tmp_path / "chips", TileConfig(size=32, format="packed"))
    other = ChipSet.open(tmp_path / "chips")
    find_judge(other, "pspnet", 1, tmp_path, "cpu")
    (file,) = tmp_path.glob("pspnet-*.safetensors")
    shutil.copy(next((folder / "judges").glob("pspnet-*.safetensors")), file)
    with pytest.raises(CheckpointError, match=r"pspnet-.*: no judge of .*chips; delete it, and one is made"):
        find_judge(other, "pspnet", 1, tmp_path, "cpu")


def test_what_lies_under_the_mask_changes_no_figure(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the scores nor what a judge learns, reads and sees, nor errors by place."""
    for name, number in (("GROUPS", 2), ("HALVINGS", 1)):
        monkeypatch.setattr(f"geop2p.evaluation.features.{name}", number)
    holes = np.random.default_rng(0).random((38, 53)).repeat(8, 0).repeat(8, 1)[:300, :420] < 0.04
    with rasterio.open(pair[1], "r+") as dataset:
        dataset.write_mask(~holes)
    config = TileConfig(size=64, stride=32, min_valid=0.5, split="1:0:4", format="packed")
    tile(*pair, tmp_path / "chips", config)
    tiny = TrainConfig(recipe="pix2pix", steps=2, batch_size=4, width=2, downs=2, set=("patch=16",))
    train(tmp_path / "chips", tmp_path / "run", tiny)

    def figures() -> dict[str, Any]:
        config = EvaluateConfig(judge="pspnet", judge_steps=10, judge_folder=tmp_path / "judges", sample=16)
        found = evaluate(tmp_path / "run", tmp_path / "chips", tmp_path / "report.html", config, overwrite=True)
        return {name: value for name, value in found.items() if name != "seconds"}

    before = figures()
    assert before["judge"]["generated"] is not None and before["frechet"]["generated"] is not None
    chips = ChipSet.open(tmp_path / "chips")
    for split in ("train", "test"):
        valid = ChipArrays.load(chips, split).valid
        under = ~np.stack([valid[row] for row in range(len(valid))])
        assert 0.05 < under.mean() < 0.2
        for side in ("source", "target"):
            values = np.load(tmp_path / "chips" / f"{split}_{side}.npy", mmap_mode="r+")
            junk = np.random.default_rng(1).choice([1, 2, 5], values.shape) * (1 if side == "source" else 50)
            values[:] = np.where(under[:, None], junk, values)
            values.flush()
    shutil.rmtree(tmp_path / "judges")  # what learns again is the same judge
    assert figures() == before
