"""Metric: the pictures of a model to one number with its interval."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from .errors import ExpungeError
from .gallery import Gallery
from .judge import Reader
from .score import Score


class Metric(BaseModel, ABC):
    """A number over a set of pictures; its fields are its options."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: ClassVar[str]
    about: ClassVar[str]
    higher_is_better: ClassVar[bool]
    unit: ClassVar[str] = ""

    on: Literal["kept", "erased", "all"] = Field("kept", description="prompts that do not say what is erased, or do")

    @property
    def reference(self) -> str:
        """Whose pictures `score` compares with: "base" (which itself has then no such number), "drawings", a folder.

        The empty string: nobody's; `score` gets the base's and looks at them no further.
        """
        return "base"

    @abstractmethod
    def score(self, seen: Gallery, reference: Gallery) -> Score:
        """The model's number. Raises ExpungeError if there are too few pictures for it."""

    def provenance(self) -> dict[str, Any]:
        """All that decides on the number. Raises ExpungeError if what it looks with cannot be had."""
        eye = getattr(self, "eye", None)
        return {"kind": self.kind, "options": self.model_dump(mode="json"), "eye": eye and eye.provenance()}

    def named(self, model: str, value: float, low: float, high: float, n: int) -> Score:
        return Score(
            metric=self.kind, subject=self.on, model=model, value=value, n=n, low=low, high=high,
            higher_is_better=self.higher_is_better, unit=self.unit,
        )  # fmt: skip


def enough(metric: Metric, *galleries: Gallery) -> None:
    """Raises ExpungeError unless each holds two pictures: a covariance needs them."""
    if min(len(g) for g in galleries) < 2:
        raise ExpungeError(f"{metric.kind} on prompts that are {metric.on!r} needs two pictures or more; ask for more")


def aligned(eye: Reader, gallery: Gallery) -> Tensor:
    """Cosine of each picture and its own prompt: shape (n,)."""
    prompts = [request.prompt for request in gallery.requests]
    texts = list(dict.fromkeys(prompts))
    said = dict(zip(texts, eye.texts(texts).cpu(), strict=True))
    return (gallery.features(eye) * torch.stack([said[p] for p in prompts])).sum(1)
