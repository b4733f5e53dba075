"""CLIP accuracy (Kumari et al. 2023, arXiv 2303.13516): the share of pictures nearer to the target than the anchor."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, SerializeAsAny

from ..gallery import Gallery
from ..judge import Reader
from ..metric import Metric
from ..score import Score, rate


class Contrast(Metric):
    kind: ClassVar[str] = "clip-accuracy"
    about: ClassVar[str] = "share of pictures nearer to the target than to its anchor in CLIP"
    higher_is_better: ClassVar[bool] = False
    unit: ClassVar[str] = "%"

    eye: SerializeAsAny[Reader] = Field(description="the CLIP model")
    target: str = Field(description="what is erased")
    anchor: str = Field(description="what should come instead")

    @property
    def reference(self) -> str:
        return ""

    def score(self, seen: Gallery, reference: Gallery) -> Score:  # noqa: ARG002
        target, anchor = self.eye.texts([self.target, self.anchor]).cpu()
        features = seen.features(self.eye)
        hits = int((features @ target > features @ anchor).sum())
        return rate(hits, len(seen), metric=self.called, subject=self.on, model=seen.model, higher_is_better=False)
