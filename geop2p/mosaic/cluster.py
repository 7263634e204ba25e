"""The workers of a Dask cluster make the parts of a mosaic, each whichever comes next."""

import asyncio
import contextlib
import dataclasses
import functools
import importlib.metadata
import importlib.util
import itertools
import json
import logging
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from rasterio.windows import Window
from tqdm import tqdm

from geop2p.config import PredictConfig
from geop2p.config.fields import Device
from geop2p.errors import ConfigError, GeoP2PError, RasterError
from geop2p.mosaic.extras import check_extras
from geop2p.mosaic.inputs import ModelInput, open_input
from geop2p.mosaic.manifest import MANIFEST, differences
from geop2p.mosaic.mosaic import Mosaic
from geop2p.mosaic.parts import make_parts, unfinished_parts
from geop2p.raster.fingerprints import fingerprint
from geop2p.raster.layer_names import exists
from geop2p.translator import Translator

log = logging.getLogger(__name__)

PATIENCE = 10  # seconds until there is no scheduler
AHEAD = 2  # parts that a worker has at once: the one that it makes, and the next
LOUD = ("distributed.client", "distributed.utils")  # loggers that tell tracebacks of broken connections


Name = TypeVar("Name", str, Path)


@dataclass(frozen=True)
class Job:
    """What a process has to know to make parts of a mosaic.

    Attributes:
        model: Run folder or `model.safetensors`.
        input: File or GDAL name.
        folder: Where the parts go.
        config: Settings.
        part_side: Of the parts, where it is known already; None: as the memory allows.
    """

    model: str
    input: str
    folder: Path
    config: PredictConfig
    part_side: int | None = None

    def begin(self, device: Device) -> tuple[Mosaic, ModelInput, dict[str, Any]]:
        """Load the model and look at the input: the mosaic, what it is made from, and the claim to the parts.

        Args:
            device: Where the network runs in this process.

        Raises:
            GeoP2PError: As `predict` does.
        """
        translator = Translator.load(self.model, device)
        check_extras(translator.card, self.config)
        given = open_input(self.input, translator.card, self.config)
        name = Path(self.input).name or Path(self.input).resolve().name
        mosaic = Mosaic(translator, given.grid, self.config, self.folder, self.part_side, name, given.frame)
        found = fingerprint(self.input, given.parts) | {"nodata": given.nodata}
        return mosaic, given, mosaic.claim(translator.digest, found, given.codes)


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """A client of the scheduler at an address; None where there is no address.

    Raises:
        ConfigError: Dask is not installed, there is no scheduler, or it or a worker has another geop2p.
    """
    if address is None:
        yield None
        return
    if importlib.util.find_spec("distributed") is None:
        raise ConfigError("--dask: dask and distributed are not installed; pip install 'geop2p[dask]'")
    from distributed import Client

    try:
        client = Client(address, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--dask {address}: no scheduler answers ({error}); start one (dask scheduler), or correct the address"
        ) from error
    with _without_tracebacks(), client:
        _check_versions(client, address)
        if not client.nthreads():
            log.warning("%s: has no workers yet; waiting for some (dask worker %s)", address, address)
        yield client


@contextlib.contextmanager
def _without_tracebacks() -> Iterator[None]:
    """Leave out where in Dask a connection broke, which a line of ours tells."""

    def is_other(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, OSError | asyncio.CancelledError)

    loggers = [logging.getLogger(name) for name in LOUD]
    for logger in loggers:
        logger.addFilter(is_other)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_other)


def _check_versions(client: Any, address: str) -> None:
    """Refuse a cluster that has no geop2p, or another; the scheduler needs it too, as tasks pass through its hands.

    A worker to which the connection broke is asked once more. One that is gone then is Dask's care.
    """
    version, ours = importlib.metadata.version, importlib.metadata.version("geop2p")
    try:
        found = {address: client.run_on_scheduler(version, "geop2p")}
    except importlib.metadata.PackageNotFoundError as error:
        found = {address: error}
    found |= client.run(version, "geop2p", on_error="return")
    if broken := [place for place, theirs in found.items() if isinstance(theirs, OSError)]:
        found |= client.run(version, "geop2p", workers=broken, on_error="return")
    for place, theirs in found.items():
        if isinstance(theirs, OSError):
            log.warning("%s: does not answer (%s); going on with the workers that do", place, theirs)
        elif theirs != ours:
            there = f"geop2p {theirs}" if isinstance(theirs, str) else "no geop2p"
            raise ConfigError(f"{place}: has {there}; scheduler and workers need geop2p {ours}, as it is here")


