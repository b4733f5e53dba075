"""Beside: other edits of the model, which may be on it or not where this one is.

    e(x_t, p; θ + Δ_S + Δ)   is drawn to   the method's target from   e*(x_t, q; θ + Δ_S(q))     Δ_S = Σ_{i ∈ S} s_i Δ_i

In each step S are some of them, of any number with equal chance, so Δ learns to do its work, and no other, beside all
of them, beside none, and where one is taken off again. S(q) are those of S that have to do with what the caption q
says; all of them, where that is not known. What the others take from captions that they have nothing to do with is no
part of any target, so that it does not add up. In the first step there are none: pictures that are drawn once are the
frozen model's. A closed loop looks at half of its pictures with all of them on, at a quarter with some, and at the
others with none.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from .edit import Edit, scaled
from .errors import ExpungeError
from .model import Condition, Model, Teacher
from .rng import derive

Edits = Sequence[tuple[Edit, float]]
"""With their strengths."""


class Touches:
    """Whether an edit may have to do with what a caption says: each with all, where nothing is known."""

    def names(self, edit: Edit) -> list[str] | None:  # noqa: ARG002
        """What captions say that it has to do with; None if that is not known."""
        return None

    def __call__(self, edit: Edit, text: str) -> bool:  # noqa: ARG002
        return True


@dataclass
class Beside:
    """Edits with their strengths; those that are `on` are S at the moment."""

    edits: Edits = ()
    seed: int = 0
    touches: Touches = field(default_factory=Touches)
    on: Edits = field(default=(), init=False)

    def drawn(self, what: str, step: int = 0) -> Edits:
        """Some of them: any number, with equal chance."""
        rng = random.Random(derive(self.seed, what, step=step))
        return rng.sample(self.edits, rng.randint(0, len(self.edits)))

    @contextmanager
    def some(self, model: Model, step: int) -> Iterator[None]:
        """S of that step counts inside the block: for weights that learn, and for what the frozen model predicts."""
        self.on = self.drawn("beside", step) if step else ()
        try:
            with taught(model, self.frozen(model) if self.on else None):
                yield
        finally:
            self.on = ()

    def frozen(self, model: Model) -> Teacher:
        """e*(x_t, q; θ + Δ_S(q)), each row by its own S(q)."""

        def predict(x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
            found, times = torch.empty_like(x_t), t.expand(len(x_t))
            with taught(model, None):
                for edits, rows in self.parted(self.on, condition.texts, range(len(x_t))):
                    weights = Stacked(model, {}, partial(tuple, edits)) if edits else None
                    found[rows] = model.predict(x_t[rows], times[rows], condition[rows], weights)
            return found

        return predict

    def parted(self, edits: Edits, texts: Sequence[str | None], rows: Sequence[int]) -> list[tuple[Edits, list[int]]]:
        """Rows by those of the edits that have to do with their texts; what no text encodes to says nothing."""
        parts = dict[tuple[int, ...], list[int]]()
        for k in rows:
            own = tuple(i for i, (edit, _) in enumerate(edits) if self.touches(edit, texts[k] or ""))
            parts.setdefault(own, []).append(k)
        return [([edits[i] for i in own], found) for own, found in parts.items()]

    def having(self, texts: Sequence[str], what: str, rows: Sequence[int]) -> list[tuple[Edits, list[int]]]:
        """Rows by those of the edits that they are seen with that have to do with their texts."""
        return [part for edits, own in self.quarters(rows, what) for part in self.parted(edits, texts, own)]

    def quarters(self, rows: Sequence[int], what: str) -> list[tuple[Edits, list[int]]]:
        """Which rows are seen with which edits: half with all of them, a quarter with some, the rest with none."""
        if not self.edits:
            return [((), [*rows])]
        parts = [(self.edits, (0, 2)), ((), (1,)), (self.drawn(what), (3,))]
        found = [(edits, [k for k in rows if k % 4 in which]) for edits, which in parts]
        return [(edits, own) for edits, own in found if own]

    def weights(self, model: Model, own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Weights that learn, with those that are on."""
        return Stacked(model, own, lambda: self.on) if self.edits else own


def opened(model: Model, texts: Sequence[str]) -> Edits:
    """From "FILE" or "FILE:SCALE". Raises ExpungeError for one that cannot be on this model while it learns."""
    edits = [scaled(text) for text in texts]
    for edit, _ in edits:
        edit.check(model)
        if any(model.of_encoder(name) for name in edit.delta):
            raise ExpungeError(
                f"edit {edit.name!r} changes a text encoder, and this one learns from texts that are read once;"
                " leave it out of --beside"
            )
    return edits


def rows(edits: Edits, touches: Touches) -> list[dict[str, Any]]:
    """As a provenance has them, with what they have to do with."""
    return [{"name": e.name, "hash": e.hash, "scale": scale, "touches": touches.names(e)} for e, scale in edits]


def memory(model: Model, edits: Edits) -> int:
    """Bytes on the device of the weights that they change, as they are asked with."""
    own = model.parameters()
    return sum(4 * own[name].numel() for name in {name for edit, _ in edits for name in edit.delta})


@contextmanager
def on(model: Model, edits: Edits) -> Iterator[None]:
    """The edits are on the model inside the block."""
    with ExitStack() as stack:
        for edit, scale in edits:
            stack.enter_context(edit.on(model, scale))
        yield


@contextmanager
def taught(model: Model, teacher: Teacher | None) -> Iterator[None]:
    """What the frozen model is asked is asked of the teacher inside the block."""
    before, model.teacher = model.teacher, teacher
    try:
        yield
    finally:
        model.teacher = before


@dataclass(frozen=True)
class Stacked(Mapping[str, Tensor]):
    """`own` weights, or the model's, with these edits added; each time anew."""

    model: Model
    own: Mapping[str, Tensor]
    edits: Callable[[], Edits]

    def __getitem__(self, name: str) -> Tensor:
        weight = self.own[name] if name in self.own else self.base[name].detach().float()
        for edit, scale in self.edits():
            if name in edit.delta:
                weight = weight + scale * edit.delta[name].to(weight)
        return weight

    @cached_property
    def base(self) -> Mapping[str, Tensor]:
        return self.model.parameters()

    @property
    def names(self) -> dict[str, None]:
        return dict.fromkeys([*self.own, *(name for edit, _ in self.edits() for name in edit.delta)])

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)
