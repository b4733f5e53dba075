"""Score: a number that never travels without its sample size and 95% interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

Z95 = 1.959963984540054
"""The 97.5% quantile of the standard normal distribution."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One measured value. `model` is "base" or an edit's name; `low` and `high` bound the 95% interval."""

    metric: str
    subject: str
    model: str
    value: float
    n: int
    low: float
    high: float
    higher_is_better: bool

    def row(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{100 * self.value:.1f}% [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of a rate (Wilson 1927): always within [0, 1], sensible at 0 and n.

    Raises ValueError unless 0 ≤ successes ≤ n and n ≥ 1.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"a rate needs 0 <= successes <= n and n >= 1, not {successes} of {n}")
    p, z2 = successes / n, Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


def rate(successes: int, n: int, *, metric: str, subject: str, model: str, higher_is_better: bool) -> Score:
    """The share of successes as a Score with Wilson's interval."""
    low, high = wilson(successes, n)
    return Score(
        metric=metric, subject=subject, model=model, value=successes / n, n=n, low=low, high=high,
        higher_is_better=higher_is_better,
    )  # fmt: skip


def pooled(rows: Sequence[Score], *, metric: str, subject: str) -> Score:
    """Rates of the same model and direction as one, weighted by their n. Raises ValueError if there are none."""
    if not rows:
        raise ValueError("nothing to pool")
    hits, n = sum(round(s.value * s.n) for s in rows), sum(s.n for s in rows)
    first = rows[0]
    return rate(hits, n, metric=metric, subject=subject, model=first.model, higher_is_better=first.higher_is_better)
