"""SLD, Safe Latent Diffusion (Schramowski et al. 2023, arXiv 2211.05105).

    φ = s_S |e(p) − e(S)|, at most 1, and 0 where e(p) − e(S) ≥ λ
    g = φ (e(S) − e(0)) + s_m ν,   ν ← β_m ν + (1 − β_m) g,   ν = 0 at first
    e = e(0) + s [e(p) − e(0) − g]      from step `warmup` on; before it g moves ν alone

S is the safety concept: all concepts as one prompt, joined by commas. The paper prints max(1, φ); the authors' code
clamps at 1, and that is what made the published pictures.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ..guided import Guidance, Presets
from ..steering import Step


class SafeLatent(Guidance):
    """s_S, λ, s_m and β_m are those of the equations. δ = −g."""

    kind = "sld"
    presets: ClassVar[Presets] = {
        "sld-weak": {"warmup": 15, "scale": 20.0, "threshold": 0.0, "momentum": 0.0, "beta": 0.0},
        "sld-medium": {"warmup": 10, "scale": 1000.0, "threshold": 0.01, "momentum": 0.3, "beta": 0.4},
        "sld-strong": {"warmup": 7, "scale": 2000.0, "threshold": 0.025, "momentum": 0.5, "beta": 0.7},
        "sld-max": {"warmup": 0, "scale": 5000.0, "threshold": 1.0, "momentum": 0.5, "beta": 0.7},
    }

    warmup: int = Field(10, ge=0, description="steps before g changes the picture")
    scale: float = Field(1000.0, ge=0, description="s_S, how soon a difference counts in full")
    threshold: float = Field(0.01, description="λ, the difference from which the picture is away from the concept")
    momentum: float = Field(0.3, ge=0, lt=1, description="s_m, weight of the past")
    beta: float = Field(0.4, ge=0, lt=1, description="β_m, how much of the past is kept")

    @classmethod
    def weak(cls, *concepts: str) -> SafeLatent:
        return cls(concepts=concepts, **cls.presets["sld-weak"])

    @classmethod
    def medium(cls, *concepts: str) -> SafeLatent:
        return cls(concepts=concepts, **cls.presets["sld-medium"])

    @classmethod
    def strong(cls, *concepts: str) -> SafeLatent:
        return cls(concepts=concepts, **cls.presets["sld-strong"])

    @classmethod
    def max(cls, *concepts: str) -> SafeLatent:
        return cls(concepts=concepts, **cls.presets["sld-max"])

    @property
    def prompts(self) -> tuple[str, ...]:
        return (", ".join(self.concepts),)

    @property
    def starts(self) -> int:
        return self.warmup

    def needs(self, i: int) -> list[int]:
        """Before the warm-up's end only ν can use it, and that only with momentum."""
        return [0] if self.scale and (i >= self.warmup or self.momentum) else []

    def change(self, step: Step, state: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        if 0 not in step.own:
            return None, state
        away = step.prompt - step.own[0]
        φ = (self.scale * away.abs()).clamp(max=1).where(away < self.threshold, 0)
        ν = torch.zeros_like(away) if state is None else state
        g = φ * (step.own[0] - step.empty) + self.momentum * ν
        return (-g if step.i >= self.warmup else None), self.beta * ν + (1 - self.beta) * g
