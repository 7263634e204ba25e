"""Standard streams that are not there."""

import errno
import io
import os
import sys
from typing import Any


def open_closed() -> None:
    """Let standard streams that were closed go nowhere: rasters would take their numbers, and messages end in them."""
    for name, flag, mode in (("stdin", os.O_RDONLY, "r"), ("stdout", os.O_WRONLY, "w"), ("stderr", os.O_WRONLY, "w")):
        if getattr(sys, name) is None or (mode == "w" and not _takes_text(getattr(sys, name))):
            setattr(sys, name, os.fdopen(os.open(os.devnull, flag), mode))


def _takes_text(stream: Any) -> bool:
    """Whether a stream can be written to: a shell's script may have got the number of one that was closed."""
    if getattr(stream, "closed", False):
        return False
    try:
        os.write(stream.fileno(), b"")
    except (AttributeError, TypeError, io.UnsupportedOperation):  # it is no file, as in a notebook
        return True
    except OSError as error:
        # a full disk is told when there is something to write; a number below 0 is none
        return error.errno != errno.EBADF or stream.fileno() < 0
    return True
