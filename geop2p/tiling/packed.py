"""Layout `packed`: one memory-mappable array (.npy) per split and side, and one of the valid pixels, a bit each.

A million chips are seven files. numpy alone reads them.
"""

import errno
import os
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from tqdm import tqdm

from geop2p.config import SPLITS, Split
from geop2p.errors import ChipSetError
from geop2p.raster.atomic import replacing, writing
from geop2p.raster.encoding import Array, Mask
from geop2p.tiling.chips import SIDES, Chip, ChipSet, Palette, SplitReader

if TYPE_CHECKING:
    import geopandas

    from geop2p.raster.grid import Grid

ARRAYS = (*SIDES, "valid")
HEADER = 128  # bytes before the pixels: room for any number of chips, so that chips can be added
COPIED_AT_ONCE = 2**24  # bytes
CANNOT_COPY = (errno.EXDEV, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)  # this file system
COPIES = 2  # files that are copied at the same time


class PackedMasks:
    """Valid pixels of chips, kept as bits; indexing gives bool (..., rows, cols).

    Args:
        bits: uint8 (chips, rows, ceil(cols / 8)), the first column in the highest bit.
        side: Columns.
    """

    def __init__(self, bits: Array, side: int) -> None:
        self._bits, self._side = bits, side

    def __len__(self) -> int:
        return len(self._bits)

    def __getitem__(self, rows: Any) -> Mask:
        unpacked: Mask = np.unpackbits(self._bits[rows], axis=-1, count=self._side).view(bool)
        return unpacked


def array_path(folder: Path, split: str, name: str) -> Path:
    """File of one side, or of the valid pixels, of a split."""
    return folder / f"{split}_{name}.npy"


def map_split(chipset: ChipSet, split: Split) -> tuple[Array, Array, PackedMasks]:
    """Source (chips, bands, rows, cols), target and valid pixels of a split, mapped from disk.

    Raises:
        ChipSetError: A file is missing or not what the description promises.
    """
    arrays = [_map(chipset, split, name) for name in ARRAYS]
    return arrays[0], arrays[1], PackedMasks(arrays[2], chipset.size)


def pack_split(chipset: ChipSet, split: Split, folder: Path, progress: bool = False) -> None:
    """Keep the chips of a split of any layout as packed arrays, unless they are there.

    Args:
        chipset: Whose chips; its description stays with it.
        split: Which of them.
        folder: Of the arrays.
        progress: Show a progress bar.

    Raises:
        ChipSetError: A chip is not what the chip set promises.
        OutputError: The arrays cannot be written.
    """
    count, paths = chipset.counts[split], [array_path(folder, split, name) for name in ARRAYS]
    if not count or all(path.exists() for path in paths):
        return
    with ExitStack() as stack:
        files = [stack.enter_context(stack.enter_context(replacing(path)).open("wb")) for path in paths]
        for file, name in zip(files, ARRAYS, strict=True):
            file.write(_header((count, *_form(chipset, name)[0]), _form(chipset, name)[1]))
        reader = stack.enter_context(chipset.reader(split))
        for row in tqdm(range(count), desc=f"pack {split}", unit="chip", disable=not progress):
            chip = reader.read(row)
            for file, array in zip(files, (chip.source, chip.target, np.packbits(chip.valid, axis=-1)), strict=True):
                file.write(np.ascontiguousarray(array).data)


def _map(chipset: ChipSet, split: Split, name: str) -> Array:
    count, path = chipset.counts[split], array_path(chipset.folder, split, name)
    shape, dtype = _form(chipset, name)
    if not count:
        return np.zeros((0, *shape), dtype)
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ChipSetError(f"{path}: missing or damaged ({error}); tile again with --overwrite") from error
    if array.shape[1:] != shape or array.dtype != dtype or len(array) < count:
        raise ChipSetError(
            f"{path}: holds {array.shape} of {array.dtype}, expected {(count, *shape)} of {dtype}; tile again with "
            "--overwrite"
        )
    return array[:count]


