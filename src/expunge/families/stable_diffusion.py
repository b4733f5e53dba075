"""Stable Diffusion 1.x and 2.x: UNet, one CLIP text encoder, variance-preserving noise; ε and v prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..model import Condition
from ..processes import Discrete
from ..scope import UNET


class StableDiffusion(Discrete):
    """StableDiffusionPipeline as a Model."""

    layout = UNET

    def embed(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        embeddings = self.pipeline.encode_prompt(list(prompts), self.device, 1, False)[0]
        return {"text": embeddings}

    def denoise(self, x_t: Tensor, t: Tensor, condition: Condition) -> tuple[tuple[Any, ...], dict[str, Any]]:
        text = condition.tensors["text"].to(self.dtype)
        return (x_t, t), {"encoder_hidden_states": text, "return_dict": False}
