"""An audit's pictures as small ones inside a page; those that a judge veils are blurred until somebody asks."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..gallery import Gallery
from ..generation import Request
from ..judge import Judge
from ..picture import read
from ..plan import Plan
from ..scoring import Seen

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
        return Tile(said, small(self.files[row][request]), self.veiled(row, request))

    def tiles(self, request: Request) -> list[Tile]:
        """The picture of every row."""
        return [self.tile(row, request) for row in range(len(self.seen))]

    @cached_property
    def others(self) -> list[Judge]:
        """Judges besides those of rates: in metrics, and behind rows."""
        metrics = (getattr(m, "judge", None) for m in self.plan.metrics)
        filters = (v.filter.judge for v in self.plan.variants if v.filter)
        known = {judge.identity() for judge in self.plan.judges.values()}
        found = {j.identity(): j for j in (*metrics, *filters) if isinstance(j, Judge)}
        return [judge for key, judge in found.items() if key not in known]

    @cached_property
    def stopped(self) -> frozenset[Request]:
        """What any row's filter blocks."""
        return frozenset(r for seen in self.seen for r in seen.blocked)

    def veiled(self, row: int, request: Request) -> bool:
        """Whether a judge says so of the picture, or a filter blocked another of that request."""
        verdicts = self.seen[row].verdicts
        told = any(judge.veils(verdicts[name][request]) for name, judge in self.plan.judges.items())
        return told or request in self.stopped or self.veiled_by_others(row, request)

    def veiled_by_others(self, row: int, request: Request) -> bool:
        """They look at what a page shows alone."""
        own = self.galleries[row].only(lambda r: r == request) if self.others else None
        return own is not None and any(judge.veils(own.verdicts(judge)[0]) for judge in self.others)


def small(path: Path) -> str:
    """A picture as a data address: WebP, at most SIDE pixels wide and high."""
    picture, file = read(path), io.BytesIO()
    picture.thumbnail((SIDE, SIDE))
    picture.save(file, "WEBP", quality=88)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def spread(requests: Sequence[Request], n: int) -> list[Request]:
    """At most n of them, evenly over all."""
    return [requests[i * len(requests) // n] for i in range(n)] if len(requests) > n else [*requests]
