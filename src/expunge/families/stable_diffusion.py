"""Stable Diffusion 1.x and 2.x: UNet, one CLIP text encoder, variance-preserving noise; eps and v prediction.

Forward process x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε. DDIM with η = 0 (Song et al. 2021, arXiv 2010.02502, eq. 12):
x_s = √ᾱ_s x̂_0 + √(1 − ᾱ_s) ε̂, where x̂_0 and ε̂ follow from the prediction at t.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ExpungeError
from ..model import Condition, Model, Sampler
from ..scope import UNET


class StockSampler(Sampler):
    """A private copy of a diffusers scheduler, so that no state outlives the run."""

    def __init__(self, scheduler: Any, steps: int, device: torch.device, rngs: list[torch.Generator]) -> None:
        self.scheduler = deepcopy(scheduler)
        try:
            self.scheduler.set_timesteps(steps, device=device)
        except ValueError as error:
            raise ExpungeError(f"{steps} steps: {' '.join(str(error).split())}") from error
        self.timesteps = self.scheduler.timesteps
        if self.timesteps.max() >= self.scheduler.config.num_train_timesteps:
            raise ExpungeError(f"this model's scheduler cannot take {steps} steps; give fewer")
        self.sigma = float(self.scheduler.init_noise_sigma)
        takes = inspect.signature(self.scheduler.step).parameters
        self.extra = {"generator": rngs if len(rngs) > 1 else rngs[0]} if "generator" in takes else {}

    def scale(self, x_t: Tensor, i: int) -> Tensor:
        scaled: Tensor = self.scheduler.scale_model_input(x_t, self.timesteps[i])
        return scaled

    def step(self, prediction: Tensor, i: int, x_t: Tensor) -> Tensor:
        x: Tensor = self.scheduler.step(prediction, self.timesteps[i], x_t, **self.extra, return_dict=False)[0]
        return x


class StableDiffusion(Model):
    """StableDiffusionPipeline as a Model."""

    layout = UNET

    def __post_init__(self) -> None:
        self.pipeline.to(self.device)
        for part in (self.pipeline.unet, self.pipeline.vae, self.pipeline.text_encoder):
            part.eval().requires_grad_(False)
        config = self.pipeline.scheduler.config
        self.kind: str = config.prediction_type
        if self.kind not in ("epsilon", "v_prediction"):
            raise ExpungeError(f"prediction type {self.kind!r} is not supported; expected epsilon or v_prediction")
        self.alphas: Tensor = self.pipeline.scheduler.alphas_cumprod.to(self.device, torch.float32)
        final = self.alphas.new_ones(()) if config.get("set_alpha_to_one", False) else self.alphas[0]
        self._table = torch.cat([self.alphas, final[None]])

    @property
    def denoiser(self) -> nn.Module:
        unet: nn.Module = self.pipeline.unet
        return unet

    def networks(self) -> dict[str, nn.Module]:
        return {"": self.denoiser, "text_encoder.": self.pipeline.text_encoder}

    @property
    def horizon(self) -> int:
        return len(self.alphas)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Condition:
        embeddings = self.pipeline.encode_prompt(list(prompts), self.device, 1, False)[0]
        return Condition({"text": embeddings})

    def noise(self, n: int, rng: torch.Generator) -> Tensor:
        config = self.pipeline.unet.config
        return torch.randn((n, config.in_channels, config.sample_size, config.sample_size), generator=rng).to(
            self.device
        )

    def sampler(self, steps: int, rngs: list[torch.Generator]) -> Sampler:
        return StockSampler(self.pipeline.scheduler, steps, self.device, rngs)

    def denoise(self, x_t: Tensor, t: Tensor, condition: Condition) -> tuple[tuple[Any, ...], dict[str, Any]]:
        text = condition.tensors["text"].to(self.dtype)
        return (x_t, t), {"encoder_hidden_states": text, "return_dict": False}

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

    @torch.no_grad()
    def decode(self, x_0: Tensor) -> Tensor:
        vae = self.pipeline.vae
        with self.autocast():
            images: Tensor = vae.decode((x_0 / vae.config.scaling_factor).to(self.dtype)).sample
        return images.float().clamp(-1, 1)
