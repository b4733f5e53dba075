"""Audits side by side: one table, and erased against kept. Only those that asked and judged alike can be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ..errors import ExpungeError
from ..files import parsed, unbroken, write_json, write_text
from ..result import Difference, Result, differences
from ..summary import Summary, summary, training_time
from .render import render
from .table import overview, pareto

BASE = "base"


@dataclass(frozen=True)
class Row:
    """One row of an audit, under a name that no other has."""

    name: str
    about: Mapping[str, Any]
    found: tuple[Result, ...]

    @property
    def summary(self) -> Summary:
        return summary(self.found, self.name, training_time(dict(self.about)))


@dataclass(frozen=True)
class Comparison:
    """Rows of one or several audits; the base stands there once for each set of what is erased."""

    about: Mapping[str, Any]
    rows: tuple[Row, ...]

    def table(self) -> dict[str, Any]:
        return overview([row.summary for row in self.rows])

    def pareto(self) -> str:
        return pareto([row.summary for row in self.rows])

    def between(self) -> tuple[list[Difference], int]:
        """As `differences`, of all rows but bases."""
        rows = [(frozenset(row.about["erased"]), row.found) for row in self.rows if row.about["name"] != BASE]
        return differences(rows)


class _Protocol(BaseModel):
    name: str
    rates: list[Any]


class _Settings(BaseModel):
    steps: int
    cfg: float


class _Cost(BaseModel):
    seconds: float


class _Edit(BaseModel):
    cost: _Cost | None = None


class _Row(BaseModel):
    name: str
    erased: list[str]
    edits: list[_Edit] = []


class _Audit(BaseModel):
    """What is read of scores.json; of the scores, see `Result.of`."""

    protocol: _Protocol
    model: dict[str, Any]
    settings: _Settings
    judges: dict[str, Any]
    metrics: list[Any]
    requests: str
    pictures: int
    rows: list[_Row]
    scores: list[dict[str, Any]]


def read(folder: Path) -> tuple[dict[str, Any], list[Result]]:
    """What an audit left. Raises ExpungeError if the folder holds none, or one of another version."""
    file = folder / "scores.json"
    again = "run it again, which makes no picture twice"
    try:
        about = parsed(file.read_bytes(), f"the audit {file}")
        _Audit.model_validate(about)
        found = [Result.of(row) for row in about["scores"]]
    except FileNotFoundError as error:
        raise ExpungeError(f"no audit in {folder}: expected {file}; run `expunge audit --out {folder}`") from error
    except (OSError, ValueError, KeyError, TypeError, ExpungeError) as error:
        raise ExpungeError(f"cannot read the audit {file}: {' '.join(str(error).split())[:200]}; {again}") from error
    if not unbroken(about):
        raise ExpungeError(f"the audit {file} is damaged: it does not match its sha256; {again}")
    return about, found


def same(about: Mapping[str, Any]) -> dict[str, Any]:
    """What must be equal, by how it is called."""
    model = {k: about["model"].get(k) for k in ("hash", "signature")}
    return {
        "prompts and seeds": about["requests"], "steps or guidance scale": about["settings"], "judges": about["judges"],
        "rates": about["protocol"]["rates"], "metrics": about["metrics"], "base models": model,
    }  # fmt: skip


def comparison(folders: Sequence[Path]) -> Comparison:
    """Raises ExpungeError if two audits differ in what they asked, or how they judged it, or one is given twice."""
    twice = [f for i, f in enumerate(folders) if f.resolve() in [g.resolve() for g in folders[:i]]]
    if twice:
        raise ExpungeError(f"{twice[0]} is given twice")
    audits = [(folder, *read(folder)) for folder in folders]
    first, about, _ = audits[0]
    for folder, other, _ in audits[1:]:
        for said, value in same(other).items():
            if value != same(about)[said]:
                raise ExpungeError(f"{folder} and {first} differ in their {said}: audit both alike to compare them")
    rows = [(folder, row, found) for folder, own, found in audits for row in own["rows"]]
    rows = [r for i, r in enumerate(rows) if not any(_one_base(r[1], other) for _, other, _ in rows[:i])]
    names = [row["name"] for _, row, _ in rows]
    return Comparison(about, tuple(titled(f, r, found, names.count(r["name"]) > 1) for f, r, found in rows))


def _one_base(row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether both are the base, judged for the same: it stands there once."""
    return row["name"] == other["name"] == BASE and set(row["erased"]) == set(other["erased"])


def titled(folder: Path, about: Mapping[str, Any], found: Sequence[Result], twice: bool) -> Row:
    """The row; one whose name another has goes by its folder as well."""
    name = f"{folder}: {about['name']}" if twice else str(about["name"])
    own = (r for r in found if r.score.model == about["name"])
    return Row(name, about, tuple(replace(r, score=replace(r.score, model=name)) for r in own))


def write(found: Comparison, out: Path, figures: Sequence[tuple[str, str]] = ()) -> list[Path]:
    """Leaves compare.json, compare.html, compare.md and each plot in `out`; `figures` are more, with their titles."""
    files = [out / f"compare.{kind}" for kind in ("json", "html", "md")]
    between, compared = found.between()
    values = {
        "about": found.about, "table": found.table(), "pareto": found.pareto(),
        "between": [d.row() for d in between],
        "compared": compared, "figures": figures,
    }  # fmt: skip
    texts = [render(f"{file.name}.j2", values) for file in files[1:]]
    rows = [{**row.about, "name": row.name, "scores": [r.row() for r in row.found]} for row in found.rows]
    write_json(files[0], {"rows": rows, "between": values["between"]})
    for file, text in zip(files[1:], texts, strict=True):
        write_text(file, text)
    plots = [("compare", str(values["pareto"])), *figures]
    pictures = [(out / f"{title.replace(' ', '-')}.svg", plot) for title, plot in plots if plot]
    for file, plot in pictures:
        write_text(file, plot.replace("<svg ", '<svg style="background: white" ', 1))
    return [*files, *(file for file, _ in pictures)]
