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
    worst = points(row.harmed[0]) if row.harmed else "–" if row.others else ""
    all_else = [str(row.kept.score) if row.kept else "", worst] if kept else []
    time = ["" if row.seconds is None else f"{row.seconds:.0f}"] if timed else []
    return [*(erased.get(w, "") for w in ways), *all_else, *(other.get(m, "") for m in measures), *time]


def points(r: Result) -> str:
    """A change with its interval, in points, and of what."""
    assert r.change is not None
    return f"{r.score.subject} {100 * r.change.value:+.1f} [{100 * r.change.low:+.1f}, {100 * r.change.high:+.1f}]"


def measure(r: Result) -> str:
    """How a column over all pictures is called, with the way that is better."""
    on = "" if r.score.subject == "kept" else f" ({r.score.subject})"
    return f"{r.score.metric}{on} {'↑' if r.score.higher_is_better else '↓'}"


def pareto(rows: Sequence[Summary]) -> str:
    """Erased against kept; nothing where there are no two rows with both."""
    kept = next((k for k in (keeps(row) for row in reversed(rows)) if k), None)
    if kept is None:
        return ""
    dots = [dot(row, kept.key) for row in rows]
    found = [d for d in dots if d]
    unit = "%" if kept.score.unit == "%" else ""
    said = "all else as asked" if kept.score.metric == "accuracy" else measure(kept).removesuffix(" ↑")
    return plots.pareto(found, said, unit) if len(found) > 1 else ""


def keeps(row: Summary) -> Result | None:
    """What tells that the row kept all else: its accuracy, or the first metric of which more is better."""
    return row.kept or next((r for r in row.measures if r.role == "kept" and r.score.higher_is_better), None)


def dot(row: Summary, kept: tuple[str, str]) -> plots.Dot | None:
    """The row in the plot of erased against kept."""
    own = next((r for r in (row.kept, *row.measures) if r and r.key == kept), None)
    if row.leak is None or own is None:
        return None
    x, y = row.leak.score, own.score
    return plots.Dot(row.name, (x.value, x.low, x.high), (y.value, y.low, y.high))
