"""Forward processes: how noise is added, and the deterministic step back.

Variance-preserving (Stable Diffusion 1, 2, XL): x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε. DDIM with η = 0 (Song et al. 2021, arXiv
2010.02502, eq. 12): x_s = √ᾱ_s x̂_0 + √(1 − ᾱ_s) ε̂, where x̂_0 and ε̂ follow from the prediction at t.

Rectified flow (Stable Diffusion 3, FLUX): x_t = (1 − σ) x_0 + σ ε with σ = t / 1000; the prediction is the velocity
ε − x_0, and a step is x_s = x_t + (σ_s − σ_t) v (Liu et al. 2023, arXiv 2209.03003).
"""

from __future__ import annotations

import inspect
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from .errors import ExpungeError
from .model import Model, Sampler


class StockSampler(Sampler):
    """A private copy of a diffusers scheduler, so that no state outlives the run."""

    def __init__(
        self, scheduler: Any, steps: int | None, device: torch.device, rngs: list[torch.Generator], **how: Any
    ) -> None:
        self.scheduler = deepcopy(scheduler)
        try:
            self.scheduler.set_timesteps(steps, device=device, **how)
        except ValueError as error:
            raise ExpungeError(f"{steps} steps: {' '.join(str(error).split())}") from error
        self.timesteps = self.scheduler.timesteps
        if self.timesteps.max() > self.scheduler.config.num_train_timesteps - (not self.timesteps.is_floating_point()):
            raise ExpungeError(f"this model's scheduler cannot take {steps} steps; give fewer")
        self.sigma = float(getattr(self.scheduler, "init_noise_sigma", 1.0))
        takes = inspect.signature(self.scheduler.step).parameters
        self.extra = {"generator": rngs if len(rngs) > 1 else rngs[0]} if "generator" in takes else {}

    def scale(self, x_t: Tensor, i: int) -> Tensor:
        if not hasattr(self.scheduler, "scale_model_input"):
            return x_t
        scaled: Tensor = self.scheduler.scale_model_input(x_t, self.timesteps[i])
        return scaled

    def step(self, prediction: Tensor, i: int, x_t: Tensor) -> Tensor:
        x: Tensor = self.scheduler.step(prediction, self.timesteps[i], x_t, **self.extra, return_dict=False)[0]
        return x


class Discrete(Model):
    """A variance-preserving process on the scheduler's table of ᾱ; predictions are ε or v."""

    def __post_init__(self) -> None:
        """Also takes ᾱ from the pipeline's scheduler. Raises ExpungeError for another kind of prediction."""
        super().__post_init__()
        scheduler = self.pipeline.scheduler
        config, table = scheduler.config, getattr(scheduler, "alphas_cumprod", None)
        if table is None:
            raise ExpungeError(f"{type(scheduler).__name__} has no table of ᾱ; give the pipeline one of DDIM's kind")
        self.kind: str = config.prediction_type
        if self.kind not in ("epsilon", "v_prediction"):
            raise ExpungeError(f"prediction type {self.kind!r} is not supported; expected epsilon or v_prediction")
        self.alphas: Tensor = table.to(self.device, torch.float32)
        final = self.alphas.new_ones(()) if config.get("set_alpha_to_one", False) else self.alphas[0]
        self._table = torch.cat([self.alphas, final[None]])

    @property
    def horizon(self) -> int:
        return len(self.alphas)

    def sampler(self, steps: int, rngs: list[torch.Generator]) -> Sampler:
        return StockSampler(self.pipeline.scheduler, steps, self.device, rngs)

    def _alpha(self, t: Tensor) -> Tensor:
        """ᾱ_t as (n, 1, 1, 1); t < 0 reads the schedule's final value."""
        t = t.to(self.device)
        return self._table[torch.where(t < 0, self.horizon, t)].view(-1, 1, 1, 1)

    def advance(self, prediction: Tensor, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        a, b = self._alpha(t), self._alpha(s)
        if self.kind == "epsilon":
            eps, x_0 = prediction, (x_t - (1 - a).sqrt() * prediction) / a.sqrt()
        else:
            eps, x_0 = a.sqrt() * prediction + (1 - a).sqrt() * x_t, a.sqrt() * x_t - (1 - a).sqrt() * prediction
        return b.sqrt() * x_0 + (1 - b).sqrt() * eps

    def diffuse(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        a = self._alpha(t)
        return a.sqrt() * x_0 + (1 - a).sqrt() * noise

    def truth(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        a = self._alpha(t)
        return noise if self.kind == "epsilon" else a.sqrt() * noise - (1 - a).sqrt() * x_0


class Flow(Model):
    """Rectified flow; t = 1000 σ. Noise is pure at σ = 1 alone, where rollouts must begin."""

    pure = 1000

    def sampler(self, steps: int, rngs: list[torch.Generator]) -> Sampler:
        return StockSampler(self.pipeline.scheduler, steps, self.device, rngs)

    def _sigma(self, t: Tensor) -> Tensor:
        return (t.to(self.device).float().clamp(min=0) / self.horizon).view(-1, 1, 1, 1)

    def advance(self, prediction: Tensor, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return x_t + (self._sigma(s) - self._sigma(t)) * prediction

    def diffuse(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        sigma = self._sigma(t)
        return (1 - sigma) * x_0 + sigma * noise

    def truth(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:  # noqa: ARG002
        return noise - x_0
