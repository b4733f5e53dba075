"""Stable Diffusion XL: UNet, two CLIP text encoders, pooled text and sizes as further conditions.

The unconditional is the pipeline's own: zeros where its config says `force_zeros_for_empty_prompt`, as the stock
pipeline takes them when no negative prompt is given. The embedding of "" is something else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..model import Condition
from ..original import unet
from ..processes import Discrete
from ..scope import UNET


class StableDiffusionXL(Discrete):
    """StableDiffusionXLPipeline as a Model."""

    layout = UNET
    texts: ClassVar[Mapping[str, str]] = {**Discrete.texts, "pooled": "added_cond_kwargs.text_embeds"}

    def embed(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        text, _, pooled, _ = self.pipeline.encode_prompt(
            list(prompts), device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        size = self.pipeline.unet.config.sample_size * self.pipeline.vae_scale_factor
        ids = torch.tensor([size, size, 0, 0, size, size], device=text.device, dtype=text.dtype)
        return {"text": text, "pooled": pooled, "time_ids": ids.repeat(len(prompts), 1)}

    def empty(self) -> Condition:
        found = super().empty()
        if not self.pipeline.config.force_zeros_for_empty_prompt:
            return found
        zeros = {k: torch.zeros_like(found.tensors[k]) for k in ("text", "pooled")}
        return Condition({**found.tensors, **zeros}, (None,))

    def captions(self, texts: Sequence[str]) -> Condition:
        said, empty = self.encode(texts), self.empty()
        return Condition.cat([said[[i]] if text else empty for i, text in enumerate(texts)])

    def denoise(self, x_t: Tensor, t: Tensor, condition: Condition) -> tuple[tuple[Any, ...], dict[str, Any]]:
        text, pooled, ids = (condition.tensors[k].to(self.dtype) for k in ("text", "pooled", "time_ids"))
        more = {"text_embeds": pooled, "time_ids": ids}
        return (x_t, t), {"encoder_hidden_states": text, "added_cond_kwargs": more, "return_dict": False}

    def kohya(self, module: str) -> str:
        """Kohya's scripts keep the original code's names for this family."""
        config = self.pipeline.unet.config
        attentive = ["CrossAttn" in kind for kind in config.up_block_types]
        return unet(module, config.layers_per_block, attentive).replace(".", "_")
