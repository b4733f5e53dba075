"""Several edits as one: Δ = Σ s_i Δ_i, the same as stacking them in any order, up to rounding."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from torch import Tensor

from .edit import Edit
from .errors import ExpungeError
from .method import stamp

Weighted = tuple[Edit, float]


def merge(parts: Sequence[Weighted], name: str = "merged") -> Edit:
    """The sum of scaled edits of one base. Raises ExpungeError if there are none, or of different bases."""
    if not parts:
        raise ExpungeError("nothing to merge: give at least one edit")
    base: dict[str, str] = {}
    for edit, _ in parts:
        own = edit.provenance.get("base", {})
        if any(base.get(part, own[part]) != own[part] for part in own.keys() - {"name"}):
            raise ExpungeError(
                f"{edit.name!r} and those before it were made for different bases; merge edits of one model"
            )
        base = own | base
    delta: dict[str, Tensor] = {}
    for edit, scale in parts:
        for key, value in edit.delta.items():
            delta[key] = delta[key] + scale * value if key in delta else scale * value
    about = {
        "base": base,
        "method": "merged",
        "concepts": [c for edit, _ in parts for c in edit.provenance.get("concepts", [])],
        "parts": [{"name": e.name, "hash": e.hash, "scale": s, "method": e.provenance.get("method")} for e, s in parts],
    }
    return Edit(delta, about | stamp(), name)


def overlaps(parts: Sequence[Weighted]) -> list[str]:
    """What pairs of edits have in common, in words: where they pull the same weights, the sum is no longer each."""
    return [_overlap(a, b) for (a, _), (b, _) in combinations(parts, 2) if set(a.delta) & set(b.delta)]


def _overlap(a: Edit, b: Edit) -> str:
    shared = sorted(set(a.delta) & set(b.delta))
    found = [_products(a.delta[key].double(), b.delta[key].double()) for key in shared]
    dot, left, right = (sum(column) for column in zip(*found, strict=True))
    cosine = dot / max((left * right) ** 0.5, 1e-300)
    return f"{a.name!r} and {b.name!r} change {len(shared)} tensors both (cosine {cosine:+.2f}): judge them together"


def _products(a: Tensor, b: Tensor) -> tuple[float, float, float]:
    return float((a * b).sum()), float(a.square().sum()), float(b.square().sum())
