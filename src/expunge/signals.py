"""Signals: a run that is asked to end finishes what it is at, keeps it, and says where it stopped."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from .errors import Interrupted


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Yields a list that receives SIGINT or SIGTERM; a second signal acts as usual. Only in the main thread."""
    received: list[int] = []
    previous: dict[signal.Signals, Any] = {}

    def note(number: int, _frame: object) -> None:
        received.append(number)
        signal.signal(number, previous[signal.Signals(number)])

    with suppress(ValueError):  # raised outside the main thread
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def obey(received: Sequence[int], done: int, total: int, what: str) -> None:
    """Raises Interrupted if a signal came: so much is done and kept."""
    if received:
        told = f"stopped after {done} of {total} {what}, which are kept; give the same command again to go on"
        raise Interrupted(told, 128 + received[0])
