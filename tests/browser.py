"""A real server in a process of its own, and a real Chromium that opens it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


class Served:
    """`expunge serve` on a free port; `address` is where."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "expunge", "serve", "--port", "0", "--folder", str(folder), *arguments]
        environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONUNBUFFERED": "1"}
        self.folder = folder
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.match(r"(http://\S+)", line)
        if not found:
            raise AssertionError(line + (self.process.stderr.read() if self.process.stderr else ""))
        self.address = found[1]

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Its exit status, and what it said."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[Served]:
    served = Served(folder, *arguments)
    try:
        yield served
    finally:
        if served.process.poll() is None:
            served.stop()
