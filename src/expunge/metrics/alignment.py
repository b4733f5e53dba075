"""CLIP score (Hessel et al. 2021, arXiv 2104.08718, without their factor 2.5): mean of cos(picture, its prompt)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, SerializeAsAny

from ..gallery import Gallery
from ..judge import Reader
from ..metric import Mean, aligned


class Alignment(Mean):
    kind: ClassVar[str] = "clip-score"
    about: ClassVar[str] = "mean cosine of a picture and its prompt in CLIP"
    higher_is_better: ClassVar[bool] = True

    eye: SerializeAsAny[Reader] = Field(description="the CLIP model")

    def values(self, seen: Gallery) -> list[float]:
        return aligned(self.eye, seen).tolist()
