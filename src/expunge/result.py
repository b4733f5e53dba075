"""Result: one number of one row of an audit, how it differs from the base's, and which pictures count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from .score import Change, Score, mcnemar

Role = Literal["erased", "kept"]
"""Whether a number is about what should go, or about what should stay."""

EVERY = ("erased", "kept", "all")
"""Subjects of numbers over all that is erased, all that is kept, or both."""

HIT, MISS, BLOCKED = "10-"
"""What a picture counts as; one that a filter blocked counts as neither."""


@dataclass(frozen=True)
class Result:
    """`change` is None for the base, and where nothing is paired; `hits` has a letter for each picture of a rate."""

    score: Score
    change: Change | None
    role: Role
    hits: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.score.subject, self.score.metric

    @property
    def single(self) -> bool:
        """Whether it is about one concept."""
        return self.score.subject not in EVERY

    @property
    def harm(self) -> float:
        """By how much it is worse than the base's: negative if it is better."""
        return worse_by(self.change, self.score) if self.change else 0.0

    @property
    def harmed(self) -> bool:
        """Whether it is worse beyond its interval."""
        return self.change is not None and self.change.real and self.harm > 0

    def row(self) -> dict[str, Any]:
        about = {**self.score.row(), "role": self.role, "change": self.change and asdict(self.change)}
        return about | ({"hits": self.hits} if self.hits else {})

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Result:
        """What `row` wrote. Raises KeyError or TypeError for anything else."""
        own = {k: v for k, v in row.items() if k not in ("role", "change", "hits")}
        change = row["change"] and Change(**row["change"])
        return cls(Score(**own), change, row["role"], row.get("hits", ""))


def worse_by(change: Change, score: Score) -> float:
    return -change.value if score.higher_is_better else change.value


def of_model(found: Iterable[Result], name: str) -> dict[tuple[str, str], Result]:
    return {r.key: r for r in found if r.score.model == name}


def pairs(before: str, after: str) -> Change | None:
    """The difference of two rates over the pictures that neither's filter blocked; None if there are none."""
    shown = [(a == HIT, b == HIT) for a, b in zip(before, after, strict=True) if BLOCKED not in (a, b)]
    return mcnemar(*map(list, zip(*shown, strict=True))) if shown else None


@dataclass(frozen=True)
class Between:
    """How the rate of `model` differs from that of `other`."""

    subject: str
    metric: str
    role: Role
    model: str
    other: str
    change: Change

    def row(self) -> dict[str, Any]:
        return asdict(self)


def between(found: Sequence[Result], model: str, other: str) -> list[Between]:
    """The rates of two rows on the same pictures, in pairs. Rows that erase different things share fewer of them."""
    own, theirs = of_model(found, model), of_model(found, other)
    both = [(own[k], theirs[k]) for k in own if k in theirs]
    differences = [
        (a, pairs(b.hits, a.hits)) for a, b in both if a.hits and len(a.hits) == len(b.hits) and a.role == b.role
    ]
    return [Between(*a.key, a.role, model, other, change) for a, change in differences if change]
