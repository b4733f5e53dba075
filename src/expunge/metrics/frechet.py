"""Fréchet inception distance (Heusel et al. 2017, arXiv 1706.08500) over any eye's features.

    FID = ‖μ − μ_r‖² + tr(Σ + Σ_r − 2 (Σ_r^½ Σ Σ_r^½)^½)

μ, Σ: mean and covariance of the features; r: the reference. It falls as the number of pictures grows, so compare at
equal n alone; the interval is a bootstrap over the model's pictures. torchmetrics computes the same of pictures; here
features are kept, and a symmetric root makes resamples cheap. Tests hold both equal.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ..metric import Apart
from ..score import bootstrap


class Frechet(Apart):
    kind: ClassVar[str] = "fid"
    about: ClassVar[str] = "Fréchet distance of features to a reference's"

    def distance(self, x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
        μ_r, Σ_r = gaussian(y)
        root = square_root(Σ_r)
        value, low, high = bootstrap(len(x), lambda i: frechet(*gaussian(x[i]), μ_r, Σ_r, root), self.rounds)
        return value, max(0.0, low), high


def gaussian(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (d,) and covariance (d, d) of features (n, d)."""
    return rows.mean(0), np.atleast_2d(np.cov(rows, rowvar=False))


def square_root(Σ: np.ndarray) -> np.ndarray:
    """Σ^½ of a symmetric matrix without negative eigenvalues but for rounding."""
    λ, U = np.linalg.eigh(Σ)
    root: np.ndarray = (U * np.sqrt(λ.clip(min=0))) @ U.T
    return root


def frechet(μ: np.ndarray, Σ: np.ndarray, μ_r: np.ndarray, Σ_r: np.ndarray, root: np.ndarray) -> float:
    """FID of two Gaussians; `root` is Σ_r^½."""
    λ = np.linalg.eigvalsh(root @ Σ @ root)
    distance = ((μ - μ_r) ** 2).sum() + np.trace(Σ) + np.trace(Σ_r) - 2 * np.sqrt(λ.clip(min=0)).sum()
    return max(0.0, float(distance))
