"""Growing: clean latents, noised again and again, to which others are added while a model learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .model import Condition
from .trajectory import Points, Roles, Trajectory


@dataclass
class Growing(Trajectory):
    """Each row of the roles has a `clean` latent (n, c, h, w), noised to uniform times, and is drawn as often as its
    `odds` (n,) say: rows that are added `hard` times as often as the first, until they say otherwise."""

    clean: Tensor = field(default_factory=lambda: torch.empty(0))
    hard: float = 3.0
    odds: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.odds = torch.ones(len(self.clean))

    def points(self, step: int) -> Points:
        rng = self.rng("renoise", step)
        k = torch.multinomial(self.odds, self.batch, replacement=True, generator=rng)
        t = torch.randint(self.model.horizon, (self.batch,), generator=rng)
        return Points(self.model.diffuse(self.clean[k], self.model.noise(self.batch, rng), t), t, k, {})

    def add(self, conditions: Mapping[str, Condition], clean: Tensor) -> None:
        """Rows of the roles, each with its latent (n, c, h, w)."""
        self.clean = torch.cat([self.clean, clean.to(self.clean)])
        self.odds = torch.cat([self.odds, torch.full((len(clean),), self.hard)])
        own = self.roles.conditions
        self.roles = Roles(
            {**own, **{r: Condition.cat([own[r], more]) for r, more in conditions.items()}}, self.roles.needs
        )

    def state(self) -> dict[str, Tensor]:
        return {"clean": self.clean, "odds": self.odds}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.clean, self.odds = state["clean"].to(self.model.device), state["odds"].cpu()
