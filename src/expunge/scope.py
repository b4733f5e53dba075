"""Scope: which weights of a denoiser may change.

The rules are those of the papers, by diffusers parameter name; `Layout` tells them how a family names its parts.
A scope that selects nothing is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .errors import ExpungeError, unknown

if TYPE_CHECKING:
    from torch import nn


EMBEDDINGS = ("token_embedding.weight", "shared.weight")
"""How the names of text encoders' token embeddings end: CLIP's, and T5's."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Fragments of parameter names by role: text (cross) attention, its K and V, self-attention, …

    `reads` are matrices that read an embedding of the text itself, and which: "text", or "pooled". `joint` tells where
    the text stands in a sequence that it shares with the picture, None if they meet in cross-attention.
    """

    cross: tuple[str, ...]
    cross_kv: tuple[str, ...]
    own: tuple[str, ...]
    time: tuple[str, ...]
    output: tuple[str, ...]
    reads: Mapping[str, str]
    joint: Literal["first", "last"] | None = None


UNET = Layout(
    cross=("attn2.",),
    cross_kv=("attn2.to_k.", "attn2.to_v."),
    own=("attn1.",),
    time=("time_embedding.",),
    output=("conv_norm_out.", "conv_out."),
    reads={"attn2.to_k.": "text", "attn2.to_v.": "text"},
)
"""diffusers' UNet2DConditionModel, used by Stable Diffusion 1, 2 and XL."""


PIXART = Layout(
    cross=UNET.cross,
    cross_kv=UNET.cross_kv,
    own=UNET.own,
    time=("adaln_single.",),
    output=("scale_shift_table", "proj_out."),
    reads={"caption_projection.linear_1.": "text"},
)
"""diffusers' PixArtTransformer2DModel."""

READS = {"context_embedder.": "text", "text_embedder.linear_1.": "pooled"}

SD3 = Layout(
    cross=("add_k_proj.", "add_v_proj.", "add_q_proj.", "to_add_out."),
    cross_kv=("add_k_proj.", "add_v_proj."),
    own=("attn.to_q.", "attn.to_k.", "attn.to_v.", "attn.to_out.", "attn2."),
    time=("time_text_embed.",),
    output=("norm_out.", "proj_out."),
    reads=READS,
    joint="last",
)
"""diffusers' SD3Transformer2DModel: joint attention, whose text stream stands for cross-attention."""

FLUX = Layout(
    cross=(*SD3.cross, "context_embedder.", "text_embedder.linear_1."),
    cross_kv=SD3.cross_kv,
    own=("attn.to_q.", "attn.to_k.", "attn.to_v.", "attn.to_out."),
    time=("time_text_embed.timestep_embedder.", "time_text_embed.guidance_embedder."),
    output=("norm_out.", "proj_out."),
    reads=READS,
    joint="first",
)
"""diffusers' FluxTransformer2DModel."""


def _has(name: str, fragments: tuple[str, ...]) -> bool:
    return any(f in name for f in fragments)


def _starts(name: str, fragments: tuple[str, ...]) -> bool:
    return name.startswith(fragments)


@dataclass(frozen=True)
class Named:
    """One named scope: what it is, which parameters it holds, and whether it looks beyond the denoiser."""

    about: str
    holds: Callable[[str, nn.Module, Layout], bool]
    beyond: bool = False


def _linear_or_conv(module: nn.Module) -> bool:
    from torch import nn

    return isinstance(module, nn.Linear | nn.Conv2d)


SCOPES: dict[str, Named] = {
    "xattn": Named("cross-attention (ESD-x)", lambda n, m, k: _has(n, k.cross)),
    "xattn-strict": Named("keys and values of cross-attention", lambda n, m, k: _has(n, k.cross_kv)),
    "selfattn": Named("self-attention", lambda n, m, k: _has(n, k.own)),
    "attention": Named("all attention", lambda n, m, k: _has(n, k.cross) or _has(n, k.own)),
    "noxattn": Named(
        "all but cross-attention, time embedding and output block (ESD-u, paper)",
        lambda n, m, k: not _has(n, k.cross) and not _starts(n, k.time + k.output),
    ),
    "noxattn-2025": Named(
        "linear and convolution modules outside cross-attention (ESD-u, 2025 code)",
        lambda n, m, k: not _has(n, k.cross) and _linear_or_conv(m),
    ),
    "notime": Named("all but time embedding and output block", lambda n, m, k: not _starts(n, k.time + k.output)),
    "full": Named("all weights", lambda n, m, k: True),
    "kv-text": Named(
        "cross-attention keys and values, and the text embedding, for the concept's rows (concept ablation)",
        lambda n, m, k: _has(n, k.cross_kv) or n.endswith(EMBEDDINGS),
        beyond=True,
    ),
    "embedding": Named(
        "the text embedding, for the concept's rows (concept ablation)",
        lambda n, m, k: n.endswith(EMBEDDINGS),
        beyond=True,
    ),
    "reads-text": Named(
        "what reads the text's embedding itself (UCE): of a UNet the same as xattn-strict",
        lambda n, m, k: _has(n, tuple(k.reads)) and n.endswith("weight"),
    ),
}


def select(modules: Mapping[str, nn.Module], scope: str, layout: Layout) -> dict[str, nn.Parameter]:
    """Parameters in the scope, by name. `modules` maps a name prefix ("" for the denoiser) to a network.

    `scope` is a name of `SCOPES`, or "re:" and a regular expression searched in each name.
    Raises ExpungeError for an unknown scope, a bad expression, or if nothing is selected.
    """
    rule = _rule(scope)
    owned = [
        (prefix + (f"{path}.{leaf}" if path else leaf), module, parameter)
        for prefix, root in modules.items()
        if rule.beyond or not prefix
        for path, module in root.named_modules()
        for leaf, parameter in module.named_parameters(recurse=False)
    ]
    chosen = {name: parameter for name, module, parameter in owned if rule.holds(name, module, layout)}
    if not chosen:
        seen = ", ".join(name for name, _, _ in owned[:4])
        raise ExpungeError(
            f"scope {scope!r} selects none of {len(owned)} parameters (looked at {seen}, …); see `expunge scopes`"
        )
    return chosen


def _rule(scope: str) -> Named:
    if scope.startswith("re:"):
        try:
            pattern = re.compile(scope[3:])
        except re.error as error:
            raise ExpungeError(f"scope {scope!r} is not a regular expression: {error}") from error
        return Named(scope, lambda name, module, layout: pattern.search(name) is not None)
    if scope not in SCOPES:
        raise unknown("scope", scope, SCOPES)
    return SCOPES[scope]
