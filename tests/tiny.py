"""Tiny real pipelines of each family, with random weights, built offline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import torch
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from expunge import smallworld

WORDS = ["<pad>", "</s>", "<unk>", "▁", "▁a", "▁car", "▁red", "▁cat", "▁Van", "▁Gogh", *"abcdefghijklmnopqrstuvwxyz"]


def clip_tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(smallworld.path() / "tokenizer", model_max_length=77)


def t5_tokenizer() -> T5Tokenizer:
    return T5Tokenizer(vocab=[(word, -float(i)) for i, word in enumerate(WORDS)], extra_ids=0, model_max_length=77)


def clip(width: int, projection: bool) -> Any:
    tokenizer = clip_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4,
        projection_dim=width, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def t5(width: int) -> T5EncoderModel:
    return T5EncoderModel(T5Config(vocab_size=len(WORDS), d_model=width, d_kv=8, d_ff=37, num_layers=2, num_heads=4))


def vae(channels: int) -> diffusers.AutoencoderKL:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=channels, norm_num_groups=4, sample_size=16,
        shift_factor=0.06, scaling_factor=1.5,
    )  # fmt: skip


def sdxl() -> Any:
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), layers_per_block=2, attention_head_dim=(2, 4),
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2), projection_class_embeddings_input_dim=6 * 8 + 64, cross_attention_dim=96,
        norm_num_groups=4,
    )  # fmt: skip
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1
    )
    return diffusers.StableDiffusionXLPipeline(
        vae=vae(4), text_encoder=clip(32, projection=False), text_encoder_2=clip(64, projection=True),
        tokenizer=clip_tokenizer(), tokenizer_2=clip_tokenizer(), unet=unet, scheduler=scheduler,
    )  # fmt: skip


def sd2() -> Any:
    """Stable Diffusion 2: text of width 1024, v prediction."""
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), layers_per_block=2, attention_head_dim=(2, 4),
        use_linear_projection=True, cross_attention_dim=1024, norm_num_groups=4,
    )  # fmt: skip
    return diffusers.StableDiffusionPipeline(
        unet=unet, vae=vae(4), text_encoder=clip(1024, projection=False), tokenizer=clip_tokenizer(),
        scheduler=diffusers.DDIMScheduler(prediction_type="v_prediction"), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip


def sd3() -> Any:
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=1, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=4,
        joint_attention_dim=64, caption_projection_dim=32, pooled_projection_dim=64, out_channels=4,
    )  # fmt: skip
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), vae=vae(4),
        text_encoder=clip(32, projection=True), tokenizer=clip_tokenizer(), text_encoder_2=clip(32, projection=True),
        tokenizer_2=clip_tokenizer(), text_encoder_3=t5(64), tokenizer_3=t5_tokenizer(),
    )  # fmt: skip


def flux(guided: bool = True) -> Any:
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8), guidance_embeds=guided,
    )  # fmt: skip
    pipeline = diffusers.FluxPipeline(
        transformer=transformer, vae=vae(4), text_encoder=clip(32, projection=False), tokenizer=clip_tokenizer(),
        text_encoder_2=t5(32), tokenizer_2=t5_tokenizer(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    )  # fmt: skip
    pipeline.default_sample_size = 8
    return pipeline


def schnell() -> Any:
    """FLUX without a guidance input."""
    return flux(guided=False)


def pixart(kind: Any = diffusers.PixArtSigmaPipeline, size: int = 8) -> Any:
    transformer = diffusers.PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=8, num_layers=2, sample_size=size,
        cross_attention_dim=24, patch_size=2, caption_channels=32,
    )  # fmt: skip
    return kind(
        tokenizer=t5_tokenizer(), text_encoder=t5(32), vae=vae(4), transformer=transformer,
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )  # fmt: skip


def alpha() -> Any:
    """PixArt-α at 1024 px, whose transformer reads the picture's size."""
    return pixart(diffusers.PixArtAlphaPipeline, size=128)


FAMILIES: dict[str, Callable[[], Any]] = {"sd2": sd2, "sdxl": sdxl, "sd3": sd3, "flux": flux, "pixart": pixart}
VARIANTS: dict[str, Callable[[], Any]] = {"schnell": schnell, "alpha": alpha}
"""Pipelines of those families that take other paths to a prediction."""


def build(family: str) -> Any:
    """The same random weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return (FAMILIES | VARIANTS)[family]()


def watched(method: Any, **options: Any) -> dict[str, Any]:
    """The options that the method has, and, if it looks at pictures, as few of those as there can be."""
    least = {
        "judge": "clip", "search": 2, "keep_neighbours": 1, "look": 2, "proof": 2, "captions": 1, "every": 1,
        "picture_steps": 1,
    }  # fmt: skip
    own = {key: value for key, value in options.items() if key in method.model_fields}
    return own | (least if "judge" in method.model_fields else {})
