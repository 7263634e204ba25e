"""The command group: errors become one line and exit code 1, logs go to stderr."""

import errno
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from geop2p import GeoP2PError, __version__
from geop2p_cli.compare import compare
from geop2p_cli.demo import demo
from geop2p_cli.evaluate import evaluate
from geop2p_cli.export import export
from geop2p_cli.info import info
from geop2p_cli.models import models
from geop2p_cli.options import in_options
from geop2p_cli.predict import predict
from geop2p_cli.streams import open_closed
from geop2p_cli.tile import tile
from geop2p_cli.train import train

# what a user can see to; a file that is missing or in the way is a bug where nothing of ours tells of it
OF_THE_SYSTEM = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.EIO, errno.EMFILE, errno.ENFILE,
}  # fmt: skip
FULL = {errno.ENOSPC, errno.EDQUOT}
INTERRUPTED, TERMINATED = 130, 143  # exit codes by which shells know that Ctrl-C or SIGTERM ended a command


class Terminated(KeyboardInterrupt):
    """SIGTERM came, as from a batch system: what is cleaned up after Ctrl-C is cleaned up after it."""


class OneLineErrors(click.Group):
    """A group whose commands report geop2p's own errors, and signals, in one line; bugs keep their traceback."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command line."""
        open_closed()
        try:
            return super().main(*args, **kwargs)
        except OSError as error:  # of what is told before a command runs, as by --help
            if error.errno not in FULL or not kwargs.get("standalone_mode", True):
                raise
            # what waits there cannot be written at the end either
            sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
            click.echo("Error: stdout: no space left on the device", err=True)
            sys.exit(1)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse names that no page, index or card could hold, and those that a shell makes of nothing."""
        for word in args:
            if not word:
                raise click.UsageError("one of the names or values is empty; a variable may not be set")
            try:
                word.encode()
            except UnicodeEncodeError as error:
                told = f"{os.fsencode(word)!r}: is no UTF-8 text; rename it, or set a UTF-8 locale"
                raise click.UsageError(told) from error
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            with _raising_at_sigterm():
                return super().invoke(ctx)
        except GeoP2PError as error:
            told = " ".join(str(error).split())
            running = self.commands.get(str(ctx.invoked_subcommand))
            raise click.ClickException(told if running is None else in_options(told, running)) from error
        except OSError as error:
            if error.errno in FULL:
                told = f"{error.filename or 'the output'}: no space left on the device"
            elif error.errno in OF_THE_SYSTEM and error.filename is not None:
                told = f"{error.filename}: {error.strerror}"
            else:
                raise
            raise click.ClickException(told) from error
        except KeyboardInterrupt as error:
            told, code = ("Terminated", TERMINATED) if isinstance(error, Terminated) else ("Interrupted", INTERRUPTED)
            click.echo(told, err=True)
            raise click.exceptions.Exit(code) from error


@contextmanager
def _raising_at_sigterm() -> Iterator[None]:
    """Turn the first SIGTERM into an exception; a second one ends the process at once.

    Whoever handles it already goes on doing so.
    """
    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Terminated


class InOptions(logging.Formatter):
    """Lines that name the options of the running command."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        context = click.get_current_context(silent=True)
        line = super().format(record)
        return line if context is None else in_options(line, context.command)


class AboveBars(logging.StreamHandler[Any]):
    """Lines on stderr that no progress bar runs into; one that is shown is drawn again below."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        if (bars := sys.modules.get("tqdm")) is None:
            super().emit(record)
        else:
            with bars.tqdm.external_write_mode(file=self.stream):
                super().emit(record)


class ToldOnce(logging.Filter):
    """Drops a line that the command has told already: a raster that is opened for several ends warns each time."""

    def __init__(self) -> None:
        super().__init__()
        self.told: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is new."""
        line = record.getMessage()
        is_new = line not in self.told
        self.told.add(line)
        return is_new


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="geop2p")
def main() -> None:
    """Translate one georeferenced raster into another.

    \b
    geop2p tile landcover.tif image.tif chips     cut paired chips
    geop2p train chips run                        train pix2pix on them
    geop2p predict run landcover.tif out.tif      translate a raster of any size
    geop2p evaluate run chips report.html         score the model on its test chips

    Every command has --help with an example.
    """
    # Threads that wait for each other by spinning make training ten to forty times slower beside one busy process;
    # waiting asleep costs nothing measurable. It counts only if set before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("CPL_LOG", os.devnull)  # threads of GDAL tell there what our one line tells
    lines = AboveBars()
    lines.addFilter(ToldOnce())
    lines.setFormatter(InOptions("%(message)s"))
    logging.basicConfig(handlers=[lines])
    ours = logging.getLogger("geop2p")
    ours.setLevel(logging.INFO)
    warnings.showwarning = lambda message, *_, **__: ours.warning("%s", " ".join(str(message).split()))
    logging.getLogger("rasterio").setLevel(logging.CRITICAL)  # errors of GDAL reach the user in our line


for command in (tile, train, predict, evaluate, compare, export, info, models, demo):
    main.add_command(command)
