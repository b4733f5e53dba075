"""ESD, Erased Stable Diffusion (Gandikota et al. 2023, arXiv 2303.07345).

    target(x_t) = e*(x_t, o) − η [e*(x_t, c) − e*(x_t, r)]        loss = ‖ e(x_t, p) − sg(target) ‖²

e is the model being edited, e* the frozen original, c the concept, p the prompt whose prediction moves (p = c; for
an attribute, the prompt `within` which c is erased), r the reference, which is the empty prompt 0, and o the origin
of the push: r in the paper, c in the 2025 code (with η = 2, the same target), p for an attribute. x_t is a partial
rollout under p with guidance s.

The paper moves one prompt, the concept's name. `contexts` and `implied` are captions with a part that the concept
adds, "a cat [in the style of {}]": c is the caption with it and r the caption without, so that the push is the
concept's alone: between "Marlow" and the empty prompt lies more than a style, between these two captions nothing else.
In `contexts` the concept is said and p = c; in `implied` it comes along unsaid and p = r. An attribute has neither.
At η = 0 the target is e*(o): the model stays as it is where o = p (an attribute, and the 2025 code's origin), while in
the paper's form c moves to r. With `keep`, other captions k (those that do not say a concept) hold their place:
+ w ‖ e(x_t, k) − sg(e*(x_t, k)) ‖².
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from ..concept import Concept, filled, says, whole
from ..model import Model
from ..objective import Learner, Part, Parts, Rows
from ..rolled import Rolled
from ..trajectory import Points, Reused, Roles, Trajectory


@dataclass(frozen=True)
class Push:
    """One row of the equation, in texts: e(p) moves along −[e*(c) − e*(r)], from e*(p) if c is an attribute of p."""

    p: str
    c: str
    r: str = ""
    attribute: bool = False


class ESD(Rolled):
    """Push the prediction for a concept away along its own negative guidance."""

    kind: ClassVar[str] = "esd"
    attributes = True

    eta: float = Field(1.0, description="η, strength of the push")
    origin: Literal["empty", "concept"] = Field("empty", description="where the push starts: paper, or 2025 code")
    contexts: tuple[str, ...] = Field((), description="captions that say the concept {}, in [] what it adds to them")
    implied: tuple[str, ...] = Field((), description="captions that bring it along unsaid, in [] how it would be said")

    @field_validator("contexts", "implied")
    @classmethod
    def _marked(cls, captions: tuple[str, ...]) -> tuple[str, ...]:
        for caption in captions:
            if not re.fullmatch(r"[^][{}]*\[[^][{}]*\{\}[^][{}]*\][^][{}]*", caption):
                raise ValueError(f"{caption!r} should say the concept once, in brackets, as 'a cat [by {{}}]' does")
        return captions

    @field_validator("implied")
    @classmethod
    def _implied(cls, captions: tuple[str, ...]) -> tuple[str, ...]:
        if not all(filled(caption, "")[1] for caption in captions):
            raise ValueError(
                "the caption that brings the concept along is what stands outside the brackets: it is empty"
            )
        return captions

    def parts(self, model: Model, concepts: Sequence[Concept], learner: Learner, seed: int) -> Parts:
        return {"erase": (float(self.moves(concepts)), self.part(model, concepts, learner, seed))}

    def moves(self, concepts: Sequence[Concept]) -> bool:
        """Whether any target differs from e*(p). Where none does, Adam would make steps of rounding errors."""
        o = {"empty": "r", "concept": "c"}[self.origin]
        return self.eta != 0 or any(row.p != getattr(row, o) for row in self.pushes(concepts) if not row.attribute)

    def part(self, model: Model, concepts: Sequence[Concept], learner: Learner, seed: int) -> Erase:
        pushes = self.pushes(concepts)
        needs = self.needs(pushes)
        texts = {"concept": [row.c for row in pushes], "reference": [row.r for row in pushes]}
        conditions = {"sample": model.encode([row.p for row in pushes]), "empty": model.empty()}
        conditions |= {role: model.captions(said) for role, said in texts.items() if role in needs}
        roles = Roles(conditions, tuple(role for role in conditions if role in needs))
        attribute = torch.tensor([row.attribute for row in pushes])
        return Erase(self, roles, self.route(model, roles, learner, seed, answered=True), attribute)

    def erasing(self, concepts: Sequence[Concept]) -> int:
        pushes = self.pushes(concepts)
        return self.drawing(len(pushes), self.needs(pushes), answered=True) + 3 * self.steps * self.batch

    def pushes(self, concepts: Sequence[Concept]) -> list[Push]:
        """The concepts, and each that is no attribute in each context, said and implied.

        Captions that say a concept even without their brackets are left out: they cannot tell what it adds.
        """
        own = [Push(c.prompt, c.name, attribute=c.within is not None) for c in concepts]
        names = whole(concepts)
        said = [Push(c, c, r) for n in names for c, r in (filled(w, n) for w in self.contexts)]
        implied = [Push(r, c, r) for n in names for c, r in (filled(w, n) for w in self.implied)]
        return own + [push for push in said + implied if not any(says(push.r, n) for n in names)]

    def needs(self, pushes: Sequence[Push]) -> set[str]:
        """The roles whose frozen predictions the target is made of."""
        concept = "sample" if all(row.p == row.c for row in pushes) else "concept"
        reference = "reference" if any(row.r for row in pushes) else "empty"
        return {concept, reference} | ({"sample"} if any(row.attribute for row in pushes) else set())


@dataclass
class Erase(Part):
    """Where the points come from, and their targets."""

    options: ESD
    roles: Roles
    route: Trajectory | Reused
    attribute: Tensor

    def rows(self, step: int) -> Rows:
        points = self.route.draw(step)
        return Rows(points.x_t, points.t, self.roles.rows("sample", points.which), self.target(points))

    def target(self, points: Points) -> Tensor:
        """e*(o) − η [e*(c) − e*(r)]."""
        e = points.frozen
        concept, reference = e.get("concept", e.get("sample")), e.get("reference", e.get("empty"))
        assert concept is not None and reference is not None
        origin = reference if self.options.origin == "empty" else concept
        attribute = self.attribute[points.which].view(-1, 1, 1, 1).to(origin.device)
        start = torch.where(attribute, e["sample"], origin) if attribute.any() else origin
        return start - self.options.eta * (concept - reference)
