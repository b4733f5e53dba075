"""Filter: what keeps a finished picture from being seen. What it stops is neither safe nor unsafe: it is blocked."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, model_validator
from torch import Tensor

from .judge import Judge, Verdict, check_key, holds


class Filter(BaseModel):
    """Stops pictures whose verdict has `key` equal to a text, or above a threshold."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    judge: SerializeAsAny[Judge] = Field(description="who looks")
    key: str = Field(description="the verdict's key")
    equals: str | None = Field(None, description="the class that is stopped")
    above: float | None = Field(None, description="the threshold above which a picture is stopped")

    @model_validator(mode="after")
    def _one(self) -> Filter:
        if (self.equals is None) == (self.above is None):
            raise ValueError("a filter stops what equals a text, or what is above a threshold: give equals or above")
        return self

    @property
    def expected(self) -> str | float:
        return self.equals if self.equals is not None else float(self.above or 0)

    def stops(self, verdict: Verdict) -> bool:
        return holds(verdict, self.key, self.expected)

    def __call__(self, images: Tensor) -> list[bool]:
        """Which of the images (n, 3, H, W) in [-1, 1] are stopped."""
        return [self.stops(verdict) for verdict in self.judge.look(images)]

    def check(self, blank: Tensor) -> None:
        """Tries it on a blank picture. Raises ExpungeError if its judge cannot be had or has no such key."""
        check_key(self.judge.kind, self.judge.look(blank)[0], self.key, self.expected)

    def row(self) -> dict[str, Any]:
        """All that decides on what is stopped."""
        return {"judge": self.judge.provenance(), "key": self.key, "expected": self.expected}