def make_parts_on(
    client: Any, job: Job, mosaic: Mosaic, claim: dict[str, Any], windows: Sequence[Window], progress: bool
) -> None:
    """Let the workers of a cluster write every part that is not there yet.

    The part of a worker that dies is made by another. A worker is given few parts at a time, so that few are lost
    with it, and few are made for nobody after an error.

    Args:
        client: Of the cluster's scheduler.
        job: Whose folder all workers see.
        mosaic: How it looks from here.
        claim: All that decides the pixels.
        windows: The parts in pixels of the grid.
        progress: Show a progress bar.

    Raises:
        GeoP2PError: What a worker found; or workers die of a part, see other files, or have another geop2p.
    """
    from distributed import as_completed

    there, told = _elsewhere(job, mosaic), json.dumps(claim)
    todo = unfinished_parts(job.folder, windows)
    rest, running = iter(todo), as_completed()
    places: dict[str, Window] = {}  # by the keys of what runs

    def fill() -> None:
        room = AHEAD * max(1, len(client.nthreads())) - running.count()
        for window in itertools.islice(rest, max(0, room)):
            future = client.submit(_make_part, there, told, tuple(map(int, window.flatten())), pure=False)
            places[future.key] = window
            running.add(future)

    with tqdm(total=len(todo), unit="part", desc="predict", disable=not progress) as bar:
        fill()
        for future in running:
            _check(future, places.pop(future.key))
            bar.update()
            fill()
    client.run(_forget, on_error="ignore")


def _elsewhere(job: Job, mosaic: Mosaic) -> Job:
    """A job in words that mean the same to a process that works in another folder, on another device."""
    config, lattice = job.config, mosaic.lattice
    config = dataclasses.replace(
        config,
        tile_size=lattice.network_size,
        overlap=None if mosaic.is_exact else min(0.5, lattice.overlap / lattice.size),
        batch_size=mosaic.batch_size,
        aoi=None if config.aoi is None else _absolute(config.aoi),
        like=None if config.like is None else _absolute(config.like),
    )
    return Job(_absolute(job.model), _absolute(job.input), job.folder.absolute(), config, mosaic.part_side)


def _absolute(name: Name) -> Name:
    return type(name)(Path(name).absolute()) if exists(name) else name


def _check(future: Any, window: Window) -> None:
    """Raise what went wrong with a part."""
    from distributed import CancelledError, KilledWorker

    try:
        found: GeoP2PError | None = future.result()
    except KilledWorker as error:
        raise GeoP2PError(
            f"{error.allowed_failures + 1} workers died while they made the part at row {window.row_off}, column "
            f"{window.col_off}; give them more memory, or --memory less, and repeat the command to go on"
        ) from error
    except CancelledError as error:
        raise GeoP2PError("the Dask scheduler is gone; repeat the command to go on") from error
    if found is not None:
        raise found


_turn = threading.Lock()  # the threads of a worker make one part after the other, each on all its cores


def _make_part(job: Job, claim: str, place: tuple[int, int, int, int]) -> GeoP2PError | None:
    """Make one part, in a worker.

    An error of ours is given back: raised, with what caused it, it may be more than Dask can carry.
    """
    with _turn:
        try:
            mosaic, given = _begun(job, claim)
            with given.reader() as reader:
                make_parts(mosaic, reader, job.folder, [Window(*place)], json.loads(claim), progress=False)
        except GeoP2PError as error:
            return type(error)(f"{error} (on {socket.gethostname()})")
    return None


@functools.lru_cache(maxsize=1)
def _begun(job: Job, claim: str) -> tuple[Mosaic, ModelInput]:
    """The mosaic and its input, loaded once for all parts that a worker makes in a row."""
    from distributed import get_worker

    torch.set_num_threads(get_worker().state.nthreads)
    if not (job.folder / MANIFEST).exists():
        raise RasterError(f"{job.folder}: a worker does not see it; put the output into a folder that all of them see")
    mosaic, given, mine = job.begin(job.config.device)
    if apart := differences(json.loads(claim), mine):
        raise ConfigError(f"a worker has another {', '.join(apart)}; all need the same files and the same geop2p")
    return mosaic, given


def _forget() -> None:
    """Give back what a worker keeps for the next part."""
    _begun.cache_clear()
    torch.cuda.empty_cache()
