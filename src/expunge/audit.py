"""Audit: a protocol on a base model and on what was done to it, on the same prompts and seeds, to scores.

Pictures, verdicts and features are kept in the audit's folder by content: a killed audit goes on where it was, a second
one looks at nothing twice, and shards that were made elsewhere count once they lie there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from .cell import Cell
from .concept import says
from .errors import ExpungeError
from .gallery import Gallery
from .generation import Request, Settings, drawn, keep
from .judge import Judge, Verdict
from .judges import judge
from .method import stamp
from .metric import Metric
from .metrics import metric
from .model import Model
from .protocol import Protocol, requests
from .result import Difference, Each, Result, Role, differences, pairs
from .score import rate, share
from .smallworld.data import drawings
from .training import fingerprint
from .variant import BASE, Variant


@dataclass(frozen=True)
class Plan:
    """What an audit does, said before it starts."""

    protocol: Protocol
    cells: tuple[Cell, ...]
    variants: tuple[Variant, ...]
    told: tuple[str, ...]
    settings: Settings

    @cached_property
    def requests(self) -> list[Request]:
        return requests(self.cells)

    @cached_property
    def judges(self) -> dict[str, Judge]:
        """The judges that the cells ask, by name."""
        known = {"smallworld": "smallworld", **self.protocol.judges}
        return {name: judge(known[name]) for name in dict.fromkeys(cell.judge for cell in self.cells)}

    @cached_property
    def metrics(self) -> list[Metric]:
        return [*map(metric, self.protocol.metrics)]

    @property
    def erased(self) -> list[str]:
        """What any of the rows takes away, or is told to be judged by."""
        return [*dict.fromkeys([*self.told, *(c for v in self.variants for c in v.concepts())])]

    def erased_by(self, variant: Variant) -> list[str]:
        """What this row takes away; for the base and other whole models, what any does."""
        own = variant.concepts()
        return [*dict.fromkeys([*self.told, *own])] if own else self.erased

    def named_by(self, variant: Variant) -> list[str]:
        """The names of what this row takes away, synonyms that the protocol knows among them."""
        erased = self.erased_by(variant)
        return list(dict.fromkeys([*erased, *(w for cell in self.cells if cell.mentions(erased) for w in cell.words)]))

    def settings_of(self, variant: Variant) -> Settings:
        return replace(self.settings, guidance=variant.guidance)


def plan(
    protocol: Protocol,
    base: Model,
    variants: Sequence[Variant],
    *,
    limit: int | None = None,
    erased: Sequence[str] = (),
) -> Plan:
    """Raises ExpungeError if two rows have one name, an edit is not of this model, or the protocol has no prompts."""
    if not protocol.rates and not protocol.prompts.survey:
        raise ExpungeError(f"the protocol {protocol.name} has no rate: give it one, such as that of collapsed pictures")
    names = [v.name for v in (BASE, *variants)]
    twice = [n for i, n in enumerate(names) if n in names[:i]]
    if twice:
        raise ExpungeError(f"two rows of the audit are called {twice[0]!r}; rename an edit's file")
    for variant in variants:
        for edit, _ in variant.edits:
            edit.check(base)
    settings = Settings(steps=protocol.steps, cfg=base.cfg if protocol.cfg is None else protocol.cfg)
    found = Plan(protocol, tuple(protocol.cells(limit)), (BASE, *variants), tuple(erased), settings)
    if not found.requests:
        raise ExpungeError(f"the protocol {protocol.name} has no prompts: the file that it reads them from is empty")
    check(found, base)
    return found


def check(plan: Plan, base: Model) -> None:
    """Tries every judge and metric on a blank picture, so that what cannot work is told before any picture is made.

    Raises ExpungeError for one that cannot be had or has no such key, two of one name, and too few pictures.
    """
    blank = base.blank()
    verdicts = {name: found.look(blank)[0] for name, found in plan.judges.items()}
    for cell in plan.cells:
        cell.check(verdicts[cell.judge])
    for variant in plan.variants:
        if variant.filter:
            variant.filter.check(blank)
    names, named = set(), plan.named_by(BASE)
    for number in plan.metrics:
        number.try_on(blank)
        n = sum(on(number, named, r) for r in plan.requests)
        if 0 < n < number.least:
            raise ExpungeError(f"{number.called} needs {number.least} pictures that are {number.on!r}, not {n}")
        if (number.called, number.on) in names:
            raise ExpungeError(f"two metrics are called {number.called!r} on {number.on!r}; give one of them a name")
        names.add((number.called, number.on))


def gallery(plan: Plan, base: Model, variant: Variant, out: Path, shard: tuple[int, int] = (0, 1)) -> Gallery:
    """The variant's pictures, made where they are missing."""
    model, asked = variant.model or base, plan.requests
    label = f"{variant.name}: generating"
    files = drawn(model, asked, plan.settings_of(variant), out / "images", variant.edits, label, shard)
    return Gallery(variant.name, out / "images", asked, files, base.device)


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


def on(asked: Metric, named: Collection[str], request: Request) -> bool:
    """Whether the metric looks at the request's picture, of a row that takes away what has these names."""
    said = any(says(request.prompt, name) for name in named)
    return asked.on == "all" or said == (asked.on == "erased")


def reference(name: str, base: Gallery) -> Gallery:
    """The pictures that a metric compares with: the base's, as many of the small world's drawings, or a folder's.

    Raises ExpungeError if the folder holds none.
    """
    if name in ("base", ""):
        return base
    folder = base.folder.parent / "drawings" if name == "drawings" else Path(name).expanduser()
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


def run(plan: Plan, base: Model, out: Path) -> list[Result]:
    """Makes the pictures in `out`, judges and measures."""
    return scored(plan, [gallery(plan, base, variant, out) for variant in plan.variants])


def compared(plan: Plan, found: Sequence[Result]) -> tuple[list[Difference], int]:
    """As `differences`, of all rows but the base."""
    own = [(frozenset(plan.erased_by(v)), [r for r in found if r.score.model == v.name]) for v in plan.variants[1:]]
    return differences(own)


def document(plan: Plan, base: Model, found: Sequence[Result]) -> dict[str, Any]:
    """All of an audit that JSON can hold."""
    real, count = compared(plan, found)
    return {
        "protocol": plan.protocol.model_dump(mode="json"),
        "model": {**base.identity(()), "signature": base.signature},
        "settings": plan.settings.row(),
        "erased": list(plan.erased),
        "judges": {name: j.provenance() for name, j in plan.judges.items()},
        "metrics": [m.provenance() for m in plan.metrics],
        "rows": [{**v.about(), "erased": plan.erased_by(v)} for v in plan.variants],
        "pictures": len(plan.requests),
        "requests": fingerprint({"requests": [r.row() for r in plan.requests]}),
        **stamp(),
        "scores": [result.row() for result in found],
        "between": [d.row() for d in real],
        "compared": count,
    }
