"""Scoring: from the pictures of an audit's rows to its numbers, each beside the base's on the same pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .cell import Cell
from .errors import ExpungeError
from .files import home
from .gallery import Gallery
from .generation import Request, keep
from .judge import Verdict
from .metric import Metric
from .plan import Plan, on
from .result import Each, Result, Role, pairs
from .score import rate, share
from .smallworld.data import drawings
from .variant import BASE, Variant


def scored(plan: Plan, galleries: Sequence[Gallery]) -> list[Result]:
    """Every number of every row; the base is the first of the galleries."""
    return [*rates(plan, galleries), *measured(plan, galleries)]


def rates(plan: Plan, galleries: Sequence[Gallery]) -> list[Result]:
    """The cells' numbers, and those over all that is erased and all that is kept."""
    seen = [Seen.of(plan, v, g) for v, g in zip(plan.variants, galleries, strict=True)]
    return [
        r for own in seen for r in [*singly(plan, own, seen[0]), *together(plan, own, seen[0]), *stopped(plan, own)]
    ]


Judged = dict[str, dict[Request, Verdict]]


@dataclass(frozen=True)
class Seen:
    """What the judges say of a row's pictures, and which of them its filter blocks."""

    variant: Variant
    verdicts: Judged
    blocked: frozenset[Request]

    @classmethod
    def of(cls, plan: Plan, variant: Variant, gallery: Gallery) -> Seen:
        verdicts = {
            name: dict(zip(gallery.requests, gallery.verdicts(j), strict=True)) for name, j in plan.judges.items()
        }
        return cls(variant, verdicts, blocked(variant, gallery))

    def each(self, cell: Cell) -> Each:
        """1 or 0 for each of the cell's pictures that was shown."""
        return tuple(None if r in self.blocked else float(self.hit(cell, r)) for r in cell.requests)

    def hit(self, cell: Cell, request: Request) -> bool:
        """Whether the judge says so, blocked or not."""
        return cell.hit(self.verdicts[cell.judge][request])


def blocked(variant: Variant, gallery: Gallery) -> frozenset[Request]:
    """The requests whose pictures the row's filter keeps from being seen."""
    if variant.filter is None:
        return frozenset()
    found = gallery.verdicts(variant.filter.judge)
    return frozenset(r for r, v in zip(gallery.requests, found, strict=True) if variant.filter.stops(v))


def cells_of(plan: Plan, variant: Variant) -> list[tuple[Cell, Role]]:
    """The row's cells, each without pictures of what it erases unless it is about that."""
    erased = plan.erased_by(variant)
    cells = [c if c.mentions(erased) else c.apart(plan.named_by(variant)) for c in plan.cells]
    return [(c, "erased" if c.mentions(erased) else "kept") for c in cells if c.requests]


def erasing(plan: Plan, variant: Variant) -> list[Cell]:
    """The row's cells that are about what it erases."""
    return [cell for cell, role in cells_of(plan, variant) if role == "erased"]


def singly(plan: Plan, own: Seen, base: Seen) -> list[Result]:
    """A number for each cell of which anything was shown."""
    found, erased = [], plan.erased_by(own.variant)
    for cell, role in cells_of(plan, own.variant):
        each = own.each(cell)
        shown = [bool(v) for v in each if v is not None]
        if shown:
            change = None if own.variant is BASE else pairs(base.each(cell), each)
            found.append(Result(cell.score(shown, own.variant.name, erased), change, role, each))
    return found


def together(plan: Plan, own: Seen, base: Seen) -> list[Result]:
    """One number for each way in which what is erased was asked for, and one for all that should stay.

    A picture that several cells judge counts once, by the share of them that it hits.
    """
    groups: dict[tuple[Role, str], list[Cell]] = {}
    for cell, role in cells_of(plan, own.variant):
        if cell.words and (role == "erased" or not cell.bad):
            groups.setdefault((role, cell.metric if role == "erased" else "accuracy"), []).append(cell)
    return [r for (role, metric), cells in groups.items() for r in overall(own, base, cells, role, metric)]


def overall(own: Seen, base: Seen, cells: Sequence[Cell], role: Role, metric: str) -> list[Result]:
    """The cells' pictures as one number; nothing where a filter leaves none."""
    after, before = shares(own, cells), shares(base, cells)
    shown = [v for v in after.values() if v is not None]
    if not shown:
        return []
    judged, name = sum(len(cell.requests) for cell in cells), own.variant.name
    score = share(shown, judged, metric=metric, subject=role, model=name, higher_is_better=role == "kept")
    each = tuple(after.values())
    return [Result(score, None if own.variant is BASE else pairs(tuple(before.values()), each), role, each)]


