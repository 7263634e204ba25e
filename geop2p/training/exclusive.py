"""One training at a time in a process: threads share torch's random numbers and the cache of its parametrisations."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from geop2p.models.hardware import own_number_formats
from geop2p.models.randomness import own_random_numbers

log = logging.getLogger(__name__)

_TRAINS = threading.RLock()


@contextmanager
def exclusive_training() -> Iterator[None]:
    """A block that no other thread of the process is in; one that comes meanwhile waits, and says so.

    After it torch's random numbers and number formats are the caller's again.
    """
    if not _TRAINS.acquire(blocking=False):
        log.info("waiting, since another thread of this process trains")
        _TRAINS.acquire()
    try:
        with own_random_numbers(), own_number_formats():
            yield
    finally:
        _TRAINS.release()
