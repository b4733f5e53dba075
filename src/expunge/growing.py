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
    """Each row of the roles has a `clean` latent (n, c, h, w), noised to uniform times; rows that are added are drawn
    `hard` times as often."""

    clean: Tensor = field(default_factory=lambda: torch.empty(0))
    hard: float = 3.0
    _added: int = field(default=0, init=False)

    def points(self, step: int) -> Points:
        rng, n = self.rng("renoise", step), len(self.clean)
        odds = torch.ones(n)
        odds[n - self._added :] = self.hard
        k = torch.multinomial(odds, self.batch, replacement=True, generator=rng)
        t = torch.randint(self.model.horizon, (self.batch,), generator=rng)
        return Points(self.model.diffuse(self.clean[k], self.model.noise(self.batch, rng), t), t, k, {})

    def add(self, conditions: Mapping[str, Condition], clean: Tensor) -> None:
        """Rows of the roles, each with its latent (n, c, h, w)."""
        self.clean = torch.cat([self.clean, clean.to(self.clean)])
        self._added += len(clean)
        own = self.roles.conditions
        self.roles = Roles(
            {**own, **{r: Condition.cat([own[r], more]) for r, more in conditions.items()}}, self.roles.needs
        )

    def state(self) -> dict[str, Tensor]:
        return {"clean": self.clean, "added": torch.tensor(self._added)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.clean, self._added = state["clean"].to(self.model.device), int(state["added"])
