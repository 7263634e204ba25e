"""A few threads that each hold handles of their own, and results in the order of the jobs."""

import os
import queue
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import TypeVar

from rasterio.errors import NotGeoreferencedWarning

MOST_THREADS = 4  # that read layers: each adds about 20 MB

Job = TypeVar("Job")
Result = TypeVar("Result")
Opener = Callable[[], AbstractContextManager[Callable[[Job], Result]]]


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(jobs: Iterable[Job], opener: Opener[Job, Result], threads: int) -> Iterator[Result]:
    """Do jobs in threads; the results come in the order of the jobs, at most one more than threads ahead.

    Args:
        jobs: What to do.
        opener: Opens what a thread needs for its jobs (handles are not shared) and gives the function that does one.
        threads: How many.

    Raises:
        Exception: What opening or a job raised, in the place of its result.
    """
    todo: queue.SimpleQueue[tuple[Future[Result], Job] | None] = queue.SimpleQueue()
    workers = [threading.Thread(target=_work, args=(todo, opener), daemon=True) for _ in range(threads)]
    waiting: deque[Future[Result]] = deque()
    with warnings.catch_warnings():
        # rasterio silences this one by exchanging the filters, which all threads share: threads that overlap would
        # put back each other's filters too early
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        for worker in workers:
            worker.start()
        try:
            for job in jobs:
                waiting.append(Future())
                todo.put((waiting[-1], job))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            for _ in workers:
                todo.put(None)
            for worker in workers:
                worker.join()


def _work(todo: "queue.SimpleQueue[tuple[Future[Result], Job] | None]", opener: Opener[Job, Result]) -> None:
    """Do jobs until there are no more; an error, of the opening too, goes to who waits for the result."""
    over = False
    try:
        with opener() as work:
            for future, job in iter(todo.get, None):
                if future.set_running_or_notify_cancel():
                    try:
                        future.set_result(work(job))
                    except BaseException as error:
                        future.set_exception(error)
            over = True
    except BaseException as error:
        if over:
            raise
        for future, _ in iter(todo.get, None):
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
