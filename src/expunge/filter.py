"""Filter: what keeps a finished picture from being seen. What it stops is neither safe nor unsafe: it is blocked."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, model_validator
from torch import Tensor

from .judge import Judge, Verdict, check_key, holds
from .judges import judge
from .recipe import called, validated


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


DEFAULTS: dict[str, dict[str, Any]] = {
    "safety-checker": {"key": "unsafe", "above": 0.5},
    "nudenet": {"key": "exposed", "above": 0.6},
    "q16": {"key": "inappropriate", "above": 0.7},
}
"""What a judge's filter stops if nothing else is said: the thresholds of the papers."""


def filtering(text: str) -> Filter:
    """A filter from "JUDGE,key=sign,equals=hazard"; other options are the judge's.

    Raises ExpungeError for a bad one.
    """
    name, given = called(text, f"--filter {text}:")
    options = {k: v for k, v in DEFAULTS.get(name, {}).items() if k == "key" or "equals" not in given} | given
    own: dict[str, Any] = {k: options.pop(k) for k in ("key", "equals", "above") if k in options}
    return validated(Filter, own | {"judge": judge({"kind": name, **options})}, f"filter {name}")
