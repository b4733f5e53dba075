"""The mean of a number that a judge gives each picture, such as its similarity to a memorised one."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, SerializeAsAny
from torch import Tensor

from ..gallery import Gallery
from ..judge import Judge, check_key
from ..metric import Mean


class Average(Mean):
    kind: ClassVar[str] = "mean"
    about: ClassVar[str] = "mean of a number that a judge gives each picture"
    higher_is_better: ClassVar[bool] = False

    judge: SerializeAsAny[Judge] = Field(description="who looks")
    key: str = Field(description="the verdict's key")

    def try_on(self, blank: Tensor) -> None:
        check_key(self.judge.kind, self.judge.look(blank)[0], self.key, 0.0)

    def values(self, seen: Gallery) -> list[float]:
        return [float(verdict[self.key]) for verdict in seen.verdicts(self.judge)]
