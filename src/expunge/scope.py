"""Scope: which weights of a denoiser may change.

The rules are those of the papers, by diffusers parameter name; `Layout` tells them how a family names its parts.
A scope that selects nothing is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import ExpungeError, unknown

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Fragments of parameter names by role: text (cross) attention, its K and V, self-attention, …"""

    cross: tuple[str, ...]
    cross_kv: tuple[str, ...]
    own: tuple[str, ...]
    time: tuple[str, ...]
    output: tuple[str, ...]


UNET = Layout(
    cross=("attn2.",),
    cross_kv=("attn2.to_k.", "attn2.to_v."),
    own=("attn1.",),
    time=("time_embedding.",),
    output=("conv_norm_out.", "conv_out."),
)
"""diffusers' UNet2DConditionModel, used by Stable Diffusion 1, 2 and XL."""


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
        lambda n, m, k: _has(n, k.cross_kv) or n.endswith("token_embedding.weight"),
        beyond=True,
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
