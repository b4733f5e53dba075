"""Growing: renoised latents to which others are added while a model learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .model import Condition
from .trajectory import Points, Renoised, Roles


@dataclass
class Growing(Renoised):
    """As Renoised, with a latent for each row of the roles at first; rows and latents that are added are drawn `hard`
    times as often."""

    hard: float = 3.0
    _added: int = field(default=0, init=False)

    def points(self, step: int) -> Points:
        clean = self.clean()
        rng = self.rng("renoise", step)
        odds = torch.ones(len(clean))
        odds[len(clean) - self._added :] = self.hard
        k = torch.multinomial(odds, self.batch, replacement=True, generator=rng)
        t = torch.randint(self.model.horizon, (self.batch,), generator=rng)
        return Points(self.model.diffuse(clean[k], self.model.noise(self.batch, rng), t), t, self._of[k], {})

    def add(self, conditions: Mapping[str, Condition], clean: Tensor) -> None:
        """Rows of the roles, each with its latent (n, c, h, w)."""
        held, rows = self.clean(), self.roles.concepts
        self._of = torch.cat([self._of, torch.arange(rows, rows + len(clean))])
        self._clean = torch.cat([held, clean.to(held)])
        self._added += len(clean)
        own = self.roles.conditions
        self.roles = Roles(
            {**own, **{r: Condition.cat([own[r], more]) for r, more in conditions.items()}}, self.roles.needs
        )

    def state(self) -> dict[str, Tensor]:
        return super().state() | {"added": torch.tensor(self._added)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        super().restore({k: v for k, v in state.items() if k != "added"})
        self._added = int(state.get("added", 0))
