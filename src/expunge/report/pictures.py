"""An audit's pictures as small ones inside a page; those that a judge veils are blurred until somebody asks."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

from ..audit import Plan, Seen
from ..gallery import Gallery
from ..generation import Request
from ..judge import Judge

SIDE = 192
"""Pixels of a picture's side in the page, at most."""


@dataclass(frozen=True)
class Tile:
    """A picture in a page: its description, its data, and whether it is blurred, or was blocked."""

    alt: str
    src: str = ""
    veiled: bool = False
    blocked: bool = False


@dataclass(frozen=True)
class Pictures:
    """The galleries of all rows, and what is seen in them, in the plan's order."""

    plan: Plan
    galleries: Sequence[Gallery]
    seen: Sequence[Seen]

    @cached_property
    def files(self) -> list[dict[Request, Path]]:
        """Each row's files by request."""
        return [{r: g.folder / f for r, f in zip(g.requests, g.files, strict=True)} for g in self.galleries]

    def tile(self, row: int, request: Request) -> Tile:
        """What a template shows of a row's picture."""
        seen = self.seen[row]
        said = f"{seen.variant.name}: {request.prompt} (seed {request.seed})"
        if request in seen.blocked:
            return Tile(said, blocked=True)
        return Tile(said, small(self.files[row][request]), self.veiled(seen, request))

    def tiles(self, request: Request) -> list[Tile]:
        """The picture of every row."""
        return [self.tile(row, request) for row in range(len(self.seen))]

    @cached_property
    def judges(self) -> dict[str, Judge]:
        return self.plan.judges

    def veiled(self, seen: Seen, request: Request) -> bool:
        return any(judge.veils(seen.verdicts[name][request]) for name, judge in self.judges.items())

    @property
    def veils(self) -> bool:
        """Whether any picture is blurred."""
        return any(self.veiled(seen, r) for seen in self.seen for r in self.plan.requests)


def small(path: Path) -> str:
    """A picture as a data address: WebP, at most SIDE pixels wide and high."""
    with Image.open(path) as picture:
        picture.thumbnail((SIDE, SIDE))
        file = io.BytesIO()
        picture.convert("RGB").save(file, "WEBP", quality=88)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def spread(requests: Sequence[Request], n: int) -> list[Request]:
    """At most n of them, evenly over all."""
    return [requests[i * len(requests) // n] for i in range(n)] if len(requests) > n else [*requests]
