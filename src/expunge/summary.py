"""Summary: a row of an audit in a line and in a sentence: what went, what stayed, what suffered most."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .result import Result

GONE = 0.05
"""A concept is called gone if the upper end of its rate's interval is at most this."""

LUCK = 0.025
"""The share of unchanged numbers that are worse beyond a 95% interval by luck."""


@dataclass(frozen=True)
class Summary:
    """`ways` are the rates of what is erased, a number for each way of asking; `others` the kept rates of a concept.

    `measures` are metrics, over all that is kept where there are such; `blocked` what a filter stopped.
    """

    name: str
    ways: tuple[Result, ...]
    kept: Result | None
    others: tuple[Result, ...]
    measures: tuple[Result, ...]
    blocked: tuple[Result, ...]
    seconds: float | None = None
    """Time that training took, if anything was trained."""

    @property
    def leak(self) -> Result | None:
        """The way of asking that most often shows what is erased."""
        return max(self.ways, key=lambda r: r.score.value, default=None)

    @property
    def harmed(self) -> list[Result]:
        """The others that are worse beyond their intervals, worst first."""
        return sorted((r for r in self.others if r.harmed), key=lambda r: -r.harm)

    @property
    def worst(self) -> Result | None:
        """The other that lost most."""
        return max((r for r in self.others if r.change), key=lambda r: r.harm, default=None)

    @property
    def broken(self) -> list[Result]:
        """Metrics of shares of pictures, such as lost ones, that are worse beyond their intervals."""
        return [r for r in self.measures if r.harmed and r.score.unit == "%" and r.role == "kept"]


def summary(found: Iterable[Result], name: str, seconds: float | None = None) -> Summary:
    """The numbers of the row `name`."""
    own = [r for r in found if r.score.model == name]
    single = [r for r in own if r.single]
    every = [r for r in own if not r.single]
    rates = [r for r in every if r.score.metric != "blocked"]
    ways = [r for r in rates if r.role == "erased" and r.score.subject == "erased" and r.score.unit == "%"]
    kept = next((r for r in rates if (r.score.subject, r.score.metric) == ("kept", "accuracy")), None)
    return Summary(
        name, tuple(ways), kept, tuple(r for r in single if r.role == "kept"),
        tuple(r for r in rates if r not in ways and r is not kept),
        tuple(r for r in every if r.score.metric == "blocked"), seconds,
    )  # fmt: skip


def training_time(row: dict[str, Any]) -> float | None:
    """Seconds that a row's edits took to train, by their provenance."""
    spent = [edit.get("cost", {}).get("seconds") for edit in row.get("edits", [])]
    known = [float(s) for s in spent if s is not None]
    return sum(known) if known else None


def state(way: Result) -> str:
    """Whether what is erased is gone when it is asked for so."""
    if way.score.high <= GONE:
        return "gone"
    if way.score.value <= GONE:
        return "probably gone"
    return "weaker" if way.change and way.change.high < 0 else "still there"


def verdict(row: Summary, base: Summary, erased: Sequence[str]) -> str:
    """The row in a sentence or two."""
    return " ".join([_went(row, base, erased), *_stayed(row, base), *_broke(row), *_stopped(row)])


def _went(row: Summary, base: Summary, erased: Sequence[str]) -> str:
    what, before = " and ".join(erased[:3]) + (" and others" if len(erased) > 3 else ""), by_metric(base.ways)
    if row.leak is None:
        return f"No number here is about {what}." if erased else "Nothing is said to be erased."
    told = "; ".join(
        f"{called(r.score.metric)} {r.score}" + (f", from {percent(before[r.score.metric])}" if before else "")
        for r in sorted(row.ways, key=lambda r: -r.score.value)
        if not before or r.score.metric in before
    )
    few = f" (too few pictures, {row.leak.score.n}, to be sure)" if state(row.leak) == "probably gone" else ""
    return f"{what}: {state(row.leak)}{few}. Still shown when {told}."


def _stayed(row: Summary, base: Summary) -> Iterable[str]:
    if row.kept and base.kept:
        yield f"All else comes as asked in {row.kept.score}, from {percent(base.kept)}."
    if row.others and any(r.change for r in row.others):
        n, luck = len(row.harmed), LUCK * len(row.others)
        worst = f", worst {told(row.harmed[0], base)}" if row.harmed else ""
        be = "is" if n == 1 else "are"
        yield (
            f"{n} of {len(row.others)} numbers of other things {be} worse beyond their intervals (luck alone: about"
            f" {luck:.1g}){worst}."
        )


def _broke(row: Summary) -> Iterable[str]:
    for r in row.broken:
        yield f"Pictures break: {r.score.metric} {r.score}."


def _stopped(row: Summary) -> Iterable[str]:
    said = {"erased": "the pictures that might show it", "kept": "all else"}
    if row.blocked:
        yield f"The filter blocks {' and '.join(f'{r.score} of {said[r.role]}' for r in row.blocked)}."


def told(r: Result, base: Summary) -> str:
    """ "truck 98% → 80%"."""
    before = {(b.score.subject, b.score.metric): b for b in base.others}.get(r.key)
    return f"{r.score.subject} {percent(before)} → {percent(r)}" if before else f"{r.score.subject} {percent(r)}"


def called(metric: str) -> str:
    """How what is erased was asked for, as part of a sentence."""
    return {"accuracy": "named", "synonym": "asked by a synonym", "implicit": "implied", "stray": "not asked for"}.get(
        metric, metric
    )


def percent(r: Result) -> str:
    return f"{100 * r.score.value:.0f}%"


def by_metric(found: Iterable[Result]) -> dict[str, Result]:
    return {r.score.metric: r for r in found}