def shares(seen: Seen, cells: Sequence[Cell]) -> dict[Request, float | None]:
    """Of each picture, the share of its cells that it hits; None if it was blocked."""
    found: dict[Request, list[bool]] = {}
    for cell in cells:
        for request in cell.requests:
            found.setdefault(request, []).append(seen.hit(cell, request))
    return {r: None if r in seen.blocked else sum(hits) / len(hits) for r, hits in found.items()}


def stopped(plan: Plan, own: Seen) -> list[Result]:
    """How many pictures the row's filter blocked, of those that show what is erased, and of all others."""
    if own.variant.filter is None:
        return []
    found, name = [], own.variant.name
    for role, chosen in showing(plan, own).items():
        if chosen:
            n, better = len(chosen & own.blocked), role == "erased"
            score = rate(n, len(chosen), metric="blocked", subject=role, model=name, higher_is_better=better)
            found.append(Result(score, None, role))
    return found


def showing(plan: Plan, own: Seen) -> dict[Role, set[Request]]:
    """The requests whose pictures show what the row erases, as the judges say of them unfiltered, and all others."""
    erased = {r for cell in erasing(plan, own.variant) for r in cell.requests if own.hit(cell, r)}
    return {"erased": erased, "kept": {*plan.requests} - erased}


def measured(plan: Plan, galleries: Sequence[Gallery]) -> list[Result]:
    """The metrics' numbers, on pictures that were shown."""
    rows = [*zip(plan.variants, galleries, strict=True)]
    return [r for asked in plan.metrics for v, g in rows for r in measure(plan, asked, v, g, galleries[0])]


def measure(plan: Plan, asked: Metric, variant: Variant, gallery: Gallery, base: Gallery) -> list[Result]:
    """The metric's number of a row; nothing where there is none, or too few pictures."""
    own, theirs = looked_at(plan, asked, variant, gallery, base)
    if len(own) < asked.least or (variant is BASE and asked.reference == "base"):
        return []
    role: Role = "erased" if asked.on == "erased" else "kept"
    score, each = asked.score(own, reference(asked.reference, theirs)), asked.each(own, theirs)
    change = None if variant is BASE or not each else pairs(tuple(asked.each(theirs, theirs)), tuple(each), score.unit)
    by_request, named = dict(zip(own.requests, each, strict=True)) if each else {}, plan.named_by(variant)
    chosen = [r for r in gallery.requests if each and on(asked, named, r)]
    return [Result(score, change, role, tuple(by_request.get(r) for r in chosen))]


def looked_at(plan: Plan, asked: Metric, variant: Variant, gallery: Gallery, base: Gallery) -> tuple[Gallery, Gallery]:
    """The pictures of a row that were shown and that the metric is about, and the base's for the same requests."""
    hidden, named = blocked(variant, gallery), plan.named_by(variant)

    def wanted(request: Request) -> bool:
        return on(asked, named, request) and request not in hidden

    return gallery.only(wanted), base.only(wanted)


def reference(name: str, base: Gallery) -> Gallery:
    """The pictures that a metric compares with: the base's, as many of the small world's drawings, or a folder's.

    Raises ExpungeError if the folder holds none.
    """
    if name in ("base", ""):
        return base
    folder = base.folder.parent / "drawings" if name == "drawings" else home(name)
    files = (
        draw(folder, len(base))
        if name == "drawings"
        else [p.name for p in sorted(folder.glob("*")) if p.suffix in SUFFIXES]
    )
    if not files:
        raise ExpungeError(f"no pictures in {folder} to compare with: expected {', '.join(SUFFIXES)} files")
    asked = [Request("", i) for i in range(len(files))]
    return Gallery(name, folder, asked, files, base.device, side(base), base.folder.parent)


SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def side(gallery: Gallery) -> int:
    """Pixels of a side of its pictures."""
    return gallery.images(gallery.files[:1]).shape[-1]


def draw(folder: Path, n: int) -> list[str]:
    """That many drawings of the small world as files, made where they are missing."""
    names = [f"{i:05}.png" for i in range(n)]
    if not all((folder / name).exists() for name in names):
        for image, name in zip(drawings(n, 0, purpose="reference").pixels(slice(0, n)), names, strict=True):
            keep(image, folder / name)
    return names
