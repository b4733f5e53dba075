"""Prompts of a protocol: templates, rows written out, or a file of the user's; read row by row, checked by column.

Columns have the names that published files use for them:

    prompt    prompt, caption, text
    seed      seed, evaluation_seed, sd_seed            without one: the row's number
    cfg       cfg, evaluation_guidance, guidance, sd_guidance_scale
"""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from typing import Any

from .errors import ExpungeError
from .files import parsed

ALIASES: dict[str, tuple[str, ...]] = {
    "prompt": ("prompt", "caption", "text"),
    "seed": ("seed", "evaluation_seed", "sd_seed"),
    "cfg": ("cfg", "evaluation_guidance", "guidance", "sd_guidance_scale"),
}


@dataclass(frozen=True)
class Row:
    """One prompt, with the seed of its first picture, its guidance scale if it has its own, and its other columns."""

    prompt: str
    seed: int
    cfg: float | None = None
    columns: Mapping[str, str] = field(default_factory=dict)


def filled(template: str, values: Mapping[str, Sequence[str]]) -> Iterator[Row]:
    """The template with every combination of values: "{country} body" and {"country": ["Japan", …]}.

    Raises ExpungeError if it names a value that is not given.
    """
    names = [*values]
    for number, chosen in enumerate(itertools.product(*values.values())):
        columns = dict(zip(names, chosen, strict=True))
        try:
            yield Row(_said(template, columns), number, columns=columns)
        except (KeyError, ValueError) as error:
            raise ExpungeError(f"the template {template!r} asks for {error}; it can use {', '.join(names)}") from error


def _said(template: str, columns: Mapping[str, str]) -> str:
    """The template with {name} replaced, and {{ and }} as braces. Raises KeyError or ValueError for anything else."""
    text = ""
    for before, name, form, conversion in Formatter().parse(template):
        if form or conversion:
            raise ValueError(f"{name} in another form")
        text += before + ("" if name is None else columns[name])
    return text


def rows(found: Iterator[Mapping[str, Any]], where: str) -> Iterator[Row]:
    """Rows of a table. Raises ExpungeError, with row and column, for a missing prompt or a number that is none."""
    for number, raw in enumerate(found):
        named = {
            key: next((raw[a] for a in aliases if raw.get(a) not in (None, "")), None)
            for key, aliases in ALIASES.items()
        }
        if named["prompt"] is None:
            columns = ", ".join(map(str, raw)) or "none"
            raise ExpungeError(f"row {number + 1} of {where} has no prompt: expected a column prompt, not {columns}")
        seed = _number(named["seed"], int, "seed", number, where) if named["seed"] is not None else number
        cfg = _number(named["cfg"], float, "cfg", number, where) if named["cfg"] is not None else None
        yield Row(str(named["prompt"]), int(seed), cfg, {str(k): str(v) for k, v in raw.items()})


def _number(value: Any, kind: type[int] | type[float], column: str, number: int, where: str) -> float:
    try:
        found = kind(value)
        if isinstance(value, float) and found != value:
            raise ValueError("no whole number")
    except (TypeError, ValueError, OverflowError) as error:
        raise ExpungeError(f"row {number + 1} of {where}: {column} is {value!r}, not a number") from error
    if not math.isfinite(found) or (kind is int and not 0 <= found < 2**63):
        raise ExpungeError(f"row {number + 1} of {where}: {column} is {value!r}, which is too large, or negative")
    return found


def of_file(path: Path) -> Iterator[Row]:
    """Rows of a .csv, .tsv, .jsonl or .parquet file, or of a .txt with one prompt a line.

    Raises ExpungeError if it cannot be read.
    """
    if path.suffix not in READERS:
        raise ExpungeError(f"cannot read prompts from {path}: expected one of {', '.join(READERS)}")
    try:
        yield from rows(READERS[path.suffix](path), str(path))
    except (OSError, ValueError, csv.Error) as error:
        raise ExpungeError(f"cannot read prompts from {path}: {error}") from error


def _csv(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")


def _jsonl(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            if line.strip():
                yield _object(line, path, number)


def _object(line: str, path: Path, number: int) -> Mapping[str, Any]:
    found = parsed(line, f"line {number + 1} of {path}")
    if not isinstance(found, dict):
        raise ExpungeError(f"line {number + 1} of {path} is not a JSON object with a prompt")
    return found


def _text(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from ({"prompt": line.strip()} for line in file if line.strip() and not line.startswith("#"))


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ExpungeError(f"reading {path} needs pyarrow: pip install pyarrow, or save it as CSV") from error
    try:
        for batch in parquet.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    except ArrowException as error:
        raise ExpungeError(f"cannot read prompts from {path}: {error}") from error


READERS = {".csv": _csv, ".tsv": _csv, ".jsonl": _jsonl, ".txt": _text, ".parquet": _parquet}
