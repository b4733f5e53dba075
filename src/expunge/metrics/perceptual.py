"""Perceptual distance at equal seeds: how far each picture moved from the base's for the same prompt and noise."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, SerializeAsAny
from torch import Tensor

from ..gallery import Gallery
from ..judge import Eye
from ..metric import Metric
from ..score import Score, mean


class Perceptual(Metric):
    kind: ClassVar[str] = "perceptual"
    about: ClassVar[str] = "mean distance to the base's picture at the same seed (LPIPS where the eye is lpips)"
    higher_is_better: ClassVar[bool] = False

    eye: SerializeAsAny[Eye] = Field(description="who compares")

    def try_on(self, blank: Tensor) -> None:
        self.eye.distance(blank, blank)

    def score(self, seen: Gallery, reference: Gallery) -> Score:
        values = seen.distances(reference, self.eye)
        return mean(values, metric=self.called, subject=self.on, model=seen.model, higher_is_better=False)
