"""What a report says: verdicts, tables, pictures and plots, all from an audit's numbers, verdicts and files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ..audit import Plan, Seen, by_role, cells_of, gallery, on
from ..cell import Cell
from ..generation import Request
from ..metric import Share
from ..model import Model
from ..result import HIT, MISS, Result
from ..score import wilson
from ..summary import Summary, called, state, summary, training_time, verdict
from . import plots
from .distance import distances
from .pictures import Pictures, spread

SHOWN = 6
"""Pictures of one kind that a page shows."""


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
            (row.name, verdict(row, self.rows[0], self.plan.erased_by(v)))
            for row, v in zip(self.rows[1:], self.plan.variants[1:], strict=True)
        ]

    def table(self) -> dict[str, Any]:
        return overview(self.rows)

    def pareto(self) -> str:
        """Erased against kept, where there are rows to compare."""
        dots = [d for d in map(dot, self.rows) if d]
        return plots.pareto(dots) if len(dots) > 1 else ""

    def numbers(self) -> list[dict[str, Any]]:
        """Every rate of a single concept: what is erased first, then the worst damaged."""
        cells: dict[tuple[str, str], dict[str, Result]] = {}
        for r in self.found:
            if r.single:
                cells.setdefault(r.key, {})[r.score.model] = r
        ordered = sorted(cells.items(), key=lambda item: urgency([*item[1].values()]))
        return [self._number(key, of) for key, of in ordered]

    def _number(self, key: tuple[str, str], of: Mapping[str, Result]) -> dict[str, Any]:
        first = next(iter(of.values()))
        texts = [{"text": str(of[n].score) if n in of else "", "harmed": n in of and of[n].harmed} for n in self.names]
        roles = {r.role for r in of.values()}
        return {"subject": key[0], "metric": key[1], "n": first.score.n, "erased": "erased" in roles, "cells": texts}

    def instead(self) -> list[dict[str, Any]]:
        """What the judge sees in pictures of what is erased, most frequent first, for each way of asking."""
        counts: dict[tuple[str, str], list[Counter[str]]] = {}
        for i, (seen, v) in enumerate(zip(self.pictures.seen, self.plan.variants, strict=True)):
            for cell in self._erased(v):
                if isinstance(cell.expected, str):
                    columns = counts.setdefault((cell.metric, cell.head), [Counter() for _ in self.names])
                    shown = [r for r in cell.requests if r not in seen.blocked]
                    columns[i].update(str(seen.verdicts[cell.judge][r][cell.head]) for r in shown)
        return [tally(metric, head, columns) for (metric, head), columns in counts.items()]

    def _erased(self, variant: Any) -> list[Cell]:
        return [cell for cell, role in cells_of(self.plan, variant) if role == "erased" and cell.words]

    def grid(self) -> list[dict[str, Any]]:
        """The same prompts and seeds of every row: some that show what is erased in the base, and others."""
        base = self.pictures.seen[0]
        cells = self._erased(base.variant)
        asked = list(dict.fromkeys(r for c in cells for r in c.requests if base.letter(c, r) == HIT))
        others = [r for r in self.plan.requests if r not in set(asked)]
        chosen = [("erased", r) for r in spread(asked, SHOWN)] + [("kept", r) for r in spread(others, SHOWN)]
        return [{"role": role, "prompt": r.prompt, "tiles": self.pictures.tiles(r)} for role, r in chosen]

    def failures(self) -> list[dict[str, Any]]:
        """What a good tool must notice, with pictures: each row beside the base."""
        found = []
        for i, row in enumerate(self.rows[1:], 1):
            for title, text, requests in self._failures(i, row):
                pairs = [
                    {"prompt": r.prompt, "tiles": [self.pictures.tile(0, r), self.pictures.tile(i, r)]}
                    for r in spread(requests, SHOWN)
                ]
                found.append({"row": row.name, "title": title, "text": text, "pairs": pairs})
        return found

    def _failures(self, i: int, row: Summary) -> Iterator[tuple[str, str, list[Request]]]:
        for way in row.ways:
            if state(way) not in ("gone",) and (left := self._left(i, way.score.metric)):
                yield f"still shown, {called(way.score.metric)}", str(way.score), left
        for r in row.harmed[:3]:
            yield f"{r.score.subject} suffers", f"{r.score.metric} {r.score}", self._lost(i, r)
        for r in row.broken:
            if broken := self._broken(i, r.score.metric):
                yield "broken pictures", f"{r.score.metric} {r.score}", broken
        for r in row.blocked:
            seen = self.pictures.seen[i]
            kept = by_role(self.plan, seen.variant)["kept"]
            if r.role == "kept" and (stopped := [q for q in self.plan.requests if q in seen.blocked & kept]):
                yield "blocked by the filter", f"{r.score} of what is kept", stopped

    def _left(self, i: int, metric: str) -> list[Request]:
        """Pictures that still show what is erased."""
        seen = self.pictures.seen[i]
        cells = [cell for cell in self._erased(seen.variant) if cell.metric == metric]
        return list(dict.fromkeys(r for cell in cells for r in cell.requests if seen.letter(cell, r) == HIT))

    def _lost(self, i: int, r: Result) -> list[Request]:
        """Pictures of a cell that came out right in the base and do not now."""
        own, base, good = self.pictures.seen[i], self.pictures.seen[0], HIT if r.score.higher_is_better else MISS
        cells = [c for c, _ in cells_of(self.plan, own.variant) if (c.subject, c.metric) == r.key]
        bad = MISS if good == HIT else HIT
        return [q for c in cells for q in c.requests if base.letter(c, q) == good and own.letter(c, q) == bad]

    def _broken(self, i: int, metric: str) -> list[Request]:
        """Pictures of which a metric that counts broken ones says that they are."""
        for asked in self.plan.metrics:
            if asked.called == metric and isinstance(asked, Share):
                own, erased = self.pictures.galleries[i], self.plan.erased_by(self.plan.variants[i])
                chosen = partial(on, asked, erased)
                seen, base = (g.only(chosen) for g in (own, self.pictures.galleries[0]))
                return [r for r, hit in zip(seen.requests, asked.hits(seen, base), strict=True) if hit]
        bad = next((r for r in self.found if r.score.metric == metric and r.score.model == self.names[i]), None)
        return self._lost(i, bad) if bad else []

    def distances(self) -> str:
        """Damage against the distance of names; nothing where no other concept has a rate."""
        words = {(c.subject, c.metric): c.words[0] for c in self.plan.cells if c.words}
        rows = {
            row.name: [r for r in row.others if r.change and r.score.higher_is_better and r.key in words]
            for row in self.rows[1:]
        }
        texts = list(dict.fromkeys(words[r.key] for found in rows.values() for r in found))
        if not texts or not self.plan.erased:
            return ""
        far = distances(self.base, texts, self.plan.erased)
        return plots.distances(
            {n: [(r.score.subject, far[words[r.key]], r.harm) for r in found] for n, found in rows.items()}
        )

    def curves(self) -> list[dict[str, str]]:
        """For each rate above a threshold: the rate above every other."""
        groups: dict[tuple[str, str, float], dict[Request, None]] = {}
        for cell in self.plan.cells:
            if not isinstance(cell.expected, str):
                groups.setdefault((cell.judge, cell.head, cell.expected), {}).update(dict.fromkeys(cell.requests))
        return [
            {"title": f"{judge}: {head}", "plot": self._curves(judge, head, chosen, [*requests])}
            for (judge, head, chosen), requests in groups.items()
        ]

    def _curves(self, judge: str, head: str, chosen: float, requests: Sequence[Request]) -> str:
        values = [
            [float(s.verdicts[judge][r][head]) for r in requests if r not in s.blocked] for s in self.pictures.seen
        ]
        every = [v for row in values for v in row] + [chosen]
        low, high = min(0.0, *every), max(1.0, *every)
        thresholds = [low + (high - low) * k / 50 for k in range(51)]
        found = [curve(n, v, thresholds) for n, v in zip(self.names, values, strict=True) if v]
        return plots.curves(found, f"{head} by {judge}", chosen)

    def provenance(self) -> list[tuple[str, str]]:
        """What all of it rests on, as names and hashes."""
        return [
            *self._rested(),
            ("everything", json.dumps({**self.about, "scores": "above", "between": "above"}, indent=1)),
        ]

    def _rested(self) -> Iterator[tuple[str, str]]:
        about = self.about
        yield (
            "model",
            f"{about['model']['name']}, denoiser {about['model']['hash']}, all parts {about['model']['signature']}",
        )
        asked = about["protocol"]
        yield "prompts", f"{asked['name']} {asked['version']}, {about['pictures']} of them, {about['requests']}"
        for row in about["rows"]:
            whole = row["model"]
            for edit in row["edits"]:
                yield f"edit of {row['name']}", f"{edit['hash']}, scale {edit['scale']:g}"
            if whole:
                yield f"model of {row['name']}", f"{whole['hash']}, all parts {whole['signature']}"
        for name, judge in about["judges"].items():
            yield f"judge {name}", f"{judge['kind']} {judge['options']} {judge['version']}"
        for metric in about["metrics"]:
            eye = metric["eye"]
            yield f"metric {metric['kind']}", f"{eye['kind']} {eye['version']}" if eye else ""
        yield "versions", ", ".join(f"{k} {v}" for k, v in about["versions"].items())
        yield "date", about["date"]


def overview(rows: Sequence[Summary]) -> dict[str, Any]:
    """A line for each row: every way of asking for what is erased, all that is kept, metrics, time."""
    ways = list(dict.fromkeys(r.score.metric for row in rows for r in row.ways))
    measures = list(dict.fromkeys(measure(r) for row in rows for r in (*row.measures, *row.blocked)))
    kept, timed = any(row.kept for row in rows), any(row.seconds is not None for row in rows)
    head = [f"{called(w)} ↓" for w in ways] + ["all else ↑", "worst of it"] * kept + measures + ["training, s"] * timed
    return {"head": head, "rows": [(row.name, _line(row, ways, measures, kept, timed)) for row in rows]}


def _line(row: Summary, ways: Sequence[str], measures: Sequence[str], kept: bool, timed: bool) -> list[str]:
    erased = {r.score.metric: str(r.score) for r in row.ways}
    other = {measure(r): str(r.score) for r in (*row.measures, *row.blocked)}
    worst = f"{row.worst.score.subject} {-100 * row.worst.harm:+.1f}" if row.worst else ""
    all_else = [str(row.kept.score) if row.kept else "", worst] if kept else []
    time = ["" if row.seconds is None else f"{row.seconds:.0f}"] if timed else []
    return [*(erased.get(w, "") for w in ways), *all_else, *(other.get(m, "") for m in measures), *time]


def measure(r: Result) -> str:
    """How a column over all pictures is called, with the way that is better."""
    on = "" if r.score.subject == "kept" else f" ({r.score.subject})"
    return f"{r.score.metric}{on} {'↑' if r.score.higher_is_better else '↓'}"


def dot(row: Summary) -> plots.Dot | None:
    """The row in the plot of erased against kept."""
    if row.leak is None or row.kept is None:
        return None
    x, y = row.leak.score, row.kept.score
    return plots.Dot(row.name, (x.value, x.low, x.high), (y.value, y.low, y.high))


def tally(metric: str, head: str, columns: Sequence[Counter[str]]) -> dict[str, Any]:
    """Shares of each class in percent, for each row; the most frequent classes of all rows but the base first."""
    after = sum(columns[1:], Counter())
    classes = [c for c, _ in (after or columns[0]).most_common(8)]
    lines = [(c, [f"{100 * col[c] / col.total():.0f}%" if col.total() else "" for col in columns]) for c in classes]
    return {"way": called(metric), "head": head, "lines": lines, "n": max(col.total() for col in columns)}


def urgency(row: Sequence[Result]) -> tuple[bool, float]:
    """What is erased first; then by how much a change is for the worse."""
    return all(r.role == "kept" for r in row), -max((r.harm for r in row if r.change), default=-1.0)


def curve(name: str, values: Sequence[float], thresholds: Sequence[float]) -> plots.Curve:
    counts = [sum(v > t for v in values) for t in thresholds]
    n = len(values)
    ends = [wilson(k, n) for k in counts]
    return plots.Curve(name, thresholds, [k / n for k in counts], [e[0] for e in ends], [e[1] for e in ends])
