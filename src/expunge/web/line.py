"""Line: jobs run one after another, each in a process of its own; the others wait and know their place."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Condition, Thread

from .shelf import Job, Shelf, State

SELDOM = {"TQDM_MININTERVAL": "30"}
"""Progress bars are for those who look at them."""


class Line:
    """For one device. A process waits with everything imported, so that a job begins at once."""

    def __init__(self, shelf: Shelf, *, warm: bool = True) -> None:
        self.shelf, self.warm = shelf, warm
        self._waiting: list[Job] = []
        self._now: Job | None = None
        self._process: subprocess.Popen[str] | None = None
        self._spare: subprocess.Popen[str] | None = None
        self._change, self._closed = Condition(), False
        self._thread = Thread(target=self._work, daemon=True)
        self._thread.start()

    def add(self, job: Job) -> None:
        """Puts it at the end, unless it is there."""
        with self._change:
            if job.id not in self._ids():
                self.shelf.again(job)
                self._waiting.append(job)
                self._change.notify_all()

    def _ids(self) -> list[str]:
        return [job.id for job in ([self._now] if self._now else []) + self._waiting]

    def ahead(self, job: Job) -> int | None:
        """How many go before it; None if it is not in the line."""
        with self._change:
            ids = self._ids()
        return ids.index(job.id) if job.id in ids else None

    def state(self, job: Job) -> State:
        ahead = self.ahead(job)
        if ahead is None:
            return self.shelf.state(job)
        return "running" if self._now is not None and self._now.id == job.id else "waiting"

    def stop(self, job: Job) -> None:
        """It finishes its step, keeps what there is, and can go on later; one that waits leaves the line."""
        with self._change:
            if job in self._waiting:
                self._waiting.remove(job)
                self.shelf.ended(job, 130)
                return
        if self.state(job) == "running":
            _end(self._pid(job))

    def _pid(self, job: Job) -> int:
        if self._process and self._now and self._now.id == job.id:
            return self._process.pid
        return int((self.shelf.place(job) / "pid").read_text())

    def close(self) -> None:
        """Stops the run, which can go on later, and ends."""
        with self._change:
            self._closed = True
            self._waiting.clear()
            self._change.notify_all()
        if self._process:
            _end(self._process.pid)
        self._thread.join()
        if self._spare and self._spare.stdin:
            self._spare.terminate()
            self._spare.wait()

    def _work(self) -> None:
        while True:
            if self.warm and not self._closed:
                self._ready()
            with self._change:
                self._change.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                self._now = self._waiting.pop(0)
                job = self._now
            self._run(job)
            with self._change:
                self._now = self._process = None

    def _ready(self) -> subprocess.Popen[str]:
        """The process that waits; a new one if it is not there."""
        if self._spare is None or self._spare.poll() is not None:
            self._spare = subprocess.Popen(
                [sys.executable, "-m", "expunge.cli.spare"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                text=True, start_new_session=True, env=os.environ | SELDOM,
            )  # fmt: skip
        return self._spare

    def _run(self, job: Job) -> None:
        """Until it ends. A process that is killed leaves no status: so it counts as stopped, and can go on."""
        self._process, self._spare = self._ready(), None
        with suppress(BrokenPipeError):
            self._process.communicate(json.dumps([arguments(job, self.shelf.place(job)), str(self.shelf.place(job))]))
        if self.shelf.code(job) is None:
            self.shelf.ended(job, 143 if self._process.returncode < 0 else self._process.returncode or 1)


def arguments(job: Job, folder: Path) -> list[str]:
    """The command line, which goes on where it was stopped."""
    begun = (folder / "told.txt").exists() and job.kind == "erase"
    return [job.arguments[0], *(["--resume"] if begun else []), *job.arguments[1:]]


def _end(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGTERM)
