"""Results: what raters said of each row, how surely, and how far they agree.

    mean = Σ n_r m_q x_rqi / Σ n_r m_q,    n_r, m_q: how often rater r and request q were drawn, each with replacement

is resampled over raters and over requests at once (the pigeonhole bootstrap; Owen 2007, arXiv 0712.1111): both are
samples of more that could be asked. Rows are compared on the same draws. Agreement is Krippendorff's α for intervals,
1 − D_o / D_e with squared differences (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability").
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import ExpungeError
from ..rng import numpy_rng
from ..score import Change
from .design import BASE, Study
from .order import order
from .store import Answer, Answers

ROUNDS = 2000
"""Resamples."""


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """The mean rating of a row, 1 to 5, with its 95% interval; `change` is how it differs from the base's.

    All three numbers are None of a row that nobody rated.
    """

    row: str
    value: float | None
    low: float | None
    high: float | None
    answers: int
    raters: int
    change: Change | None

    def __str__(self) -> str:
        return "" if self.value is None else f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"

    def against(self) -> str:
        """The difference from the base's mean."""
        c = self.change
        return "" if c is None else f"{c.value:+.2f} [{c.low:+.2f}, {c.high:+.2f}]"


@dataclass(frozen=True, kw_only=True)
class Results:
    """`excluded` of those who began failed a check; the rest counts. `alpha` is None where nothing can be told."""

    question: str
    low: str
    high: str
    begun: int
    finished: int
    excluded: int
    alpha: float | None
    rows: tuple[Opinion, ...]

    def row(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return asdict(self)


def results(study: Study, answers: Answers) -> Results:
    """What the answers say so far. Raises ExpungeError if nltk is missing, or the answers cannot be read."""
    given, raters = answers.rows(), answers.raters()
    out = failed(study, given)
    counted = [a for a in given if a.rater not in out and study.by_id[a.item].want is None]
    return Results(
        question=study.question, low=study.low, high=study.high, begun=len(raters),
        finished=len(_finished(study, raters, given)), excluded=len(out), alpha=alpha(counted),
        rows=tuple(_opinions(study, counted)),
    )  # fmt: skip


def failed(study: Study, given: Iterable[Answer]) -> set[str]:
    """The raters who did not choose what a check said."""
    return {a.rater for a in given if (want := study.by_id[a.item].want) is not None and a.rating != want}


def _finished(study: Study, raters: Iterable[str], given: Iterable[Answer]) -> list[str]:
    """The raters who answered all that they are shown."""
    done = {(a.rater, a.item) for a in given}
    return [rater for rater in raters if all((rater, item) in done for item in order(study, rater))]


def alpha(given: Sequence[Answer]) -> float | None:
    """Krippendorff's α for intervals: 1 for raters who agree, 0 for chance.

    None if no picture has two ratings, or all that can be compared are equal. Raises ExpungeError if nltk is missing.
    """
    times: dict[int, list[int]] = {}
    for answer in given:
        times.setdefault(answer.item, []).append(answer.rating)
    if len({rating for ratings in times.values() if len(ratings) > 1 for rating in ratings}) < 2:
        return None
    try:
        from nltk.metrics.agreement import AnnotationTask  # type: ignore[import-untyped]
        from nltk.metrics.distance import interval_distance  # type: ignore[import-untyped]
    except ImportError as error:
        raise ExpungeError("agreement needs nltk: pip install 'expunge[ui]'") from error
    return float(AnnotationTask([(a.rater, a.item, a.rating) for a in given], interval_distance).alpha())


def _opinions(study: Study, counted: Sequence[Answer]) -> list[Opinion]:
    sums, times = tables(study, counted)
    value, low, high = intervals(drawn := means(sums, times))
    raters = (times.sum(2) > 0).sum(1)
    base = study.rows.index(BASE) if BASE in study.rows else None
    return [
        Opinion(
            row=row, value=_number(value[i]), low=_number(low[i]), high=_number(high[i]),
            answers=int(times[i].sum()), raters=int(raters[i]),
            change=None if base is None or base == i else difference(drawn[:, i] - drawn[:, base], int(times[i].sum())),
        )
        for i, row in enumerate(study.rows)
    ]  # fmt: skip


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def tables(study: Study, counted: Sequence[Answer]) -> tuple[np.ndarray, np.ndarray]:
    """The ratings and how many there are, both (row, rater, request)."""
    rows, raters = _places(study.rows), _places(a.rater for a in counted)
    requests = _places(item.request for item in study.rated)
    sums = np.zeros((len(rows), max(1, len(raters)), len(requests)))
    times = np.zeros_like(sums)
    for answer in counted:
        item = study.by_id[answer.item]
        place = rows[item.row], raters[answer.rater], requests[item.request]
        sums[place] += answer.rating
        times[place] += 1
    return sums, times


def _places(values: Iterable[Any]) -> dict[Any, int]:
    return {value: i for i, value in enumerate(dict.fromkeys(values))}


def means(sums: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Means of each row, (1 + ROUNDS, rows): as they are, then of resampled raters and requests; NaN where none are."""
    rng, (_, raters, requests) = numpy_rng(0, "pigeonhole"), sums.shape
    n, m = _draws(rng, raters), _draws(rng, requests)
    above, below = (np.einsum("br,krq,bq->bk", n, table, m, optimize=True) for table in (sums, times))
    found: np.ndarray = np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)
    return found


def _draws(rng: np.random.Generator, n: int) -> np.ndarray:
    """How often each of n is drawn, (1 + ROUNDS, n); the first time each once."""
    return np.vstack([np.ones(n), rng.multinomial(n, np.full(n, 1 / n), size=ROUNDS)])


def intervals(drawn: np.ndarray) -> Collection[np.ndarray]:
    """The values, and the ends of their 95% intervals; each of a row's is NaN if nothing was rated."""
    ends = [np.array([_quantile(column[1:], q) for column in drawn.T]) for q in (0.025, 0.975)]
    return drawn[0], *ends


def _quantile(values: np.ndarray, q: float) -> float:
    """Of those that are numbers."""
    known = values[~np.isnan(values)]
    return float(np.quantile(known, q)) if len(known) else float("nan")


def difference(drawn: np.ndarray, n: int) -> Change | None:
    """A row's mean minus the base's over the same draws, and twice the share of draws beyond 0; None if unrated."""
    if np.isnan(drawn[0]):
        return None
    value, low, high = (float(v[0]) for v in intervals(drawn[:, None]))
    known = drawn[1:][~np.isnan(drawn[1:])]
    p = 2 * min((known <= 0).mean(), (known >= 0).mean())
    return Change(value=value, low=low, high=high, p=float(min(1.0, p)), n=n)
