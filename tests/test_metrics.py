"""Scores against the references of the field, and blind to what is masked."""

import numpy as np
import pytest
from conftest import CLASSES, image_encoding
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from geop2p.evaluation.baseline import LinearBaseline
from geop2p.evaluation.position import PositionError
from geop2p.metrics import ClassScores, ImageScores, ssim_map
from geop2p.raster.encoding import Band, Encoding
from geop2p.training.data import ChipArrays

MAP = Encoding("classes", "uint8", (Band(),), classes=CLASSES)


@pytest.fixture
def images() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    real = generator.integers(0, 256, (3, 60, 47)).astype(np.uint8)
    predicted = np.clip(real + generator.normal(0, 30, real.shape), 0, 255).astype(np.uint8)
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


def test_what_is_masked_changes_no_score(images: tuple[np.ndarray, np.ndarray]) -> None:
    predicted, real = images
    valid = np.ones(real.shape[1:], bool)
    valid[10:20, 30:] = False
    results = []
    for junk in (0, 255):
        scores = ImageScores(image_encoding())
        scores.add(np.where(valid, predicted, junk), np.where(valid, real, 255 - junk), valid)
        results.append(scores.result())
    assert results[0] == results[1] and results[0]["pixels"] == valid.sum()


def test_scores_stream(images: tuple[np.ndarray, np.ndarray]) -> None:
    predicted, real = images
    valid = np.ones((60, 47), bool)
    once, twice = ImageScores(image_encoding()), ImageScores(image_encoding())
    once.add(predicted, real, valid)
    for rows in (slice(0, 30), slice(30, 60)):
        twice.add(predicted[:, rows], real[:, rows], valid[rows])
    assert once.result()["rmse"] == pytest.approx(twice.result()["rmse"])


def test_scores_are_in_physical_units() -> None:
    encoding = Encoding("image", "uint16", (Band(scale=1e-4, low=0, high=10_000),))
    scores = ImageScores(encoding)
    scores.add(np.full((1, 16, 16), 3000, np.uint16), np.full((1, 16, 16), 2500, np.uint16), np.ones((16, 16), bool))
    assert scores.result()["l1"] == pytest.approx(0.05) and scores.result()["psnr"] == pytest.approx(26.02, abs=0.01)


def test_no_valid_pixel_gives_no_score() -> None:
    scores = ImageScores(image_encoding())
    scores.add(np.zeros((3, 4, 4)), np.zeros((3, 4, 4)), np.zeros((4, 4), bool))
    assert scores.result()["l1"] is None
    assert ssim_map(np.zeros((1, 4, 4)), np.zeros((1, 4, 4)), np.ones((4, 4), bool), np.array([255.0]))[1].size == 0


def test_class_scores_by_hand() -> None:
    real = np.array([[[1, 1, 1, 2, 2, 5, 7]]])  # 7 is no class and is skipped
    predicted = np.array([[[1, 1, 2, 2, 2, 1, 1]]])
    scores = ClassScores(MAP)
    scores.add(predicted, real, np.ones((1, 7), bool))
    result = scores.result()
    assert scores.confusion.tolist() == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert result["accuracy"] == pytest.approx(4 / 6)
    assert result["class_accuracy"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert result["miou"] == pytest.approx((2 / 4 + 2 / 3 + 0) / 3)
    assert ClassScores(MAP).result()["miou"] is None


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
