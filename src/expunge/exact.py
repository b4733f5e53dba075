"""Attention to few keys that learns on a CPU is computed in fp32, whatever its inputs are.

    softmax(Q Kᵀ / √d) V

Of bf16 torch's backward pass is slow there where there are few keys (torch 2.13). `benchmarks/exact.py` tells what fp32
saves of a training step.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

KEYS = 256
"""The most keys of which fp32 was measured to be the quicker."""


class ExactAttention(TorchFunctionMode):
    """Inside the block attention to few keys is computed in fp32 and given in the precision that it would have."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is not F.scaled_dot_product_attention:
            return function(*args, **kwargs)
        given = dict(zip(("query", "key"), args, strict=False)) | kwargs
        if given["key"].shape[-2] > KEYS:
            return function(*args, **kwargs)
        lent = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else given["query"].dtype
        with torch.autocast("cpu", enabled=False):
            out = function(*map(_wide, args), **{k: _wide(v) for k, v in kwargs.items()})
        return out.to(lent)


def exact(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """`ExactAttention` where something may learn on a CPU in less than fp32, else nothing."""
    less = torch.is_autocast_enabled("cpu") or dtype != torch.float32
    return ExactAttention() if less and device.type == "cpu" and torch.is_grad_enabled() else nullcontext()


def _wide(x: Any) -> Any:
    """In fp32, if it is less."""
    return x.float() if isinstance(x, Tensor) and x.dtype in (torch.bfloat16, torch.float16) else x
