"""Beside: other edits of the model, which may be on it or not where this one is.

    e(x_t, p; θ + Δ_S + Δ)   is drawn to   the method's target from   e*(x_t, ·; θ + Δ_S)      Δ_S = Σ_{i ∈ S} s_i Δ_i

In each step S are some of them, of any number with equal chance, so Δ learns to do its work, and no other, beside all
of them, beside none, and where one is taken off again. In the first step there are none: pictures that are drawn once
are the frozen model's. A closed loop looks at half of its pictures with all of them on, and at half with none.
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

Edits = Sequence[tuple[Edit, float]]
"""With their strengths."""


@dataclass(frozen=True)
class Beside:
    """Edits with their strengths."""

    edits: Edits = ()
    seed: int = 0

    @classmethod
    def of(cls, model: Model, texts: Sequence[str], seed: int = 0) -> Beside:
        """From "FILE" or "FILE:SCALE". Raises ExpungeError for one that cannot be on this model while it learns."""
        found = cls([scaled(text) for text in texts], seed)
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

    def bytes(self, model: Model) -> int:
        """On the device, of the weights that they replace for the moment."""
        own = model.parameters()
        return sum(own[name].nbytes for edit, _ in self.edits for name in edit.delta)

    @contextmanager
    def some(self, model: Model, step: int) -> Iterator[None]:
        """S of that step is on the model inside the block."""
        rng = random.Random(derive(self.seed, "beside", step=step))
        with on(model, rng.sample(self.edits, rng.randint(0, len(self.edits))) if step else ()):
            yield

    def halves(self, rows: Sequence[int]) -> list[tuple[Edits, list[int]]]:
        """Which rows are looked at with which edits on: every second one with all of them, the others with none."""
        if not self.edits:
            return [((), [*rows])]
        parts = [(self.edits, [k for k in rows if k % 2 == 0]), ((), [k for k in rows if k % 2])]
        return [(edits, own) for edits, own in parts if own]

    def weights(self, model: Model, own: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Weights that learn, on top of what the model has more than its `base` at the moment."""
        return Moved(own, base, model.parameters()) if self.edits else own


@contextmanager
def on(model: Model, edits: Edits) -> Iterator[None]:
    """The edits are on the model inside the block."""
    with ExitStack() as stack:
        for edit, scale in edits:
            stack.enter_context(edit.on(model, scale))
        yield


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
