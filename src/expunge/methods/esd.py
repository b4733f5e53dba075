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
With `keep`, other captions k (those that do not say a concept) hold their place:
+ w ‖ e(x_t, k) − sg(e*(x_t, k)) ‖².
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from ..concept import Concept, filled, says
from ..method import Method
from ..model import Condition, Model
from ..training import Terms
from ..trajectory import Fresh, Points, Pool, Renoised, Reused, Roles, Trajectory, check_per_row


@dataclass(frozen=True)
class Push:
    """One row of the equation, in texts: e(p) moves along −[e*(c) − e*(r)], from e*(p) if c is an attribute of p."""

    p: str
    c: str
    r: str = ""
    attribute: bool = False


class ESD(Method):
    """Push the prediction for a concept away along its own negative guidance."""

    kind: ClassVar[str] = "esd"

    eta: float = Field(1.0, description="η, strength of the push")
    origin: Literal["empty", "concept"] = Field("empty", description="where the push starts: paper, or 2025 code")
    trajectory: Literal["fresh", "pool", "renoised"] = Field("renoised", description="how x_t is reached")
    grid: int = Field(10, ge=1, le=100, description="DDIM steps of a whole rollout")
    guidance: float = Field(3.0, description="s, guidance scale of the rollout")
    sampler: Literal["frozen", "student"] = Field("frozen", description="whose predictions roll out")
    scheduler: Literal["ddim", "pipeline"] = Field("ddim", description="DDIM, or the pipeline's own (fresh only)")
    jitter: bool = Field(False, description="t uniform inside the grid step's own interval (fresh only)")
    latents: int = Field(16, ge=1, description="K, clean latents of the renoised trajectory")
    reuse: int = Field(0, ge=0, description="points drawn once and trained on repeatedly; 0: fresh points each step")
    contexts: tuple[str, ...] = Field((), description="captions that say the concept {}, in [] what it adds to them")
    implied: tuple[str, ...] = Field((), description="captions that bring it along unsaid, in [] how it would be said")
    keep: tuple[str, ...] = Field((), description="captions whose predictions must stay")
    keep_weight: float = Field(1.0, ge=0, description="w, weight of the captions to keep")
    keep_batch: int = Field(4, ge=1, description="points of kept captions a step")

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

    @model_validator(mode="after")
    def _possible(self) -> ESD:
        if 0 < self.reuse < self.batch:
            raise ValueError("reuse needs at least as many points as a batch")
        if self.jitter and self.trajectory != "fresh":
            raise ValueError("jitter is for trajectory=fresh: the others have times off the grid anyway")
        if self.reuse and self.sampler == "student":
            raise ValueError("reuse needs sampler=frozen: the student's points change as it learns")
        if self.trajectory == "renoised" and self.sampler == "student":
            raise ValueError("trajectory=renoised rolls out once, before training: it needs sampler=frozen")
        return self

    def objective(self, model: Model, concepts: Sequence[Concept], student: Mapping[str, Tensor], seed: int) -> _ESD:
        return _ESD(self, model, concepts, student, seed)

    def passes(self, concepts: Sequence[Concept]) -> int:
        pushes, held = self.pushes(concepts), len(self.held(concepts))
        points = -(-self.reuse // self.drawn) * self.drawn if self.reuse else self.steps * self.batch
        begin, each = self._drawing(len(pushes), self.needs(pushes))
        keeping = 2 * min(self.grid, 10) * held + 4 * self.keep_batch * self.steps if held else 0
        return begin + each * points + 3 * self.steps * self.batch + keeping

    def _drawing(self, pushes: int, needs: set[str]) -> tuple[int, int]:
        """Network passes of the trajectory before training, and for each point with its frozen predictions."""
        if self.trajectory == "fresh":
            return 0, self.grid - 1 + len(needs)
        if self.trajectory == "renoised":
            return 2 * self.grid * max(self.latents, pushes), len(needs)
        first = 2 * sum(i * self.grid // self.drawn for i in range(self.drawn))
        return first, 2 + len(needs if self.sampler == "student" else needs - {"sample", "empty"})

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

    def held(self, concepts: Sequence[Concept]) -> list[str]:
        """Captions to keep: those that say none of the concepts, but for attributes, which leave other captions."""
        return [k for k in self.keep if self.keep_weight and not any(says(k, n) for n in whole(concepts))]

    @property
    def drawn(self) -> int:
        """Points that the trajectory gives at a time."""
        return min(self.reuse, 32) if self.reuse else self.batch

    def route(self, model: Model, roles: Roles, student: Mapping[str, Tensor], seed: int) -> Trajectory | Reused:
        """The chosen trajectory over `roles`."""
        if self.scheduler == "pipeline" and self.trajectory != "fresh":
            check_per_row(model)
        frozen = self.sampler == "frozen"
        common: dict[str, Any] = {
            "grid": self.grid,
            "guidance": self.guidance,
            "batch": self.drawn,
            "sampler": (lambda: None) if frozen else (lambda: student),
            "jitter": self.jitter,
            "scheduler": self.scheduler,
        }
        kinds: dict[str, Any] = {"fresh": Fresh, "pool": Pool, "renoised": Renoised}
        if self.trajectory == "renoised":
            common["latents"] = self.latents
        route: Trajectory = kinds[self.trajectory](model, roles, seed, **common)
        return Reused(route, self.reuse, self.batch) if self.reuse else route


def whole(concepts: Sequence[Concept]) -> list[str]:
    """Names of the concepts that are erased everywhere, not as an attribute of one prompt."""
    return [c.name for c in concepts if c.within is None]


Rows = tuple[Tensor, Tensor, Condition, Tensor]
"""x_t, t, prompts, and what the prediction there should be."""


class _ESD:
    """The objective of one run: where the points come from, and the loss on them."""

    def __init__(
        self, options: ESD, model: Model, concepts: Sequence[Concept], student: Mapping[str, Tensor], seed: int
    ) -> None:
        self.options, self.model, self.student = options, model, student
        pushes, empty = options.pushes(concepts), model.encode([""])
        needs = options.needs(pushes)
        self.attribute = torch.tensor([row.attribute for row in pushes])
        texts = {"concept": [row.c for row in pushes], "reference": [row.r for row in pushes]}
        conditions = {"sample": model.encode([row.p for row in pushes]), "empty": empty}
        conditions |= {role: model.encode(said) for role, said in texts.items() if role in needs}
        self.roles = Roles(conditions, tuple(role for role in conditions if role in needs))
        self.erase = options.route(model, self.roles, student, seed)
        held = options.held(concepts)
        self.keep = self._kept(held, empty, seed) if held else None

    def _kept(self, texts: list[str], empty: Condition, seed: int) -> Renoised:
        roles = Roles({"sample": self.model.encode(texts), "empty": empty})
        n, batch = min(self.options.grid, 10), self.options.keep_batch
        return Renoised(self.model, roles, seed, grid=n, batch=batch, purpose="keep", latents=len(texts))

    def target(self, points: Points) -> Tensor:
        """e*(o) − η [e*(c) − e*(r)]."""
        e = points.frozen
        concept, reference = e.get("concept", e.get("sample")), e.get("reference", e.get("empty"))
        assert concept is not None and reference is not None
        origin = reference if self.options.origin == "empty" else concept
        attribute = self.attribute[points.which].view(-1, 1, 1, 1).to(origin.device)
        start = torch.where(attribute, e["sample"], origin) if attribute.any() else origin
        return start - self.options.eta * (concept - reference)

    def __call__(self, step: int) -> Terms:
        """Both terms from one call of the student."""
        rows = {"erase": self._moved(step)} | ({"keep": self._held(self.keep, step)} if self.keep else {})
        x_t, t, prompts, targets = zip(*rows.values(), strict=True)
        e = self.model.predict(torch.cat(x_t), torch.cat(t), Condition.cat(prompts), self.student)
        weight = {"erase": 1.0, "keep": self.options.keep_weight}
        parts = zip(rows, torch.split(e, [len(x) for x in x_t]), targets, strict=True)
        return {name: weight[name] * self.options.distance(part, target) for name, part, target in parts}

    def _moved(self, step: int) -> Rows:
        points = self.erase.draw(step)
        return points.x_t, points.t, self.roles.rows("sample", points.which), self.target(points)

    @torch.no_grad()
    def _held(self, keep: Renoised, step: int) -> Rows:
        points = keep.points(step)
        prompts = keep.roles.rows("sample", points.which)
        return points.x_t, points.t, prompts, self.model.predict(points.x_t, points.t, prompts)

    def state(self) -> dict[str, Tensor]:
        kept = self.keep.state() if self.keep else {}
        return {f"erase.{k}": v for k, v in self.erase.state().items()} | {f"keep.{k}": v for k, v in kept.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        for prefix, part in (("erase.", self.erase), ("keep.", self.keep)):
            if part is not None:
                part.restore({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
