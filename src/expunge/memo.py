"""Memo: tensors that were computed once, by a hash of what they were computed from, in memory and on disk.

In both, what was not asked for longest goes when it is full.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from .errors import ExpungeError
from .files import read_tensors, write_tensors

Tensors = Mapping[str, Tensor]


@dataclass
class Shelf:
    """Tensors as files of a folder, at most `limit` bytes of them, which processes may share.

    A file that is damaged, or cannot be written, is none.
    """

    folder: Path
    limit: int
    size: int | None = None

    def get(self, key: str) -> Tensors | None:
        file = self.folder / f"{key}.safetensors"
        with suppress(ExpungeError, OSError):
            found = read_tensors(file)[0]
            os.utime(file)
            return found
        return None

    def put(self, key: str, found: Tensors) -> None:
        with suppress(ExpungeError):
            file = self.folder / f"{key}.safetensors"
            write_tensors(file, {**found}, {})
            self.size = None if self.size is None else self.size + file.stat().st_size
            if self.size is None or self.size > self.limit:
                self.tidy()

    def tidy(self) -> None:
        """Removes what was not read for longest until a tenth is free; other processes may be at it too."""
        about = []
        for file in self.folder.glob("*.safetensors"):
            with suppress(FileNotFoundError):
                about.append((file.stat().st_mtime_ns, file.stat().st_size, file))
        self.size = sum(size for _, size, _ in about)
        for _, size, file in sorted(about) if self.size > self.limit else ():
            file.unlink(missing_ok=True)
            self.size -= size
            if self.size <= 0.9 * self.limit:
                break


class Memo:
    """At most `limit` bytes in memory, and what the shelf takes. `saved` counts rows that were not computed again."""

    def __init__(self, limit: int = 2**30, shelf: Shelf | None = None) -> None:
        self.limit, self.size, self.saved, self.shelf = limit, 0, 0, shelf
        self.known: OrderedDict[str, Tensors] = OrderedDict()

    def __call__(self, key: str, make: Callable[[], Tensors], rows: int = 0) -> Tensors:
        found = self.known.get(key) or (self.shelf.get(key) if self.shelf else None)
        if found is not None:
            self.saved += rows
        else:
            found = make()
            if self.shelf:
                self.shelf.put(key, found)
        self._remember(key, found)
        return found

    def _remember(self, key: str, found: Tensors) -> None:
        self.size += 0 if key in self.known else size(found)
        self.known[key] = found
        self.known.move_to_end(key)
        while self.size > self.limit and self.known:
            self.size -= size(self.known.popitem(last=False)[1])


def size(tensors: Tensors) -> int:
    """Bytes."""
    return sum(tensor.nbytes for tensor in tensors.values())
