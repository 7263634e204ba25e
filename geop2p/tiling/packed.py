"""Layout `packed`: one memory-mappable array (.npy) per split and side, and one of the valid pixels, a bit each.

A million chips are seven files. numpy alone reads them.
"""

import errno
import math
import os
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from geop2p.config import SPLITS, Split
from geop2p.errors import ChipSetError
from geop2p.progress import progress_bar
from geop2p.raster.atomic import replacing, reporting_write_errors, write_all
from geop2p.raster.chip_metadata import ChipMetadata
from geop2p.raster.encoding import Array, Mask
from geop2p.tiling.chips import SIDES, ChipSet
from geop2p.tiling.layouts import Chip, SplitReader

if TYPE_CHECKING:
    from geop2p.raster.grid import Grid
    from geop2p.tiling.slots import Integers, Slots
    from geop2p.tiling.table import ChipTable

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
        advance = stack.enter_context(progress_bar(count, f"pack {split}", progress))
        for row in range(count):
            chip = reader.read(row)
            for file, array in zip(files, (chip.source, chip.target, np.packbits(chip.valid, axis=-1)), strict=True):
                file.write(np.ascontiguousarray(array).data)
            advance()


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
    """Writes every chip where it is expected in the array of its split."""

    def __init__(self, staging: Path, slots: "Slots") -> None:
        self._staging, self._slots = staging, slots
        self._files: dict[tuple[int, str], FileIO] = {}

    def add(self, name: str, row: int, col: int, read: Callable[[], Chip]) -> None:
        (code,), (rank,) = self._slots.find(np.array([row]), np.array([col]))
        chip = read()
        with reporting_write_errors(self._staging):
            for part, array in zip(ARRAYS, (chip.source, chip.target, np.packbits(chip.valid, axis=-1)), strict=True):
                if (code, part) not in self._files:
                    self._files[code, part] = FileIO(_staged(self._staging, code, part), "r+", opener=_made)
                self._files[code, part].seek(HEADER + int(rank) * array.nbytes)
                write_all(self._files[code, part], np.ascontiguousarray(array).data)

    def close(self) -> None:
        for file in self._files.values():
            file.close()


def _made(path: str, flags: int) -> int:
    """Open a file, which is made if it is missing and kept if another thread has just made it."""
    return os.open(path, flags | os.O_CREAT, 0o666)


def _staged(staging: Path, code: int, name: str) -> Path:
    """Where chips expected in a split, by its place in `SPLITS`, are staged."""
    return staging / f"{code}_{name}.npy"


@contextmanager
def open_split(chipset: ChipSet, split: Split) -> Iterator[SplitReader]:
    """See `Layout`."""
    yield _Reader(chipset, split)


def open_writer(staging: Path, grid: "Grid", metadata: tuple[ChipMetadata, ChipMetadata], slots: "Slots") -> _Writer:
    """See `Layout`; the colours stand in the description."""
    return _Writer(staging, slots)


def place(staging: Path, chipset: ChipSet, table: "ChipTable", slots: "Slots") -> None:
    """See `Layout`: chips that were all expected where they belong are renamed, others copied, split by split."""
    wanted, codes = {}, Counter[int]()
    for split in SPLITS:
        own = table.of_split(split)
        if len(own):
            wanted[split] = slots.find(own["row_off"], own["col_off"])
            codes.update(np.unique(wanted[split][0]).tolist())

    def fill(split: Split, name: str) -> None:
        path, (files, ranks) = array_path(chipset.folder, split, name), wanted[split]
        shape, dtype = _form(chipset, name)
        end = (chipset.counts[split], *shape)
        as_expected = len(ranks) == end[0] and bool((ranks == np.arange(len(ranks))).all())
        with reporting_write_errors(path):
            if as_expected and len(np.unique(files)) == 1 and codes[files[0]] == 1:
                _move(_staged(staging, files[0], name), path, end, dtype)
            else:
                _append(path, end, dtype, lambda code: _staged(staging, code, name), files, ranks)

    with ThreadPoolExecutor(COPIES) as pool:
        jobs = [pool.submit(fill, split, name) for split in wanted for name in ARRAYS]
    for job in jobs:
        job.result()


def _move(staged: Path, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Make a staged file the array, unless an interrupted run has done so."""
    if staged.exists():
        with staged.open("r+b") as file:
            file.write(_header(shape, dtype))
            file.truncate(HEADER + math.prod(shape) * dtype.itemsize)
        staged.replace(path)


def _append(
    path: Path,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    staged: Callable[[int], Path],
    files: "Integers",
    ranks: "Integers",
) -> None:
    """Copy staged chips, by file and rank in it, to the end of an array that has a shape afterwards."""
    chip = math.prod(shape[1:]) * dtype.itemsize
    with ExitStack() as stack:
        sources = {code: stack.enter_context(staged(code).open("rb")) for code in np.unique(files).tolist()}
        file = stack.enter_context(path.open("r+b" if path.exists() else "w+b", buffering=0))
        file.seek(HEADER + (shape[0] - len(ranks)) * chip)
        file.truncate()
        for code, first, end in _runs(files, ranks, max(1, COPIED_AT_ONCE // chip)):
            _copy(sources[code], HEADER + first * chip, file, (end - first) * chip)
        file.seek(0)
        file.write(_header(shape, dtype))


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


def _runs(files: "Integers", ranks: "Integers", most: int) -> Iterator[tuple[int, int, int]]:
    """Chips as ranges (file, first, end) of neighbours, each of at most so many."""
    breaks = (np.diff(files) != 0) | (np.diff(ranks) != 1)
    for run in np.split(np.arange(len(ranks)), np.flatnonzero(breaks) + 1):
        for start in range(run[0], run[-1] + 1, most):
            first = int(ranks[start])
            yield int(files[start]), first, first + min(most, run[-1] + 1 - start)


def _header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """Header of a .npy file, format 1.0 (NumPy Enhancement Proposal 1), padded to `HEADER` bytes."""
    fields = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    text = repr(fields).encode("latin1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", HEADER - 10) + text.ljust(HEADER - 11) + b"\n"
