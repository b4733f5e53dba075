"""Audit: a protocol on a base model and on what was done to it, on the same prompts and seeds, to scores.

Pictures, verdicts and features are kept in the audit's folder by content: a killed audit goes on where it was, a second
one looks at nothing twice, and shards that were made elsewhere count once they lie there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from .cell import Cell
from .concept import says
from .edit import Edit
from .errors import ExpungeError
from .files import write_json
from .gallery import Gallery
from .generation import Request, Settings, drawn, keep
from .guided import Guidance
from .judge import Judge
from .judges import judge
from .method import stamp
from .metric import Metric
from .metrics import metric
from .model import Model
from .protocol import Protocol, requests
from .score import Change, Score, mcnemar
from .smallworld.data import drawings
from .training import fingerprint


@dataclass(frozen=True)
class Variant:
    """One row of an audit: the base with edits and guidance, or another whole model."""

    name: str
    edits: tuple[tuple[Edit, float], ...] = ()
    guidance: tuple[Guidance, ...] = ()
    model: Model | None = None

    def about(self) -> dict[str, Any]:
        """Where it comes from, down to hashes."""
        edits = [{"scale": scale, "hash": e.hash, **e.provenance} for e, scale in self.edits]
        rules = [g.row() for g in self.guidance]
        whole = self.model and {**self.model.identity(()), "signature": self.model.signature}
        return {"name": self.name, "edits": edits, "guidance": rules, "model": whole}

    def concepts(self) -> list[str]:
        """What it takes away, by name."""
        erased = [c["name"] for e, _ in self.edits for c in e.provenance.get("concepts", []) if not c.get("within")]
        return [*erased, *(c for g in self.guidance for c in g.away)]


BASE = Variant("base")


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
        return [*self.told, *own] if own else self.erased

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
    names = [v.name for v in (BASE, *variants)]
    twice = [n for i, n in enumerate(names) if n in names[:i]]
    if twice:
        raise ExpungeError(f"two rows of the audit are called {twice[0]!r}; rename an edit's file")
    for variant in variants:
        for edit, _ in variant.edits:
            edit.check(base)
    settings = Settings(steps=protocol.steps, cfg=base.cfg if protocol.cfg is None else protocol.cfg)
    found = Plan(protocol, tuple(protocol.cells(limit)), (BASE, *variants), tuple(erased), settings)
    check(found, base)
    return found


def check(plan: Plan, base: Model) -> None:
    """Tries every judge and metric on a blank picture, so that what cannot work is told before any picture is made.

    Raises ExpungeError for one that cannot be had or has no such key, two of one name, and too few pictures.
    """
    blank = torch.zeros(1, 3, base.side, base.side, device=base.device)
    verdicts = {name: found.look(blank)[0] for name, found in plan.judges.items()}
    for cell in plan.cells:
        cell.check(verdicts[cell.judge])
    names = set()
    for number in plan.metrics:
        number.try_on(blank)
        n = sum(on(number, plan.erased, r) for r in plan.requests)
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


@dataclass(frozen=True)
class Result:
    """One number of one row, and how it differs from the base's (None for the base, and where nothing is paired)."""

    score: Score
    change: Change | None
    role: str
    """"erased": about what should go; "kept": about what should stay."""

    def row(self) -> dict[str, Any]:
        return {**self.score.row(), "role": self.role, "change": self.change and asdict(self.change)}


def scored(plan: Plan, galleries: Sequence[Gallery]) -> list[Result]:
    """Every number of every row; the base is the first of the galleries."""
    return [*rates(plan, galleries), *measured(plan, galleries)]


def rates(plan: Plan, galleries: Sequence[Gallery]) -> list[Result]:
    """The cells' numbers."""
    seen = [
        {name: dict(zip(g.requests, g.verdicts(j), strict=True)) for name, j in plan.judges.items()} for g in galleries
    ]
    found = []
    for v, own in zip(plan.variants, seen, strict=True):
        erased = plan.erased_by(v)
        for cell in (c for c in (cell.apart(erased) for cell in plan.cells) if c.requests):
            hits, base = ([cell.hit(s[cell.judge][r]) for r in cell.requests] for s in (own, seen[0]))
            role = "erased" if cell.mentions(erased) else "kept"
            change = None if v is BASE else mcnemar(base, hits)
            found.append(Result(cell.score(hits, v.name, erased), change, role))
    return found


def measured(plan: Plan, galleries: Sequence[Gallery]) -> list[Result]:
    """The metrics' numbers."""
    found = []
    for asked in plan.metrics:
        for v, g in zip(plan.variants, galleries, strict=True):
            chosen = partial(on, asked, plan.erased_by(v))
            seen, base = g.only(chosen), galleries[0].only(chosen)
            if len(seen) >= asked.least and not (v is BASE and asked.reference == "base"):
                role = "erased" if asked.on == "erased" else "kept"
                found.append(Result(asked.score(seen, reference(asked.reference, base)), None, role))
    return found


def on(asked: Metric, erased: Collection[str], request: Request) -> bool:
    """Whether the metric looks at the request's picture."""
    said = any(says(request.prompt, e) for e in erased)
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
    """Makes, judges and measures; the scores and all that they rest on are then in `out`/scores.json."""
    galleries = [gallery(plan, base, variant, out) for variant in plan.variants]
    found = scored(plan, galleries)
    write_json(out / "scores.json", document(plan, base, found))
    return found


def document(plan: Plan, base: Model, found: Sequence[Result]) -> dict[str, Any]:
    """All of an audit that JSON can hold."""
    return {
        "protocol": plan.protocol.model_dump(mode="json"),
        "model": {**base.identity(()), "signature": base.signature},
        "settings": plan.settings.row(),
        "erased": list(plan.erased),
        "judges": {name: j.provenance() for name, j in plan.judges.items()},
        "metrics": [m.provenance() for m in plan.metrics],
        "rows": [v.about() for v in plan.variants],
        "pictures": len(plan.requests),
        "requests": fingerprint({"requests": [r.row() for r in plan.requests]}),
        **stamp(),
        "scores": [result.row() for result in found],
    }
