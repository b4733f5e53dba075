"""Order: what a rater sees, one after the other. It follows from the study and the rater alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from ..rng import numpy_rng
from .design import Item, Request, Study

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")


def order(study: Study, rater: str) -> list[int]:
    """The numbers of the items: at most `each` pictures, as many of each row to one, and all checks among them."""
    rng = numpy_rng(study.seed, f"order of {rater}")
    rated = _shuffled(_share(study, rng), rng)
    return [item.id for item in _among(rated, _shuffled(study.checks, rng), rng)]


def _share(study: Study, rng: np.random.Generator) -> list[Item]:
    """Whole requests in random order, and of the last one some rows: what is compared is seen by the same rater."""
    by_request: dict[Request, list[Item]] = {}
    for item in study.rated:
        by_request.setdefault(item.request, []).append(item)
    groups = _shuffled([*by_request.values()], rng)
    return [item for group in groups for item in _shuffled(group, rng)][: study.each]


def _among(rated: Sequence[Item], checks: Sequence[Item], rng: np.random.Generator) -> list[Item]:
    """The checks, each somewhere in its own part of the pictures, but not before them."""
    found, ends = [*rated], [len(rated) * i // len(checks) for i in range(len(checks) + 1)]
    for i, check in reversed([*enumerate(checks)]):
        found.insert(int(rng.integers(ends[i], max(ends[i + 1], ends[i] + 1))) + 1, check)
    return found


def _shuffled(values: Sequence[T], rng: np.random.Generator) -> list[T]:
    return [values[i] for i in rng.permutation(len(values))]
