"""What trained methods have in common: predictions that are drawn to targets, in one call of the student.

    loss = Σ w ‖ e(x_t, p) − sg(target) ‖²        over the parts of the objective

A method states its own part; `Preserve` is the one that any of them may have beside it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .model import Condition, Model
from .rng import torch_rng
from .training import Stateful, Terms
from .trajectory import Renoised, Reused, Roles, Trajectory


@dataclass(frozen=True)
class Learner:
    """The weights that learn, by name, and their running average (None for a method without `ema`)."""

    student: Mapping[str, Tensor]
    average: Mapping[str, Tensor] | None = None


@dataclass(frozen=True)
class Rows:
    """Where predictions are asked for, and what they should be: x_t (n, c, h, w), t (n,), n prompts, n targets."""

    x_t: Tensor
    t: Tensor
    prompts: Condition
    target: Tensor


class Objective(Stateful, Protocol):
    """Named loss terms of a step, and whatever state they carry from step to step."""

    def __call__(self, step: int) -> Terms: ...


class Part(ABC):
    """One term of a regression, at the points of its `route`, which it may share with another."""

    route: Trajectory | Reused

    @abstractmethod
    def rows(self, step: int) -> Rows:
        """Where this term is at that step."""

    def seen(self, e: Tensor) -> None:
        """The student's predictions for the rows given last."""
        self.route.seen(e)

    def state(self) -> dict[str, Tensor]:
        return self.route.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.route.restore(state)


Parts = Mapping[str, tuple[float, Part]]
"""Terms by name, each with its weight."""

Distance = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Regression:
    """The objective whose terms are `parts`, each with its weight."""

    model: Model
    student: Mapping[str, Tensor]
    distance: Distance
    parts: Parts

    def __call__(self, step: int) -> Terms:
        """All terms from one call of the student."""
        rows = [part.rows(step) for _, part in self.parts.values()]
        x_t, t = torch.cat([r.x_t for r in rows]), torch.cat([r.t for r in rows])
        e = self.model.predict(x_t, t, Condition.cat([r.prompts for r in rows]), self.student)
        found = [*zip(self.parts.items(), torch.split(e, [len(r.t) for r in rows]), rows, strict=True)]
        for (_, (_, part)), own, _ in found:
            part.seen(own.detach())
        return {name: weight * self.distance(own, r.target) for (name, (weight, _)), own, r in found}

    def state(self) -> dict[str, Tensor]:
        return {f"{name}.{k}": v for name, (_, part) in self.parts.items() for k, v in part.state().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        for name, (_, part) in self.parts.items():
            own = f"{name}."
            part.restore({k.removeprefix(own): v for k, v in state.items() if k.startswith(own)})


class Preserve(Part):
    """Other captions k hold their place: e(x_t, k) stays e*(x_t, k), on latents rolled out under k and noised again."""

    route: Renoised

    def __init__(self, model: Model, captions: Condition, *, grid: int, batch: int, seed: int) -> None:
        roles = Roles({"sample": captions, "empty": model.empty()})
        self.route = Renoised(model, roles, seed, grid=grid, batch=batch, purpose="keep", latents=len(captions))

    @torch.no_grad()
    def rows(self, step: int) -> Rows:
        points = self.route.points(step)
        prompts = self.route.roles.rows("sample", points.which)
        return Rows(points.x_t, points.t, prompts, self.route.model.predict(points.x_t, points.t, prompts))


def around(condition: Condition, n: int, sigma: float, seed: int) -> Condition:
    """`n` Gaussian neighbours of a single prompt's embeddings, `sigma` of their standard deviations away."""
    rng, rows = torch_rng(seed, "neighbours"), dict(condition.repeat(n).tensors)
    for name in rows.keys() & {"text", "pooled"}:
        x = rows[name]
        rows[name] = x + sigma * x.float().std().to(x) * torch.randn(x.shape, generator=rng).to(x)
    return Condition(rows, (None,) * n)
