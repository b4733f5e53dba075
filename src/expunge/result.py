"""Result: one number of one row of an audit, how it differs from the base's, and which pictures count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import TypeAdapter

from .score import Change, Score, paired, shifted

Role = Literal["erased", "kept"]
"""Whether a number is about what should go, or about what should stay."""

EVERY = ("erased", "kept", "all")
"""Subjects of numbers over all that is erased, all that is kept, or both."""

HIT, MISS, BLOCKED = "10-"
"""What a picture counts as; one that a filter blocked counts as neither."""

Each = tuple[float | None, ...]
"""What each picture has of its own, None where a filter blocked it."""


@dataclass(frozen=True)
class Result:
    """`change` is None for the base, and where nothing is paired; a number that is no mean over pictures has no `each`.

    Pictures are in the order of the protocol.
    """

    score: Score
    change: Change | None
    role: Role
    each: Each = ()

    @property
    def key(self) -> tuple[str, str]:
        return self.score.subject, self.score.metric

    @property
    def single(self) -> bool:
        """Whether it is about one concept."""
        return self.score.subject not in EVERY

    @property
    def before(self) -> float | None:
        """The base's value on the same pictures."""
        return None if self.change is None else self.score.value - self.change.value

    @property
    def harm(self) -> float:
        """By how much it is worse than the base's: negative if it is better."""
        loss = self.change.value if self.change else 0.0
        return -loss if self.score.higher_is_better else loss

    @property
    def harmed(self) -> bool:
        """Whether it is worse beyond its interval."""
        return self.change is not None and self.change.real and self.harm > 0

    def row(self) -> dict[str, Any]:
        about = {**self.score.row(), "role": self.role, "change": self.change and asdict(self.change)}
        return about | ({"each": written(self.each)} if self.each else {})

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Result:
        """What `row` wrote. Raises KeyError, TypeError or ValueError for anything else."""
        own = {k: v for k, v in row.items() if k not in ("role", "change", "each")}
        found = _RESULT.validate_python({**row, "score": own, "each": read(row.get("each", ""))})
        n, before = found.score.n, found.before if found.score.unit == "%" else None
        if n < 1 or (before is not None and not 0 <= before * n <= n):
            raise ValueError(f"{found.key} is no share of {n} pictures")
        return found


_RESULT = TypeAdapter(Result)


def written(each: Each) -> str:
    """A letter for each picture where they hit or miss; else numbers with spaces between."""
    letters = {0.0: MISS, 1.0: HIT, None: BLOCKED}
    if all(v in letters for v in each):
        return "".join(letters[v] for v in each)
    return " ".join(BLOCKED if v is None else f"{v:.6g}" for v in each) + " "


def read(text: str) -> Each:
    """What `written` wrote."""
    parts = text.split() if " " in text else [*text]
    return tuple(None if part == BLOCKED else float(part) for part in parts)


def of_model(found: Iterable[Result], name: str) -> dict[tuple[str, str], Result]:
    return {r.key: r for r in found if r.score.model == name}


def pairs(before: Each, after: Each, unit: str = "%") -> Change | None:
    """The difference of two means over the pictures that neither's filter blocked; None if there are none."""
    shown = [(a, b) for a, b in zip(before, after, strict=True) if a is not None and b is not None]
    if not shown:
        return None
    both = [a for a, _ in shown], [b for _, b in shown]
    return shifted(*both) if unit == "%" else paired(*both)


@dataclass(frozen=True)
class Difference:
    """How a number of `model` differs from that of `other`."""

    subject: str
    metric: str
    role: Role
    unit: str
    model: str
    other: str
    change: Change

    def row(self) -> dict[str, Any]:
        return asdict(self)


def against(own: Sequence[Result], other: Sequence[Result]) -> list[Difference]:
    """The numbers of two rows that erase the same, on the same pictures, in pairs."""
    theirs = {r.key: r for r in other}
    both = [(a, theirs[a.key]) for a in own if a.key in theirs and a.each and len(a.each) == len(theirs[a.key].each)]
    found = [(a, b, pairs(b.each, a.each, a.score.unit)) for a, b in both]
    return [_difference(a, b.score.model, change) for a, b, change in found if change]


def _difference(r: Result, other: str, change: Change) -> Difference:
    return Difference(*r.key, r.role, r.score.unit, r.score.model, other, change)


Row = tuple[frozenset[str], Sequence[Result]]
"""What a row erases, and its numbers."""


def differences(rows: Sequence[Row]) -> tuple[list[Difference], int]:
    """Rows that erase the same, against each other: where they differ beyond the interval, of how many compared."""
    alike = [(a, b) for i, (erased, b) in enumerate(rows) for same, a in rows[i + 1 :] if same == erased]
    found = [d for a, b in alike for d in against(a, b)]
    return [d for d in found if d.change.real], len(found)
