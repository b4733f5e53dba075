"""Rows in short: a line for each, what is erased first; and as dots in the plot of erased against kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..result import Result
from ..summary import Summary, called
from . import plots


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


def pareto(rows: Sequence[Summary]) -> str:
    """Erased against kept; nothing where there are no two rows with both."""
    dots = [d for d in map(dot, rows) if d]
    return plots.pareto(dots) if len(dots) > 1 else ""
