"""The drawn data set of the small world, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from tqdm import trange

from ..rng import numpy_rng
from .draw import SIZE, picture
from .scene import caption, sample

CAPTIONS = 4


@dataclass(frozen=True)
class Drawings:
    """`images` uint8 (n, 64, 64, 3); `labels` int64 (n, heads); `captions` four for each picture."""

    images: np.ndarray
    labels: Tensor
    captions: list[list[str]]

    def __len__(self) -> int:
        return len(self.captions)

    def pixels(self, index: Tensor | slice) -> Tensor:
        """Images in [-1, 1], float32 of shape (k, 3, 64, 64)."""
        return to_tensor(self.images[index if isinstance(index, slice) else index.numpy()])

    @cached_property
    def vocabulary(self) -> list[str]:
        """Every different caption, sorted."""
        return sorted({c for row in self.captions for c in row})


def to_tensor(images: np.ndarray) -> Tensor:
    """uint8 (n, h, w, 3) to float32 (n, 3, h, w) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def drawings(n: int, seed: int, *, purpose: str = "train", without: frozenset[str] = frozenset()) -> Drawings:
    """`n` pictures that depend on (seed, purpose, their number) alone."""
    images = np.empty((n, SIZE, SIZE, 3), np.uint8)
    labels, captions = [], []
    for i in trange(n, desc=f"drawing ({purpose})", unit="picture", leave=False):
        rng = numpy_rng(seed, f"scene/{purpose}", step=i)
        scene = sample(rng, without=without)
        images[i] = picture(scene, rng)
        labels.append(scene.labels())
        captions.append([caption(scene, rng) for _ in range(CAPTIONS)])
    return Drawings(images, torch.tensor(labels), captions)
