"""Beside: other edits of the model, which may be on it or not where this one is.

    e(x_t, p; θ + Δ_S + Δ)   is drawn to   the method's target from   e*(x_t, ·; θ + Δ_S)      Δ_S = Σ_{i ∈ S} s_i Δ_i

In each step S are some of them, of any number with equal chance, so Δ learns to do its work, and no other, beside all
of them, beside none, and where one is taken off again. Looks and strengths are tried with all of them on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .edit import Edit, scaled
from .errors import ExpungeError
from .model import Model
from .rng import derive


@dataclass(frozen=True)
class Beside:
    """Edits with their strengths."""

    model: Model
    edits: Sequence[tuple[Edit, float]]
    seed: int = 0

    @classmethod
    def of(cls, model: Model, texts: Sequence[str], seed: int = 0) -> Beside:
        """From "FILE" or "FILE:SCALE". Raises ExpungeError for one that cannot be on this model while it learns."""
        found = cls(model, [scaled(text) for text in texts], seed)
        for edit, _ in found.edits:
            edit.check(model)
            if any(model.of_encoder(name) for name in edit.delta):
                raise ExpungeError(
                    f"edit {edit.name!r} changes a text encoder, and this one learns from texts that are read once;"
                    " leave it out of --beside"
                )
        return found

    def rows(self) -> list[dict[str, Any]]:
        """As a provenance has it."""
        return [{"name": edit.name, "hash": edit.hash, "scale": scale} for edit, scale in self.edits]

    @property
    def bytes(self) -> int:
        """Of the differences, and of the weights that they replace for the moment."""
        return 8 * sum(delta.numel() for edit, _ in self.edits for delta in edit.delta.values())

    @contextmanager
    def some(self, step: int) -> Iterator[None]:
        """S of that step is on the model inside the block."""
        rng = random.Random(derive(self.seed, "beside", step=step))
        with self._on(rng.sample(self.edits, rng.randint(0, len(self.edits)))):
            yield

    @contextmanager
    def all(self) -> Iterator[None]:
        """All of them are."""
        with self._on(self.edits):
            yield

    @contextmanager
    def _on(self, edits: Sequence[tuple[Edit, float]]) -> Iterator[None]:
        with ExitStack() as stack:
            for edit, scale in edits:
                stack.enter_context(edit.on(self.model, scale))
            yield

    def weights(self, own: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Weights that learn, on top of what the model has more than its `base` at the moment."""
        return Moved(own, base, self.model.parameters()) if self.edits else own


@dataclass(frozen=True)
class Moved(Mapping[str, Tensor]):
    """`own` + `now` − `base`, each time anew."""

    own: Mapping[str, Tensor]
    base: Mapping[str, Tensor]
    now: Mapping[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        weight = self.own[name]
        return weight + (self.now[name].detach().to(weight) - self.base[name].to(weight))

    def __iter__(self) -> Iterator[str]:
        return iter(self.own)

    def __len__(self) -> int:
        return len(self.own)
