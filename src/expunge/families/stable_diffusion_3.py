"""Stable Diffusion 3 and 3.5: joint-attention transformer, two CLIP and one T5 text encoder, rectified flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from ..model import Condition, Span
from ..processes import Flow
from ..scope import SD3


class StableDiffusion3(Flow):
    """StableDiffusion3Pipeline as a Model."""

    layout = SD3
    component = "transformer"
    texts: ClassVar[Mapping[str, str]] = {**Flow.texts, "pooled": "pooled_projections"}

    def embed(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        text, _, pooled, _ = self.pipeline.encode_prompt(
            list(prompts), None, None, device=self.device, do_classifier_free_guidance=False
        )
        return {"text": text, "pooled": pooled}

    def spans(self, prompt: str) -> list[Span]:
        """The CLIP encoders' common part, then T5's."""
        clip, t5 = self.pipeline.tokenizer, self.pipeline.tokenizer_3
        middle = clip.model_max_length
        return [Span.of(clip, prompt, middle), *([Span.of(t5, prompt, self.positions, middle)] if t5 else [])]

    def denoise(self, x_t: Tensor, t: Tensor, condition: Condition) -> tuple[tuple[Any, ...], dict[str, Any]]:
        text, pooled = (condition.tensors[k].to(self.dtype) for k in ("text", "pooled"))
        more = {"encoder_hidden_states": text, "pooled_projections": pooled, "timestep": t, "return_dict": False}
        return (x_t,), more
