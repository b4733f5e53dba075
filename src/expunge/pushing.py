"""The two terms of the closed loop: captions that are pushed, and captions that stay; both grow in number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .growing import Growing
from .model import Condition, Model
from .objective import Part, Rows
from .trajectory import Roles


@dataclass(frozen=True)
class Push:
    """e(p) moves to e*(r) − η [e*(c) − e*(r)]."""

    p: str
    c: str
    r: str

    @property
    def unsaid(self) -> bool:
        """Whether p brings the concept along without saying it."""
        return self.p == self.r


@dataclass
class Pushing(Part):
    """Pushes, each with the pictures that it is made on; `eta` is η where the concept is said, and where it is not."""

    route: Growing
    pushes: list[Push]
    eta: tuple[float, float]

    @classmethod
    def of(
        cls,
        model: Model,
        pushes: Sequence[Push],
        seed: int,
        eta: tuple[float, float],
        grid: int,
        guidance: float,
        batch: int,
    ) -> Pushing:
        """With pictures that the frozen model draws of each p on `grid` DDIM steps."""
        roles = Roles({**said(model, pushes), "empty": model.empty()}, ("concept", "reference"))
        return cls(Growing(model, roles, seed, grid, batch, guidance, latents=len(pushes)), [*pushes], eta)

    def rows(self, step: int) -> Rows:
        points = self.route.draw(step)
        e, which = points.frozen, points.which
        eta = torch.tensor([self.eta[self.pushes[i].unsaid] for i in which.tolist()]).view(-1, 1, 1, 1).to(points.x_t)
        target = e["reference"] - eta * (e["concept"] - e["reference"])
        return Rows(points.x_t, points.t, self.route.roles.rows("sample", which), target)

    def add(self, model: Model, pushes: Sequence[Push], clean: Tensor) -> None:
        """More of them, each with its picture's latents (n, c, h, w)."""
        self.route.add(said(model, pushes), clean)
        self.pushes += pushes


def said(model: Model, pushes: Sequence[Push]) -> dict[str, Condition]:
    return {
        "sample": model.encode([push.p for push in pushes]),
        "concept": model.captions([push.c for push in pushes]),
        "reference": model.captions([push.r for push in pushes]),
    }


@dataclass
class Holding(Part):
    """Captions whose predictions stay."""

    route: Growing
    captions: list[str]

    @classmethod
    def of(cls, model: Model, captions: Sequence[str], seed: int, grid: int, guidance: float, batch: int) -> Holding:
        """With pictures that the frozen model draws of each on `grid` DDIM steps."""
        roles = Roles({"sample": model.captions(captions), "empty": model.empty()})
        route = Growing(model, roles, seed, grid, batch, guidance, purpose="keep", latents=len(captions))
        return cls(route, [*captions])

    @torch.no_grad()
    def rows(self, step: int) -> Rows:
        points = self.route.points(step)
        prompts = self.route.roles.rows("sample", points.which)
        return Rows(points.x_t, points.t, prompts, self.route.model.predict(points.x_t, points.t, prompts))

    def add(self, model: Model, captions: Sequence[str], clean: Tensor) -> None:
        """More of them, each with its picture's latents (n, c, h, w)."""
        self.route.add({"sample": model.captions(captions)}, clean)
        self.captions += captions
