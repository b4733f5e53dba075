"""The names that Stable Diffusion's original code gives to the weights diffusers knows by other names.

Blocks are counted through in the original: each of diffusers' blocks holds L layers and one change of size. OpenCLIP's
attention has queries, keys and values in one matrix.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
ENDS = {
    "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2", "conv_norm_out": "out.0",
    "conv_out": "out.2",
}  # fmt: skip
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def renamed(name: str, names: dict[str, str]) -> str:
    """`name` with its first parts replaced by the table, where they stand in it."""
    head = next((k for k in names if name == k or name.startswith(f"{k}.")), None)
    return name if head is None else names[head] + name.removeprefix(head)


def unet(name: str, layers: int, attentive: Sequence[bool]) -> str:
    """The original name of a UNet's module or weight.

    `layers` is the config's layers_per_block; `attentive` says which up block has attention.
    """
    kind, *rest = name.split(".")
    if kind == "mid_block":
        part, index, *tail = rest
        place = 1 if part == "attentions" else 2 * int(index)
        return f"middle_block.{place}.{renamed('.'.join(tail), RESNET)}"
    if kind not in ("down_blocks", "up_blocks"):
        return renamed(name, ENDS)
    block, (part, index, *tail) = int(rest[0]), rest[1:]
    inner = renamed(".".join(tail), RESNET) if part == "resnets" else ".".join(tail)
    first = block * (layers + 1) + (kind == "down_blocks")
    side = "input_blocks" if kind == "down_blocks" else "output_blocks"
    if part == "downsamplers":
        return f"{side}.{first + layers}.0.op{renamed(inner, {'conv': ''})}"
    if part == "upsamplers":
        return f"{side}.{first + layers}.{1 + attentive[block]}.{inner}"
    return f"{side}.{first + int(index)}.{int(part == 'attentions')}.{inner}"


def vae(name: str, blocks: int) -> str:
    """The original name of an autoencoder's weight; `blocks` is the number of its blocks on each side."""
    side, *rest = name.split(".")
    if side not in ("encoder", "decoder"):
        return name
    inner = ".".join(rest)
    inner = re.sub(r"^down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", inner)
    inner = re.sub(r"^down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", inner)
    inner = re.sub(r"^up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"up.{blocks - 1 - int(m[1])}.block.{m[2]}", inner)
    inner = re.sub(r"^up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{blocks - 1 - int(m[1])}.upsample", inner)
    inner = re.sub(r"^mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", inner)
    inner = re.sub(r"^mid_block\.attentions\.0\.(.*)$", lambda m: f"mid.attn_1.{renamed(m[1], ATTENTION)}", inner)
    inner = renamed(inner, {"conv_norm_out": "norm_out"}).replace("conv_shortcut", "nin_shortcut")
    return f"{side}.{inner}"


LAYER = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
         "self_attn.out_proj": "attn.out_proj"}  # fmt: skip
AROUND = {
    "embeddings.token_embedding": "token_embedding", "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
}  # fmt: skip


def openclip(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A CLIP text encoder's weights as OpenCLIP has them."""
    import torch

    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        inner = name.removeprefix("text_model.")
        layer = re.fullmatch(r"encoder\.layers\.(\d+)\.(.*)", inner)
        if inner == "text_projection.weight":
            found["text_projection"] = weight.T.contiguous()
        elif layer is None:
            found[renamed(inner, AROUND)] = weight
        elif "q_proj" in inner:
            parts = [weights[name.replace("q_proj", other)] for other in ("q_proj", "k_proj", "v_proj")]
            found[f"transformer.resblocks.{layer[1]}.attn.in_proj_{inner.rsplit('.')[-1]}"] = torch.cat(parts)
        elif not re.search("[kv]_proj", inner):
            found[f"transformer.resblocks.{layer[1]}.{renamed(layer[2], LAYER)}"] = weight
    return found
