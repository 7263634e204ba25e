"""Scores against the references of the field, and blind to what is masked."""

import numpy as np
import pytest
import torch
from conftest import CLASSES, image_encoding
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional import pearson_corrcoef
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score, multiclass_jaccard_index
from torchmetrics.functional.image import (
    error_relative_global_dimensionless_synthesis,
    multiscale_structural_similarity_index_measure,
    spectral_angle_mapper,
    structural_similarity_index_measure,
)

from geop2p.config import Kind
from geop2p.evaluation.baseline import LinearBaseline
from geop2p.evaluation.position import PositionError
from geop2p.metrics import BlockScores, ClassScores, ImageScores, error_unit
from geop2p.metrics.similarity import over_scales, scale_maps
from geop2p.raster.encoding import Band, Encoding, MapClass
from geop2p.training.data import ChipArrays

MAP = Encoding("classes", "uint8", (Band(),), classes=CLASSES)


@pytest.fixture
def images() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    real = generator.integers(0, 256, (3, 60, 47)).astype(np.uint8)
    predicted = np.clip(real + generator.normal(0, 30, real.shape), 0, 255).astype(np.uint8)
    return predicted, real


@pytest.fixture
def large() -> tuple[np.ndarray, np.ndarray]:
    """A pair that has windows at the coarsest scale of MS-SSIM, sides not divisible by 16."""
    generator = np.random.default_rng(1)
    coarse = generator.integers(0, 256, (3, 33, 31)).repeat(6, 1).repeat(6, 2)[:, :195, :181]
    real = np.clip(coarse + generator.normal(0, 9, coarse.shape), 0, 255).astype(np.uint8)
    predicted = np.clip(coarse * 0.8 + generator.normal(20, 25, coarse.shape), 0, 255).astype(np.uint8)
    return predicted, real


def test_image_scores_are_those_of_scikit_image(images: tuple[np.ndarray, np.ndarray]) -> None:
    predicted, real = images
    scores = ImageScores(image_encoding())
    scores.add(predicted, real, np.ones(real.shape[1:], bool))
    result = scores.result()
    difference = predicted.astype(float) - real
    assert result["l1"] == pytest.approx(np.abs(difference).mean())
    assert result["rmse"] == pytest.approx(np.sqrt(np.square(difference).mean()))
    assert result["psnr"] == pytest.approx(peak_signal_noise_ratio(real, predicted, data_range=255))
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    for band, name in enumerate(result["bands"]):
        _, full = structural_similarity(predicted[band], real[band], full=True, win_size=11, **options)
        assert result["bands"][name]["ssim"] == pytest.approx(full[5:-5, 5:-5].mean(), rel=1e-9)


def test_similarity_does_not_depend_on_how_values_are_stored(large: tuple[np.ndarray, np.ndarray]) -> None:
    """With a scale and an offset, or as the floats that they mean."""
    scales, offsets = np.array([[[0.1]], [[-0.02]], [[3.0]]]), np.array([[[-5.0]], [[70.0]], [[0.0]]])
    valid = np.ones(large[0].shape[1:], bool)
    valid[3:9, 5:50] = False
    bands = [Band("", "", scale, offset, 0, 255) for scale, offset in zip(scales.ravel(), offsets.ravel(), strict=True)]
    ends = [sorted((band.offset, 255 * band.scale + band.offset)) for band in bands]
    floats = [Band(low=low, high=high) for low, high in ends]
    stored = ImageScores(Encoding("image", "uint8", tuple(bands)), full=True)
    stored.add(*large, valid)
    physical = ImageScores(Encoding("image", "float64", tuple(floats)), full=True)
    physical.add(*(side * scales + offsets for side in large), valid)
    for name in ("l1", "rmse", "psnr", "ssim", "ms_ssim"):
        assert stored.result()[name] == pytest.approx(physical.result()[name], rel=1e-9)


def test_bands_that_are_called_alike_have_scores_of_their_own(images: tuple[np.ndarray, np.ndarray]) -> None:
    predicted, real = images
    scores = ImageScores(Encoding("image", "uint8", (Band("bands"),) * 3))
    scores.add(predicted, real, np.ones(real.shape[1:], bool))
    differences = np.abs(predicted.astype(float) - real).mean(axis=(1, 2))
    found = {name: entry["l1"] for name, entry in scores.result()["bands"].items()}
    assert found == {f"bands {band}": pytest.approx(l1) for band, l1 in enumerate(differences, start=1)}


