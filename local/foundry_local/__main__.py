"""``python -m foundry_local``: run the platform until SIGTERM or Ctrl-C."""

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from .errors import PlatformError
from .state import DEFAULT_STATE, StateDir, Status

if TYPE_CHECKING:
    from .platform import Platform

log = logging.getLogger("foundry_local")
LOG_LIMIT_BYTES = 20 * 1024 * 1024
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def main() -> int:
    """Exit status: 0 after a clean stop, 1 when the platform could not start (the reason is one message)."""
    arguments = _arguments()
    keep_forks_safe()
    os.umask(0o077)
    state = StateDir(arguments.state)
    try:
        state.create()
        lock = state.lock()
    except PlatformError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    console = _log_to(state.log)
    try:
        return _run(arguments.root, state, arguments.port, console)
    finally:
        console.flush()
        os.close(lock)


def keep_forks_safe() -> None:
    """Before NumPy is loaded: a fork (each snapshot is one) stops OpenBLAS's threads, and would wait for ever, holding
    the interpreter, when a simulation is using them. One thread is what a Lambda function has, too."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m foundry_local", description="Run the platform on this machine.")
    parser.add_argument("--state", type=Path, default=DEFAULT_STATE, help="state directory (%(default)s)")
    parser.add_argument("--port", type=int, default=None, help="port of the front; 0: any free one")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="checkout to deploy (this directory)")
    return parser.parse_args()


def _run(root: Path, state: StateDir, port: int | None, console: TextIO) -> int:
    from .platform import Options, Platform

    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    platform = Platform(Options(root.absolute(), state, port), _reporter(state, console))
    try:
        platform.start()
    except PlatformError as error:
        return _give_up(platform, console, str(error))
    except Exception as error:
        log.exception("the platform could not start")
        return _give_up(platform, console, f"{type(error).__name__}: {error} (see {state.log})")
    stopping.wait()
    platform.stop()
    return 0


def _give_up(platform: "Platform", console: TextIO, message: str) -> int:
    log.error("%s", message)
    platform.stop()
    platform.fail(message)
    console.write(f"error: {message}\n")
    return 1


def _reporter(state: StateDir, console: TextIO) -> Callable[[Status], None]:
    def report(status: Status) -> None:
        state.write_status(status)
        console.write(f"{status.state}: {status.step or status.api_url or ''}\n")
        console.flush()

    return report


def _log_to(path: Path) -> TextIO:
    """Send what this process and its functions print to ``path``; returns the console that it was printed on."""
    if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
        path.replace(path.with_suffix(".log.1"))
    console = os.fdopen(os.dup(1), "w", encoding="utf-8")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    _log_here()
    return console


def _log_here() -> None:
    logging.basicConfig(level=logging.WARNING, format=_FORMAT, stream=sys.stderr)
    # A handler of our own: Powertools puts a filter on those of the root that drops whatever has its service's name
    # ("foundry") in the name of its logger.
    own = logging.StreamHandler(sys.stderr)
    own.setFormatter(logging.Formatter(_FORMAT))
    log.addHandler(own)
    log.propagate = False
    log.setLevel(logging.INFO)


if __name__ == "__main__":
    sys.exit(main())
