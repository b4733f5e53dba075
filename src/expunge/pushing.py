"""The two terms of the closed loop: captions that are pushed, and captions that stay; both grow in number."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from tqdm import tqdm

from .growing import Growing
from .model import Condition, Model
from .objective import Part, Preserve, Rows
from .rng import torch_rng
from .training import fitted
from .trajectory import Points, Roles

SHARE = 1 / 3
"""Of what is held, any words together."""
CAP = 12.0
"""The largest η of a push whose concept is not said."""
MIDDLE, EARLY = 0.5, 0.7
"""Times, of all, at which predictions are compared: on a caption's own picture, and on another's."""
LEAST, MOST = 0.25, 8.0
"""How often a caption is drawn at least and at most, where the mean is 1."""


@dataclass(frozen=True)
class Push:
    """e(p) moves to e*(r) − η [e*(c) − e*(r)]. `prior` is how often pictures of r show the concept, where p = r."""

    p: str
    c: str
    r: str
    prior: float = 0.0

    @property
    def unsaid(self) -> bool:
        """Whether p brings the concept along without saying it."""
        return self.p == self.r


@dataclass(frozen=True)
class First:
    """What is pushed at first: the pushes, the clean latents (n, c, h, w) of a picture of each p, and whether it shows
    the concept."""

    pushes: Sequence[Push]
    clean: Tensor
    shown: Sequence[float]


@dataclass
class Pushing(Part):
    """Pushes, each with the picture that it is made on, and whether that shows the concept (1.0) or not (0.0).

    `eta` is η where the concept is said, and what η is multiplied by where it is not.
    """

    route: Growing
    pushes: list[Push]
    shown: list[float]
    eta: tuple[float, float]

    @classmethod
    def of(cls, model: Model, first: First, seed: int, eta: tuple[float, float], batch: int) -> Pushing:
        roles = Roles(said(model, first.pushes), ("concept", "reference"))
        return cls(Growing(model, roles, seed, batch=batch, clean=first.clean), [*first.pushes], [*first.shown], eta)

    def rows(self, step: int) -> Rows:
        points = self.route.draw(step)
        e, which = points.frozen, points.which
        eta = self.strength(which, points.t).view(-1, 1, 1, 1).to(points.x_t)
        target = e["reference"] - eta * (e["concept"] - e["reference"])
        return Rows(points.x_t, points.t, self.route.roles.rows("sample", which), target)

    def strength(self, which: Tensor, t: Tensor) -> Tensor:
        """η of rows at times t: (n,)."""
        rows = [self.pushes[i] for i in which.tolist()]
        prior, shown = torch.tensor([push.prior for push in rows]), torch.tensor(self.shown)[which]
        posterior = prior + (shown - prior) * signal(self.route.model, t)
        odds = (self.eta[1] * posterior / (1 - posterior).clamp(min=1e-6)).clamp(max=CAP)
        return torch.where(torch.tensor([push.unsaid for push in rows]), odds, self.eta[0])

    def add(self, model: Model, pushes: Sequence[Push], clean: Tensor) -> None:
        """More of them, each with the latents (n, c, h, w) of a picture that shows the concept."""
        self.route.add(said(model, pushes), clean)
        self.pushes += pushes
        self.shown += [1.0] * len(pushes)


def signal(model: Model, t: Tensor) -> Tensor:
    """The share of the clean latents in the variance of x_t: (n,), from 1 at t = 0 to about 0 where all is noise."""
    one = torch.ones(len(t), 1, 1, 1, device=model.device)
    a, b = model.diffuse(one, 0 * one, t).flatten().cpu(), model.diffuse(0 * one, one, t).flatten().cpu()
    return a**2 / (a**2 + b**2)


def said(model: Model, pushes: Sequence[Push]) -> dict[str, Condition]:
    """p, c and r by their roles."""
    return {
        "sample": model.encode([push.p for push in pushes]),
        "concept": model.captions([push.c for push in pushes]),
        "reference": model.captions([push.r for push in pushes]),
    }


class Holding(Preserve):
    """Captions that hold their place; others can be added. For some rows of a step, `loose` captions take the place of
    what the picture shows."""

    route: Growing

    def __init__(
        self, model: Model, captions: Sequence[str], clean: Tensor, seed: int, batch: int, loose: Sequence[str] = ()
    ) -> None:
        roles = Roles({"sample": model.captions(captions)})
        self.route = Growing(model, roles, seed, batch=batch, purpose="keep", clean=clean)
        self.captions = [*captions]
        self.loose = model.captions(loose) if loose else None

    def prompts(self, points: Points, step: int) -> Condition:
        own = self.route.roles.rows("sample", points.which)
        if self.loose is None:
            return own
        n = round(SHARE * len(points))
        k = torch.randint(len(self.loose), (n,), generator=self.route.rng("loose", step))
        return Condition.cat([own[: len(points) - n], self.loose[k]])

    def weigh(self, student: Mapping[str, Tensor]) -> None:
        """From now on captions are drawn as often as their predictions have moved: what little a picture shows of a
        loss, they tell long before."""
        own, route = self.route.roles.conditions["sample"], self.route
        found = moved(route.model, student, own.__getitem__, route.clean, MIDDLE, route.seed)
        self.route.odds = (found / found.mean().clamp(min=1e-12)).clamp(LEAST, MOST)

    def strayed(self, student: Mapping[str, Tensor], captions: Sequence[str], n: int, rng: random.Random) -> list[str]:
        """The `n` of these captions whose predictions have moved most, on pictures that are held."""
        fresh = [text for text in captions if text not in self.captions]
        if not fresh:
            return []
        clean, model = self.route.clean[[rng.randrange(len(self.captions)) for _ in fresh]], self.route.model
        found = moved(model, student, lambda rows: model.captions(fresh[rows]), clean, EARLY, self.route.seed)
        return [fresh[k] for k in found.argsort(descending=True, stable=True)[:n].tolist()]

    def add(self, model: Model, captions: Sequence[str], clean: Tensor) -> None:
        """More of them, each with its picture's latents (n, c, h, w)."""
        self.route.add({"sample": model.captions(captions)}, clean)
        self.captions += captions


@torch.no_grad()
def moved(
    model: Model, student: Mapping[str, Tensor], said: Callable[[slice], Condition], clean: Tensor, time: float,
    seed: int,
) -> Tensor:  # fmt: skip
    """‖e(x_t, k) − e*(x_t, k)‖², its mean over x_t, of what is `said` and latents (n, c, h, w): (n,), on the CPU."""
    noise, n = model.noise(len(clean), torch_rng(seed, "moved")), len(clean)

    def part(rows: slice) -> Tensor:
        t = torch.full((len(noise[rows]),), int(time * model.horizon))
        x_t, k = model.diffuse(clean[rows], noise[rows], t), said(rows)
        e, frozen = (model.predict(x_t, t, k, weights) for weights in (student, None))
        return (e - frozen).float().square().flatten(1).mean(1).cpu()

    with tqdm(total=n, desc="comparing", unit="caption", leave=False, disable=not model.team.main) as bar:
        found = []
        for i in range(0, n, model.rows):
            found.append(fitted(partial(part, slice(i, i + model.rows)), model.lighter, bar))
            bar.update(len(found[-1]))
    return torch.cat(found)
