"""Kernel inception distance (Bińkowski et al. 2018, arXiv 1801.01401) over any eye's features x, y of d dimensions.

    KID = mean over i ≠ j of k(x_i, x_j) + mean over i ≠ j of k(y_i, y_j) − 2 mean of k(x_i, y_j)
    k(a, b) = (aᵀb / d + 1)³

Unbiased: its expectation does not depend on the number of pictures.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ..metric import Apart
from ..score import bootstrap


class Kernel(Apart):
    kind: ClassVar[str] = "kid"
    about: ClassVar[str] = "kernel distance of features to a reference's"

    def distance(self, x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
        xx, yy, xy = cubic(x, x), cubic(y, y), cubic(x, y)
        return bootstrap(len(x), lambda i: discrepancy(xx[np.ix_(i, i)], yy, xy[i]), self.rounds)


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
