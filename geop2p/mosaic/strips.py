"""What the network sees of the input: windows of any place, and strips of whole rows that are read ahead."""

import threading
from collections import OrderedDict, deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from rasterio.windows import Window

from geop2p.models.positional_noise import ground_noise
from geop2p.mosaic.blend import Floats, move_up
from geop2p.mosaic.plan import AT_ONCE, READ_ROWS, cuts
from geop2p.raster.aligned import Read, Reader
from geop2p.raster.borders import reflect_indices, take_along
from geop2p.raster.encoding import Array, Encoding, Mask
from geop2p.raster.filling import fill_from_nearest
from geop2p.raster.reading import gdal_env
from geop2p.raster.threads import in_order

FILL_DEPTH = 64  # pixels into ground without data


@dataclass(frozen=True)
class Strip:
    """Rows of the network's input.

    Attributes:
        window: Where on the grid, possibly beyond it.
        encoded: (channels, rows, cols).
        valid: (rows, cols).
    """

    window: Window
    encoded: Floats
    valid: Mask

    def cut(self, window: Window) -> tuple[Floats, Mask]:
        """A window inside it."""
        row, col = int(window.row_off - self.window.row_off), int(window.col_off - self.window.col_off)
        here = np.s_[row : row + int(window.height), col : col + int(window.width)]
        return self.encoded[:, *here], self.valid[here]


class NetworkInput:
    """The input as the network sees it. Two threads may ask at the same time; the reader is used by one at once.

    Args:
        reader: The input on its grid.
        source: Its encoding.
        noise: Channels of noise of the ground that follow those of the source.
    """

    def __init__(self, reader: Reader, source: Encoding, noise: int = 0) -> None:
        self._reader, self._source, self._noise = reader, source, noise
        self._reading = threading.Lock()

    def look(self, window: Window) -> tuple[Floats, Mask]:
        """Network input (channels, rows, cols) of any window, and its valid pixels (rows, cols)."""
        encoded = np.empty((self._channels, *_shape(window)), np.float32)
        return encoded, self._put(self._read, window, encoded)

    @property
    def _channels(self) -> int:
        return self._source.channels + self._noise

    def strips(self, windows: Sequence[Window]) -> Generator[Strip, None, None]:
        """Network input of windows that have the same columns, from top to bottom.

        They may overlap; every row is read and encoded once, in a thread that is up to two windows ahead. The input of
        a strip is good until the next is asked for.
        """
        if not windows:
            return
        bottoms = [None, *(window.row_off + window.height for window in windows)]
        fresh = [
            _rows(window, window.row_off if before is None else max(before, window.row_off))
            for before, window in zip(bottoms, windows, strict=False)
        ]
        left, right = windows[0].col_off - FILL_DEPTH, windows[0].col_off + windows[0].width + FILL_DEPTH
        columns = reflect_indices(int(left), int(right), self._reader.grid.width)
        read = _InRows(self._read, int(columns.min()), int(columns.max()) + 1, self._reader.grid.height)

        arrays = _Turns()

        def encode(new: Window) -> tuple[Floats, Mask]:
            encoded = arrays.take((self._channels, *_shape(new)))
            return encoded, self._put(read, new, encoded)

        @contextmanager
        def opened() -> Iterator[Read]:
            with gdal_env():
                yield encode

        strip = None
        for window, (encoded, valid) in zip(windows, in_order(fresh, opened, 1), strict=True):
            strip = Strip(window, encoded, valid) if len(windows) == 1 else _next(strip, window, encoded, valid)
            yield strip

    def _read(self, window: Window) -> tuple[Array, Mask]:
        with self._reading:
            return self._reader.read(window)

    def _put(self, read: Read, window: Window, out: Floats) -> Mask:
        """Put the network input of a window into `out` (channels, rows, cols); its valid pixels (rows, cols)."""
        bands = self._source.channels
        if self._noise:
            row, col = self._reader.grid.pixel_on_ground
            corner = row + int(window.row_off), col + int(window.col_off)
            out[bands:] = ground_noise(*corner, _shape(window), self._noise).numpy()
        return self._encode(read, window, out[:bands])

    def _encode(self, read: Read, window: Window, out: Floats) -> Mask:
        """Put the encoded source of a window into `out` (channels, rows, cols); its valid pixels (rows, cols).

        Beyond the raster the ground is reflected. Ground without data takes what lies nearest, as far as
        `FILL_DEPTH`: the network would paint the rim of a hole darker otherwise.
        """
        valid, row = np.empty(out.shape[1:], bool), 0
        for piece in _pieces(window):
            rows = slice(row, row + int(piece.height))
            values, valid[rows] = self._extended(read, piece)
            for first in range(row, rows.stop, AT_ONCE):
                here = slice(first, min(first + AT_ONCE, rows.stop))
                self._source.encode(values[:, first - row : here.stop - row], valid[here], out[:, here])
            if not valid[rows].all():
                self._fill(read, piece, valid[rows], out[:, rows])
            row = rows.stop
        return valid

    def _fill(self, read: Read, window: Window, valid: Mask, encoded: Floats) -> None:
        """Give what is not valid the values that lie nearest."""
        values, known = self._extended(read, grown(window, FILL_DEPTH))
        for col in range(0, valid.shape[1], READ_ROWS):  # by columns too: most of a wide strip may need nothing
            here = slice(col, col + READ_ROWS)
            near = slice(col, col + READ_ROWS + 2 * FILL_DEPTH)
            if not valid[:, here].all() and known[:, near].any():
                around = self._source.encode(values[:, :, near], known[:, near])
                filled = fill_from_nearest(around, known[:, near], FILL_DEPTH)
                encoded[:, :, here] = filled[:, FILL_DEPTH:-FILL_DEPTH, FILL_DEPTH:-FILL_DEPTH]

    def _extended(self, read: Read, window: Window) -> tuple[Array, Mask]:
        """Stored values of a window and its valid pixels, reflected at the borders of the raster."""
        grid = self._reader.grid
        rows = reflect_indices(int(window.row_off), int(window.row_off + window.height), grid.height)
        cols = reflect_indices(int(window.col_off), int(window.col_off + window.width), grid.width)
        top, left = int(rows.min()), int(cols.min())
        values, valid = read(Window(left, top, int(cols.max()) - left + 1, int(rows.max()) - top + 1))
        values = take_along(take_along(values, 1, rows - top), 2, cols - left)
        return values, take_along(take_along(valid, 0, rows - top), 1, cols - left)


