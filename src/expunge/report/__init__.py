"""The report of an audit: one self-contained HTML page, and its tables as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..auditing import document, run
from ..families import Precision, load
from ..files import sealed, write_json, write_text
from ..model import Model
from ..plan import Plan, plan
from ..protocol import changed
from ..protocol import protocol as named
from ..result import Result
from ..variant import Variant, combined
from .curves import curves
from .facts import Facts
from .proof import proof
from .render import render
from .table import overview, pareto


@dataclass(frozen=True)
class Report:
    """Its files, a sentence for each row, and the table of all rows in short."""

    files: list[Path]
    results: list[Result]
    verdicts: list[tuple[str, str]]
    table: dict[str, Any]


def write(plan: Plan, base: Model, found: Sequence[Result], out: Path, command: str = "") -> Report:
    """Leaves scores.json, report.html and report.md in `out`, where the audit's pictures are."""
    files = [out / name for name in ("scores.json", "report.html", "report.md")]
    about = document(plan, base, found)
    facts = Facts(plan, base, found, out, about, command)
    values = page(facts)
    texts = [render(f"{file.name}.j2", values) for file in files[1:]]
    write_json(files[0], sealed(about))
    for file, text in zip(files[1:], texts, strict=True):
        write_text(file, text)
    return Report(files, [*found], values["verdicts"], values["table"])


def audit(
    *rows: str | Variant,
    protocol: str = "smallworld",
    model: str | Model = "smallworld",
    concepts: Sequence[str] = (),
    limit: int | None = None,
    out: str | Path = "audit",
    device: str = "auto",
    precision: Precision = "auto",
    **options: Any,
) -> Report:
    """Audits rows, as "a.safetensors:0.5" or "NAME = a.safetensors + sld-max", and leaves the report in `out`.

    `concepts` are what is erased besides what edits say; `options` are the protocol's, as `steps=20`. Raises
    ExpungeError for what cannot be, before any picture is made.
    """
    base = model if isinstance(model, Model) else load(model, device=device, precision=precision)
    variants = [combined(row, concepts, base.name) if isinstance(row, str) else row for row in rows]
    asked = plan(changed(named(protocol), None, options), base, variants, limit=limit, erased=concepts)
    return write(asked, base, run(asked, base, Path(out)), Path(out))


def page(facts: Facts) -> dict[str, Any]:
    """What the templates show."""
    grid = facts.grid()
    return {
        "about": facts.about,
        "command": facts.command,
        "erased": facts.plan.erased,
        "names": facts.names,
        "verdicts": facts.verdicts(),
        "table": overview(facts.rows),
        "pareto": pareto(facts.rows),
        "instead": facts.instead(),
        "numbers": facts.numbers(),
        "grid": grid,
        "failures": facts.failures(),
        "distances": facts.distances(),
        "curves": curves(facts.plan.cells, facts.pictures.seen),
        "between": facts.about["between"],
        "compared": facts.about["compared"],
        "provenance": proof(facts.about),
        "veils": any(tile.veiled for row in grid for tile in row["tiles"]),
    }
