"""What a reader must notice besides the headline, with pictures: each row beside the base at the same seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..generation import Request
from ..metric import Share
from ..plan import Plan
from ..result import Result
from ..scoring import cells_of, erasing, looked_at, showing
from ..summary import Summary, called, state
from .pictures import Pictures, Tile, spread

SHOWN = 6
"""Pictures of one kind that a page shows."""

WORST = 3
"""Neighbours of which it shows pictures."""


@dataclass(frozen=True)
class Failure:
    """What failed, and pictures of it: prompts, each with the base's tile and the row's."""

    row: str
    title: str
    text: str
    pairs: list[tuple[str, Tile, Tile]]


@dataclass(frozen=True)
class Failures:
    """Of one row, the i-th of the plan."""

    plan: Plan
    pictures: Pictures
    i: int
    row: Summary

    def found(self) -> list[Failure]:
        return [self.shown(*failure) for failure in (*self.left(), *self.suffering(), *self.broken(), *self.blocked())]

    def shown(self, title: str, text: str, requests: Sequence[Request]) -> Failure:
        tile, chosen = self.pictures.tile, spread(requests, SHOWN)
        return Failure(self.row.name, title, text, [(r.prompt, tile(0, r), tile(self.i, r)) for r in chosen])

    def left(self) -> Iterator[tuple[str, str, list[Request]]]:
        """What is erased and still there, in each way of asking."""
        seen = self.pictures.seen[self.i]
        for way in (w for w in self.row.ways if state(w) != "gone"):
            cells = [cell for cell in erasing(self.plan, seen.variant) if cell.metric == way.score.metric]
            hits = list(
                dict.fromkeys(r for cell in cells for r in cell.requests if r not in seen.blocked and seen.hit(cell, r))
            )
            if hits:
                yield f"still shown, {called(way.score.metric)}", str(way.score), hits

    def suffering(self) -> Iterator[tuple[str, str, list[Request]]]:
        """The neighbours that lost most."""
        for r in self.row.harmed[:WORST]:
            yield f"{r.score.subject} suffers", f"{r.score.metric} {r.score}", self.lost(r)

    def lost(self, r: Result) -> list[Request]:
        """Pictures that came out right in the base and do not now."""
        own, base = self.pictures.seen[self.i], self.pictures.seen[0]
        good = r.score.higher_is_better
        cells = [c for c, _ in cells_of(self.plan, own.variant) if (c.subject, c.metric) == r.key]
        asked = [(c, q) for c in cells for q in c.requests if q not in own.blocked]
        return [q for c, q in asked if base.hit(c, q) == good != own.hit(c, q)]

    def broken(self) -> Iterator[tuple[str, str, list[Request]]]:
        """Pictures that count as broken: collapsed, or lost."""
        shares: dict[tuple[str, str], Share] = {(m.on, m.called): m for m in self.plan.metrics if isinstance(m, Share)}
        for r in self.row.broken:
            asked = shares.get(r.key)
            hits = self.counted(asked) if asked else self.lost(r)
            if hits:
                yield "broken pictures", f"{r.score.metric} {r.score}", hits

    def counted(self, asked: Share) -> list[Request]:
        """Those of which the metric says that they count."""
        base, own = (self.pictures.galleries[k] for k in (0, self.i))
        seen, theirs = looked_at(self.plan, asked, self.plan.variants[self.i], own, base)
        return [r for r, hit in zip(seen.requests, asked.hits(seen, theirs), strict=True) if hit]

    def blocked(self) -> Iterator[tuple[str, str, list[Request]]]:
        """What a filter stopped of what should be kept."""
        seen = self.pictures.seen[self.i]
        kept = showing(self.plan, seen)["kept"] & seen.blocked
        for r in self.row.blocked:
            if r.role == "kept" and kept:
                yield (
                    "blocked by the filter",
                    f"{r.score} of what does not show what is erased",
                    [q for q in self.plan.requests if q in kept],
                )
