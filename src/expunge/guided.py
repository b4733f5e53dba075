"""Guidance: what steers a model away from concepts while it samples. Nothing is trained, nothing outlives a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from torch import Tensor

from .hook import hooked
from .steering import Step

Presets = Mapping[str, Mapping[str, Any]]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Guidance(BaseModel, ABC):
    """A rule of `steering` whose fields are its options. Raises pydantic's ValidationError for bad ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: ClassVar[str]
    scaled: ClassVar[bool] = True
    presets: ClassVar[Presets] = {}
    """Published settings by name."""

    concepts: tuple[Text, ...] = Field(min_length=1, description="what to steer away from")

    def row(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return {"kind": self.kind, **self.model_dump(mode="json")}

    @property
    def prompts(self) -> tuple[str, ...]:
        return ()

    @property
    def negative(self) -> str | None:
        return None

    @property
    def away(self) -> tuple[str, ...]:
        """The concepts that it takes away."""
        return self.concepts

    @property
    def starts(self) -> int:
        """The first step at which it can change anything."""
        return 0

    def needs(self, i: int) -> list[int]:  # noqa: ARG002
        return []

    @abstractmethod
    def change(self, step: Step, state: Any) -> tuple[Tensor | None, Any]: ...

    @contextmanager
    def on(self, pipeline: Any) -> Iterator[Any]:
        """A stock diffusers pipeline with this guidance inside the block; blocks nest, and leave nothing behind.

        Raises ExpungeError if the pipeline is of an unknown family, or guides in two calls of the network (FLUX).
        """
        with hooked(pipeline, self):
            yield pipeline
