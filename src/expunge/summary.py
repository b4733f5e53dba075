"""Summary: a row of an audit in a line and in a sentence: what went, what stayed, what suffered most."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .result import Result
from .score import wilson

GONE = 0.05
"""A concept is called gone if the upper end of its rate's interval is at most this."""

LUCK = 0.025
"""The share of unchanged numbers that are worse beyond a 95% interval by luck."""


STATES = ("not there before", "gone", "probably gone", "weaker", "still there")
"""What can become of a concept, from good to bad."""


@dataclass(frozen=True)
class Summary:
    """`ways` are the rates of all that is erased, a number for each way of asking, `singles` those of one concept.

    `others` are the kept rates of a concept; `measures` are metrics; `blocked` what a filter stopped.
    """

    name: str
    ways: tuple[Result, ...]
    singles: tuple[Result, ...]
    kept: Result | None
    others: tuple[Result, ...]
    measures: tuple[Result, ...]
    blocked: tuple[Result, ...]
    seconds: float | None = None
    """Time that training took, if anything was trained and nothing of it was shared with other runs."""

    @property
    def leak(self) -> Result | None:
        """The way of asking that most often shows what is erased."""
        return max(self.ways, key=lambda r: r.score.value, default=None)

    @property
    def state(self) -> str:
        """The worst of all ways of asking that the base answers; "not there before" if it answers none."""
        return max((state(way) for way in self.ways), key=STATES.index, default=STATES[0])

    @property
    def left(self) -> list[Result]:
        """Single concepts that surely are still shown, though all of them together may count as gone; worst first."""
        found = [r for r in self.singles if r.score.low > GONE and state(r) != STATES[0]]
        return sorted(found, key=lambda r: -r.score.value)

    @property
    def harmed(self) -> list[Result]:
        """The others that are worse beyond their intervals, worst first."""
        return sorted((r for r in self.others if r.harmed), key=lambda r: -r.harm)

    @property
    def broken(self) -> list[Result]:
        """Metrics of shares of pictures, such as lost ones, that are worse beyond their intervals, and not a few."""
        shares = [r for r in self.measures if r.harmed and r.score.unit == "%" and r.role == "kept"]
        return [r for r in shares if abs(r.score.value - (1.0 if r.score.higher_is_better else 0.0)) > GONE]


def summary(found: Iterable[Result], name: str, seconds: float | None = None) -> Summary:
    """The numbers of the row `name`."""
    own = [r for r in found if r.score.model == name]
    single = [r for r in own if r.single]
    rates = [r for r in own if not r.single and r.score.metric != "blocked"]
    ways = [r for r in rates if r.role == r.score.subject == "erased" and r.score.unit == "%"]
    kept = next((r for r in rates if (r.score.subject, r.score.metric) == ("kept", "accuracy")), None)
    told = {r.score.metric for r in ways}
    rest = [r for r in rates if r not in ways and r is not kept and not (r.role == "erased" and r.score.metric in told)]
    return Summary(
        name, tuple(ways), tuple(r for r in single if r.role == "erased"), kept,
        tuple(r for r in single if r.role == "kept"), tuple(rest),
        tuple(r for r in own if r.score.metric == "blocked"), seconds,
    )  # fmt: skip


def training_time(row: dict[str, Any]) -> float | None:
    """Seconds that a row's edits took to train; None if a sweep made part of its runs' work for all of them."""
    costs = [edit["cost"] for edit in row.get("edits", []) if "cost" in edit]
    if not costs or any("remembered" in cost for cost in costs):
        return None
    return sum(float(cost["seconds"]) for cost in costs)


def state(way: Result) -> str:
    """What became of what is erased when it is asked for so."""
    n, before = way.score.n, way.before
    if before is not None and wilson(before * n, n)[1] <= GONE:
        return "not there before"
    if way.score.high <= GONE:
        return "gone"
    if way.score.value <= GONE:
        return "probably gone"
    return "weaker" if way.change and way.change.high < 0 else "still there"


def verdict(row: Summary, erased: Sequence[str]) -> str:
    """The row in a sentence or two."""
    return " ".join([_went(row, erased), *_stayed(row), *_broke(row), *_stopped(row)])


def _went(row: Summary, erased: Sequence[str]) -> str:
    what = " and ".join(erased[:3]) + (" and others" if len(erased) > 3 else "")
    if not row.ways:
        return f"No number here is about {what}." if erased else "Nothing is said to be erased."
    told = "; ".join(f"{called(r.score.metric)} {r.score}{_from(r)}" for r in sorted(row.ways, key=_urgency))
    return f"{what}: {_became(row)}. Still shown when {told}."


def _urgency(r: Result) -> float:
    return -r.score.value


def _became(row: Summary) -> str:
    """The state, and what makes it uncertain or partly wrong."""
    if row.state == STATES[0]:
        return "the base does not show it either, so that nothing is known"
    if row.state in ("gone", "probably gone") and row.left:
        return f"{row.state}, all in all, but not {', '.join(told(r) for r in row.left[:3])}"
    few = min(r.score.n for r in row.ways if state(r) == row.state)
    return row.state + (f" (too few pictures, {few}, to be sure)" if row.state == "probably gone" else "")


def _stayed(row: Summary) -> Iterable[str]:
    if row.kept:
        yield f"All else comes as asked in {row.kept.score}{_from(row.kept)}."
    if any(r.change for r in row.others):
        n, luck = len(row.harmed), LUCK * len(row.others)
        worst = f", worst {told(row.harmed[0])}" if row.harmed else ""
        be = "is" if n == 1 else "are"
        yield (
            f"{n} of {len(row.others)} numbers of other things {be} worse beyond their intervals (luck alone: about"
            f" {luck:.1f}){worst}."
        )


def _broke(row: Summary) -> Iterable[str]:
    for r in row.broken:
        yield f"Pictures break: {r.score.metric} {r.score}{_from(r)}."


def _stopped(row: Summary) -> Iterable[str]:
    said = {"erased": "what would show it", "kept": "all else"}
    if row.blocked:
        yield f"The filter blocks {' and '.join(f'{r.score} of {said[r.role]}' for r in row.blocked)}."


def _from(r: Result) -> str:
    return f", from {percent(r.before)}" if r.before is not None else ""


def told(r: Result) -> str:
    """ "truck 98% → 80%"."""
    return f"{r.score.subject} {'' if r.before is None else percent(r.before) + ' → '}{percent(r.score.value)}"


def called(metric: str) -> str:
    """How what is erased was asked for, as part of a sentence."""
    return {"accuracy": "named", "synonym": "asked by a synonym", "implicit": "implied", "stray": "not asked for"}.get(
        metric, metric
    )


def percent(value: float) -> str:
    return f"{100 * abs(value):.0f}%"
