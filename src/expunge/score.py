"""Score: a number that never travels without its sample size and 95% interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .rng import numpy_rng

Z95 = 1.959963984540054
"""The 97.5% quantile of the standard normal distribution."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One measured value. `model` is "base" or an edit's name; `low` and `high` bound the 95% interval.

    `unit` is "%" for a share between 0 and 1, else what the value is counted in, or nothing.
    """

    metric: str
    subject: str
    model: str
    value: float
    n: int
    low: float
    high: float
    higher_is_better: bool
    unit: str = "%"

    def row(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        if self.unit == "%":
            return f"{100 * self.value:.1f}% [{100 * self.low:.1f}, {100 * self.high:.1f}]"
        return f"{self.value:.3g}{self.unit} [{self.low:.3g}, {self.high:.3g}]"


def wilson(successes: float, n: float) -> tuple[float, float]:
    """Wilson's 95% interval of a rate (Wilson 1927): always within [0, 1], sensible at 0 and n.

    An effective size need not be whole.

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


def share(
    values: Sequence[float], judgements: int, *, metric: str, subject: str, model: str, higher_is_better: bool
) -> Score:
    """The mean of shares in [0, 1], one for each picture, with Wilson's interval at their effective size (Kish 1965).

    Shares of pictures that were judged several times vary less than hits do: m = n p (1 − p) / s² hits would vary as
    much. Few pictures tell s badly, so that m is divided by (t/z)², t Student's quantile by its first correction. m is
    at least n, and at most the number of single `judgements`. Raises ValueError if there are no values.
    """
    v = np.asarray(values, dtype=np.float64)
    n, p = len(v), float(v.mean()) if len(v) else 0.0
    spread, wider = (float(v.var(ddof=1)), 1 + (Z95**2 + 1) / (4 * (n - 1))) if n > 1 else (1.0, 1.0)
    m = n * p * (1 - p) / max(spread, 1e-12) / wider**2
    size = min(max(m, n), max(judgements, n)) if 0 < p < 1 else n
    low, high = wilson(p * size, size)
    return Score(
        metric=metric, subject=subject, model=model, value=p, n=n, low=low, high=high,
        higher_is_better=higher_is_better,
    )  # fmt: skip


def pooled(rows: Sequence[Score], *, metric: str, subject: str) -> Score:
    """Rates of the same model and direction as one, weighted by their n. Raises ValueError if there are none."""
    if not rows:
        raise ValueError("nothing to pool")
    hits, n = sum(round(s.value * s.n) for s in rows), sum(s.n for s in rows)
    first = rows[0]
    return rate(hits, n, metric=metric, subject=subject, model=first.model, higher_is_better=first.higher_is_better)


ROUNDS = 400
"""Resamples of a bootstrap."""


def bootstrap(n: int, statistic: Callable[[np.ndarray], float], rounds: int = ROUNDS) -> tuple[float, float, float]:
    """The statistic of all n rows (given their numbers), and its 95% interval from resampled rows (Efron 1979).

    The resamples' quantiles are moved so that their median is the value itself: a distance between sets, such as FID,
    is larger on resamples, in which rows repeat. Raises ValueError if there are no rows.
    """
    if n < 1:
        raise ValueError("nothing to resample")
    rng, value = numpy_rng(0, "bootstrap"), statistic(np.arange(n))
    found = np.array([statistic(rng.integers(n, size=n)) for _ in range(rounds)])
    low, middle, high = np.quantile(found, [0.025, 0.5, 0.975])
    return value, float(value + low - middle), float(value + high - middle)


def mean(
    values: Sequence[float], *, metric: str, subject: str, model: str, higher_is_better: bool, unit: str = ""
) -> Score:
    """The mean as a Score with a bootstrap interval."""
    rows = np.asarray(values, dtype=np.float64)
    value, low, high = bootstrap(len(rows), lambda i: float(rows[i].mean()))
    return Score(
        metric=metric, subject=subject, model=model, value=value, n=len(rows), low=low, high=high,
        higher_is_better=higher_is_better, unit=unit,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Change:
    """A difference of two models on the same prompts and seeds, its 95% interval, and the chance of as much by luck."""

    value: float
    low: float
    high: float
    p: float
    n: int

    @property
    def real(self) -> bool:
        """Whether the interval leaves 0 out: only then is the difference called one."""
        return self.low > 0 or self.high < 0


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> Change:
    """Two rates in pairs: as `shifted`, with McNemar's exact test (1947). Raises ValueError as that does."""
    return shifted([float(hit) for hit in before], [float(hit) for hit in after])


FLIPS = 4000
"""Random signs of a test."""


def shifted(before: Sequence[float], after: Sequence[float]) -> Change:
    """Two means of shares in [0, 1] in pairs: d = after − before, Agresti and Min's interval (2005), a sign test's p.

        Σd / (n + 2) ± z √( [ (Σd² + 1) / (n + 2) − (Σd / (n + 2))² ] / (n + 2) )

    Hits and misses are shares of 0 and 1, and p is McNemar's then; else p is that of random signs of d. Raises
    ValueError unless there are as many of both, and at least one.
    """
    if len(before) != len(after) or not len(before):
        raise ValueError(f"pairs need as many before ({len(before)}) as after ({len(after)}), at least one")
    d = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    n, middle = len(d), float(d.sum()) / (len(d) + 2)
    half = Z95 * math.sqrt(max(0.0, (float(d @ d) + 1) / (n + 2) - middle**2) / (n + 2))
    return Change(value=float(d.mean()), low=max(-1.0, middle - half), high=min(1.0, middle + half), p=_by_luck(d), n=n)


def _by_luck(d: np.ndarray) -> float:
    """The chance of as large a sum if each difference could as well have the other sign."""
    lost, won = int((d == -1).sum()), int((d == 1).sum())
    if lost + won == np.count_nonzero(d):
        tail = sum(math.comb(won + lost, k) for k in range(min(won, lost) + 1)) / 2 ** (won + lost)
        return float(min(1.0, 2 * tail))
    moved = d[d != 0]
    signs = numpy_rng(0, "signs").choice([-1.0, 1.0], size=(FLIPS, len(moved)))
    as_large = int(np.count_nonzero(np.abs(signs @ moved) >= abs(float(moved.sum())) - 1e-9))
    return float((1 + as_large) / (FLIPS + 1))


def paired(before: Sequence[float], after: Sequence[float]) -> Change:
    """Two means in pairs: after − before, with a paired bootstrap's interval and two-sided p."""
    rows = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    rng = numpy_rng(0, "paired")
    found = np.array([rows[rng.integers(len(rows), size=len(rows))].mean() for _ in range(ROUNDS)])
    low, high = np.quantile(found, [0.025, 0.975])
    p = 2 * min((found <= 0).mean(), (found >= 0).mean())
    return Change(value=float(rows.mean()), low=float(low), high=float(high), p=float(min(1.0, p)), n=len(rows))
