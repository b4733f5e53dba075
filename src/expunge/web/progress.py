"""Progress: how far a job is, from what it writes in its folder."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from ..frames import SHARE
from ..journal import beside
from .shelf import Job, Shelf

SURE = 4
"""Steps, of which the first is slow, before a time is told."""
RECENT = 20
"""Steps whose pace is the run's."""


@dataclass(frozen=True)
class Progress:
    """`done` of `total`; `left` is in seconds, None where nobody knows; `facts` are for people."""

    done: int = 0
    total: int = 0
    unit: str = "steps"
    left: float | None = None
    losses: tuple[float, ...] = ()
    facts: str = ""


def progress(shelf: Shelf, job: Job) -> Progress:
    out = shelf.place(job) / job.product
    if job.kind == "erase":
        return of_erasure(follow(out.with_suffix(".jsonl")))
    return of_audit(follow(beside(out)), shelf.told(job)) if job.kind == "audit" else Progress(unit="")


class Log:
    """A log's lines so far; only what is new is read."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self._file, self._read = 0, 0

    def follow(self, path: Path) -> Sequence[dict[str, Any]]:
        with suppress(FileNotFoundError), path.open("rb") as file:
            about = os.fstat(file.fileno())
            if about.st_ino != self._file or about.st_size < self._read:  # it was begun anew
                self.lines, self._file, self._read = [], about.st_ino, 0
            file.seek(self._read)
            whole = file.read().rpartition(b"\n")[0]
            self._read += len(whole) + 1 if whole else 0
            self.lines = [*self.lines, *entries(whole)]
        return self.lines


def entries(text: bytes) -> list[dict[str, Any]]:
    """Lines of JSON; what is none counts for nothing."""
    found = []
    for line in text.splitlines():
        with suppress(ValueError):
            found.append(json.loads(line))
    return [value for value in found if isinstance(value, dict)]


@lru_cache(maxsize=32)
def _log(_path: Path) -> Log:
    return Log()


READING = Lock()


def follow(path: Path) -> Sequence[dict[str, Any]]:
    """The lines of a log."""
    with READING:
        return _log(path).follow(path)


def of_erasure(log: Sequence[dict[str, Any]]) -> Progress:
    """From a run log."""
    steps = [line for line in log if "step" in line]
    if not steps:
        return Progress()
    total, last = int(log[0].get("run", {}).get("options", {}).get("steps", 0)), steps[-1]
    facts = f"loss {last['loss']:.4f} · {last['passes']:,} network passes · {last['memory'] / 2**20:,.0f} MiB"
    left = max(0, total - last["step"]) * pace(steps) if len(steps) >= SURE else None
    return Progress(last["step"], total, "steps", left, tuple(line["loss"] for line in steps), facts)


def pace(steps: Sequence[dict[str, Any]]) -> float:
    """Seconds a step, pictures on the way among them."""
    late = [line for line in steps[-RECENT:] if line["step"] > 1] or [steps[-1]]
    first, last = late[0], late[-1]
    apart = last["step"] - first["step"]
    each = (last["seconds"] - first["seconds"]) / apart if apart else last["seconds"] / last["step"]
    return float(each * (1 + SHARE))


def of_audit(log: Sequence[dict[str, Any]], told: Sequence[str]) -> Progress:
    """From an audit's journal, and what it said that it would do."""
    made = [line for line in log if "pictures" in line]
    done, seconds = sum(line["pictures"] for line in made), sum(line["seconds"] for line in made)
    said = next((m for m in (re.search(r"(\d+) pictures of each of (\d+) rows", line) for line in told) if m), None)
    total = int(said[1]) * int(said[2]) if said else 0
    left = (total - done) * seconds / done if done and total else None
    looks = sum(line["looks"] for line in log if "looks" in line)
    facts = f"{done:,} pictures made" + (f" · {looks:,} looks of judges" if looks else "")
    return Progress(min(done, total), total, "pictures", left, (), facts)


@dataclass(frozen=True)
class Film:
    """The frames of an erasure: prompts, the steps of which all pictures are there, and the folder's name."""

    prompts: Sequence[str] = ()
    steps: Sequence[int] = ()


def film(shelf: Shelf, job: Job) -> Film:
    from ..files import parsed

    folder = frames(shelf, job)
    head = folder / "frames.json"
    if not head.is_file():
        return Film()
    prompts = parsed(head.read_bytes(), "frames.json")["prompts"]
    last = f"-{len(prompts) - 1}.png"
    return Film(prompts, sorted(int(p.name[:6]) for p in folder.glob(f"*{last}") if p.name[:6].isdigit()))


def frames(shelf: Shelf, job: Job) -> Path:
    """The folder of an erasure's frames."""
    return shelf.place(job) / FRAMES


FRAMES = "frames"


def ago(seconds: float) -> str:
    """A time left, as people say it."""
    if seconds < 1:
        return "a moment"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