def multiscale_inside(made: torch.Tensor, truth: torch.Tensor, span: float) -> float:
    """MS-SSIM of the parts that torchmetrics has, border left out."""
    product, weights = 1.0, (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    for scale, weight in enumerate(weights):
        if scale:
            made, truth = (torch.nn.functional.avg_pool2d(side, 2) for side in (made, truth))
        _, contrast = structural_similarity_index_measure(
            made, truth, data_range=span, return_contrast_sensitivity=True
        )
        _, full = structural_similarity_index_measure(made, truth, data_range=span, return_full_image=True)
        part = full[..., 5:-5, 5:-5].mean() if scale == 4 else contrast
        product *= part.item() ** weight
    return product


def test_full_image_scores_are_those_of_torchmetrics(large: tuple[np.ndarray, np.ndarray]) -> None:
    predicted, real = large
    scores = ImageScores(Encoding("image", "uint8", (Band(scale=0.5, offset=3),) * 3), full=True)
    scores.add(predicted, real, np.ones(real.shape[1:], bool))
    result = scores.result()
    made, truth = (torch.from_numpy(side.astype(np.float64) * 0.5 + 3)[None] for side in (predicted, real))
    angle = np.degrees(spectral_angle_mapper(made, truth).item())
    assert result["sam"] == pytest.approx(angle, rel=1e-6)
    assert result["ergas"] == pytest.approx(error_relative_global_dimensionless_synthesis(made, truth, ratio=1).item())
    for band, figures in enumerate(result["bands"].values()):
        pair = made[:, band : band + 1], truth[:, band : band + 1]
        assert figures["ms_ssim"] == pytest.approx(multiscale_inside(*pair, 127.5), rel=1e-6)
        whole = multiscale_structural_similarity_index_measure(*pair, data_range=127.5)
        assert figures["ms_ssim"] == pytest.approx(whole.item(), rel=1e-3)  # it reflects the border, once
        assert figures["correlation"] == pytest.approx(pearson_corrcoef(*(side.flatten() for side in pair)).item())
    assert result["correlation"] == pytest.approx(np.mean([b["correlation"] for b in result["bands"].values()]))
    assert result["reasons"] == {}


def test_class_scores_are_those_of_torchmetrics() -> None:
    generator = np.random.default_rng(0)
    real = generator.integers(0, 3, (1, 40, 50))
    predicted = np.where(generator.random(real.shape) < 0.6, real, generator.integers(0, 3, real.shape))
    scores, codes = ClassScores(MAP, full=True), np.array([1, 2, 5])
    scores.add(codes[predicted], codes[real], np.ones((40, 50), bool))
    result, pair = scores.result(), (torch.from_numpy(predicted), torch.from_numpy(real))
    assert result["miou"] == pytest.approx(multiclass_jaccard_index(*pair, 3).item())
    assert result["f1"] == pytest.approx(multiclass_f1_score(*pair, 3, average="macro").item())
    assert result["accuracy"] == pytest.approx(multiclass_accuracy(*pair, 3, average="micro").item())
    assert result["class_accuracy"] == pytest.approx(multiclass_accuracy(*pair, 3, average="macro").item())
    assert np.sum(result["confusion"]) == 2000 and result["confusion_classes"] == ["water", "meadow", "road"]
    assert sum(entry["share"] for entry in result["classes"].values()) == pytest.approx(1)


def test_a_class_that_only_the_prediction_has_costs_the_others() -> None:
    real, wrong = np.array([[[1, 1, 2, 2]]]), np.array([[[1, 5, 2, 5]]])
    scores = ClassScores(MAP)
    scores.add(wrong, real, np.ones((1, 4), bool))
    result = scores.result()
    assert result["miou"] == pytest.approx(1 / 2) and result["f1"] == pytest.approx(2 / 3)
    assert result["classes"]["road"] == {"iou": 0, "f1": 0, "accuracy": None, "share": 0}


def test_predicting_no_class_is_wrong() -> None:
    scores = ClassScores(MAP, full=True)
    scores.add(np.array([[[1, 0, 9]]]), np.array([[[1, 1, 2]]]), np.ones((1, 3), bool))
    result = scores.result()
    assert result["accuracy"] == pytest.approx(1 / 3) and result["miou"] == pytest.approx(1 / 4)
    assert result["confusion_classes"][-1] == "no class" and result["confusion"][0] == [1, 0, 0, 1]


def test_scores_that_make_no_sense_are_none_with_a_reason(images: tuple[np.ndarray, np.ndarray]) -> None:
    predicted, real = images
    valid = np.ones(real.shape[1:], bool)
    radar = ImageScores(image_encoding("int16", bands=3, low=-2500, high=0, kind="sar"), full=True)
    radar.add(predicted.astype(np.int16), real.astype(np.int16), valid)
    found = radar.result()
    assert (found["sam"], found["ergas"], found["ms_ssim"]) == (None, None, None)
    assert set(found["reasons"]) == {"sam", "ergas", "ms_ssim"} and "176 pixels" in found["reasons"]["ms_ssim"]
    flat = ImageScores(image_encoding(bands=1), full=True)
    flat.add(np.full((1, 60, 47), 7, np.uint8), real[:1], valid)
    assert flat.result()["correlation"] is None and flat.result()["reasons"]["correlation"] == "a band is constant"


def test_a_black_pixel_is_a_right_angle_away() -> None:
    scores = ImageScores(image_encoding(), full=True)
    real = np.array([[[0, 9, 9]]] * 3, np.uint8)
    predicted = np.array([[[0, 0, 3]]] * 3, np.uint8)
    scores.add(predicted, real, np.ones((1, 3), bool))
    assert scores.result()["sam"] == pytest.approx(30, abs=1e-5)  # 0, 90 and 0 degrees


@pytest.mark.parametrize("names", [("a", "a", "b"), ("a", "a", "a (1)"), ("a (2)", "a", "a")])
def test_no_two_classes_share_a_title(names: tuple[str, ...]) -> None:
    classes = tuple(MapClass(code, name, (code, 0, 0)) for code, name in enumerate(names, start=1))
    scores = ClassScores(Encoding("classes", "uint8", (Band(),), classes=classes))
    codes = np.array([[[1, 2, 3]]])
    scores.add(codes, codes, np.ones((1, 3), bool))
    assert len(scores.result()["classes"]) == 3


def test_intervals_cover_the_mean_of_blocks_and_narrow_with_their_number() -> None:
    generator = np.random.default_rng(0)
    widths = []
    for blocks in (4, 40):
        scores = BlockScores(lambda: ImageScores(image_encoding(bands=1)))
        for block in range(blocks):
            real = generator.integers(0, 256, (1, 12, 12)).astype(np.uint8)
            scores.add(np.clip(real + generator.exponential(20), 0, 255), real, np.ones((12, 12), bool), str(block))
        low, high = scores.intervals(["l1"])["l1"]
        assert low < scores.result()["l1"] < high
        widths.append(high - low)
    assert widths[1] < widths[0]
    one = BlockScores(lambda: ClassScores(MAP))
    one.add(np.ones((1, 2, 2)), np.ones((1, 2, 2)), np.ones((2, 2), bool), "a")
    assert one.intervals(["miou"]) == {"miou": None} and one.result()["miou"] == 1
    assert BlockScores(lambda: ClassScores(MAP)).result()["miou"] is None


@pytest.mark.parametrize("full", [False, True])
def test_what_is_masked_changes_no_score(full: bool, large: tuple[np.ndarray, np.ndarray]) -> None:
    predicted, real = large
    valid = np.ones(real.shape[1:], bool)
    valid[0, 5], valid[40:50, 60:] = False, False
    results = []
    for junk in (0, 255):
        scores = ImageScores(image_encoding(), full)
        scores.add(np.where(valid, predicted, junk), np.where(valid, real, 255 - junk), valid)
        results.append(scores.result())
    assert results[0] == results[1] and results[0]["pixels"] == valid.sum()


def test_signed_values_have_no_error_relative_to_their_mean() -> None:
    """A few values below 0, as of corrected reflectance, are no signed imagery."""
    draw, there = np.random.default_rng(0), np.ones((40, 50), bool)
    for mean, is_imagery in ((0.3, False), (3.0, True)):
        truth = draw.normal(mean, 1, (2, 40, 50)).astype(np.float32)
        scores = ImageScores(image_encoding("float32", 2, -10, 10), full=True)
        scores.add(truth + np.float32(0.1), truth, there)
        found = scores.result()
        assert (truth < 0).any() and (found["ergas"] is not None) == is_imagery
        assert ("above 0" in found["reasons"].get("ergas", "")) != is_imagery


def test_ms_ssim_beside_a_hole_is_that_of_the_part_without(large: tuple[np.ndarray, np.ndarray]) -> None:
    predicted, real = large
    valid = np.ones(real.shape[1:], bool)
    valid[:, 176:] = False
    span = np.full(3, 255.0)
    masked, count = over_scales(scale_maps(predicted, real, valid, span))
    inside, _ = over_scales(scale_maps(predicted[:, :, :176], real[:, :, :176], valid[:, :176], span))
    assert masked == pytest.approx(inside, rel=1e-12) and count == 2
    assert over_scales(scale_maps(predicted, real, valid & (np.arange(181) > 5), span))[1] == 0


@pytest.mark.parametrize("full", [False, True])
def test_what_is_masked_changes_no_score_of_classes(full: bool) -> None:
    generator = np.random.default_rng(0)
    real, predicted = generator.choice([1, 2, 5], (2, 1, 40, 50)).astype(np.uint8)
    valid = generator.random((40, 50)) > 0.3
    results = []
    for junk, other in ((1, 5), (5, 1), (2, 2), (0, 255)):
        scores = ClassScores(MAP, full)
        scores.add(np.where(valid, predicted, junk), np.where(valid, real, other), valid)
        results.append(scores.result())
    assert results[0]["pixels"] == valid.sum() and all(result == results[0] for result in results)
    assert results[0]["accuracy"] == pytest.approx((predicted == real)[0, valid].mean())


def test_scores_of_many_chips_are_those_of_all_their_pixels_at_once() -> None:
    """Values far from zero, so that sums in float32 would show."""
    span, generator = 20_000.0, np.random.default_rng(0)
    encoding = image_encoding("float64", low=1e7 - span / 2, high=1e7 + span / 2)
    sizes = [(20, 16)] * 100 + [(180, 176), (192, 208)]
    pairs, valid, scores = (
        [],
        [np.ones(shape, bool) for shape in sizes],
        BlockScores(lambda: ImageScores(encoding, True)),
    )
    for number, there in enumerate(valid):
        real = 1e7 + generator.normal(0, 20, (3, *there.shape))
        predicted = real + generator.normal(3, 10, real.shape) - np.array([0, 9000, 0])[:, None, None]
        pairs.append((predicted, real))
        scores.add(predicted, real, there, str(number % 7))
    result, sides = scores.result(), zip(*pairs, strict=True)
    made, truth = (np.concatenate([one.reshape(3, -1) for one in side], axis=1) for side in sides)
    mse, across = np.square(made - truth).mean(axis=1), np.linalg.norm(np.cross(made, truth, axis=0), axis=0)
    width = np.full(3, span)
    finest = (next(scale_maps(*pair, there, width)) for pair, there in zip(pairs, valid, strict=True))
    windows = [maps.similarity.reshape(3, -1) for maps in finest]
    coarse, counts = zip(*(over_scales(scale_maps(*pairs[chip], valid[chip], width)) for chip in (-2, -1)), strict=True)
    wanted = {
        "l1": np.abs(made - truth).mean(),
        "rmse": np.sqrt(mse.mean()),
        "psnr": 20 * np.log10(span / np.sqrt(mse.mean())),
        "ssim": np.concatenate(windows, axis=1).mean(),
        "ms_ssim": np.average(coarse, axis=0, weights=counts).mean(),
        "correlation": np.mean([np.corrcoef(*band)[0, 1] for band in zip(made, truth, strict=True)]),
        "sam": np.degrees(np.arctan2(across, (made * truth).sum(axis=0))).mean(),
        "ergas": 100 * np.sqrt((mse / truth.mean(axis=1) ** 2).mean()),
        "pixels": made.shape[1],
    }
    assert counts == (1, 6) and {name: result[name] for name in wanted} == pytest.approx(wanted, rel=5e-10)


def test_a_pixel_counts_beside_very_many() -> None:
    scores = ClassScores(MAP, full=True)
    scores.sums["confusion"][0, 0] = 2**24  # where float32 begins to leave out odd numbers
    for _ in range(3):
        scores.add(np.array([[[1]]]), np.array([[[1]]]), np.ones((1, 1), bool))
    assert scores.result()["confusion"][0][0] == 2**24 + 3


def test_scores_are_in_physical_units() -> None:
    encoding = Encoding("image", "uint16", (Band(scale=1e-4, low=0, high=10_000),))
    scores = ImageScores(encoding)
    scores.add(np.full((1, 16, 16), 3000, np.uint16), np.full((1, 16, 16), 2500, np.uint16), np.ones((16, 16), bool))
    assert scores.result()["l1"] == pytest.approx(0.05) and scores.result()["psnr"] == pytest.approx(26.02, abs=0.01)


def test_no_valid_pixel_gives_no_score() -> None:
    scores = ImageScores(image_encoding())
    scores.add(np.zeros((3, 4, 4)), np.zeros((3, 4, 4)), np.zeros((4, 4), bool))
    assert scores.result()["l1"] is None
    nothing = np.zeros((1, 4, 4))
    assert next(scale_maps(nothing, nothing, np.ones((4, 4), bool), np.array([255.0]))).whole.numel() == 0


def test_class_scores_by_hand() -> None:
    real = np.array([[[1, 1, 1, 2, 2, 5, 7]]])  # 7 is no class and is skipped
    predicted = np.array([[[1, 1, 2, 2, 2, 1, 1]]])
    scores = ClassScores(MAP)
    scores.add(predicted, real, np.ones((1, 7), bool))
    result = scores.result()
    assert scores.sums["confusion"].tolist() == [[2, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0]]
    assert result["accuracy"] == pytest.approx(4 / 6)
    assert result["class_accuracy"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert result["miou"] == pytest.approx((2 / 4 + 2 / 3 + 0) / 3)
    assert ClassScores(MAP).result()["miou"] is None


def test_the_psnr_of_an_error_as_large_as_the_range_has_no_sign() -> None:
    scores = ImageScores(image_encoding())
    scores.add(np.full((3, 16, 16), 255, np.uint8), np.zeros((3, 16, 16), np.uint8), np.ones((16, 16), bool))
    result = scores.result()
    assert str(result["psnr"]) == str(result["bands"]["band 1"]["psnr"]) == "0.0"


def test_the_baseline_is_the_mean_colour_of_each_class() -> None:
    generator = np.random.default_rng(0)
    codes = generator.choice([1, 2, 5], (4, 1, 16, 16)).astype(np.uint8)
    target = generator.integers(0, 256, (4, 3, 16, 16)).astype(np.uint8)
    valid = generator.random((4, 16, 16)) > 0.2
    baseline = LinearBaseline(
        ChipArrays(list("abcd"), codes, target, valid, np.ones(4, np.float32)), MAP, image_encoding()
    )
    predicted = baseline.predict(codes[0], valid[0])
    for value in (1, 2, 5):
        mean = target.transpose(1, 0, 2, 3)[:, (codes[:, 0] == value) & valid].mean(axis=1)
        assert np.abs(predicted[:, (codes[0, 0] == value) & valid[0]].T - mean).max() <= 0.51


def test_corners_over_centre() -> None:
    position = PositionError(32)
    error = np.ones((32, 32))
    error[:4, :4] = error[:4, -4:] = error[-4:, :4] = error[-4:, -4:] = 3
    for block in "abc":
        position.add(error, np.ones((32, 32), bool), block)
    ratio = position.corner_ratio()
    assert (ratio.value, ratio.low, ratio.high) == (3, 3, 3)
    assert position.map()[0, 0] == 3
    assert PositionError(32).corner_ratio().value is None


def test_the_interval_covers_one_where_position_does_not_matter() -> None:
    generator, covered = np.random.default_rng(0), 0
    for _ in range(40):
        position = PositionError(32)
        for block in range(20):
            position.add(generator.exponential(size=(32, 32)), np.ones((32, 32), bool), str(block))
        ratio = position.corner_ratio()
        assert ratio.low is not None and ratio.high is not None
        covered += ratio.low <= 1 <= ratio.high
    assert covered >= 34  # of 38 expected


@pytest.mark.parametrize(
    ("kind", "bands", "unit"),
    [
        ("sar", (Band(),), "dB"),
        ("elevation", (Band(),), "m"),
        ("elevation", (Band(unit="ft"),), "ft"),
        ("image", (Band(), Band()), "DN"),
        ("image", (Band(scale=1e-4), Band()), "scaled values"),
        ("image", (Band(unit="K"), Band(unit="K")), "K"),
        ("image", (Band(unit="K"), Band(unit="m")), "units of the bands"),
        ("classes", (Band(),), None),
    ],
)
def test_errors_have_a_unit(kind: Kind, bands: tuple[Band, ...], unit: str | None) -> None:
    assert error_unit(Encoding(kind, "uint8", bands)) == unit


def test_classes_of_one_name_have_scores_of_their_own() -> None:
    classes = tuple(MapClass(code, name, (0, 0, 0)) for code, name in ((1, "field"), (2, "wood"), (4, "field")))
    scores = ClassScores(Encoding("classes", "uint8", (Band(),), classes=classes))
    scores.add(np.array([[[1, 2, 2, 2]]]), np.array([[[1, 2, 4, 4]]]), np.ones((1, 4), bool))
    found = scores.result()["classes"]
    assert {name: entry["share"] for name, entry in found.items()} == {
        "field (1)": 0.25,
        "wood": 0.25,
        "field (4)": 0.5,
    }
