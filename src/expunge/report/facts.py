"""What a report says, all from an audit's numbers, verdicts and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..auditing import gallery
from ..model import Model
from ..plan import Plan
from ..result import Result
from ..scoring import Seen, erasing
from ..summary import Summary, summary, training_time, verdict
from . import plots
from .distance import distances
from .failures import SHOWN, Failure, Failures
from .instead import Tally, instead
from .pictures import Pictures, spread


@dataclass(frozen=True)
class Facts:
    """`about` is what scores.json says; the audit's pictures are in `out`."""

    plan: Plan
    base: Model
    found: Sequence[Result]
    out: Path
    about: Mapping[str, Any]
    command: str

    @property
    def names(self) -> list[str]:
        return [v.name for v in self.plan.variants]

    @cached_property
    def pictures(self) -> Pictures:
        galleries = [gallery(self.plan, self.base, v, self.out) for v in self.plan.variants]
        seen = [Seen.of(self.plan, v, g) for v, g in zip(self.plan.variants, galleries, strict=True)]
        return Pictures(self.plan, galleries, seen)

    @cached_property
    def rows(self) -> list[Summary]:
        return [summary(self.found, row["name"], training_time(row)) for row in self.about["rows"]]

    def verdicts(self) -> list[tuple[str, str]]:
        return [
            (row.name, verdict(row, self.plan.erased_by(v)))
            for row, v in zip(self.rows[1:], self.plan.variants[1:], strict=True)
        ]

    def instead(self) -> list[Tally]:
        return instead(self.plan, self.base, self.pictures.galleries, self.pictures.seen)

    def failures(self) -> list[Failure]:
        rows = enumerate(self.rows[1:], 1)
        return [f for i, row in rows for f in Failures(self.plan, self.pictures, i, row).found()]

    def numbers(self) -> list[dict[str, Any]]:
        """Every rate of a single concept: what is erased first, then the worst damaged."""
        cells: dict[tuple[str, str], dict[str, Result]] = {}
        for r in self.found:
            if r.single:
                cells.setdefault(r.key, {})[r.score.model] = r
        ordered = sorted(cells.items(), key=lambda item: urgency([*item[1].values()]))
        return [self._number(key, of) for key, of in ordered]

    def _number(self, key: tuple[str, str], of: Mapping[str, Result]) -> dict[str, Any]:
        texts = [{"text": str(of[n].score) if n in of else "", "harmed": n in of and of[n].harmed} for n in self.names]
        sizes, roles = sorted({r.score.n for r in of.values()}), {r.role for r in of.values()}
        n = f"{sizes[0]} – {sizes[-1]}" if len(sizes) > 1 else sizes[0]
        return {"subject": key[0], "metric": key[1], "n": n, "erased": "erased" in roles, "cells": texts}

    def grid(self) -> list[dict[str, Any]]:
        """The same prompts and seeds of every row: some that show what is erased in the base, and others."""
        base = self.pictures.seen[0]
        cells = erasing(self.plan, base.variant)
        asked = list(dict.fromkeys(r for c in cells for r in c.requests if base.hit(c, r)))
        shown = set(asked)
        others = [r for r in self.plan.requests if r not in shown]
        chosen = [("erased", r) for r in spread(asked, SHOWN)] + [("kept", r) for r in spread(others, SHOWN)]
        return [{"role": role, "prompt": r.prompt, "tiles": self.pictures.tiles(r)} for role, r in chosen]

    def distances(self) -> str:
        """Damage against the distance of names; nothing where no other concept has a rate."""
        words = {(c.subject, c.metric): c.words[0] for c in self.plan.cells if c.words}
        found = {}
        for row, v in zip(self.rows[1:], self.plan.variants[1:], strict=True):
            kept = [r for r in row.others if r.change and r.score.higher_is_better and r.key in words]
            far = distances(self.base, [words[r.key] for r in kept], self.plan.erased_by(v))
            if far:
                found[row.name] = [(r.score.subject, far[words[r.key]], r.harm) for r in kept]
        return plots.distances(found) if found else ""


def urgency(row: Sequence[Result]) -> tuple[bool, float]:
    """What is erased first; then by how much a change is for the worse."""
    return all(r.role == "kept" for r in row), -max((r.harm for r in row if r.change), default=-1.0)
