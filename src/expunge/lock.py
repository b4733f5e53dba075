"""Lock: two runs never write into one place at once. When a process ends, by kill -9 too, the kernel lets go."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ExpungeError
from .files import check_writable

PATIENCE = 0.5
"""Seconds in which another run may be just leaving."""


@contextmanager
def locked(path: Path, *, folder: bool = False, shared: bool = False) -> Iterator[None]:
    """Inside the block no other run writes this file, or into this folder, which is made; only other `shared` ones do.

    Raises ExpungeError if another run does, or if nothing can be written there.
    """
    file = path / ".lock" if folder else path.with_name(f".{path.name}.lock")
    check_writable(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = _taken(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    except OSError as error:
        raise ExpungeError(f"cannot lock {path}: {error.strerror or error}; choose another --out") from error
    if handle is None:
        raise ExpungeError(f"another run is writing {path}; wait for it, or choose another --out")
    try:
        yield
    finally:
        _left(file, handle)


def held(path: Path) -> bool:
    """Whether another run writes this file now."""
    try:
        handle = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR)
    except FileNotFoundError:
        return False
    free = _lock(handle, fcntl.LOCK_SH)
    os.close(handle)
    return not free


def _taken(file: Path, kind: int) -> int | None:
    """The file, open and locked; None if another process keeps it for as long as we are patient."""
    end = time.monotonic() + PATIENCE
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        if _lock(handle, kind) and _is(file, handle):
            return handle
        os.close(handle)
        if time.monotonic() > end:
            return None
        time.sleep(0.01)


def _lock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is(file: Path, handle: int) -> bool:
    """Whether the open file still has its name: one who left may have removed it."""
    try:
        return os.path.samestat(file.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _left(file: Path, handle: int) -> None:
    """The last to leave removes the file."""
    if _lock(handle, fcntl.LOCK_EX):
        file.unlink(missing_ok=True)
    os.close(handle)
