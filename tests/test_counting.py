"""Classes counted for all windows of a region at once are those of every window alone."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geop2p.tiling.counting import class_counts, true_pixels


@given(
    size=st.sampled_from([1, 7, 255, 256, 300, 511]),
    tops=st.lists(st.integers(0, 900), min_size=1, max_size=3),
    lefts=st.lists(st.integers(0, 40), min_size=1, max_size=3),
    classes=st.sampled_from([1, 3, 16, 17, 60]),
    dtype=st.sampled_from(["uint8", "uint16", "int16", "int32"]),
    known=st.integers(0, 70),
    masked=st.booleans(),
    seed=st.integers(0, 9),
)
def test_counts_are_those_of_every_window(
    size: int, tops: list[int], lefts: list[int], classes: int, dtype: str, known: int, masked: bool, seed: int
) -> None:
    draws = np.random.default_rng(seed)
    shape = (max(tops) + size, max(lefts) + size)
    codes = (draws.integers(0, classes, shape) * 3 - (50 if dtype.startswith("int") else 0)).astype(dtype)
    valid = np.asfortranarray(draws.random(shape) < 0.7) if masked else None
    likely = draws.choice(np.unique(codes), min(known, len(np.unique(codes))), replace=False).tolist()
    pixels = np.full((len(tops), len(lefts)), size * size) if valid is None else true_pixels(valid, tops, lefts, size)
    counts = class_counts(codes, valid, tops, lefts, size, likely, pixels)
    for row, top in enumerate(tops):
        for col, left in enumerate(lefts):
            window = np.s_[top : top + size, left : left + size]
            here = codes[window] if valid is None else codes[window][valid[window]]
            assert {value: count[row, col] for value, count in counts.items() if count[row, col]} == Counter(
                here.ravel().tolist()
            )
            assert pixels[row, col] == here.size


@pytest.mark.parametrize("likely", [[], [9], [1, 2, 9], list(range(40))])
def test_values_that_were_not_expected_are_found(likely: list[int]) -> None:
    codes = np.array([[1, 2], [2, 200]], np.uint8)
    counts = class_counts(codes, None, [0], [0], 2, likely, np.array([[4]]))
    assert {value: int(count[0, 0]) for value, count in counts.items() if count[0, 0]} == {1: 1, 2: 2, 200: 1}
