"""Attention maps: from a picture's places to a text's tokens, or to its own places.

    A = softmax(Q Kᵀ / √d)

Of cross-attention and self-attention (UNets), or of joint attention the columns of the text, or of the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from .model import Model

Measure = Callable[[Tensor], Tensor]


def tokens(model: Model, prompt: str, start: int = 0, end: int | None = None) -> Tensor:
    """Marks, in the condition's "text", of the tokens of prompt[start:end], which begin and end with a word."""
    j = torch.arange(model.positions)
    whole = zip(model.spans(prompt[:start].rstrip()), model.spans(prompt[:end]), strict=True)
    return torch.stack([(max(s.first, before.last + 1) <= j) & (j <= s.last) for before, s in whole]).any(0)


class Watch(TorchFunctionMode):
    """Keeps what `measure` says of the maps of attention that is computed while one of its `layers` runs.

    Rows are the picture's places; maps of more than `most` are left out (0: of none). The maps themselves are made
    again in the backward pass: of a large picture each is larger than all else.
    """

    def __init__(
        self, layers: Sequence[nn.Module], joint: str | None, text: int, measure: Measure, most: int = 0
    ) -> None:
        super().__init__()
        self.joint, self.text, self.measure, self.most, self.inside = joint, text, measure, most, False
        self.found: list[Tensor] = []
        enter = [layer.register_forward_pre_hook(lambda *_: self._turn(True)) for layer in layers]
        self.hooks = enter + [layer.register_forward_hook(lambda *_: self._turn(False)) for layer in layers]

    def _turn(self, inside: bool) -> None:
        self.inside = inside

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.inside and function is F.scaled_dot_product_attention:
            given = dict(zip(("query", "key", "value", "attn_mask"), args, strict=False)) | kwargs
            q, k, mask = given["query"].float(), given["key"].float(), given.get("attn_mask")
            if not self.most or q.shape[-2] - (self.text if self.joint else 0) <= self.most:
                self.found.append(checkpoint(lambda *x: self.measure(self._map(*x)), q, k, mask, use_reentrant=False))
        return function(*args, **kwargs)

    def _map(self, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
        """Of (n, heads, length, d): the picture's rows; joint attention's columns with the text's first."""
        if self.joint:
            q = q[..., self.text :, :] if self.joint == "first" else q[..., : -self.text, :]
        logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        shares: Tensor = (logits if mask is None else logits + mask).softmax(-1)
        return shares.roll(self.text, -1) if self.joint == "last" else shares


@contextmanager
def watched(
    model: Model, where: Sequence[nn.Module], text: int, measure: Measure, most: int = 0
) -> Iterator[list[Tensor]]:
    """Fills with what `measure` says of each map (n, heads, places, columns) of these layers inside the block."""
    watch = Watch(where, model.layout.joint, text, measure, most)
    try:
        with watch:
            yield watch.found
    finally:
        for hook in watch.hooks:
            hook.remove()


@contextmanager
def attention_maps(model: Model, text: int, measure: Measure = torch.clone) -> Iterator[list[Tensor]]:
    """Fills with each layer's map (n, heads, places, `text` tokens), measured, as the denoiser runs in the block."""
    with watched(model, layers(model, attends), text, lambda maps: measure(maps[..., :text])) as found:
        yield found


def layers(model: Model, kind: Callable[[Model, str, nn.Module], bool]) -> list[nn.Module]:
    """The denoiser's modules of that kind."""
    return [m for name, m in model.denoiser.named_modules() if kind(model, name, m)]


def attends(model: Model, name: str, module: nn.Module) -> bool:
    """Whether the picture looks at the text in this module."""
    return getattr(module, "add_k_proj", None) is not None if model.layout.joint else name.endswith("attn2")


def reflects(model: Model, name: str, module: nn.Module) -> bool:
    """Whether the picture looks at itself in this module."""
    return attends(model, name, module) if model.layout.joint else name.endswith("attn1")
