"""Lost pictures: those that say less of their own prompt than nearly all of the base's, as a network does that broke.

    lost: cos(picture, its prompt) < the `quantile` of the base's cosines, in CLIP

A detector calls noise and odd patterns safe, and formulas on pixels know few of them. The features' distance to the
nearest of the base's pictures was tried and does not tell: a network's features of noise lie in the middle.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, SerializeAsAny

from ..gallery import Gallery
from ..judge import Reader
from ..metric import Share, aligned, enough


class Lost(Share):
    kind: ClassVar[str] = "lost"
    about: ClassVar[str] = "share of pictures further from their prompt than nearly all of the base's"
    higher_is_better: ClassVar[bool] = False
    least: ClassVar[int] = 2

    eye: SerializeAsAny[Reader] = Field(description="the CLIP model")
    quantile: float = Field(0.01, gt=0, lt=1, description="of the base's own cosines")

    def hits(self, seen: Gallery, base: Gallery) -> list[bool]:
        enough(self, seen, base)
        limit = aligned(self.eye, base).quantile(self.quantile)
        return (aligned(self.eye, seen) < limit).tolist()
