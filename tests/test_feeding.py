"""Batches of stored chips: encoded as the numpy reference says, drawn by place, the same wherever the chips lie."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CLASSES, image_encoding
from torch import Tensor
from torch.nn import functional

from geop2p import TileConfig, convert, tile
from geop2p.errors import ChipSetError, ConfigError
from geop2p.raster.encoding import Band, Encoding
from geop2p.tiling import packed
from geop2p.tiling.chips import ChipSet
from geop2p.training import caching, feeding
from geop2p.training.augmentation import Augmentation
from geop2p.training.batching import BatchMaker, HostMaker, Stored
from geop2p.training.caching import pack_if_large
from geop2p.training.data import ChipArrays, batches
from geop2p.training.encoder import BatchEncoder, as_tensor, blank
from geop2p.training.feeding import DeviceChips, Feed, HostChips, encode_batch

CPU = torch.device("cpu")
MAP = Encoding("classes", "uint8", (Band(),), classes=CLASSES)
JITTER = Augmentation(0, 286 / 256, flip=True)


def bands(*intervals: tuple[float, float], scale: float = 1.0, offset: float = 0.0) -> tuple[Band, ...]:
    return tuple(Band(low=low, high=high, scale=scale, offset=offset) for low, high in intervals)


ENCODINGS = {
    "uint8": image_encoding("uint8", 3),
    "int8": image_encoding("int8", 1, -128, 127),
    "uint16, percentiles": Encoding("image", "uint16", bands((120, 9000), (50, 65535))),
    "int16": Encoding("image", "int16", bands((-300, 12000))),
    "uint32": Encoding("image", "uint32", bands((0, 2**32 - 1))),
    "int32": Encoding("image", "int32", bands((-5e5, 2**31 - 1))),
    "uint64": Encoding("image", "uint64", bands((0, 2.0**64))),
    "float32, narrow": Encoding("image", "float32", bands((0.1, 0.1 + 1e-3))),
    "float64, no width": Encoding("image", "float64", bands((3, 3), (-1e300, 1e300))),
    "relief": Encoding("elevation", "float32", bands((-35.5, 41.25)), relief=500.0),
    "dB": Encoding("sar", "float32", bands((-25, 2), (-31, -4))),
    "dB as int16": Encoding("sar", "int16", bands((-2500, 200), scale=0.01)),
    "power": Encoding("sar", "float32", bands((-30, 5), scale=2.0, offset=1e-6), backscatter="power"),
    "amplitude": Encoding("sar", "uint16", bands((-20, 60), scale=0.5), backscatter="amplitude"),
    "classes": MAP,
    "classes, uint16": dataclasses.replace(MAP, dtype="uint16"),
    "classes, int32": dataclasses.replace(MAP, dtype="int32"),
}


def stored_values(encoding: Encoding, count: int = 3, size: int = 16) -> np.ndarray:
    """Values of every size that the type has, those of the interval above all."""
    draw = np.random.default_rng(0)
    shape, dtype = (count, len(encoding.bands), size, size), np.dtype(encoding.dtype)
    if encoding.is_classes:
        return draw.integers(0, 7, shape).astype(dtype)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = draw.integers(limits.min, limits.max, shape, dtype, endpoint=True)
        values[..., :4] = draw.integers(0, 120, (*shape[:-1], 4))
        return values
    low, high = encoding.bands[0].low, encoding.bands[0].high
    values = draw.uniform(low - 0.2 * (high - low), high + 0.2 * (high - low) + 1e-3, shape).astype(dtype)
    values[:, :, 0, 0] = np.nan
    return values


def holes(count: int = 3, size: int = 16) -> np.ndarray:
    valid = np.random.default_rng(1).random((count, size, size)) > 0.1
    valid[:, 0, 0] = False
    return valid


@pytest.mark.parametrize("name", ENCODINGS)
def test_batches_are_encoded_as_the_reference_says(name: str) -> None:
    encoding = ENCODINGS[name]
    values, valid = stored_values(encoding), holes()
    expected = np.stack([encoding.encode(one, mask) for one, mask in zip(values, valid, strict=True)])
    encoder, mask = BatchEncoder(encoding, CPU), torch.from_numpy(valid)[:, None]
    stored = as_tensor(values)
    before = stored.clone()
    made = encoder.one_hot(stored) if encoding.is_classes else encoder.scaled(stored)
    blank([made], mask)
    assert made.dtype == torch.float32
    assert np.allclose(made.numpy(), expected, rtol=0, atol=1.2e-7)
    assert torch.equal(stored.view(torch.uint8), before.view(torch.uint8))  # what is stored stays


def arrays(source: Encoding, target: Encoding, count: int = 7, size: int = 32) -> ChipArrays:
    valid = np.ones((count, size, size), bool)
    valid[::2, 5:9, 20:24] = False
    sides = [np.nan_to_num(stored_values(side, count, size)) for side in (source, target)]
    return ChipArrays([str(row) for row in range(count)], sides[0], sides[1], valid, np.ones(count, np.float32))


def test_a_chip_does_not_depend_on_its_batch() -> None:
    chips = arrays(MAP, ENCODINGS["uint16, percentiles"])
    for augmentation in (None, JITTER, Augmentation(3, 1.2, flip=True, d4=True), Augmentation(3, d4=True)):
        feed = Feed(chips, MAP, ENCODINGS["uint16, percentiles"], CPU, augmentation)
        rows = np.array([4, 0, 1, 4, 5])
        together = feed.batch(rows, np.arange(5), epoch=2)
        for place, row in enumerate(rows):
            alone = feed.batch(np.array([row]), np.array([place]), epoch=2)
            for one, many in zip(vars(alone).values(), vars(together).values(), strict=True):
                assert torch.equal(one[0], many[place])


def test_chips_are_the_same_on_the_device_in_memory_and_from_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeding, "PIECE", 2)
    monkeypatch.setattr(feeding, "TOGETHER", 3)
    chips = arrays(MAP, ENCODINGS["int16"])
    for rows in (np.array([2, 6, 2]), np.array([1, 3])):  # with and without holes
        one, two = HostChips(chips).fetch(rows), DeviceChips(chips, CPU).fetch(rows)
        assert (one.valid is None) == (two.valid is None) == (1 in rows)
        for left, right in zip(vars(one).values(), vars(two).values(), strict=True):
            assert left is right is None or torch.equal(left, right)
    mapped = []
    for name in ("source", "target"):
        np.save(tmp_path / f"{name}.npy", getattr(chips, name))
        mapped.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    lazy = dataclasses.replace(chips, source=mapped[0], target=mapped[1])
    pieces = [(np.array(rows), np.array(rows)) for rows in batches(np.arange(7), 2)]
    feeds = [Feed(some, MAP, ENCODINGS["int16"], CPU, JITTER) for some in (chips, lazy)]
    assert [feed.place for feed in feeds] == ["memory", "disk"]
    for one, two in zip(*(feed.stream(pieces, 1) for feed in feeds), strict=True):
        for left, right in zip(vars(one).values(), vars(two).values(), strict=True):
            assert torch.equal(left, right)


def test_what_goes_wrong_while_fetching_is_raised_and_ends_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    monkeypatch.setattr(feeding, "TOGETHER", 2)
    chips = arrays(MAP, MAP)
    feed = Feed(chips, MAP, MAP, CPU)
    feed.place = "disk"

    def pieces() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for row in range(100):
            yield np.array([row]), np.array([row])

    stream = feed.stream(pieces(), 0)
    with pytest.raises(IndexError):
        for _ in range(100):
            next(stream)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("chips")]
    stream = feed.stream(pieces(), 0)
    next(stream)
    stream.close()  # a training that ends within an epoch
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("chips")]


def jittered(augmentation: Augmentation = JITTER, place: int = 0, valid: Tensor | None = None) -> tuple[Tensor, ...]:
    """A map of vertical stripes beside a ramp that tells the column."""
    codes = torch.tensor([1, 2, 5], dtype=torch.uint8)[torch.arange(64) // 8 % 3].expand(1, 1, 64, 64)
    ramp = torch.arange(64.0).expand(1, 1, 64, 64)
    maker = BatchMaker(MAP, image_encoding("float32", 1, 0, 63), CPU, augmentation)
    batch = maker(Stored(codes, ramp, valid), np.array([place]))
    return batch.source, batch.target, batch.valid


@pytest.mark.parametrize("augmentation", [None, JITTER, Augmentation(1, flip=True, d4=True)])
@pytest.mark.parametrize("has_holes", [False, True])
@pytest.mark.parametrize("name", list(ENCODINGS))
def test_batches_are_the_same_on_the_host_and_on_a_device(
    name: str, has_holes: bool, augmentation: Augmentation | None
) -> None:
    chips, target = arrays(MAP, ENCODINGS[name]), ENCODINGS[name]
    stored = HostChips(chips).fetch(np.arange(2))
    if not has_holes:
        stored = dataclasses.replace(stored, valid=None)
    host = HostMaker(MAP, target, chips.source.shape[-1], augmentation)
    whole = host.room(4)
    for side in (whole.source, whole.target, whole.valid):
        side.fill_(torch.nan)
    host(stored, np.arange(2), 0, whole.part(1, 3))
    made = BatchMaker(MAP, target, CPU, augmentation)(stored, np.arange(2))
    assert torch.equal(whole.source[1:3], made.source) and torch.equal(whole.valid[1:3], made.valid)
    assert torch.allclose(whole.target[1:3], made.target, rtol=0, atol=1.2e-7)
    for memory in (whole.source, whole.target, whole.valid):
        assert memory[[0, 3]].isnan().all()  # and nowhere else


def test_augmentation_is_a_function_of_seed_epoch_and_place() -> None:
    first = jittered()[1]
    assert torch.equal(first, jittered()[1])
    assert any(not torch.equal(first, jittered(place=place)[1]) for place in range(1, 5))
    assert any(not torch.equal(first, jittered(dataclasses.replace(JITTER, seed=seed))[1]) for seed in range(1, 5))
    draws = [JITTER.draw(np.array([3]), epoch, 64) for epoch in range(4)]
    assert len({tuple(draw.offsets[0]) for draw in draws}) > 1


def test_jitter_keeps_classes_pure_and_pairs_aligned() -> None:
    for place in range(8):
        source, target, _ = jittered(place=place)
        assert set(source.unique().tolist()) <= {0.0, 1.0} and bool((source.sum(1) == 1).all())
        columns = (target[0, 0] + 1) / 2 * 63  # what column of the chip a pixel shows
        expected = (columns + 0.5).floor().clamp(0, 63).long() // 8 % 3
        assert (source[0].argmax(0) == expected).float().mean() > 0.97


def test_jitter_enlarges_as_bilinear_interpolation_does() -> None:
    image = torch.rand(4, 3, 64, 64)
    draws = Augmentation(5, 286 / 256).draw(np.arange(4), 1, 64)
    (made,) = draws.sample([image])
    large = functional.interpolate(image, (72, 72), mode="bilinear", align_corners=False)
    codes = torch.randint(0, 9, (4, 1, 64, 64), dtype=torch.uint8)
    picked = draws.pick(codes)
    nearest = functional.interpolate(codes.double(), (72, 72), mode="nearest-exact")
    for number, (top, left) in enumerate(draws.offsets):
        window = (slice(top, top + 64), slice(left, left + 64))
        assert torch.allclose(made[number], large[number][:, window[0], window[1]], atol=5e-5)
        assert torch.equal(picked[number].double(), nearest[number][:, window[0], window[1]])
    assert len({tuple(offset) for offset in draws.offsets}) > 1


def test_jittered_pixels_are_valid_only_if_all_they_are_made_of_was() -> None:
    valid = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)) > 0.05
    for place in range(4):
        source, target, known = jittered(place=place, valid=valid)
        draws = JITTER.draw(np.array([place]), 0, 64)
        (top, left), hidden = draws.offsets[0], draws.turn(~valid).float()
        large = functional.interpolate(hidden, (72, 72), mode="bilinear") > 0
        assert torch.equal(known == 0, large[..., top : top + 64, left : left + 64])
        assert not (target * (1 - known)).any() and not (source * (1 - known)).any()


def test_every_element_of_d4_is_drawn_and_moves_the_pair_as_one() -> None:
    chip = torch.arange(64).reshape(1, 1, 8, 8).to(torch.int16)
    valid = chip % 7 > 0
    encoding = image_encoding("int16", 1, 0, 63)
    maker = BatchMaker(encoding, encoding, CPU, Augmentation(0, d4=True))
    plain = BatchMaker(encoding, encoding, CPU)(Stored(chip, chip, None), np.array([0])).source
    turned = [torch.rot90(flipped, turns, (-2, -1)) for flipped in (plain, plain.flip(-1)) for turns in range(4)]
    drawn = set()
    for place in range(100):
        made = maker(Stored(chip, chip, valid), np.array([place]))
        (element,) = [index for index, one in enumerate(turned) if torch.equal(one * made.valid, made.source)]
        drawn.add(element)
        assert torch.equal(made.target, made.source) and int(made.valid.sum()) == int(valid.sum())
    assert drawn == set(range(8))


def test_chips_as_they_are_are_the_reference() -> None:
    chips = arrays(MAP, ENCODINGS["uint8"])
    batch = encode_batch(chips, np.array([0, 1]), MAP, ENCODINGS["uint8"])
    for row in (0, 1):
        assert np.array_equal(batch.source[row].numpy(), MAP.encode(chips.source[row], chips.valid[row]))
        assert np.array_equal(batch.target[row].numpy(), ENCODINGS["uint8"].encode(chips.target[row], chips.valid[row]))
        assert np.array_equal(batch.valid[row, 0].numpy(), chips.valid[row])


def test_chips_too_large_for_memory_are_packed_once_beside_the_run(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tile(*pair, tmp_path / "chips", TileConfig(size=64, min_valid=0.5))
    chipset = ChipSet.open(tmp_path / "chips")
    train = ChipArrays.load(chipset, "train")
    caplog.set_level("INFO")
    assert pack_if_large(chipset, tmp_path / "run", False, 1) is None  # there is room
    monkeypatch.setattr(caching, "free_memory", lambda: 2 * caching.size_of(chipset) + 1)
    assert pack_if_large(chipset, tmp_path / "run", False, 1) is None
    cache = pack_if_large(chipset, tmp_path / "run", False, 2)  # two processes keep the chips twice
    assert cache is not None and cache.parent == tmp_path / "run" / "cache" and "do not fit into memory" in caplog.text
    kept = ChipArrays.load(chipset, "train", cache=cache)
    assert isinstance(kept.source, np.memmap) and kept.ids == train.ids
    rows = np.arange(len(train))
    assert np.array_equal(kept.source, train.source) and np.array_equal(kept.target, train.target)
    assert np.array_equal(kept.valid[rows], train.valid[rows]) and not train.valid[rows].all()
    written = {file: file.stat().st_mtime_ns for file in cache.iterdir()}
    assert len(written) == 6
    pack_if_large(chipset, tmp_path / "run", False, 2)
    assert written == {file: file.stat().st_mtime_ns for file in cache.iterdir()}
    with pytest.raises(ConfigError, match="leave --skip-bad out"):
        pack_if_large(chipset, tmp_path / "run", True, 2)


def test_chips_that_memory_cannot_hold_are_refused_with_what_to_do(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tile(*pair, tmp_path / "chips", TileConfig(size=64, min_valid=0.5))
    chipset = ChipSet.open(tmp_path / "chips")
    monkeypatch.setattr(caching, "free_memory", lambda: 2 * caching.size_of(chipset, ("train",)))
    assert len(ChipArrays.load(chipset, "train")) == chipset.counts["train"]
    monkeypatch.setattr(caching, "free_memory", lambda: caching.size_of(chipset, ("train",)))
    told = r"train chips take 0\.\d MB of memory, 0\.\d MB are free; .*tile --from \S+chips PACKED --format packed"
    with pytest.raises(ChipSetError, match=told):
        ChipArrays.load(chipset, "train")
    convert(tmp_path / "chips", tmp_path / "packed", TileConfig(format="packed"))
    assert len(ChipArrays.load(ChipSet.open(tmp_path / "packed"), "train")) == chipset.counts["train"]


def test_a_pack_that_was_interrupted_is_made_again(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tile(*pair, tmp_path / "chips", TileConfig(size=64, min_valid=0.5))
    chipset = ChipSet.open(tmp_path / "chips")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(packed.np, "packbits", interrupt)
        packed.pack_split(chipset, "train", tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
    packed.pack_split(chipset, "train", tmp_path / "cache")
    assert len(ChipArrays.load(chipset, "train", cache=tmp_path / "cache")) == chipset.counts["train"]


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_free_memory_knows_the_limit_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were read count as used in its control group, but are given up when memory is needed."""
    for name, text in {
        "meminfo": "MemTotal: 9 kB\nMemAvailable:   4096 kB\n",
        "memory.max": "max\n",
        "memory.current": "1999000\n",
        "memory.stat": "anon 4000\nactive_file 1000000\ninactive_file 900000\nslab 3\n",
    }.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(caching, "MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(caching, "GROUP", tmp_path)
    assert caching.free_memory() == 4096 * 1024
    (tmp_path / "memory.max").write_text("2000000\n")
    assert caching.free_memory() == 1901000
    monkeypatch.setattr(caching, "MEMORY", tmp_path / "missing")
    assert caching.free_memory() is None
