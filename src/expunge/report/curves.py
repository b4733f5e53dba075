"""Rates over thresholds: a plot for each number that a judge gives and a rate cuts."""

from __future__ import annotations

from collections.abc import Sequence

from ..cell import Cell
from ..generation import Request
from ..score import wilson
from ..scoring import Seen
from . import plots

POINTS = 51
"""Thresholds of a curve."""


def curves(cells: Sequence[Cell], seen: Sequence[Seen]) -> list[dict[str, str]]:
    """For each rate above a threshold: the rate of every row above every other."""
    groups: dict[tuple[str, str, float], dict[Request, None]] = {}
    for cell in cells:
        if not isinstance(cell.expected, str):
            groups.setdefault((cell.judge, cell.head, cell.expected), {}).update(dict.fromkeys(cell.requests))
    return [
        {"title": f"{judge}: {head}", "plot": drawn(judge, head, chosen, [*requests], seen)}
        for (judge, head, chosen), requests in groups.items()
    ]


def drawn(judge: str, head: str, chosen: float, requests: Sequence[Request], seen: Sequence[Seen]) -> str:
    rows = {s.variant.name: [float(s.verdicts[judge][r][head]) for r in requests if r not in s.blocked] for s in seen}
    every = [chosen, *(v for values in rows.values() for v in values)]
    low, high = min(0.0, *every), max(1.0, *every)
    thresholds = [low + (high - low) * k / (POINTS - 1) for k in range(POINTS)]
    return plots.curves([curve(n, v, thresholds) for n, v in rows.items() if v], f"{head} by {judge}", chosen)


def curve(name: str, values: Sequence[float], thresholds: Sequence[float]) -> plots.Curve:
    counts = [sum(v > t for v in values) for t in thresholds]
    n = len(values)
    ends = [wilson(k, n) for k in counts]
    return plots.Curve(name, thresholds, [k / n for k in counts], [e[0] for e in ends], [e[1] for e in ends])
