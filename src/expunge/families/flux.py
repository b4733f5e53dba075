"""FLUX: joint-attention transformer on packed latents, one CLIP and one T5 text encoder, rectified flow.

A latent (c, h, w) is packed into h/2 · w/2 tokens of its 2 × 2 patches. Guidance is distilled: where the transformer
reads a guidance value, it gets `GUIDANCE`, the pipeline's default, and no second, empty prediction is needed to sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..model import Condition, Sampler, Span
from ..processes import Flow, StockSampler
from ..scope import FLUX

GUIDANCE = 3.5


class Flux(Flow):
    """FluxPipeline as a Model."""

    layout = FLUX
    component = "transformer"
    halves = False

    @property
    def distilled(self) -> bool:
        return bool(self.pipeline.transformer.config.guidance_embeds)

    @property
    def cfg(self) -> float:
        """None on top of the distilled one."""
        return 1.0

    @property
    def size(self) -> int:
        """Height and width of latents."""
        return 2 * (int(self.pipeline.default_sample_size) // 2)

    def noise(self, n: int, rng: torch.Generator) -> Tensor:
        shape = (n, self.pipeline.transformer.config.in_channels // 4, self.size, self.size)
        return torch.randn(shape, generator=rng).to(self.device)

    def embed(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        text, pooled, _ = self.pipeline.encode_prompt(list(prompts), None, device=self.device)
        return {"text": text, "pooled": pooled}

    def spans(self, prompt: str) -> list[Span]:
        return [Span.of(self.pipeline.tokenizer_2, prompt, self.positions)]

    def sampler(self, steps: int, rngs: list[torch.Generator]) -> Sampler:
        from diffusers.pipelines.flux.pipeline_flux import calculate_shift

        config = self.pipeline.scheduler.config
        places = (self.size // 2) ** 2
        limits = [config.get(k, v) for k, v in (("base_image_seq_len", 256), ("max_image_seq_len", 4096))]
        shifts = [config.get(k, v) for k, v in (("base_shift", 0.5), ("max_shift", 1.15))]
        mu = calculate_shift(places, *limits, *shifts)
        how = {"sigmas": np.linspace(1.0, 1 / steps, steps), "mu": mu}
        return StockSampler(self.pipeline.scheduler, None, self.device, rngs, **how)

    def denoise(self, x_t: Tensor, t: Tensor, condition: Condition) -> tuple[tuple[Any, ...], dict[str, Any]]:
        text, pooled = (condition.tensors[k].to(self.dtype) for k in ("text", "pooled"))
        side = x_t.shape[-1] // 2
        rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        places = torch.stack([0 * rows, rows, columns], -1).flatten(0, 1).to(x_t)
        guided = self.pipeline.transformer.config.guidance_embeds
        return (pack(x_t),), {
            "timestep": t.to(self.dtype) / self.horizon,
            "guidance": torch.full((len(x_t),), GUIDANCE, device=x_t.device) if guided else None,
            "encoder_hidden_states": text,
            "pooled_projections": pooled,
            "txt_ids": text.new_zeros(text.shape[1], 3),
            "img_ids": places,
            "return_dict": False,
        }

    def restore(self, out: Tensor, x_t: Tensor) -> Tensor:
        return unpack(out, x_t.shape[-1])


def pack(x: Tensor) -> Tensor:
    """(n, c, h, w) as (n, h/2 · w/2, 4c)."""
    n, c, h, w = x.shape
    return x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(n, h * w // 4, 4 * c)


def unpack(tokens: Tensor, size: int) -> Tensor:
    """Undoes `pack` for a square of that size."""
    n, _, c = tokens.shape
    patches = tokens.view(n, size // 2, size // 2, c // 4, 2, 2)
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(n, c // 4, size, size)
