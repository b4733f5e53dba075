"""What trained methods have in common: predictions that are drawn to targets, in one call of the student.

    loss = Σ w ‖ e(x_t, p) − sg(target) ‖²        over the parts of the objective

A method states its own part; `Preserve` is the one that any of them may have beside it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from .beside import Beside
from .model import Condition, Model
from .rng import torch_rng
from .training import Stateful, Terms
from .trajectory import Points, Renoised, Reused, Roles, Trajectory

if TYPE_CHECKING:
    from .edit import Edit


@dataclass(frozen=True)
class Learner:
    """The weights that learn, by name, and their running average (None for a method without `ema`); and the edits that
    may be on the model beside them."""

    student: Mapping[str, Tensor]
    average: Mapping[str, Tensor] | None = None
    others: Beside = field(default_factory=Beside)


@dataclass(frozen=True)
class Rows:
    """Where predictions are asked for, and what they should be: x_t (n, c, h, w), t (n,), n prompts, n targets."""

    x_t: Tensor
    t: Tensor
    prompts: Condition
    target: Tensor

    def __len__(self) -> int:
        return len(self.t)

    def __getitem__(self, rows: slice) -> Rows:
        return Rows(self.x_t[rows], self.t[rows], self.prompts[rows], self.target[rows])


class Objective(Stateful, Protocol):
    """Named loss terms of a step, in pieces, and whatever state they carry from step to step."""

    def __call__(self, step: int) -> Iterator[Terms]: ...

    pace: float = 1.0
    """What the learning rate is multiplied by."""

    def over(self, step: int, now: Callable[[str], Edit], seconds: float) -> bool:  # noqa: ARG002, most go on to the end
        """Whether nothing is left to do, after `step` steps and so many seconds; `now` is the edit as it is."""
        return False

    def chosen(self, edit: Edit) -> Edit:
        """What becomes of the edit at the end."""
        return edit


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


def pieces(sizes: Mapping[str, int], n: int) -> Iterator[dict[str, slice]]:
    """Parts of those sizes in at most n pieces, each with about an n-th of every part; none of a part that is used up.

    As few as possible where there are less rows than pieces.
    """
    n = min(n, max(sizes.values()))
    for i in range(n):
        cuts = {name: slice(i * size // n, (i + 1) * size // n) for name, size in sizes.items()}
        yield {name: cut for name, cut in cuts.items() if cut.start < cut.stop}


@dataclass
class Regression(Objective):
    """The objective whose terms are `parts`, each with its weight."""

    model: Model
    student: Mapping[str, Tensor]
    distance: Distance
    parts: Parts
    _drawn: dict[str, tuple[int, Rows]] = field(default_factory=dict)

    def __call__(self, step: int) -> Iterator[Terms]:
        """All terms from one call of the student, or from as many as the model's `pieces`."""
        rows, seen = self._rows(step), {name: list[Tensor]() for name in self.parts}
        for cuts in pieces({name: len(r) for name, r in rows.items()}, self.model.pieces):
            own = {name: rows[name][cut] for name, cut in cuts.items()}
            e = dict(zip(own, self._predicted([*own.values()]), strict=True))
            for name, found in e.items():
                seen[name].append(found.detach())
            yield {name: self._weight(name, rows, own) * self.distance(e[name], own[name].target) for name in own}
        for name, (_, part) in self.parts.items():
            part.seen(torch.cat(seen[name]))

    def _rows(self, step: int) -> dict[str, Rows]:
        """Each part's rows of the step, drawn once, however often the step is tried: a draw may move a trajectory."""
        for name, (_, part) in self.parts.items():
            if name not in self._drawn or self._drawn[name][0] != step:
                self._drawn[name] = step, part.rows(step)
        return {name: rows for name, (_, rows) in self._drawn.items()}

    def _predicted(self, rows: list[Rows]) -> tuple[Tensor, ...]:
        x_t, t = torch.cat([r.x_t for r in rows]), torch.cat([r.t for r in rows])
        e = self.model.predict(x_t, t, Condition.cat([r.prompts for r in rows]), self.student)
        return torch.split(e, [len(r) for r in rows])

    def _weight(self, name: str, rows: Mapping[str, Rows], own: Mapping[str, Rows]) -> float:
        """The part's weight, by this piece's share of its rows: distances are means."""
        return self.parts[name][0] * (len(own[name]) / len(rows[name]))

    def state(self) -> dict[str, Tensor]:
        return {f"{name}.{k}": v for name, (_, part) in self.parts.items() for k, v in part.state().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        for name, (_, part) in self.parts.items():
            own = f"{name}."
            part.restore({k.removeprefix(own): v for k, v in state.items() if k.startswith(own)})


class Preserve(Part):
    """Other captions k hold their place: e(x_t, k) stays e*(x_t, k), on latents rolled out under k and noised again."""

    route: Trajectory

    def __init__(self, model: Model, captions: Condition, *, grid: int, batch: int, seed: int) -> None:
        roles = Roles({"sample": captions, "empty": model.empty()})
        self.route = Renoised(model, roles, seed, grid=grid, batch=batch, purpose="keep", latents=len(captions))

    @torch.no_grad()
    def rows(self, step: int) -> Rows:
        points = self.route.points(step)
        prompts = self.prompts(points, step)
        return Rows(points.x_t, points.t, prompts, self.route.model.predict(points.x_t, points.t, prompts))

    def prompts(self, points: Points, step: int) -> Condition:  # noqa: ARG002, the same at each step
        """What is held at these points."""
        return self.route.roles.rows("sample", points.which)


def around(condition: Condition, n: int, sigma: float, seed: int) -> Condition:
    """`n` Gaussian neighbours of a single prompt's embeddings, `sigma` of their standard deviations away."""
    rng, rows = torch_rng(seed, "neighbours"), dict(condition.repeat(n).tensors)
    for name in sorted(rows.keys() & {"text", "pooled"}):  # a set's order changes from process to process
        x = rows[name]
        rows[name] = x + sigma * x.float().std().to(x) * torch.randn(x.shape, generator=rng).to(x)
    return Condition(rows, (None,) * n)
