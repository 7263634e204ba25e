"""Signals that end a training wait until the step is done, so that its work can be saved."""

import signal
import threading
from types import FrameType
from typing import Any, Self

ENDING = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Holds back the first signal that would end the process; a second one is not held back.

    Only in the main thread, where Python handles signals.

    Args:
        is_on: Whether to hold any back.

    Attributes:
        is_waiting: Whether a signal has come.
    """

    def __init__(self, is_on: bool) -> None:
        self.is_waiting = False
        self._is_on, self._number = is_on, signal.SIGINT
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if self._is_on and threading.current_thread() is threading.main_thread():
            found = {number: signal.getsignal(number) for number in ENDING}
            # who ignores a signal, as a job in the background does, goes on ignoring it; None is not Python's to change
            self._handlers = {
                number: handler for number, handler in found.items() if handler not in (None, signal.SIG_IGN)
            }
            for number in self._handlers:
                signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._let_go()

    def act(self) -> None:
        """Do what the signal that waits would have done at once."""
        self._let_go()
        self.is_waiting = False
        signal.raise_signal(self._number)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.is_waiting, self._number = True, signal.Signals(number)
        self._let_go()

    def _let_go(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
