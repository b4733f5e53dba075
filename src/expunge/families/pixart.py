"""PixArt-α and PixArt-Σ: transformer with cross-attention, one T5 text encoder, variance-preserving noise, ε.

The transformer also predicts a variance, in a second half of its channels, which neither the pipelines nor we read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import ExpungeError
from ..model import Condition, Span
from ..processes import Discrete
from ..scope import PIXART


class PixArt(Discrete):
    """PixArtAlphaPipeline or PixArtSigmaPipeline as a Model."""

    layout = PIXART
    component = "transformer"
    texts: ClassVar[Mapping[str, str]] = {**Discrete.texts, "mask": "encoder_attention_mask"}

    def embed(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        text, mask, _, _ = self.pipeline.encode_prompt(list(prompts), False, device=self.device)
        return {"text": text, "mask": mask}

    def spans(self, prompt: str) -> list[Span]:
        said = prompt.lower().strip()  # as the pipeline does
        return [Span.of(self.pipeline.tokenizer, said, len(self.pipeline.tokenizer(said).input_ids[: self.positions]))]

    def tokens(self, name: str, text: str) -> list[int]:
        return super().tokens(name, text.lower().strip())

    def kohya(self, module: str) -> str:
        raise ExpungeError(f"no tool loads kohya's names for {module} of PixArt; use lora, delta or diffusers")

    def denoise(self, x_t: Tensor, t: Tensor, condition: Condition) -> tuple[tuple[Any, ...], dict[str, Any]]:
        text, mask = condition.tensors["text"].to(self.dtype), condition.tensors["mask"]
        more: dict[str, Any] = {"resolution": None, "aspect_ratio": None}
        if self.pipeline.transformer.use_additional_conditions:
            side = torch.full((len(x_t), 2), self.side, dtype=self.dtype, device=x_t.device)
            more = {"resolution": side, "aspect_ratio": side[:, :1] / self.side}
        said = {"encoder_hidden_states": text, "encoder_attention_mask": mask, "added_cond_kwargs": more}
        return (x_t,), {**said, "timestep": t, "return_dict": False}

    def restore(self, out: Tensor, x_t: Tensor) -> Tensor:
        return out[:, : x_t.shape[1]]
