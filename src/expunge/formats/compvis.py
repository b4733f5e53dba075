"""A single-file checkpoint in the layout of Stable Diffusion's original code, which A1111 and ComfyUI load."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from ..edit import Edit
from ..errors import ExpungeError
from ..files import write_tensors
from ..format import Format
from ..model import Model
from ..original import openclip, unet, vae

V2_WIDTH = 1024
"""Of Stable Diffusion 2's text, by which its checkpoints are told from 1's."""


class Compvis(Format):
    """`from_single_file` of diffusers reads it."""

    kind: ClassVar[str] = "compvis"
    about: ClassVar[str] = (
        "a single-file checkpoint (Stable Diffusion 1, 2 and XL) for A1111, ComfyUI and from_single_file"
    )

    def write(self, edit: Edit, model: Model, path: Path, rank: int | None) -> str:  # noqa: ARG002
        if not hasattr(model.pipeline, "unet"):
            raise ExpungeError(
                f"{model.name!r} has no layout of the original code; export its LoRA or diffusers folder"
            )
        with edit.on(model):
            write_tensors(path, checkpoint(model.pipeline), {"format": "pt"})
        return ""


def checkpoint(pipeline: Any) -> dict[str, Tensor]:
    """All weights of a Stable Diffusion 1, 2 or XL pipeline under their original names."""
    layers, ups = pipeline.unet.config.layers_per_block, pipeline.unet.config.up_block_types
    attentive = ["CrossAttn" in kind for kind in ups]
    blocks = len(pipeline.vae.config.block_out_channels)
    weights = {f"model.diffusion_model.{unet(k, layers, attentive)}": v for k, v in pipeline.unet.state_dict().items()}
    for key, value in pipeline.vae.state_dict().items():
        name = vae(key, blocks)
        matrix = "mid.attn_1." in name and value.ndim == 2  # a linear layer where the original has a convolution
        weights[f"first_stage_model.{name}"] = value[:, :, None, None] if matrix else value
    return weights | texts(pipeline)


def texts(pipeline: Any) -> dict[str, Tensor]:
    """The text encoders' weights: Stable Diffusion 1 has CLIP, 2 OpenCLIP, XL both."""
    own = pipeline.text_encoder.state_dict()
    plain = {f"transformer.text_model.{k.removeprefix('text_model.')}": v for k, v in own.items()}
    if hasattr(pipeline, "text_encoder_2"):
        second = openclip(pipeline.text_encoder_2.state_dict())
        first = {f"conditioner.embedders.0.{k}": v for k, v in plain.items()}
        return first | {f"conditioner.embedders.1.model.{k}": v for k, v in second.items()}
    if pipeline.unet.config.cross_attention_dim == V2_WIDTH:
        return {f"cond_stage_model.model.{k}": v for k, v in openclip(own).items()}
    return {f"cond_stage_model.{k}": v for k, v in plain.items()}
