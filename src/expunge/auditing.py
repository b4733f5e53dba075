"""Audit: a protocol on a base model and on what was done to it, on the same prompts and seeds, to scores.

Pictures, verdicts and features are kept in the audit's folder by content: a killed audit goes on where it was, a second
one looks at nothing twice, and shards that were made elsewhere count once they lie there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from .cluster import Job, Opening
from .edit import Edit
from .files import write_json
from .gallery import Gallery
from .generation import Request, Settings, batches, drawn
from .journal import beside
from .lock import locked
from .method import stamp
from .model import Model
from .plan import Plan
from .result import Difference, Result, differences
from .scoring import blocked, scored
from .training import fingerprint
from .variant import Variant


def gallery(plan: Plan, base: Model, variant: Variant, out: Path, shard: tuple[int, int] = (0, 1)) -> Gallery:
    """The variant's pictures, made where they are missing."""
    model, asked = variant.model or base, plan.requests
    label = f"{variant.name}: generating"
    settings = plan.settings_of(variant)
    files = drawn(model, asked, settings, out / "images", variant.edits, label, shard, home=out)
    return Gallery(variant.name, out / "images", asked, files, base.device)


def run(plan: Plan, base: Model, out: Path) -> list[Result]:
    """Makes the pictures in `out`, judges and measures, and lists the pictures in pictures.json.

    Raises ExpungeError if another run writes there.
    """
    with locked(out, folder=True):
        galleries = [gallery(plan, base, variant, out) for variant in plan.variants]
        found = scored(plan, galleries)
        write_json(out / "pictures.json", {"rows": shown(plan, galleries), "erased": plan.erased})
    return found


def shown(plan: Plan, galleries: Sequence[Gallery]) -> list[dict[str, Any]]:
    """Every picture of every row; the file is None where the row's filter blocked it."""
    rows = [(v, g, blocked(v, g)) for v, g in zip(plan.variants, galleries, strict=True)]
    return [
        {"row": v.name, "prompt": r.prompt, "seed": r.seed, "file": None if r in hidden else f"{g.folder.name}/{name}"}
        for v, g, hidden in rows
        for r, name in zip(g.requests, g.files, strict=True)
    ]


def part(plan: Plan, base: Model, out: Path, shard: tuple[int, int]) -> None:
    """Makes one part of the pictures, beside others that make theirs."""
    with locked(out, folder=True, shared=True):
        for variant in plan.variants:
            gallery(plan, base, variant, out, shard)


def jobs(plan: Plan, base: Model, out: Path, opening: Opening) -> list[Job]:
    """The pictures that `out` lacks, for a cluster: a batch an item."""
    found = []
    for variant in plan.variants:
        model, settings = variant.model or base, plan.settings_of(variant)
        items = batches(model, plan.requests, settings, out / "images", variant.edits)
        work = partial(draw_there, settings, variant.edits)
        found.append(Job(replace(opening, model=model.name), work, items, out / "images", beside(out)))
    return found


def draw_there(
    settings: Settings, edits: Sequence[tuple[Edit, float]], model: Model, requests: Sequence[Request], folder: Path
) -> None:
    drawn(model, requests, settings, folder, edits)


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
