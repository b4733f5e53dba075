"""The union of several judges: what any of them says, as I2P's "harm by Q16 or nudity by NudeNet"."""

from __future__ import annotations

import json
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from ..filter import Filter
from ..judge import Judge, Verdict


class Either(Judge):
    kind: ClassVar[str] = "either"
    about: ClassVar[str] = "whether any of several judges says so: any, 1 or 0"

    of: tuple[Filter, ...] = Field(min_length=1, description="judges, each with a key and what it must equal or exceed")

    def version(self) -> str:
        return json.dumps([condition.row() for condition in self.of])

    def look(self, images: Tensor) -> list[Verdict]:
        for condition in self.of:
            condition.check(images[:1])
        columns = [condition(images) for condition in self.of]
        return [{"any": float(any(row))} for row in zip(*columns, strict=True)]

    def veils(self, verdict: Verdict) -> bool:  # noqa: ARG002
        """What its judges veil cannot be told from the union."""
        return True
