"""Gallery: the pictures of one model for a list of requests, on disk, with what instruments say of them.

Verdicts and features are kept beside the pictures under the instrument's identity, a batch at a time, so that a killed
run repeats one batch at most and a second run looks at nothing twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from .errors import ExpungeError
from .files import append, hash_file
from .generation import Request, batched
from .journal import Journal, beside
from .judge import Eye, Judge, Verdict
from .picture import opened
from .signals import obey, stop_signals

BATCH = 64
"""Pictures that are looked at together."""

Found = TypeVar("Found")


@dataclass(frozen=True)
class Gallery:
    """`files` in `folder`, one for each of `requests`; `model` is whose they are.

    They are read as they are, or as squares of `side` pixels. What is found is kept beside the folder, under the files'
    names, which tell their contents; of a folder of someone else's, in `beside`, under hashes of the files.
    """

    model: str
    folder: Path
    requests: Sequence[Request]
    files: Sequence[str]
    device: torch.device = torch.device("cpu")
    side: int | None = None
    beside: Path | None = None

    def __len__(self) -> int:
        return len(self.files)

    def only(self, keep: Callable[[Request], bool]) -> Gallery:
        """Those pictures alone whose requests pass."""
        kept = [(r, f) for r, f in zip(self.requests, self.files, strict=True) if keep(r)]
        return replace(self, requests=[r for r, _ in kept], files=[f for _, f in kept])

    def images(self, files: Sequence[str]) -> Tensor:
        """(n, 3, H, W) in [-1, 1]. Raises ExpungeError for one that is damaged."""
        return torch.cat([opened(self.folder / name, self.side) for name in files]).to(self.device)

    def verdicts(self, judge: Judge) -> list[Verdict]:
        """The judge's verdicts, in the order of the requests."""
        known = self._store(self.folder.parent, "verdicts", judge)
        return known.complete(self.files, lambda names: judge.look(self.images(names)), f"judging by {judge.kind}")

    def features(self, eye: Eye) -> Tensor:
        """(n, d), in the order of the requests."""
        known = self._store(self.beside or self.folder.parent, "features", eye)
        files = {self._key(name): name for name in self.files}

        def find(keys: Sequence[str]) -> list[list[float]]:
            return _rows(eye.features(self.images([files[k] for k in keys])))

        return torch.tensor(known.complete([self._key(name) for name in self.files], find, f"seen by {eye.kind}"))

    def _store(self, home: Path, kind: str, by: Judge | Eye) -> Store:
        """What is known of that kind by an instrument; what is found out is told in the home's journal."""
        return Store(home / kind / f"{by.kind}-{by.identity()}.jsonl", Journal(beside(home), self.device))

    def _key(self, name: str) -> str:
        """What tells a picture's content, as it is read."""
        return name if self.beside is None else f"{hash_file(self.folder / name)}-{self.side}"

    def distances(self, other: Gallery, eye: Eye) -> list[float]:
        """Perceptual distance of each picture to the other gallery's for the same request."""
        pairs = [f"{a}|{b}" for a, b in zip(self.files, other.files, strict=True)]

        def compare(names: Sequence[str]) -> list[float]:
            left, right = zip(*(name.split("|") for name in names), strict=True)
            found: list[float] = eye.distance(self.images(left), other.images(right)).tolist()
            return found

        known = self._store(self.folder.parent, "distances", eye)
        return known.complete(pairs, compare, f"compared by {eye.kind}")


def _rows(features: Tensor) -> list[list[float]]:
    """To six digits: as many as float32 has."""
    return [[float(f"{v:.6g}") for v in row] for row in features.tolist()]


def sealed(text: str) -> str:
    """A JSON list with a short hash of it as its last value."""
    return f'{text[:-1]}, "{_seal(text.encode())}"]'


def unsealed(line: bytes) -> bytes:
    """What was sealed; nothing if it was not, or is not what it was."""
    head, _, seal = line.rpartition(b', "')
    text = head + b"]"
    return text if seal == f'{_seal(text)}"]'.encode() else b""


def _seal(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:12]


@dataclass(frozen=True)
class Store:
    """A file of JSON lines [name, value, seal]. A line that a kill cut short, or that is damaged, counts as none."""

    path: Path
    journal: Journal | None = None

    def read(self) -> dict[str, Any]:
        """Raises ExpungeError if there is something that cannot be read."""
        try:
            lines = self.path.read_bytes().split(b"\n") if self.path.exists() else ()
        except OSError as error:
            raise ExpungeError(f"cannot read {self.path}: {error.strerror}; remove it, and it is made again") from error
        return dict(json.loads(text) for text in map(unsealed, lines) if text)

    def add(self, names: Sequence[str], values: Sequence[Any]) -> None:
        """One write. Raises ExpungeError if the disk is full or the folder cannot be written."""
        append(self.path, [sealed(json.dumps([n, v])) for n, v in zip(names, values, strict=True)])

    def complete(
        self, names: Sequence[str], find: Callable[[Sequence[str]], Sequence[Found]], label: str
    ) -> list[Found]:
        """The values of `names`: those that are missing are found, a batch at a time, and kept.

        On SIGINT or SIGTERM the batch in progress is finished and kept, and Interrupted raised.
        """
        known = self.read()
        missing, seen = [n for n in dict.fromkeys(names) if n not in known], 0
        with stop_signals() as received:
            for batch in _batches(missing, label):
                values = find(batch)
                self.add(batch, values)
                if self.journal:
                    self.journal(looks=len(batch), what=label)
                known |= dict(zip(batch, values, strict=True))
                seen += len(batch)
                obey(received, seen, len(missing), "looks")
        return [known[n] for n in names]


def _batches(names: Sequence[str], label: str) -> Iterator[Sequence[str]]:
    with tqdm(total=len(names), desc=label, unit="image", disable=len(names) < 2) as bar:
        for batch in batched(names, BATCH):
            yield batch
            bar.update(len(batch))
