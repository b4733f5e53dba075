"""Command lines in processes of their own, which begin at once: a process that has everything imported makes them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ZYGOTE = [sys.executable, str(Path(__file__).with_name("zygote.py"))]


@dataclass
class Runner:
    """Starts command lines quickly, one at a time, ends them, and counts the kills that met a living run."""

    process: subprocess.Popen[str]
    kills: int = 0
    random: random.Random = field(default_factory=lambda: random.Random(0))

    def start(self, arguments: Sequence[str], told: Path) -> int:
        """The process that runs it."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([arguments, str(told)]) + "\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def finish(self, arguments: Sequence[str], told: Path) -> float:
        """Runs it to its end; its seconds."""
        begun = time.monotonic()
        self.start(arguments, told)
        assert self._read() == 0 or "is there already" in told.read_text(), told.read_text()
        return time.monotonic() - begun

    def kill(self, arguments: Sequence[str], told: Path, life: float) -> bool:
        """Runs it, and kills it somewhere in its life; whether it still lived."""
        child = self.start(arguments, told)
        time.sleep(self.random.uniform(0, life))
        with suppress(ProcessLookupError):  # it has ended
            os.kill(child, signal.SIGKILL)
        status = self._read()
        killed = status == -signal.SIGKILL
        assert killed or status == 0 or "is there already" in told.read_text(), told.read_text()
        self.kills += killed
        return killed

    def ended(self, arguments: Sequence[str], told: Path, number: int, when: Callable[[], object]) -> int:
        """Runs it, and sends it the signal as soon as that is the case; its exit status."""
        child = self.start(arguments, told)
        while psutil.pid_exists(child) and not when():
            time.sleep(0.005)
        with suppress(ProcessLookupError):
            os.kill(child, number)
        return self._read()


@contextmanager
def running() -> Iterator[Runner]:
    process = subprocess.Popen(ZYGOTE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    yield Runner(process)
    process.communicate()
