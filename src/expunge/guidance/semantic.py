"""SEGA, Semantic Guidance (Brack et al. 2023, arXiv 2301.12247).

    ψ_c = ± s_c (e(c) − e(0)),   kept where |ψ_c| is in its channel's upper 1 − λ_c, 0 elsewhere
    γ = Σ_c w_c ψ_c + s_m ν,     ν ← β_m ν + (1 − β_m) γ,   ν = 0 at first
    e = e(0) + s [e(p) − e(0)] + γ

from the step on at which the last concept's warm-up is over; while only some are warm, γ is the w-weighted mean of
their ψ_c, without momentum. A concept past its cooldown is out of every sum. "−" steers away from the concept.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ..guided import Guidance, Presets
from ..steering import Step

Sign = Literal["-", "+"]


class Semantic(Guidance):
    """A field that may be a tuple has then a value for each concept. δ′ = γ."""

    kind = "sega"
    scaled = False
    presets: ClassVar[Presets] = {
        "sega": {},
        "sega-medium": {"scale": 4.0, "warmup": 10, "threshold": 0.9, "momentum": 0.3},
        "sega-strong": {"scale": 7.0, "warmup": 5, "threshold": 0.85, "momentum": 0.5},
        "sega-max": {"scale": 10.0, "warmup": 0, "threshold": 0.75, "momentum": 0.5},
    }

    direction: Sign | tuple[Sign, ...] = Field("-", description="- away from a concept, + towards it")
    scale: float | tuple[float, ...] = Field(5.0, description="s_c")
    warmup: int | tuple[int, ...] = Field(10, description="steps before a concept counts")
    cooldown: int | tuple[int | None, ...] | None = Field(None, description="step from which it counts no more")
    threshold: float | tuple[float, ...] = Field(0.9, description="λ_c, a quantile")
    weight: float | tuple[float, ...] = Field(1.0, description="w_c")
    momentum: float = Field(0.1, ge=0, lt=1, description="s_m, weight of the past")
    beta: float = Field(0.4, ge=0, lt=1, description="β_m, how much of the past is kept")

    @model_validator(mode="after")
    def _fits(self) -> Semantic:
        for name in ("direction", "scale", "warmup", "cooldown", "threshold", "weight"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != len(self.concepts):
                raise ValueError(f"{name} has {len(value)} values for {len(self.concepts)} concepts; give one for each")
        for c in range(len(self.concepts)):
            if not 0 <= self._at("threshold", c) <= 1:
                raise ValueError("threshold is a quantile between 0 and 1")
            if min(self._at("weight", c), self._at("scale", c), self._at("warmup", c)) < 0:
                raise ValueError("scale, warmup and weight are not negative; direction tells the sign")
        if all(self._cold(c, self._at("warmup", c)) for c in range(len(self.concepts))):
            raise ValueError("a cooldown before the warmup's end leaves no step to act; make it longer")
        return self

    def _at(self, name: str, c: int) -> Any:
        """A field's value for concept c."""
        value = getattr(self, name)
        return value[c] if isinstance(value, tuple) else value

    @property
    def prompts(self) -> tuple[str, ...]:
        return self.concepts

    @property
    def starts(self) -> int:
        first: int = min(self._at("warmup", c) for c in range(len(self.concepts)))
        return first

    @property
    def away(self) -> tuple[str, ...]:
        return tuple(name for c, name in enumerate(self.concepts) if self._at("direction", c) == "-")

    def _cold(self, c: int, i: int) -> bool:
        end = self._at("cooldown", c)
        return end is not None and i >= end

    def needs(self, i: int) -> list[int]:
        """Not those past their cooldown; before a warm-up's end only ν can use them, and that only with momentum."""
        every = range(len(self.concepts))
        return [c for c in every if not self._cold(c, i) and (i >= self._at("warmup", c) or self.momentum)]

    def change(self, step: Step, state: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        if not step.own and state is None:
            return None, None
        ν = torch.zeros_like(step.empty) if state is None else state
        ψ = {c: self._semantic(c, e - step.empty) for c, e in step.own.items()}
        γ = (self._sum(ψ) if ψ else 0) + self.momentum * ν
        warm = {c for c in range(len(self.concepts)) if step.i >= self._at("warmup", c)}
        now = γ if len(warm) == len(self.concepts) else self._mean({c: ψ[c] for c in warm & ψ.keys()})
        return now, self.beta * ν + (1 - self.beta) * γ

    def _semantic(self, c: int, towards: Tensor) -> Tensor:
        """ψ_c."""
        ψ: Tensor = (1 if self._at("direction", c) == "+" else -1) * self._at("scale", c) * towards
        least = torch.quantile(ψ.abs().flatten(2), self._at("threshold", c), dim=2)[..., None, None]
        kept: Tensor = ψ.where(ψ.abs() >= least, 0)
        return kept

    def _sum(self, ψ: dict[int, Tensor], total: float = 1.0) -> Tensor:
        """Σ w_c ψ_c / total."""
        rows = torch.stack([*ψ.values()])
        weights = torch.tensor([self._at("weight", c) / total for c in ψ]).to(rows)[:, None].expand(rows.shape[:2])
        return torch.einsum("cb,cbijk->bijk", weights, rows)

    def _mean(self, ψ: dict[int, Tensor]) -> Tensor | None:
        total = sum(self._at("weight", c) for c in ψ)
        return self._sum(ψ, total) if total else None
