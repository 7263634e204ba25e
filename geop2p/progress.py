"""Progress bars on stderr."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """Moves a bar on."""

    def __call__(self, by: int = 1) -> object:
        """So much more is done."""


@contextmanager
def progress_bar(total: int, what: str, shown: bool) -> Iterator[Advance]:
    """A function that is told how many more of the chips are done.

    For what loads little else: tqdm is loaded where a bar is shown, which takes a tenth of the time in which a small
    raster is cut. Where torch is loaded anyway, tqdm itself says it shorter.
    """
    if not shown:
        yield lambda by=1: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="chip", desc=what) as bar:
        yield lambda by=1: bar.update(by)
