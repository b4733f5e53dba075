"""Shelf: what the page keeps, in one folder: a run (an erasure, an audit, an export, an upload) is a folder of its own.

FOLDER/runs/ID/   job.json    which command line it is, and in which words
                  told.txt    what that said
                  end.json    its exit status, once it has ended
                  …           what it leaves, as `expunge` leaves it in any folder

A visitor names a run by its id, which is looked up here; it is never a path. All is read from the disk, so that a
run outlives the page, and the page its server.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import ExpungeError
from ..files import parsed, write_json
from ..lock import held

Kind = Literal["erase", "audit", "export", "upload"]


class Job(BaseModel):
    """A command line, which is run in the job's own folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    kind: Kind
    title: str
    arguments: tuple[str, ...]
    made: str

    @property
    def command(self) -> str:
        """As one types it."""
        return shlex.join(["expunge", *self.arguments])

    @property
    def product(self) -> str:
        """What it leaves: a file or a folder in its own."""
        return self.arguments[self.arguments.index("--out") + 1]

    @property
    def model(self) -> str | None:
        """The model that it is of; what visitors bring may be of any."""
        own = self.arguments[: self.arguments.index("--")] if "--" in self.arguments else self.arguments
        named = own[own.index("--model") + 1] if "--model" in own else "smallworld"
        return None if self.kind == "upload" else named


State = Literal["waiting", "running", "done", "stopped", "failed"]

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,79}")


