"""Kernel inception distance (Bińkowski et al. 2018, arXiv 1801.01401) over any eye's features x, y of d dimensions.

    KID = mean over i ≠ j of k(x_i, x_j) + mean over i ≠ j of k(y_i, y_j) − 2 mean of k(x_i, y_j)
    k(a, b) = (aᵀb / d + 1)³

Unbiased: its expectation does not depend on the number of pictures.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field, SerializeAsAny

from ..gallery import Gallery
from ..judge import Eye
from ..metric import Metric, enough
from ..score import Score, bootstrap


class Kernel(Metric):
    kind: ClassVar[str] = "kid"
    about: ClassVar[str] = "kernel distance of features to a reference's"
    higher_is_better: ClassVar[bool] = False

    eye: SerializeAsAny[Eye] = Field(description="whose features")
    against: str = Field("base", description="base, drawings (of the small world), or a folder of pictures")
    rounds: int = Field(100, ge=1, description="resamples of the bootstrap")

    @property
    def reference(self) -> str:
        return self.against

    def score(self, seen: Gallery, reference: Gallery) -> Score:
        enough(self, seen, reference)
        x, y = (g.features(self.eye).double().numpy() for g in (seen, reference))
        xx, yy, xy = cubic(x, x), cubic(y, y), cubic(x, y)
        found = bootstrap(len(x), lambda i: discrepancy(xx[np.ix_(i, i)], yy, xy[i]), self.rounds)
        return self.named(seen.model, *found, len(x))


def cubic(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """k of all pairs of rows: (n, m)."""
    k: np.ndarray = (a @ b.T / a.shape[1] + 1) ** 3
    return k


def discrepancy(xx: np.ndarray, yy: np.ndarray, xy: np.ndarray) -> float:
    """The unbiased estimate of the squared maximum mean discrepancy, from kernel matrices."""
    return float(off_diagonal(xx) + off_diagonal(yy) - 2 * xy.mean())


def off_diagonal(k: np.ndarray) -> float:
    n = len(k)
    return float((k.sum() - np.trace(k)) / (n * (n - 1)))
