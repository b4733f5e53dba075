"""Variant: one row of an audit, what was done to a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .edit import Edit, scaled
from .errors import ExpungeError
from .filter import Filter
from .guidance import guidance
from .guided import Guidance
from .judges import filtering
from .model import Model


@dataclass(frozen=True)
class Variant:
    """The base with edits, guidance and a filter behind it, or another whole model."""

    name: str
    edits: tuple[tuple[Edit, float], ...] = ()
    guidance: tuple[Guidance, ...] = ()
    model: Model | None = None
    filter: Filter | None = None

    def about(self) -> dict[str, Any]:
        """Where it comes from, down to hashes."""
        edits = [{**e.provenance, "scale": scale, "hash": e.hash} for e, scale in self.edits]
        rules = [g.row() for g in self.guidance]
        whole = self.model and {**self.model.identity(()), "signature": self.model.signature}
        stops = self.filter and self.filter.row()
        return {"name": self.name, "edits": edits, "guidance": rules, "model": whole, "filter": stops}

    def concepts(self) -> list[str]:
        """What it takes away, by name."""
        return [*(c for e, _ in self.edits for c in e.erased), *(c for g in self.guidance for c in g.away)]


BASE = Variant("base")


def combined(text: str, concepts: Sequence[str] = (), model: str = "smallworld") -> Variant:
    """A row from "NAME = FILE[:SCALE] + GUIDANCE + filter:JUDGE…", with a name or without.

    Its guidance steers away from the concepts, and from those of its edits; `model` is the base's name. Raises
    ExpungeError for a part that there is not, and for two filters.
    """
    name, said, rest = text.partition(" = ")
    parts = [part.strip() for part in (rest if said else name).split(" + ")]
    filters = [filtering(part.removeprefix("filter:"), model) for part in parts if part.startswith("filter:")]
    if len(filters) > 1:
        raise ExpungeError(f"one filter stands behind a model; the row {name!r} has {len(filters)}")
    edits = tuple(scaled(part) for part in parts if is_edit(part))
    away = [*dict.fromkeys([*concepts, *Variant(name, edits).concepts()])]
    rules = [guidance(part, away) for part in parts if not is_edit(part) and not part.startswith("filter:")]
    title = name.strip() if said or len(parts) > 1 or not edits else called(*edits[0])
    return Variant(title.removeprefix("filter:"), edits, tuple(rules), filter=filters[0] if filters else None)


def of_edit(text: str) -> Variant:
    """The row of "FILE[:SCALE]". Raises ExpungeError if it is no edit."""
    pair = scaled(text)
    return Variant(called(*pair), (pair,))


def is_edit(text: str) -> bool:
    """Whether FILE or FILE:SCALE is meant."""
    return text.endswith(".safetensors") or text.rpartition(":")[0].endswith(".safetensors")


def called(edit: Edit, scale: float) -> str:
    """An edit's row: its name, and its scale if that is not 1."""
    return edit.name if scale == 1 else f"{edit.name}:{scale:g}"
