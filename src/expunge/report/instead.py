"""What came instead of what is erased: classes by the judge, or the nearest of other concepts by an eye that reads.

Nobody knows beforehand what an eraser puts in a concept's place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..cell import Cell
from ..gallery import Gallery
from ..generation import Request
from ..judge import Reader
from ..model import Model
from ..plan import Plan
from ..scoring import Seen, erasing
from ..summary import called

CLASSES = 8
"""How many classes are told."""

NEIGHBOURS = 24
"""Words of the vocabulary near to what is erased, among which an eye chooses."""


@dataclass(frozen=True)
class Tally:
    """Shares of each class in percent, for each row; the most frequent of other rows first, then the base's."""

    way: str
    by: str
    n: int
    lines: list[tuple[str, list[str]]]

    @classmethod
    def of(cls, way: str, by: str, columns: Sequence[Counter[str]]) -> Tally:
        after = sum(columns[1:], Counter())
        classes = list(dict.fromkeys(c for own in (after, columns[0]) for c, _ in own.most_common(CLASSES)))
        lines = [(c, [f"{100 * k[c] / k.total():.0f}%" if k.total() else "" for k in columns]) for c in classes]
        return cls(called(way), by, max(k.total() for k in columns), lines)


def instead(plan: Plan, base: Model, galleries: Sequence[Gallery], seen: Sequence[Seen]) -> list[Tally]:
    """A tally for each way of asking, by the judge's classes; where it has none, by the first eye that reads."""
    ways = list(dict.fromkeys((c.metric, c.judge, c.head) for v in plan.variants for c in erasing(plan, v)))
    judged = [way for way in ways if any(isinstance(c.expected, str) for c in of_way(plan, seen[0], way))]
    found = [tally(plan, seen, way) for way in judged]
    eyes = [getattr(m, "eye", None) for m in plan.metrics]
    reader = next((eye for eye in eyes if isinstance(eye, Reader)), None)
    if judged or reader is None or not ways:
        return found
    return [by_eye(plan, reader, vocabulary(plan, base), galleries, seen)]


Way = tuple[str, str, str]


def of_way(plan: Plan, seen: Seen, way: Way) -> list[Cell]:
    """What the row erases, asked for in that way."""
    return [c for c in erasing(plan, seen.variant) if (c.metric, c.judge, c.head) == way]


def tally(plan: Plan, seen: Sequence[Seen], way: Way) -> Tally:
    """The judge's classes in each row's pictures of what it erases."""
    metric, judge, head = way
    columns = [Counter(str(s.verdicts[judge][r][head]) for r in shown(of_way(plan, s, way), s)) for s in seen]
    return Tally.of(metric, f"the judge's “{head}”", columns)


def shown(cells: Sequence[Cell], seen: Seen) -> Iterator[Request]:
    return (r for cell in cells for r in cell.requests if r not in seen.blocked)


def vocabulary(plan: Plan, base: Model) -> list[str]:
    """What is erased, what else the protocol is about, and words near to what is erased."""
    near = [word for e in plan.erased for word in base.neighbours(e, NEIGHBOURS // max(1, len(plan.erased)))]
    return list(dict.fromkeys([*plan.erased, *(w for cell in plan.cells for w in cell.words), *near]))


def by_eye(
    plan: Plan, reader: Reader, words: Sequence[str], galleries: Sequence[Gallery], seen: Sequence[Seen]
) -> Tally:
    """The word whose text is nearest to each picture of what is erased."""
    texts = reader.texts(words).cpu()
    columns = []
    for s, gallery in zip(seen, galleries, strict=True):
        wanted = {*shown(erasing(plan, s.variant), s)}
        own = gallery.only(wanted.__contains__)
        nearest = (own.features(reader) @ texts.T).argmax(1).tolist() if len(own) else []
        columns.append(Counter(words[i] for i in nearest))
    return Tally.of("asked for", f"the nearest text in {reader.kind}", columns)
