"""SDD, safe self-distillation diffusion (Kim et al. 2023, arXiv 2307.05977).

    loss = ‖ e(x_t, c_s) − sg(e(x_t, 0)) ‖²

Both predictions are the student's e. x_t is a partial rollout of the EMA teacher, guided towards one concept c_p that
is drawn from all of them for each point; c_s is all concepts joined by ", " (the paper's Algorithm 1). The released
code has it the other way round (`joined = "sample"`): the rollout is guided by the joined prompt, and the loss is on
one concept. The edit is the EMA of the student (`result`: the student itself); of a LoRA, the factors are averaged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from ..concept import Concept
from ..model import Model
from ..objective import Learner, Part, Parts, Rows
from ..rolled import Rolled
from ..trajectory import Reused, Roles, Trajectory, frozen


class SDD(Rolled):
    """Distil the concepts' predictions towards the student's own unconditional one, under an EMA teacher."""

    kind: ClassVar[str] = "sdd"

    joined: Literal["loss", "sample"] = Field("loss", description="where all concepts are one prompt: paper, or code")

    def parts(self, model: Model, concepts: Sequence[Concept], learner: Learner, seed: int) -> Parts:
        return {"erase": (1.0, self.part(model, concepts, learner, seed))}

    def part(self, model: Model, concepts: Sequence[Concept], learner: Learner, seed: int) -> Distil:
        each = model.encode([c.prompt for c in concepts])
        joined = model.encode([", ".join(c.prompt for c in concepts)]).repeat(len(concepts))
        sample, moved = (each, joined) if self.joined == "loss" else (joined, each)
        roles = Roles({"sample": sample, "empty": model.empty(), "moved": moved}, needs=())
        return Distil(model, roles, self.route(model, roles, learner, seed), learner.student, self.sampler == "student")

    def erasing(self, concepts: Sequence[Concept]) -> int:
        at_hand = self.sampler == "student" and self.empty == "sampler" and self.trajectory == "pool"
        return self.drawing(len(concepts), set()) + (4 - at_hand) * self.steps * self.batch


@dataclass
class Distil(Part):
    """Where the points come from, and their targets, which are at hand if the student itself rolled there."""

    model: Model
    roles: Roles
    route: Trajectory | Reused
    student: Mapping[str, Tensor]
    by_student: bool

    def rows(self, step: int) -> Rows:
        points = self.route.draw(step)
        target = points.rolled.get("empty") if self.by_student else None
        if target is None:
            target = frozen(self.model, points.x_t, points.t, points.which, self.roles, ("empty",), self.student)[
                "empty"
            ]
        return Rows(points.x_t, points.t, self.roles.rows("moved", points.which), target)
