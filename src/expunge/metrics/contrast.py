"""CLIP accuracy (Kumari et al. 2023, arXiv 2303.13516): the share of pictures nearer to the target than the anchor."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, SerializeAsAny

from ..gallery import Gallery
from ..judge import Reader
from ..metric import Share


class Contrast(Share):
    kind: ClassVar[str] = "clip-accuracy"
    about: ClassVar[str] = "share of pictures nearer to the target than to its anchor in CLIP"
    higher_is_better: ClassVar[bool] = False

    eye: SerializeAsAny[Reader] = Field(description="the CLIP model")
    target: str = Field(description="what is erased")
    anchor: str = Field(description="what should come instead")

    @property
    def reference(self) -> str:
        return ""

    def hits(self, seen: Gallery, base: Gallery) -> list[bool]:  # noqa: ARG002
        target, anchor = self.eye.texts([self.target, self.anchor]).cpu()
        features = seen.features(self.eye)
        return [*map(bool, features @ target > features @ anchor)]