class _Turns:
    """Two arrays that are written in turn: one that was taken is good until the next but one is taken."""

    def __init__(self) -> None:
        self._arrays: deque[Floats] = deque([np.empty((0, 0, 0), np.float32)] * 2)

    def take(self, shape: tuple[int, ...]) -> Floats:
        """An array of this shape, of any content."""
        self._arrays.rotate()
        if self._arrays[0].shape != shape:
            self._arrays[0] = np.empty(shape, np.float32)
        return self._arrays[0]


def _next(strip: Strip | None, window: Window, encoded: Floats, valid: Mask) -> Strip:
    """The strip of a window whose last rows are given, and whose first are the last of another strip.

    The input of the other strip is overwritten where it has the same size.
    """
    known = int(window.height) - len(valid)
    seen = None if strip is None or not known else strip.cut(_rows(window, window.row_off, window.row_off + known))
    if strip is not None and strip.valid.shape == _shape(window):
        whole = strip.encoded
        move_up(whole, int(window.row_off - strip.window.row_off))
    else:
        whole = np.empty((len(encoded), *_shape(window)), np.float32)
        if seen is not None:
            whole[:, :known] = seen[0]
    whole[:, known:] = encoded
    return Strip(window, whole, valid if seen is None else np.concatenate([seen[1], valid]))


def _shape(window: Window) -> tuple[int, int]:
    return int(window.height), int(window.width)


def _pieces(window: Window) -> list[Window]:
    """A window cut where rows are read anew."""
    top, bottom = int(window.row_off), int(window.row_off + window.height)
    return [_rows(window, start, stop) for start, stop in cuts(top, bottom, READ_ROWS)]


class _InRows:
    """Reads windows between two columns by whole blocks of rows, of which it keeps the last ones."""

    def __init__(self, read: Read, left: int, right: int, height: int) -> None:
        self._read, self._left, self._right, self._height = read, left, right, height
        self._blocks: OrderedDict[int, tuple[Array, Mask]] = OrderedDict()

    def __call__(self, window: Window) -> tuple[Array, Mask]:
        """Values (bands, rows, cols) and valid pixels (rows, cols)."""
        top, bottom = int(window.row_off), int(window.row_off + window.height)
        first, cols = top // READ_ROWS * READ_ROWS, int(window.col_off) - self._left
        blocks = [self._block(row) for row in range(first, bottom, READ_ROWS)]
        while len(self._blocks) > max(2, len(blocks)):
            self._blocks.popitem(last=False)
        values, valid = blocks[0] if len(blocks) == 1 else (
            np.concatenate([block[0] for block in blocks], axis=1),
            np.concatenate([block[1] for block in blocks]),
        )  # fmt: skip
        here = np.s_[top - first : bottom - first, cols : cols + int(window.width)]
        return values[:, *here], valid[here]

    def _block(self, row: int) -> tuple[Array, Mask]:
        if row not in self._blocks:
            rows = min(READ_ROWS, self._height - row)
            self._blocks[row] = self._read(Window(self._left, row, self._right - self._left, rows))
        self._blocks.move_to_end(row)
        return self._blocks[row]


def grown(window: Window, margin: int) -> Window:
    """A window with so many pixels more on every side."""
    return Window(
        window.col_off - margin, window.row_off - margin, window.width + 2 * margin, window.height + 2 * margin
    )


def _rows(window: Window, start: float, stop: float | None = None) -> Window:
    """The rows of a window from `start` to its end, or to before `stop`."""
    end = window.row_off + window.height if stop is None else stop
    return Window(window.col_off, start, window.width, end - start)