def _form(chipset: ChipSet, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of one chip in an array."""
    size = chipset.size
    if name == "valid":
        return (size, -(-size // 8)), np.dtype(np.uint8)
    encoding = chipset.encoding(name)
    return (len(encoding.bands), size, size), np.dtype(encoding.dtype)


class _Reader:
    def __init__(self, chipset: ChipSet, split: Split) -> None:
        self._source, self._target, self._valid = map_split(chipset, split)

    def read(self, row: int) -> Chip:
        return Chip(np.array(self._source[row]), np.array(self._target[row]), self._valid[row])


class _Writer:
    """Appends chips to one file a side; they are sorted into splits when these are known."""

    def __init__(self, staging: Path) -> None:
        self._paths = [_staged(staging, name) for name in ARRAYS]
        self._files: list[BinaryIO] = []
        self._kept: int | None = 0

    def resume(self, chips: int) -> None:
        self._kept = chips
        for path in self._paths:
            with writing(path):
                self._files.append(path.open("r+b" if path.exists() else "w+b"))

    def add(self, name: str, row: int, col: int, chip: Chip) -> None:
        arrays = (chip.source, chip.target, np.packbits(chip.valid, axis=-1))
        for path, file, array in zip(self._paths, self._files, arrays, strict=True):
            with writing(path):
                if self._kept is not None:
                    file.seek(self._kept * array.nbytes)
                    file.truncate()
                file.write(np.ascontiguousarray(array).data)
        self._kept = None

    def flush(self) -> None:
        for path, file in zip(self._paths, self._files, strict=True):
            with writing(path):
                file.flush()

    def close(self) -> None:
        for file in self._files:
            file.close()


def _staged(staging: Path, name: str) -> Path:
    return staging / f"{name}.raw"


@contextmanager
def open_split(chipset: ChipSet, split: Split) -> Iterator[SplitReader]:
    """See `Layout`."""
    yield _Reader(chipset, split)


def open_writer(staging: Path, grid: "Grid", palettes: tuple[Palette, Palette]) -> _Writer:
    """See `Layout`; the colours stand in the description."""
    return _Writer(staging)


def place(staging: Path, chipset: ChipSet, table: "geopandas.GeoDataFrame", order: list[str]) -> None:
    """See `Layout`: staged chips are copied behind those of earlier scenes, split by split."""
    positions = {name: position for position, name in enumerate(order)}
    wanted = {split: [positions[name] for name in table.loc[table["split"] == split, "id"]] for split in SPLITS}

    def append(split: Split, name: str) -> None:
        path = array_path(chipset.folder, split, name)
        with writing(path), _staged(staging, name).open("rb") as staged:
            _append(path, chipset.counts[split], *_form(chipset, name), staged, wanted[split])

    with ThreadPoolExecutor(COPIES) as pool:
        jobs = [pool.submit(append, split, name) for split in SPLITS if wanted[split] for name in ARRAYS]
    for job in jobs:
        job.result()


def _append(
    path: Path, count: int, shape: tuple[int, ...], dtype: np.dtype[Any], staged: BinaryIO, wanted: list[int]
) -> None:
    """Copy staged chips behind the first `count - len(wanted)` of an array, which has `count` afterwards."""
    chip = int(np.prod(shape)) * dtype.itemsize
    with path.open("r+b" if path.exists() else "w+b", buffering=0) as file:
        file.seek(HEADER + (count - len(wanted)) * chip)
        file.truncate()
        for first, end in _runs(wanted, max(1, COPIED_AT_ONCE // chip)):
            _copy(staged, first * chip, file, (end - first) * chip)
        file.seek(0)
        file.write(_header((count, *shape), dtype))


def _copy(source: BinaryIO, offset: int, target: BinaryIO, length: int) -> None:
    """Copy bytes to where the target stands: inside the system where it can, which is several times faster."""
    while length:
        try:
            done = os.copy_file_range(source.fileno(), target.fileno(), length, offset)
        except (AttributeError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in CANNOT_COPY:
                raise
            source.seek(offset)
            done = target.write(source.read(length))
        if not done:
            raise OSError(f"{source.name} ends early")
        offset, length = offset + done, length - done


def _runs(positions: list[int], most: int) -> Iterator[tuple[int, int]]:
    """Positions as ranges (first, end) of neighbours, each of at most so many."""
    first = end = positions[0]
    for position in positions:
        if position != end or end - first == most:
            yield first, end
            first = position
        end = position + 1
    yield first, end


def _header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """Header of a .npy file, format 1.0 (NumPy Enhancement Proposal 1), padded to `HEADER` bytes."""
    fields = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    text = repr(fields).encode("latin1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", HEADER - 10) + text.ljust(HEADER - 11) + b"\n"
