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


MOST = 50
"""Jobs that wait, at most."""
PATIENCE = 1.0
"""Seconds between looks at runs of an earlier server."""


class Line:
    """For one device; of these kinds of jobs, those that a killed server left running go first."""

    def __init__(self, shelf: Shelf, *kinds: str) -> None:
        self.shelf = shelf
        self._waiting: list[Job] = []
        self._now: Job | None = None
        self._process: subprocess.Popen[str] | None = None
        self._spare: subprocess.Popen[str] | None = None
        self._change, self._closed, self._warm = Condition(), False, False
        self._orphans = [job for job in shelf.jobs() if job.kind in kinds and shelf.process(job)]
        self._thread = Thread(target=self._work, daemon=True)
        self._thread.start()

    def prepare(self) -> None:
        """From now on a process waits with everything imported, so that a job begins at once."""
        with self._change:
            self._warm = True
            self._change.notify_all()

    def add(self, job: Job) -> None:
        """Puts it at the end, unless it is there. Raises ExpungeError if too many wait."""
        with self._change:
            if len(self._waiting) >= MOST:
                raise ExpungeError(f"{MOST} runs wait already; come again later")
            if job.id not in self._ids():
                self.shelf.again(job)
                self._waiting.append(job)
                self._change.notify_all()

    def resume(self, job: Job) -> None:
        """Puts it at the end again. Raises ExpungeError unless it was stopped, or failed."""
        if self.state(job) not in ("stopped", "failed"):
            raise ExpungeError("only a run that was stopped, or failed, can go on")
        self.add(job)

    def _ids(self) -> list[str]:
        return [job.id for job in [*self._orphans, *([self._now] if self._now else []), *self._waiting]]

    @property
    def busy(self) -> bool:
        """Whether any job is at work, or waits."""
        with self._change:
            return bool(self._ids())

    def ahead(self, job: Job) -> int | None:
        """How many go before it; None if it is not in the line."""
        with self._change:
            ids = self._ids()
        return ids.index(job.id) if job.id in ids else None

    def state(self, job: Job) -> State:
        with self._change:
            ids, now = self._ids(), self._now
        if job.id not in ids or job in self._orphans:
            return self.shelf.state(job)
        return "running" if now is not None and now.id == job.id else "waiting"

    def stop(self, job: Job) -> None:
        """It finishes its step, keeps what there is, and can go on later; one that waits leaves the line."""
        with self._change:
            if job in self._waiting:
                self._waiting.remove(job)
                self.shelf.ended(job, 130)
            elif self._now is not None and self._now.id == job.id:
                if self._process:
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
            with suppress(ExpungeError, OSError):  # no memory, or a full disk: what there is tells that it did not end
                self._finish(job)
            with self._change:
                self._now = self._process = None

    def _next(self) -> Job | None:
        """The job that begins now, once there is one; None in the end."""
        with self._change:
            while not (self._closed or (self._waiting and not self._orphans)):
                if self._warm:
                    with suppress(OSError):
                        self._ready()
                self._change.wait(PATIENCE if self._orphans else None)
                self._orphans = [job for job in self._orphans if self.shelf.process(job)]
            self._now = None if self._closed else self._waiting.pop(0)
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
        with self._change:
            if self._closed:
                return
            self._process, self._spare = self._ready(), None
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
