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

from ..errors import ExpungeError
from .shelf import Job, Shelf, State

SELDOM = {"TQDM_MININTERVAL": "30"}
"""Progress bars are for those who look at them."""


class Line:
    """For one device."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self._waiting: list[Job] = []
        self._now: Job | None = None
        self._process: subprocess.Popen[str] | None = None
        self._spare: subprocess.Popen[str] | None = None
        self._change, self._closed, self._warm = Condition(), False, False
        self._thread = Thread(target=self._work, daemon=True)
        self._thread.start()

    def prepare(self) -> None:
        """From now on a process waits with everything imported, so that a job begins at once."""
        with self._change:
            self._warm = True
            self._change.notify_all()

    def add(self, job: Job) -> None:
        """Puts it at the end, unless it is there."""
        with self._change:
            if job.id not in self._ids():
                self.shelf.again(job)
                self._waiting.append(job)
                self._change.notify_all()

    def resume(self, job: Job) -> None:
        """Puts it at the end again. Raises ExpungeError unless it was stopped."""
        if self.state(job) != "stopped":
            raise ExpungeError("only a run that was stopped can go on")
        self.add(job)

    def _ids(self) -> list[str]:
        return [job.id for job in ([self._now] if self._now else []) + self._waiting]

    def ahead(self, job: Job) -> int | None:
        """How many go before it; None if it is not in the line."""
        with self._change:
            ids = self._ids()
        return ids.index(job.id) if job.id in ids else None

    def state(self, job: Job) -> State:
        with self._change:
            ids, now = self._ids(), self._now
        if job.id not in ids:
            return self.shelf.state(job)
        return "running" if now is not None and now.id == job.id else "waiting"

    def stop(self, job: Job) -> None:
        """It finishes its step, keeps what there is, and can go on later; one that waits leaves the line."""
        with self._change:
            if job in self._waiting:
                self._waiting.remove(job)
                self.shelf.ended(job, 130)
            elif self._now is not None and self._now.id == job.id and self._process:
                _end(self._process.pid)
            elif process := self.shelf.process(job):  # of an earlier server that was killed
                _end(process)

    def close(self) -> None:
        """Stops the run, which can go on later, and ends."""
        with self._change:
            self._closed = True
            self._waiting.clear()
            self._change.notify_all()
            if self._process:
                _end(self._process.pid)
        self._thread.join()
        if self._spare:
            _end(self._spare.pid)
            self._spare.communicate()

    def _work(self) -> None:
        while job := self._next():
            with suppress(ExpungeError):  # the disk is full: what there is tells that it did not end
                self._finish(job)
            with self._change:
                self._now = self._process = None

    def _next(self) -> Job | None:
        """The job that begins now, once there is one; None in the end."""
        with self._change:
            while not (self._waiting or self._closed):
                if self._warm:
                    self._ready()
                self._change.wait()
            if self._closed:
                return None
            self._now = self._waiting.pop(0)
            self._process, self._spare = self._ready(), None
            return self._now

    def _ready(self) -> subprocess.Popen[str]:
        """The process that waits; a new one if it is not there."""
        if self._spare is None or self._spare.poll() is not None:
            self._spare = subprocess.Popen(
                [sys.executable, "-m", "expunge.cli.spare"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                text=True, start_new_session=True, env=os.environ | SELDOM,
            )  # fmt: skip
        return self._spare

    def _finish(self, job: Job) -> None:
        """Runs it to its end. A process that is killed leaves no status: so it counts as stopped, and can go on."""
        assert self._process is not None
        folder = self.shelf.place(job)
        with suppress(BrokenPipeError):
            self._process.communicate(json.dumps([arguments(job, folder), str(folder.resolve())]))
        if self.shelf.code(job) is None:
            self.shelf.ended(job, 143 if self._process.returncode < 0 else self._process.returncode or 1)


def arguments(job: Job, folder: Path) -> list[str]:
    """The command line, which goes on where it was stopped."""
    begun = (folder / "told.txt").exists() and job.kind == "erase"
    return [job.arguments[0], *(["--resume"] if begun else []), *job.arguments[1:]]


def _end(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGTERM)