@dataclass(frozen=True)
class Shelf:
    """`edits`, `audits` and `others` are more of them by name, from elsewhere: files, folders, and studies' folders."""

    folder: Path
    edits: Mapping[str, Path] = field(default_factory=dict)
    audits: Mapping[str, Path] = field(default_factory=dict)
    others: Mapping[str, Path] = field(default_factory=dict)

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def pictures(self) -> Path:
        """Those that visitors look at: they live as long as the server."""
        return self.folder / ".pictures"

    @property
    def studies(self) -> Path:
        return self.folder / "studies"

    def add(self, kind: Kind, name: str, title: str, arguments: Sequence[str]) -> Job:
        """A new job; OUT in its arguments becomes its id."""
        id = self._free(name)
        given = tuple(a.replace(OUT, id) for a in arguments)
        job = Job(id=id, kind=kind, title=title, arguments=given, made=datetime.now(UTC).isoformat(timespec="seconds"))
        write_json(self.runs / id / "job.json", job.model_dump(mode="json"))
        return job

    def _free(self, name: str) -> str:
        """A name for a folder, which is made, so that no other takes it."""
        taken = {*self.edits, *self.audits}
        return next(id for id in numbered(slug(name)) if id not in taken and _made(self.runs / id))

    def jobs(self) -> list[Job]:
        """All of them, the newest first."""
        found = [self._read(path.parent) for path in self.runs.glob("*/job.json")]
        return sorted((job for job in found if job), key=lambda job: (job.made, job.id), reverse=True)

    def job(self, id: object) -> Job:
        """Raises ExpungeError if there is none of that id."""
        found = self._read(self.runs / id) if isinstance(id, str) and NAME.fullmatch(id) else None
        if found is None:
            raise ExpungeError("there is no such run: choose one of the list")
        return found

    def _read(self, folder: Path) -> Job | None:
        file = folder / "job.json"
        try:
            return _job(file, file.stat().st_mtime_ns)
        except (OSError, ValidationError, ExpungeError):
            return None

    def place(self, job: Job) -> Path:
        return self.runs / job.id

    def state(self, job: Job) -> State:
        """As the disk tells; that a run waits, only its line knows."""
        code = self.code(job)
        if code is None:
            return "running" if held(self.place(job) / "job") else "stopped"
        return "done" if code == 0 else "stopped" if code in (130, 143) else "failed"

    def code(self, job: Job) -> int | None:
        """The exit status, once it has ended."""
        try:
            return int(parsed((self.place(job) / "end.json").read_bytes(), "end.json")["code"])
        except (OSError, ExpungeError, KeyError, TypeError, ValueError):
            return None

    def process(self, job: Job) -> int | None:
        """The process that runs it, whoever started that."""
        file = self.place(job) / "pid"
        return int(file.read_text()) if held(self.place(job) / "job") and file.is_file() else None

    def told(self, job: Job) -> list[str]:
        """What it said, a line each; of a line that it wrote over, the last."""
        path = self.place(job) / "told.txt"
        return _told(path, path.stat().st_size) if path.is_file() else []

    def complaint(self, job: Job) -> str:
        """Why it failed."""
        lines = [line for line in self.told(job) if line.strip()]
        ours = [line.removeprefix("expunge: ") for line in lines if line.startswith("expunge: ")]
        return (ours or lines or ["it ended without a word"])[-1]

    def again(self, job: Job) -> None:
        """Forgets that it has ended."""
        (self.place(job) / "end.json").unlink(missing_ok=True)

    def ended(self, job: Job, code: int) -> None:
        """Of a run that never came to say so."""
        write_json(self.place(job) / "end.json", {"code": code})

    def known_edits(self, model: str | None = None) -> dict[str, Path]:
        """The edits that are there, by name; with `model`, without those that were made of another one here."""
        made = [job for job in self.jobs() if job.kind in ("erase", "upload") and self.code(job) == 0]
        own = [job for job in made if None in (model, job.model) or job.model == model]
        return {**{job.id: self.place(job) / job.product for job in own}, **self.edits}

    def known_audits(self) -> dict[str, Path]:
        """The folders of audits that are there, by name."""
        own = [job for job in self.jobs() if job.kind == "audit" and self.code(job) == 0]
        return {**{job.id: self.place(job) / job.product for job in own}, **self.audits}

    def known_studies(self) -> dict[str, Path]:
        """The folders of studies that are there, by name, the oldest first."""
        own = sorted(self.studies.glob("*/study.json"), key=lambda path: path.stat().st_mtime)
        return {**self.others, **{path.parent.name: path.parent for path in own}}

    def study(self, name: object) -> Path:
        """Raises ExpungeError if there is none of that name."""
        return _of(self.known_studies(), name, "study")

    def new_study(self, name: str) -> Path:
        """A new folder for one."""
        return self.studies / next(n for n in numbered(slug(name)) if n not in self.others and _made(self.studies / n))

    def edit(self, name: object) -> Path:
        """Raises ExpungeError if there is none of that name."""
        return self._done(name, ("erase", "upload")) or _of(self.edits, name, "edit")

    def audit(self, name: object) -> Path:
        """Raises ExpungeError if there is none of that name."""
        return self._done(name, ("audit",)) or _of(self.audits, name, "audit")

    def file(self, name: object) -> Path:
        """What can be taken home: an edit, or what was made of one. Raises ExpungeError if there is none."""
        return self._done(name, ("erase", "upload", "export")) or _of(self.edits, name, "file")

    def _done(self, name: object, kinds: Sequence[Kind]) -> Path | None:
        """What a job of ours left, if it is of that kind and done."""
        job = self._read(self.runs / name) if isinstance(name, str) and NAME.fullmatch(name) else None
        found = job is not None and job.kind in kinds and self.code(job) == 0
        return self.place(job) / job.product if job and found else None

    def lend(self, edits: Sequence[str], job: Job) -> None:
        """Puts the edits into the job's folder, under their names."""
        for name in edits:
            share(self.edit(name), self.place(job) / f"{name}.safetensors")


OUT = "{out}"


@lru_cache(maxsize=10_000)
def _job(file: Path, _made: int) -> Job:
    return Job.model_validate(parsed(file.read_bytes(), "job.json"))


@lru_cache(maxsize=64)
def _told(path: Path, _size: int) -> list[str]:
    text = path.read_bytes().decode("utf-8", "replace")
    return [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]


def slug(name: str) -> str:
    """A name that a folder can have."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60].strip("-") or "run"


def numbered(name: str) -> Iterator[str]:
    """The name, then with 2, 3, … behind it."""
    return (name if n == 1 else f"{name}-{n}" for n in count(1))


def _made(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return False
    return True


def _of(known: Mapping[str, Path], name: object, what: str) -> Path:
    if not isinstance(name, str) or name not in known:
        raise ExpungeError(f"there is no such {what}: choose one of the list")
    return known[name]


def share(file: Path, to: Path) -> None:
    """The same file under another name, without a copy where the disk can."""
    try:
        os.link(file.resolve(), to)
    except OSError:
        shutil.copyfile(file, to)


def about(value: Any) -> str:
    """A moment as people say it."""
    return datetime.fromisoformat(value).astimezone().strftime("%-d %B, %H:%M")
