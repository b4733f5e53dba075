"""Metric: the pictures of a model to one number with its interval."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny
from torch import Tensor

from .errors import ExpungeError
from .gallery import Gallery
from .judge import Eye, Reader
from .score import Score, mean, rate


class Metric(BaseModel, ABC):
    """A number over a set of pictures; its fields are its options."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: ClassVar[str]
    about: ClassVar[str]
    higher_is_better: ClassVar[bool]
    unit: ClassVar[str] = ""

    least: ClassVar[int] = 1
    """How many pictures it needs."""

    name: str | None = Field(None, description="what the number is called; none: its kind")
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

    def each(self, seen: Gallery, base: Gallery) -> list[float]:  # noqa: ARG002
        """What each picture has of its own, where the number is a mean over pictures; `base` are the base's."""
        return []

    def provenance(self) -> dict[str, Any]:
        """All that decides on the number. Raises ExpungeError if what it looks with cannot be had."""
        by = getattr(self, "eye", None) or getattr(self, "judge", None)
        return {"kind": self.kind, "options": self.model_dump(mode="json"), "by": by and by.provenance()}

    @property
    def called(self) -> str:
        return self.name or self.kind

    def try_on(self, blank: Tensor) -> None:
        """Looks at a blank picture (1, 3, H, W). Raises ExpungeError if what it looks with cannot be had."""
        eye = getattr(self, "eye", None)
        if isinstance(eye, Eye):
            eye.features(blank)

    def named(self, model: str, value: float, low: float, high: float, n: int) -> Score:
        return Score(
            metric=self.called, subject=self.on, model=model, value=value, n=n, low=low, high=high,
            higher_is_better=self.higher_is_better, unit=self.unit,
        )  # fmt: skip


class Mean(Metric):
    """The mean of a number that each picture has of its own."""

    @property
    def reference(self) -> str:
        return ""

    @abstractmethod
    def values(self, seen: Gallery) -> list[float]:
        """One for each picture."""

    def score(self, seen: Gallery, reference: Gallery) -> Score:  # noqa: ARG002
        return mean(
            self.values(seen), metric=self.called, subject=self.on, model=seen.model,
            higher_is_better=self.higher_is_better,
        )  # fmt: skip

    def each(self, seen: Gallery, base: Gallery) -> list[float]:  # noqa: ARG002
        return self.values(seen)


class Share(Metric):
    """The share of pictures of which something holds; `base` are the base's for the same requests."""

    unit: ClassVar[str] = "%"

    @abstractmethod
    def hits(self, seen: Gallery, base: Gallery) -> list[bool]:
        """One for each picture."""

    def score(self, seen: Gallery, reference: Gallery) -> Score:
        hits = self.hits(seen, reference)
        return rate(
            sum(hits), len(hits), metric=self.called, subject=self.on, model=seen.model,
            higher_is_better=self.higher_is_better,
        )  # fmt: skip

    def each(self, seen: Gallery, base: Gallery) -> list[float]:
        return [float(hit) for hit in self.hits(seen, base)]


class Apart(Metric):
    """A distance between features of the model's pictures and a reference's, with a bootstrap over the model's."""

    higher_is_better: ClassVar[bool] = False
    least: ClassVar[int] = 2

    eye: SerializeAsAny[Eye] = Field(description="whose features")
    against: str = Field("base", description="base, drawings (of the small world), or a folder of pictures")
    rounds: int = Field(100, ge=1, description="resamples of the bootstrap")

    @property
    def reference(self) -> str:
        return self.against

    @abstractmethod
    def distance(self, x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
        """Of features x (n, d) from the reference's y (m, d): the value, and the ends of its interval."""

    def score(self, seen: Gallery, reference: Gallery) -> Score:
        enough(self, seen, reference)
        x, y = (g.features(self.eye).double().numpy() for g in (seen, reference))
        return self.named(seen.model, *self.distance(x, y), len(x))


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
