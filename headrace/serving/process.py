"""A server as a process: its command line, its life until a signal, its exit code, and the lock on its folder."""

import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, TextIO

from headrace.errors import FailedPrecondition, HeadraceError, InvalidArgument
from headrace.serving.auth import Authenticator, OpenAuthenticator, TokenAuthenticator
from headrace.serving.logging import EventLog

EXIT_CLEAN: Final = 0
EXIT_REFUSED: Final = 2  # a wrong argument, a folder or port in use
PORT_MAX: Final = 65_535


def serve(name: str, running: Callable[[EventLog], AbstractContextManager[object]]) -> int:
    """Holds `running` until SIGTERM or SIGINT; returns the exit code. A refusal is one line on the error output."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    log = EventLog(name, time.time, sys.stdout)
    try:
        with running(log):
            stop.wait()
            log.info("stopping")
    except HeadraceError as error:
        sys.stderr.write(f"{name}: {error.message}\n")
        return EXIT_REFUSED
    log.info("stopped")
    return EXIT_CLEAN


def port(text: str) -> int:
    """A port number."""
    number = int(text)
    if not 0 <= number <= PORT_MAX:
        raise ValueError(f"{number} is no port")
    return number


def authenticator_of(tokens: Path | None, log: EventLog) -> Authenticator:
    """By the entries of a token file; without one everybody on loopback may call. Raises InvalidArgument."""
    if tokens is None:
        return OpenAuthenticator()
    try:
        return TokenAuthenticator(tokens, time.monotonic, log)
    except OSError as error:
        raise InvalidArgument(
            f"token file {tokens} cannot be read: {error.strerror}", reason="TOKEN_FILE", field="tokens"
        ) from error


def bearer_token(path: Path | None, field: str) -> str | None:
    """Token in the file that the option `field` names, None without one. Raises InvalidArgument."""
    if path is None:
        return None
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        what = field.replace("_", " ")
        raise InvalidArgument(f"{what} file {path} cannot be read", reason="TOKEN_FILE", field=field) from error


@contextmanager
def locked_folder(folder: Path, file_name: str) -> Iterator[None]:
    """Holds the lock; raises FailedPrecondition where another process does. A killed process leaves none behind."""
    with _opened(folder, file_name) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read(20).strip() or "unknown"
            raise FailedPrecondition(
                f"data folder {folder} is in use by process {holder}; stop it or choose another folder",
                reason="DATA_FOLDER_IN_USE",
                metadata={"folder": str(folder), "pid": holder},
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _opened(folder: Path, file_name: str) -> TextIO:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return open(folder / file_name, "a+", encoding="ascii")
    except OSError as error:
        raise FailedPrecondition(
            f"data folder {folder} cannot be written: {error.strerror}; choose another with --data",
            reason="DATA_FOLDER_NOT_WRITABLE",
            metadata={"folder": str(folder)},
        ) from error
